"""The relational part of the replay, in DuckDB's dialect: one file a step, in the order of the specification.

The templates take only text that this package wrote or that `scenario.expressions` compiled, never a user's own.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import jinja2


@cache
def _environment() -> jinja2.Environment:
    def load(name: str) -> str:
        return resources.files(__name__).joinpath(f"{name}.sql").read_text("utf-8")

    return jinja2.Environment(loader=jinja2.FunctionLoader(load), undefined=jinja2.StrictUndefined, autoescape=False)


def render(name: str, **values: Any) -> str:
    """The text of one step. name: the file's stem; a value that the step needs and does not get is an error."""
    return _environment().get_template(name).render(**values)
