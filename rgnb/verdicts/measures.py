"""What the verdicts measure in results: rank profiles, their collapse, drift; which variables they read."""

from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from rgnb import checks
from rgnb.verdicts.intervals import Interval, Numbers

# What the verdicts read of results, and the dims they choose from.
GATE = {
    "excess_loss": "correlation_length seed step",
    "marginal_entropy": "correlation_length",
    "reachable_loss": "correlation_length",
}
RANK = {"effective_rank": "correlation_length seed state view centring spectrum depth", **GATE}
STEP_RANK = {"step_rank": "correlation_length seed step spectrum depth", **GATE}
DRIFT = {"kernel_drift": "correlation_length seed state view transition", **GATE}
STEP_DRIFT = {"step_drift": "correlation_length seed step transition", **DRIFT}


class Definition(NamedTuple):
    """How the rank of a stream is taken; the defaults are the primary definition."""

    view: str = "position"
    centring: str = "centred"
    spectrum: str = "singular"
    start: int = 0  # depth from which profiles are taken


PRIMARY = Definition()


def one_chain(ds: xr.Dataset, **variables: str) -> xr.Dataset:
    """Results without the dimension `chain`, their variables checked. ValueError for several chains."""
    checks.results("ds", ds, **variables)
    if "chain" in ds.dims:
        if ds.sizes["chain"] != 1:
            raise checks.BadValue(
                f"results hold the chains {ds.chain.values.tolist()}; choose one with ds.sel(chain=...)"
            )
        ds = ds.isel(chain=0)
    return ds


def as_results(rows: xr.Dataset) -> xr.Dataset:
    """A sweep's rows of one chain family and size as `Experiment.run` returns them.

    Args:
        rows: with a dimension `run` and along it the coordinates correlation_length and seed; padding for
            deeper networks is left out.
    """
    checks.results("rows", rows, **dict.fromkeys((*GATE, "correlation_length", "seed"), "run"))
    rows = rows.dropna("depth", how="all").dropna("transition", how="all")
    index = ("correlation_length", "seed")
    other = [c for c in rows.coords if rows[c].dims == ("run",) and c not in ("run", *index)]
    ds = rows.drop_vars(other).set_index(run=index).unstack("run")
    return ds.assign(excess_loss=ds.excess_loss.expand_dims(step=[0]))


def chosen(values: Any, **labels: Any) -> Any:
    """`values.sel(**labels)`; ValueError that names the closest of an unknown label."""
    for dim, label in labels.items():
        checks.choice(dim, label, values[dim].values.tolist())
    return values.sel(labels)


def lengths(ds: xr.Dataset, several: bool = False) -> np.ndarray:
    """The correlation lengths of results, ascending. ValueError if `several` are needed and there is one."""
    found = np.sort(ds.correlation_length.values)
    if several and len(found) < 2:
        raise checks.BadValue(f"selectivity needs two correlation lengths, the results hold {found.tolist()}")
    return found


def excess_share(ds: xr.Dataset) -> xr.DataArray:
    """Excess loss as a share of what can be learned, with the dims of `excess_loss`: training steps, or runs.

    Where nothing can be learned it is infinite, or NaN.
    """
    checks.results("ds", ds, **dict.fromkeys(GATE, ""))
    return ds.excess_loss / (ds.marginal_entropy - ds.reachable_loss)


def rank_profiles(
    ds: xr.Dataset, correlation_length: float, definition: Definition = PRIMARY, step: int | None = None
) -> np.ndarray:
    """Effective rank by depth of the trained networks of one chain family, (seed, depth), none missing.

    Args:
        step: training step; None is the end. Before the end only the position view, centred, was measured.
    """
    view, centring, spectrum, start = checks.instance("definition", definition, Definition)
    if step is None:
        ranks = chosen(ds.effective_rank, state="trained", view=view, centring=centring, spectrum=spectrum)
    elif (view, centring) == ("position", "centred"):
        ranks = chosen(ds.step_rank, step=step, spectrum=spectrum)
    else:
        raise checks.BadValue(
            f"training steps were measured for the position view, centred; got {view!r}, {centring!r}"
        )
    depths = ds.sizes["depth"]
    if checks.integer("start", start, 0) > depths - 2:
        raise checks.BadValue(f"start must leave two depths of {depths}, got {start}")
    ranks = ranks.isel(depth=slice(start, None)).sel(correlation_length=correlation_length)
    return checks.complete("ds", ranks.transpose("seed", "depth")).values


def _profile(values: Numbers) -> np.ndarray:
    found = checks.array("profile", values)
    if found.ndim < 1 or found.shape[-1] < 2:
        raise checks.BadValue(f"profile must be (..., depth), 2 depths or more, got shape {found.shape}")
    return found


def _nonzero(rank: np.ndarray) -> np.ndarray:
    # No ratio can be taken to the rank 0 of a constant stream.
    return np.where(rank > 0, rank, np.nan)


def collapse(profile: Numbers) -> np.ndarray:
    """`C = 1 - r_L / r_0` of rank profiles (..., depth) -> (...). NaN where r_0 is 0."""
    profile = _profile(profile)
    return 1 - profile[..., -1] / _nonzero(profile[..., 0])


def collapse_from_maximum(profile: Numbers) -> np.ndarray:
    """`1 - r_L / max r` of rank profiles (..., depth) -> (...). NaN where every rank is 0."""
    profile = _profile(profile)
    return 1 - profile[..., -1] / _nonzero(profile.max(-1))


def largest_rise(profile: Numbers) -> np.ndarray:
    """`max over i < j of (r_j - r_i) / r_0` of rank profiles (..., depth) -> (...); below 0 if r falls."""
    profile = _profile(profile)
    lowest_before = np.minimum.accumulate(profile, -1)[..., :-1]
    return (profile[..., 1:] - lowest_before).max(-1) / _nonzero(profile[..., 0])


def fall(profile: np.ndarray) -> dict[str, Interval]:
    """The statistics of rank collapse from profiles (seed, depth)."""
    return {"collapse": Interval.of(collapse(profile)), "largest rise": Interval.of(largest_rise(profile))}


def contrast(short: np.ndarray, long: np.ndarray) -> dict[str, Interval]:
    """The statistics of selectivity from profiles (seed, depth), paired, at two correlation lengths."""
    return {
        "collapse, short": Interval.of(collapse(short)),
        "collapse, long": Interval.of(collapse(long)),
        "collapse, long, from maximum": Interval.of(collapse_from_maximum(long)),
        "difference": Interval.of(collapse(short) - collapse(long)),
    }


def defined_drift(ds: xr.Dataset, **labels: Any) -> xr.DataArray:
    """Kernel drift of one chain family's networks, 0 where it is not defined: beside a constant depth.

    Args:
        ds: results of one chain family with the variable kernel_drift (step_drift if a step is chosen).
            Where drift is NaN, effective_rank (step_rank) says whether one of the two depths is constant, of
            rank 0.
        labels: correlation_length, and either view and state or step.

    Returns:
        DataArray (seed, transition).

    Raises:
        ValueError: a drift is missing: NaN though neither depth is constant, or nothing says so.
    """
    if "step" in labels:
        drift, rank, definition = "step_drift", "step_rank", {}
    else:
        drift, rank, definition = "kernel_drift", "effective_rank", {"centring": "centred"}
    read = RANK | STEP_RANK | STEP_DRIFT
    ds = one_chain(ds, **{drift: read[drift]})
    found = chosen(ds[drift], **labels).transpose("seed", "transition")
    if found.isnull().any() and rank in ds:
        ds = one_chain(ds, **{rank: read[rank]})
        ranks = chosen(ds[rank], **labels, **definition, spectrum="singular").transpose("seed", "depth")
        constant = (ranks == 0).values
        found = found.copy(data=np.where(constant[:, 1:] | constant[:, :-1], 0, found))
    return checks.complete("ds", found)
