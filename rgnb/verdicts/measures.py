"""What the verdicts measure of results: collapse and rise of rank profiles, drift, and which variables they read."""

import numpy as np

from rgnb import checks

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


def one_chain(ds, **variables):
    """Results of one chain family without the dimension `chain`, checked for variables and their dims; ValueError where there are several."""
    checks.results("ds", ds, **variables)
    if "chain" in ds.dims:
        if ds.sizes["chain"] != 1:
            raise checks.BadValue(
                f"results hold the chains {ds.chain.values.tolist()}; choose one with ds.sel(chain=...)"
            )
        ds = ds.isel(chain=0)
    return ds


def chosen(values, **labels):
    """`values.sel(**labels)` of a DataArray or Dataset; ValueError that names the closest label where there is no such one."""
    for dim, label in labels.items():
        checks.choice(dim, label, values[dim].values.tolist())
    return values.sel(labels)


def _profile(values):
    found = checks.array("profile", values)
    if found.ndim < 1 or found.shape[-1] < 2:
        raise checks.BadValue(f"profile must be (..., depth), 2 depths or more, got shape {found.shape}")
    return found


def _nonzero(rank):
    # No ratio can be taken to the rank 0 of a constant stream.
    return np.where(rank > 0, rank, np.nan)


def collapse(profile):
    """`C = 1 - r_L / r_0` of rank profiles (..., depth) -> (...). NaN where r_0 is 0."""
    profile = _profile(profile)
    return 1 - profile[..., -1] / _nonzero(profile[..., 0])


def collapse_from_maximum(profile):
    """`1 - r_L / max r` of rank profiles (..., depth) -> (...). NaN where every rank is 0."""
    profile = _profile(profile)
    return 1 - profile[..., -1] / _nonzero(profile.max(-1))


def largest_rise(profile):
    """`max over i < j of (r_j - r_i) / r_0` of rank profiles (..., depth) -> (...); negative if strictly falling."""
    profile = _profile(profile)
    lowest_before = np.minimum.accumulate(profile, -1)[..., :-1]
    return (profile[..., 1:] - lowest_before).max(-1) / _nonzero(profile[..., 0])


def defined_drift(ds, **labels):
    """Kernel drift of one chain family's networks, 0 where it is not defined.

    Args:
        ds: results of one chain family with the variable kernel_drift, or step_drift where a step is chosen.
            Where drift is NaN, effective_rank (step_rank) says whether one of the two depths is constant, of
            rank 0.
        labels: correlation_length and, by name, either view and state or step.

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
