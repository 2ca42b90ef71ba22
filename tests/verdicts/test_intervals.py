"""Intervals as a reader would write them."""

import math

import pytest

from rgnb.verdicts.intervals import Interval


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
