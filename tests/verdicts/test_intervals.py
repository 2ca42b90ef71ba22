"""Intervals as a reader would write them."""

import math

import pytest

from rgnb.verdicts.intervals import Interval, above, below, inside


@pytest.mark.parametrize(
    "mean, low, high, text",
    [
        (0.123, 0.1, 0.146, "0.12 [0.10, 0.15]"),
        (-0.82, -1.05, -0.58, "-0.82 [-1.05, -0.58]"),
        (-0.001, -0.02, 0.018, "0.00 [-0.02, 0.02]"),  # no -0.00
        (0.001, 0.0, 0.004, "below 0.01"),
        (-0.001, -0.004, 0.002, "within 0.01 of 0"),
        (0.003, 0.001, 0.005, "0.00 [0.00, 0.01]"),
        (0.5, -math.inf, math.inf, "0.50 (no interval)"),
        (math.nan, -math.inf, math.inf, "undefined"),
    ],
)
def test_numbers_read_as_one_would_write_them(mean, low, high, text):
    assert str(Interval((), mean, low, high)) == text


def test_what_is_undefined_says_why():
    assert str(Interval.of([0.5, math.nan, 0.4])) == "undefined (1 of 3 have no value)"


@pytest.mark.parametrize(
    "low, high, over, under, between",
    [
        (0.3, 0.5, "yes", "no", "yes"),
        (0.1, 0.5, "not shown", "not shown", "not shown"),  # reaches over the bound
        (0.1, 0.2, "no", "not shown", "no"),  # ends at it
        (0.2, 0.3, "not shown", "no", "not shown"),  # begins at it
        (0.7, 0.9, "yes", "no", "no"),
        (-math.inf, math.inf, "not shown", "not shown", "not shown"),
    ],
)
def test_a_bound_is_kept_missed_or_neither(low, high, over, under, between):
    interval = Interval((), (low + high) / 2 if math.isfinite(low) else 0.5, low, high)
    found = [above("C", interval, 0.2), below("C", interval, 0.2), inside("C", interval, (0.2, 0.6))]
    assert [c.word for c in found] == [over, under, between]
    for c in found:
        assert c.holds == (c.word == "yes") and str(c).endswith(f": {c.word}")
        assert c._repr_markdown_().endswith(": yes" if c.holds else f": **{c.word}**")
