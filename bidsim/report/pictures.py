"""stub"""

from collections.abc import Mapping

from bidsim.result import Result


def render_pictures(result: Result) -> Mapping[str, str | bytes]:
    return {}
