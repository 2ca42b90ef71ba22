"""The law for the rank that is left: does the prediction decide it? See `rgnb.verdicts.rules`."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from rgnb import checks
from rgnb.verdicts import rules
from rgnb.verdicts.intervals import Condition, Interval, Verdict, above, inside


def r_squared(measured: xr.DataArray, predicted: xr.DataArray) -> float:
    """R^2 of ln measured about the identity line, nothing fitted: below 0 where the mean does better."""
    y, x = _logarithms(measured, predicted)
    return float(1 - np.square(y - x).sum() / np.square(y - y.mean()).sum())


def family_ratios(measured: xr.DataArray, predicted: xr.DataArray) -> dict[str, float]:
    """Geometric mean of measured / predicted over the settings of each family."""
    y, x = _logarithms(measured, predicted)
    return dict(zip(measured.family.values.tolist(), np.exp((y - x).mean(-1)).tolist(), strict=True))


def judge_law(
    measured: xr.DataArray, predicted: xr.DataArray, varying: Sequence[str], resamples: int = 4000
) -> Verdict:
    """Whether the rank by eigenvalues of the last stream is that which the Bayes predictor needs.

    Args:
        measured, predicted: (family, correlation_length) ranks, one number per setting.
        varying: the families whose prediction varies with the correlation length.
        resamples: of families with all their settings, for percentile intervals.

    Returns:
        Verdict; its statistics are "ratio", "slope" and "slope within families".

    Raises:
        ValueError: missing values or ranks that are not positive, fewer than two families, or one unknown.
    """
    y, x = _logarithms(measured, predicted)
    known, varying = measured.family.values.tolist(), checks.sequence("varying", varying)
    within = [known.index(checks.choice("varying", name, known)) for name in varying]
    if min(len(known), len(within)) < 2:
        raise checks.BadValue(f"two families or more are needed, got {known} and varying {varying}")
    resamples = checks.integer("resamples", resamples, 1, 10**6)

    def interval(statistic, y, x):
        # Of a statistic of (..., families, settings) arrays; the same families are drawn of both.
        drawn = np.random.default_rng(0).integers(len(y), size=(resamples, len(y)))
        tail = (1 - rules.LAW_CONFIDENCE) / 2
        low, high = np.quantile(statistic(y[drawn], x[drawn]), [tail, 1 - tail])
        return Interval((), float(statistic(y, x)), float(low), float(high))

    centred = (z[within] - z[within].mean(-1, keepdims=True) for z in (y, x))
    numbers = {
        "ratio": interval(lambda y, x: np.exp((y - x).mean((-2, -1))), y, x),
        "slope": interval(_slope, y, x),
        "slope within families": interval(_slope, *centred),
    }
    conditions: list[Condition] = [
        inside("measured over predicted, geometric mean over families,", numbers["ratio"], rules.LAW_RATIO),
        inside("slope of ln measured on ln predicted", numbers["slope"], rules.LAW_SLOPE),
        above("slope within the families that vary", numbers["slope within families"], rules.LAW_WITHIN),
    ]
    return Verdict.of("The prediction decides the rank that is left", conditions, numbers)


def _slope(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    # Least squares over all settings of (..., families, settings); 0 where x is constant.
    x, y = (z - z.mean((-2, -1), keepdims=True) for z in (x, y))
    size = np.square(x).sum((-2, -1))
    return np.where(size > 0, (x * y).sum((-2, -1)) / np.where(size > 0, size, 1), 0.0)


def _logarithms(measured: xr.DataArray, predicted: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    dims = ("family", "correlation_length")
    found = []
    for name, values in {"measured": measured, "predicted": predicted}.items():
        checks.instance(name, values, xr.DataArray)
        if set(values.dims) != set(dims):
            raise checks.BadValue(f"{name} must have dims {dims}, got {values.dims}")
        values = checks.complete(name, values.transpose(*dims))
        if not (values > 0).all():
            raise checks.BadValue(f"{name} must hold positive ranks, got {values.values.ravel()[:20]}")
        found.append(values)
    xr.align(*found, join="exact")
    return np.log(found[0].values), np.log(found[1].values)
