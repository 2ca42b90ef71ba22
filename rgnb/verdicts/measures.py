"""What the verdicts measure in results: rank profiles, their collapse, drift; which variables they read."""

from collections.abc import Mapping
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
NOTHING = 1e-9  # nats to learn that are rounding error
NO_GATE = "left to the reader"  # attrs["gate"] of results that do not say how well their networks learned
DEFINED = {"centring": ["centred", "uncentred"], "spectrum": ["singular"]}  # ranks that the claims are about


class Definition(NamedTuple):
    """How the rank of a stream is taken; the defaults are the primary definition."""

    view: str = "position"
    centring: str = "centred"
    spectrum: str = "singular"
    start: int = 0  # depth from which profiles are taken


PRIMARY = Definition()

# An excess share so far below 0 is no chance: the least loss is that of another chain, or in other units.
IMPOSSIBLE = -0.1


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
    for dim in {"depth", "transition"} & set(rows.dims):
        rows = rows.dropna(dim, how="all")
    index = ("correlation_length", "seed")
    if rows.run.to_dataframe()[list(index)].duplicated().any():
        advice = "choose rows of one size and training with rows.isel(run=...)"
        raise checks.BadValue(f"rows hold a correlation length and seed twice; {advice}")
    other = [c for c in rows.coords if rows[c].dims == ("run",) and c not in ("run", *index)]
    ds = rows.drop_vars(other).set_index(run=index).unstack("run")
    return ds.assign(excess_loss=ds.excess_loss.expand_dims(step=[0]))


def from_observed(
    trained: Mapping[float, Mapping[int, xr.Dataset]],
    untrained: Mapping[float, Mapping[int, xr.Dataset]] | None = None,
    *,
    excess_share: Mapping[float, Mapping[int, float]] | None,
) -> xr.Dataset:
    """What `rgnb.observe` returns of your own networks, as `judge_...` of `rgnb.verdicts.findings` take it.

    Seeds are the repetitions: networks of one architecture, trained independently on data of one kind.

    Args:
        trained: {correlation length of the data (steps): {seed: Dataset}}, the same seeds at each. Each
            Dataset is one of `observe` with view="position", of the same three modules or more; the first is
            depth 0, which holds one token: the embedding. Where a function made the position view, say so by
            `ds.assign_attrs(view="position")`.
        untrained: the same networks before training, likewise; `judge_kernel_drift` needs them.
        excess_share: of each trained network, likewise: its loss less the least that it could reach, over
            what it could learn, the entropy of the tokens less that least loss; a little below 0 by chance.
            None: whether the networks are trained is yours to answer, and claims say "gate not judged".

    Returns:
        Dataset with effective_rank (correlation_length, seed, state, view, centring, spectrum, depth), by
        singular values, kernel_drift (correlation_length, seed, state, view, transition), and what the gate
        reads unless `excess_share` is None.

    Raises:
        ValueError: lengths, seeds, modules or numbers of rows that differ, fewer than three modules, another
            view, a result from which a definition was left out, or a share below `IMPOSSIBLE`.
        TypeError: anything but dicts of dicts of Datasets, or of numbers.
    """
    modules, by_state, rows = None, [], set()
    kinds = {"trained": trained} | ({} if untrained is None else {"untrained": untrained})
    for name, given in kinds.items():
        by_length = []
        for xi, by_seed in _alike(name, given, trained).items():
            for seed, ds in by_seed.items():
                modules = _observed(f"{name}[{xi}][{seed}]", ds, modules)
                rows.add(ds.attrs.get("rows"))
            read = [ds[["effective_rank", "kernel_drift"]].sel(DEFINED) for ds in by_seed.values()]
            by_length.append(xr.concat(read, xr.Variable("seed", list(by_seed))))
        by_state.append(xr.concat(by_length, xr.Variable("correlation_length", list(map(float, trained)))))
    if len(rows) > 1:
        raise checks.BadValue(
            f"networks were observed on {', '.join(sorted(map(str, rows)))} rows, which limit a rank; "
            "observe all on as many"
        )
    found = xr.concat(by_state, xr.Variable("state", ["trained", "init"][: len(by_state)]))
    found = found.expand_dims(view=["position"])
    if excess_share is None:
        found.attrs = {"gate": NO_GATE}
        return found
    found.attrs = {}
    shares = [
        [checks.number(f"excess_share[{xi}][{seed}]", share, IMPOSSIBLE) for seed, share in by_seed.items()]
        for xi, by_seed in _alike("excess_share", excess_share, trained).items()
    ]
    # A share is an excess loss in units of what can be learned.
    return found.assign(
        excess_loss=(("correlation_length", "seed", "step"), np.array(shares)[..., None]),
        marginal_entropy=("correlation_length", np.ones(len(shares))),
        reachable_loss=("correlation_length", np.zeros(len(shares))),
    )


def _alike(name: str, given: Any, first: Any) -> dict:
    # {length: {seed: value}}, checked to be of the lengths and seeds of `first`, and in its order.
    if not isinstance(given, Mapping) or not all(isinstance(v, Mapping) for v in given.values()):
        raise checks.BadType(f"{name} must be {{correlation length: {{seed: ...}}}}, got {given!r:.80}")
    if not given or not all(given.values()):
        raise checks.BadValue(f"{name} must hold one correlation length or more, with one seed or more each")
    for xi, by_seed in given.items():
        checks.positive(f"a correlation length of {name}", xi)
        for seed in by_seed:
            checks.integer(f"a seed of {name}[{xi}]", seed, 0)
    if set(given) != set(first):
        raise checks.BadValue(f"{name} must have the correlation lengths {list(first)}, got {list(given)}")
    seeds = list(next(iter(first.values())))
    for xi, by_seed in given.items():
        if set(by_seed) != set(seeds):
            raise checks.BadValue(f"{name}[{xi}] must have the seeds {seeds}, got {list(by_seed)}")
    return {xi: {seed: given[xi][seed] for seed in seeds} for xi in first}


def _observed(name: str, ds: Any, modules: list | None) -> list:
    # The modules of a result of `observe`, checked to hold what the claims are about.
    dims = {"effective_rank": "centring spectrum depth", "kernel_drift": "transition"}
    checks.results(name, ds, **dims)
    if "module" not in ds.coords or any(set(ds[v].dims) != set(d.split()) for v, d in dims.items()):
        raise checks.BadValue(f"{name} must be what observe returns of one network, got {dict(ds.sizes)}")
    if (view := ds.attrs.get("view", "unknown")) != "position":
        raise checks.BadValue(
            f"{name} has the view {view!r}, and the claims are about positions; pass observe view='position'"
        )
    for dim, labels in DEFINED.items():
        if missing := [label for label in labels if label not in ds[dim].values]:
            raise checks.BadValue(f"{name} lacks the {dim} {missing}, by which it is judged; leave it in")
    found = ds.module.values.tolist()
    if len(found) < 3:
        wanted = "three modules or more, since depth 0 is left out once"
        raise checks.BadValue(f"{name} must hold {wanted}, got {found}")
    if modules not in (None, found):
        raise checks.BadValue(f"{name} must hold the modules {modules} as the first does, got {found}")
    return found


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
    ranks = chosen(ranks.isel(depth=slice(start, None)), correlation_length=correlation_length)
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
