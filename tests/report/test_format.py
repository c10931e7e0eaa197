"""Numbers, money and names as a reader sees them."""

from __future__ import annotations

import unicodedata

import pytest
from fixtures import HOSTILE

from bidsim.report import format as f


@pytest.mark.parametrize(
    ("currency", "value", "amount", "price"),
    [
        ("JPY", 41_200_000.25, "¥41,200,000", "¥41,200,000"),
        ("JPY", 21.2119, "¥21", "¥21.21"),
        ("JPY", 248.49, "¥248", "¥248"),
        ("KRW", -1234.5, "−₩1,234", "−₩1,234"),
        ("USD", 1234.5, "$1,234.50", "$1,234.50"),
        ("USD", 0.012346, "$0.01", "$0.01235"),
        ("CHF", 7, "CHF 7.00", "CHF 7.000"),
        (None, 7.5, "7.50", "7.500"),
        ("USD", -0.001, "$0.00", "−$0.001000"),
        ("USD", 0, "$0.00", "$0.00"),
        ("USD", None, "–", "–"),
        ("USD", float("nan"), "–", "–"),
    ],
)
def test_money_is_in_the_scenarios_currency(currency: str | None, value: float | None, amount: str, price: str) -> None:
    money = f.Money(currency)
    assert (money.amount(value), money.price(value)) == (amount, price)


def test_changes_carry_a_sign_and_undefined_is_a_dash() -> None:
    assert [f.change(v) for v in (0.031, -0.2, 0.00051, 0.0, None, float("inf"), 12.0)] == [
        "+3.1%",
        "−20.0%",
        "+0.051%",
        "0.0%",
        "–",
        "–",
        "+1,200%",
    ]


def test_a_share_that_is_not_all_is_never_rounded_to_all() -> None:
    assert [f.share(v) for v in (1.0, 0.99999, 0.9994, 0.5, 0.0, 0.00001, None)] == [
        "100.0%",
        "99.999%",
        "99.9%",
        "50.0%",
        "0.0%",
        "0.0010%",
        "–",
    ]
    assert [f.share(v) for v in (6e-7, 3e-8, -3e-8)] == ["0.0001%", "under 0.0001%", "under 0.0001%"]


def test_significant_digits_are_kept_and_never_scientific_above_a_millionth() -> None:
    assert [f.significant(v) for v in (1234567.0, 0.00012345, 0, -3.14159, 1e-9)] == [
        "1,234,567",
        "0.0001234",
        "0",
        "−3.142",
        "1.000e−09",
    ]


@pytest.mark.parametrize("name", HOSTILE)
def test_clean_names_are_one_short_line_without_invisible_characters(name: str) -> None:
    clean = f.clean_name(name)
    assert 0 < len(clean) <= f.NAME_LENGTH
    assert all(unicodedata.category(c)[0] != "C" for c in clean)
    assert clean.split() == clean.strip().split(" ")


def test_clean_name_keeps_what_scripts_need() -> None:
    assert f.clean_name("春のセール <b>2026</b>") == "春のセール <b>2026</b>"
    assert f.clean_name("👩\u200d👧 می\u200cخواهم") == "👩\u200d👧 می\u200cخواهم"
    assert f.clean_name("Z" + "\u0301" * 50 + "algo") == "Z" + "\u0301" * 4 + "algo"
    assert f.clean_name("\u202e\x00 ") == "(empty)"
    assert f.clean_name("x" * 10_000_000)[-1] == "…"


def test_shortening_counts_wide_characters_twice() -> None:
    assert f.shorten("東京フードデリバリー", 10) == "東京フー…"
    assert f.shorten("Tokyo", 5) == "Tokyo"


def test_a_count_that_is_not_nothing_is_not_shown_as_nothing() -> None:
    assert [f.count(v) for v in (0.0, 0.0123, 0.05, 0.5, 767.25, -0.001)] == [
        "0",
        "0.01",
        "0.1",
        "0.5",
        "767.2",
        "−0.001",
    ]
