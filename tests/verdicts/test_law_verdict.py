"""The law's verdict on ranks made by hand, with known answers."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from rgnb.verdicts import law, rules

FAMILIES, XIS = ["a", "b", "c", "flat"], [1.0, 2.5, 7.0, 16.0]


def ranks(values):
    coords = {"family": FAMILIES, "correlation_length": XIS}
    return xr.DataArray(np.array(values, dtype=float), coords, ("family", "correlation_length"))


PREDICTED = ranks([[2, 3, 5, 8], [3, 4, 6, 7], [4, 5, 7, 11], [15, 15, 15, 15]])
MEANS = np.exp(np.log(PREDICTED).mean("correlation_length"))
noise = np.random.default_rng(1).normal(0, 0.02, PREDICTED.shape)


def test_ranks_on_the_identity_line_are_supported():
    verdict = law.judge_law(PREDICTED * np.exp(noise), PREDICTED, FAMILIES[:3])
    assert verdict.status == "supported"
    assert law.r_squared(PREDICTED, PREDICTED) == 1
    for name, value in verdict.statistics.items():
        assert value.low < 1 < value.high or value.mean == pytest.approx(1, abs=0.05), name


@pytest.mark.parametrize(
    "measured, failed",
    [
        (1.4 * PREDICTED, {"measured over predicted, geometric mean over families"}),
        (
            # Each family keeps its mean and does not follow its own prediction.
            MEANS + 0 * PREDICTED,
            {"slope of ln measured on ln predicted", "slope within the families that vary"},
        ),
        # Each family follows its own prediction, from a mean that hardly differs between families.
        (
            6.2 * (MEANS / 6.2) ** 0.2 * PREDICTED / MEANS,
            {
                "measured over predicted, geometric mean over families",
                "slope of ln measured on ln predicted",
            },
        ),
        # From 15 down, where less is predicted: too flat by half, and too large on the whole.
        (
            15 * (PREDICTED / 15) ** 0.5,
            {
                "measured over predicted, geometric mean over families",
                "slope of ln measured on ln predicted",
                "slope within the families that vary",
            },
        ),
    ],
)
def test_each_condition_can_fail(measured, failed):
    verdict = law.judge_law(measured * np.exp(noise), PREDICTED, FAMILIES[:3])
    assert verdict.status == "not supported"
    assert {c.parts[0] for c in verdict.conditions if not c.holds} == failed


def test_intervals_are_those_of_a_bootstrap_over_families():
    measured = PREDICTED * np.exp(10 * noise)
    mean = np.log(measured / PREDICTED).mean("correlation_length").values
    found = law.judge_law(measured, PREDICTED, FAMILIES[:3], 20_000).statistics["ratio"]
    other = stats.bootstrap(
        (mean,), np.mean, confidence_level=rules.LAW_CONFIDENCE, n_resamples=20_000, method="percentile"
    ).confidence_interval
    assert np.log([found.low, found.high]) == pytest.approx([other.low, other.high], abs=0.01)
    slope = law.judge_law(measured, PREDICTED, FAMILIES[:3]).statistics["slope"].mean
    assert slope == pytest.approx(
        stats.linregress(np.log(PREDICTED).values.ravel(), np.log(measured).values.ravel()).slope
    )


def test_ratios_by_family_and_r_squared():
    measured = PREDICTED * ranks([[1, 1, 1, 1], [2, 2, 2, 2], [0.5, 2, 0.5, 2], [1, 1, 1, 16]])
    found = law.family_ratios(measured, PREDICTED)
    assert found == pytest.approx({"a": 1, "b": 2, "c": 1, "flat": 2})
    # A rank that is the same everywhere explains nothing, and the identity line less than nothing.
    assert law.r_squared(PREDICTED, 0 * PREDICTED + 100) < 0


@pytest.mark.parametrize(
    "measured, predicted, varying, message",
    [
        (PREDICTED.where(PREDICTED > 2), PREDICTED, FAMILIES[:2], "measured"),
        (PREDICTED - 2, PREDICTED, FAMILIES[:2], "measured must hold positive ranks"),
        (PREDICTED, PREDICTED.rename(family="chain"), FAMILIES[:2], "predicted must have dims"),
        (PREDICTED, PREDICTED, ["d"], "varying"),
        (PREDICTED, PREDICTED, ["a"], "two families or more"),
        (PREDICTED.values, PREDICTED, FAMILIES[:2], "measured"),
    ],
)
def test_bad_input_is_named(measured, predicted, varying, message):
    with pytest.raises((ValueError, TypeError), match=message):
        law.judge_law(measured, predicted, varying)
