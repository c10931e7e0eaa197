"""What a rule's outcome says in numbers, the beta that a rule means, and the chance that its failure goes by."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from bidsim.gate.bounds import Bound
from bidsim.gate.index import Index
from bidsim.gate.judging import _chance
from bidsim.gate.sentences import said
from bidsim.scenario.schema import Rule

CHANGE = Bound("relative", -math.inf, 0.01, "an increase of at most 1%")


@pytest.mark.parametrize(
    ("quantity", "interval", "sentence"),
    [
        (0.031, (0.012, 0.05), "rises by 3.1% [1.2%, 5%] (50 to 51.55)"),
        (-0.031, (-0.05, -0.012), "falls by 3.1% [1.2%, 5%] (50 to 51.55)"),
        (0.031, None, "rises by 3.1% (50 to 51.55)"),
        (0.031, (-0.012, 0.05), "changes by +3.1% [-1.2%, +5%] (50 to 51.55)"),
        (-0.031, (-0.05, 0.012), "changes by -3.1% [-5%, +1.2%] (50 to 51.55)"),
        (0.0, (-0.01, 0.01), "does not change [-1%, +1%] (50 to 51.55)"),
        (12.345, (9.0, 15.0), "rises by 1,234% [900%, 1,500%] (50 to 51.55)"),
        (0.0, (0.0, 0.0), "does not change (50 to 51.55)"),
    ],
)
def test_a_change_is_told_with_its_interval_and_both_values(quantity: float, interval: Any, sentence: str) -> None:
    assert said(CHANGE, quantity, 51.55, 50.0, interval) == sentence


def test_values_that_are_not_there_are_told_as_zero() -> None:
    assert said(CHANGE, 2.5, None, None, (1.5, 3.5)) == "rises by 250% [150%, 350%] (0 to 0)"


@pytest.mark.parametrize(("wanted", "meant"), [(None, 100.0), (1, 10.0), (60, 100.0), (900, 1000.0)])
def test_a_rule_means_the_nearest_beta_and_by_default_the_middle_one(wanted: float | None, meant: float) -> None:
    index = Index.__new__(Index)
    index.betas = [10.0, 100.0, 1000.0]
    assert index.beta(Rule(metric="expected_utility", beta=wanted, at_least=0)) == meant
    assert index.beta(Rule(metric="cpa", at_most=1)) is None


@pytest.mark.parametrize("scale", [0.1, 10.0])
def test_an_interval_that_touches_the_edge_has_half_of_what_its_confidence_leaves(scale: float) -> None:
    index: Any = SimpleNamespace(freedom=lambda segment: math.inf, confidence=0.9)
    bound = Bound("value", 0.0, 3 * scale, "at most")
    chance = _chance(index, bound, {}, 5 * scale, (3 * scale, 7 * scale))
    assert chance(2 * scale) == pytest.approx(0.05)
    assert chance(0.0) == pytest.approx(0.5)


def test_a_number_known_exactly_is_beyond_an_edge_or_not() -> None:
    index: Any = SimpleNamespace(freedom=lambda segment: math.inf, confidence=0.9)
    chance = _chance(index, Bound("value", 0.0, 3.0, "at most"), {}, 3.5, (3.5, 3.5))
    assert (chance(0.5), chance(0.0), chance(-0.5)) == (0.0, 1.0, 1.0)
