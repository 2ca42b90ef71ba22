"""The book's own hypotheses, judged on sweeps and analyses by the rules of the page "Hypotheses"."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats

from rgnb import checks
from rgnb.verdicts import first_round, measures, rules
from rgnb.verdicts.intervals import Condition, Interval, Numbers, Verdict, above, below, bounded

# What is read of the rows of a sweep.
LABELS = {"scheme": "run", "correlation_length": "run", "seed": "run"}
GATE = {"excess_loss": "run", "marginal_entropy": "run", "reachable_loss": "run"}
RANK = {"effective_rank": "run state view centring spectrum depth"}
# And of the analysis `mode_retention`.
RETENTION = {
    "r2": "correlation_length seed state target eigenmode depth",
    "modulus": "correlation_length seed eigenmode",
}


def _equivalence_interval(differences: Numbers, comparisons: int) -> Interval:
    # It lies within the margin if both one-sided tests at level 0.05 / comparisons reject.
    return Interval.of(differences, 1 - 2 * (1 - rules.CONFIDENCE) / comparisons)


def equivalent(name: str, differences: Numbers, margin: float, comparisons: int = 1) -> Condition:
    """Whether the mean difference lies within +-margin: two one-sided tests at level 0.05 / comparisons."""
    margin = checks.positive("margin", margin)
    interval = _equivalence_interval(differences, checks.integer("comparisons", comparisons, 1))
    return bounded(name, interval, f"within ±{margin:g}", -margin, margin)


def trained(ds: xr.Dataset) -> xr.DataArray:
    """Which rows of a sweep pass the first round's gate: (run,) bool."""
    checks.results("ds", ds, **GATE)
    excess, entropy, reachable = (checks.complete("ds", ds[name]) for name in GATE)
    return excess <= first_round.limits(entropy - reachable)


def all_trained(ds: xr.Dataset) -> Condition:
    """Whether all rows of a sweep are trained."""
    passed = trained(ds).values
    return Condition(f"{passed.sum()} of {passed.size} networks pass the gate", bool(passed.all()))


def row_collapses(
    ds: xr.Dataset,
    view: str = "position",
    centring: str = "centred",
    spectrum: str = "singular",
    start: int = 0,
) -> np.ndarray:
    """C = 1 - r_L / r_start of every row of a sweep, each at its own last depth: (run,) array."""
    rank = _ranks(ds, view=view, centring=centring, spectrum=spectrum)
    start = checks.integer("start", start, 0, rank.sizes["depth"] - 1)
    return 1 - last(rank) / rank.isel(depth=start).values


def _ranks(ds: xr.Dataset, **definition: str) -> xr.DataArray:
    # Ranks of a sweep's trained networks, none missing: NaN is padding only beyond a row's own `blocks`.
    checks.results("ds", ds, **RANK)
    rank = measures.chosen(ds.effective_rank, state="trained", **definition)
    padding = xr.zeros_like(rank, dtype=bool)
    if "blocks" in rank.coords:
        padding = xr.DataArray(np.arange(rank.sizes["depth"]), dims="depth") > rank.blocks
    checks.complete("ds", rank.where(~padding, 0))
    return rank


def last(x: xr.DataArray) -> np.ndarray:
    """Values at each row's own last depth: (run, depth), padded with NaN -> (run,) array."""
    values = x.transpose("run", "depth").values
    return values[np.arange(len(values)), (~np.isnan(values)).cumsum(1).argmax(1)]


def judge_blind(ds: xr.Dataset, reference: float = 1.0, comparisons: int | None = None) -> Verdict:
    """1a: without mixing the collapse does not depend on the correlation length.

    Args:
        ds: sweep of one family without mixing, with rows for several correlation lengths and schemes, and
            the same seeds in each.
        reference: the correlation length that the others are compared with, paired by seed.
        comparisons: how many to correct for; None: as many as are made here.

    Returns:
        Verdict; its statistics hold the difference for every (view, scheme, correlation length).
    """
    checks.results("ds", ds, **RANK, **GATE, **LABELS)
    reference = checks.choice("reference", reference, ds.correlation_length.values.tolist())
    keys = [
        (view, scheme, xi)
        for view in ("position", "token")
        for scheme in sorted(set(ds.scheme.values), reverse=True)
        for xi in sorted(set(ds.correlation_length.values))
        if xi != reference
    ]
    if not keys:
        raise checks.BadValue(f"ds must hold another correlation length than the reference {reference:g}")
    m = len(keys) if comparisons is None else comparisons
    conditions, differences = [], {}
    for view, scheme, xi in keys:
        one, other = (row_collapses(rows, view) for rows in _paired(ds, scheme, (reference, xi)))
        name = f"{view} view, {scheme}: C at ξ = {xi:g} minus C at ξ = {reference:g},"
        conditions.append(equivalent(name, other - one, rules.BLIND_MARGIN, m))
        differences[view, str(scheme), float(xi)] = _equivalence_interval(other - one, m)
    name = "The correlation length does not matter"
    return Verdict.of(name, conditions, differences, [all_trained(ds)], ds.sizes["run"])


def _paired(ds: xr.Dataset, scheme: str, lengths: tuple[float, float]) -> list[xr.Dataset]:
    # A sweep's rows under a scheme at each of two correlation lengths, sorted by seed, the same in both.
    found = [
        ds.isel(run=((ds.scheme == scheme) & (ds.correlation_length == xi)).values).sortby("seed")
        for xi in lengths
    ]
    one, other = (rows.seed.values.tolist() for rows in found)
    if one != other:
        raise checks.BadValue(
            f"the seeds at correlation lengths {lengths[0]:g} and {lengths[1]:g} differ; run the same ones, "
            f"or choose those that both have: under scheme {scheme} there are {one} and {other}"
        )
    return found


def judge_embedding_artifact(ds: xr.Dataset, short: float, long: float) -> Verdict:
    """1b: pooled and sequence ranks of a bare, untrained embedding depend on the correlation length.

    Returns:
        Verdict; its statistics hold the ratio of the ranks, long over short, for every (view, scheme); the
        position view is a control and is not judged.
    """
    checks.results("ds", ds, **RANK, **LABELS)
    for name, xi in {"short": short, "long": long}.items():
        checks.choice(name, xi, ds.correlation_length.values.tolist())
    labels = {"state": "init", "centring": "centred", "spectrum": "singular", "depth": 0}
    schemes = sorted(set(ds.scheme.values), reverse=True)
    pairs = {scheme: _paired(ds, scheme, (short, long)) for scheme in schemes}
    level = 1 - (1 - rules.CONFIDENCE) / (2 * len(schemes))
    conditions, ratios = [], {}
    for view in ("pooled", "sequence", "position"):
        for scheme, pair in pairs.items():
            ranks = (measures.chosen(rows.effective_rank, view=view, **labels) for rows in pair)
            one, other = (checks.complete("ds", rank).values for rank in ranks)
            ratios[view, scheme] = ratio = Interval.of(other / one, level)
            if view != "position":
                what = f"{view} view, {scheme}: rank at ξ = {long:g} over that at ξ = {short:g}"
                conditions.append(_beyond(f"{what}, {ratio}, excludes 1", ratio, 1, 1))
    networks = sum(rows.sizes["run"] for pair in pairs.values() for rows in pair)
    name = "Pooling makes the bare embedding depend on it"
    return Verdict.of(name, conditions, ratios, networks=networks)


def _beyond(text: str, interval: Interval, low: float, high: float) -> Condition:
    # Whether an interval lies outside of two bounds.
    holds = bool(interval.low > high or interval.high < low)
    within = bool(interval.low > low and interval.high < high)
    return Condition(text, holds, undecided=not holds and not within)


def judge_scheme_and_law(by_scheme: Sequence[Numbers], by_law: Sequence[Numbers]) -> Verdict:
    """1c: the corruption scheme and the stationary law change the collapse in the token view.

    Args:
        by_scheme: two arrays of C, none missing, paired by seed, under the two schemes.
        by_law: the same for two stationary laws.
    """
    numbers, conditions, networks = {}, [], 0
    for name, (one, other) in {"schemes": by_scheme, "stationary laws": by_law}.items():
        one, other = checks.paired(checks.known, **{f"one of the {name}": one, f"other of the {name}": other})
        networks += 2 * len(one)
        numbers[name] = d = Interval.of(one - other, 1 - (1 - rules.CONFIDENCE) / 2)
        text = f"difference of C between the {name}, {d}, exceeds {rules.MATTERS:g}"
        conditions.append(_beyond(text, d, -rules.MATTERS, rules.MATTERS))
    return Verdict.of("The scheme and the stationary law do matter", conditions, numbers, networks=networks)


def explained_variance(x: Numbers, y: Numbers) -> float:
    """R^2 of the least-squares line between ln x and ln y; 0 where x or y is constant."""
    x, y = checks.paired(checks.positives, x=x, y=y)
    return float(_explained(np.log(x), np.log(y)))


def _explained(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # R^2 along the last axis, of (..., settings).
    varies = np.minimum(np.ptp(x, -1), np.ptp(y, -1)) > 0
    x, y = (z - z.mean(-1, keepdims=True) for z in (x, y))
    product = np.where(varies, (x**2).sum(-1) * (y**2).sum(-1), 1.0)
    return np.where(varies, (x * y).sum(-1) ** 2 / product, 0.0)


def explains_better(
    rank: Numbers,
    modes: Numbers,
    correlation_length: Numbers,
    confidence: float = rules.CONFIDENCE,
    resamples: int = 4000,
) -> dict[str, Interval]:
    """2a: how much of the rank lines in the logarithms explain (R^2), with bootstrap intervals over settings.

    Args:
        rank, modes, correlation_length: (settings,) positive arrays; R^2 is 0 where one is constant.

    Returns:
        {"relevant modes", "correlation length", "difference": Interval} with percentile intervals.
    """
    data = checks.paired(checks.positives, rank=rank, modes=modes, correlation_length=correlation_length)
    if len(data[0]) < 2:
        raise checks.BadValue("rank must hold 2 settings or more; a line through one explains nothing")
    data = [np.log(v) for v in data]

    def both(rank, modes, xi, axis=-1):
        a, b = _explained(modes, rank), _explained(xi, rank)
        return np.array([a, b, a - b])

    found = stats.bootstrap(
        data, both, paired=True, vectorized=True, method="percentile", rng=np.random.default_rng(0),
        n_resamples=checks.integer("resamples", resamples, 1, 10**6),
        confidence_level=checks.fraction("confidence", confidence),
    ).confidence_interval  # fmt: skip
    names = ("relevant modes", "correlation length", "difference")
    rows = zip(names, both(*data), found.low, found.high, strict=True)
    return {name: Interval((), *numbers) for name, *numbers in rows}


def explained_variances(table: pd.DataFrame) -> dict[tuple[str, str], Interval]:
    """`explains_better` of the rank by either spectrum, corrected for the two: {(spectrum, name): Interval}.

    Args:
        table: from `settings_table`.
    """
    columns = ["relevant modes", "correlation length", "last rank, eigen", "last rank, singular"]
    if not isinstance(table, pd.DataFrame) or not set(columns) <= set(table.columns):
        raise checks.BadType(
            f"table must be a DataFrame with columns {columns}, as settings_table returns it"
        )
    modes, xi = table["relevant modes"], table["correlation length"]
    level = 1 - (1 - rules.CONFIDENCE) / 2
    return {
        (spectrum, name): interval
        for spectrum in ("eigen", "singular")
        for name, interval in explains_better(table[f"last rank, {spectrum}"], modes, xi, level).items()
    }


def judge_relevant_modes(ds: xr.Dataset) -> Verdict:
    """2a: the number of relevant modes explains the last rank better than the correlation length does.

    Args:
        ds: sweep with token mixing. Seeds of a setting are averaged; settings that are not trained are left
            out.

    Returns:
        Verdict; statistics by (spectrum, name).
    """
    name, table = "Relevant modes set the rank", settings_table(ds)
    table, asked = table[table["trained"]], len(table)
    networks = int(table["networks"].sum())
    least = rules.MODES_SETTINGS
    passed = f"{len(table)} of {asked} settings pass the gate, at least {least}"
    enough = Condition(passed, len(table) >= least)
    if not enough.holds:
        return Verdict(name, "not trained", f"Decided by: {enough}.", (enough,), {}, networks=networks)
    numbers = explained_variances(table)
    better = "R² of relevant modes minus R² of the correlation length,"
    conditions = [
        above(f"{spectrum} values: {better}", numbers[spectrum, "difference"], 0)
        for spectrum in ("eigen", "singular")
    ]
    return Verdict.of(name, conditions, numbers, [enough], networks)


def residuals(x: Sequence[float], y: Sequence[float]) -> np.ndarray:
    """ln y minus the least-squares line in ln x: (settings,); NaN for fewer than 3 settings, or equal x."""
    settings = len(checks.sequence("x", x, 0))
    if settings < 3:
        return np.full(settings, np.nan)
    x, y = checks.paired(checks.positives, x=x, y=y)
    if np.ptp(x) == 0:
        return np.full(settings, np.nan)
    line = stats.linregress(np.log(x), np.log(y))
    return np.log(y) - line.intercept - line.slope * np.log(x)


def judge_no_selectivity(
    results: dict[str, xr.Dataset], family: str = "sticky", margin: float = rules.ALIKE_MARGIN
) -> Verdict:
    """2b: C of a family does not differ between the shortest and the longest correlation length.

    Args:
        results: {size: Dataset of Experiment.run}; each is a comparison.
        margin: of equivalence, in units of C.
    """
    checks.mapping("results", results, xr.Dataset)
    if not results:
        raise checks.BadValue("results must hold one Dataset or more")
    conditions, numbers, gates, networks = [], {}, [], 0
    for size, ds in results.items():
        checks.results(f"results[{size!r}]", ds, **measures.RANK)
        found = first_round.judge_selectivity(ds)
        gates += [replace(gate, text=f"{size} size: {gate.text}") for gate in found.conditions[:2]]
        numbers[size], networks = found.statistics["difference"], networks + found.networks
        name = f"{family}, {size} size: C short minus C long,"
        conditions.append(equivalent(name, numbers[size].values, margin, len(results)))
    return Verdict.of(f"No selectivity on {family} chains", conditions, numbers, gates, networks)


def settings_table(ds: xr.Dataset) -> pd.DataFrame:
    """One line per setting of a sweep, averaged over seeds: labels, networks, relevant modes, last rank."""
    words = {"family": "run", "mixing": "run", "rate": "run"}
    checks.results("ds", ds, relevant_modes="run floor", **words, **RANK, **GATE, **LABELS)
    rank = _ranks(ds, view="position", centring="centred")
    columns = {
        "networks": 1,
        "relevant modes": checks.complete("ds", ds.relevant_modes.isel(floor=0)).values,
        "trained": trained(ds).values,
        **{f"last rank, {s}": last(rank.sel(spectrum=s)) for s in ("eigen", "singular")},
    }
    names = ("family", "correlation_length", "mixing", "rate", "scheme")
    labels = {name.replace("_", " "): ds[name].values for name in names}
    how = dict.fromkeys(columns, "mean") | {"networks": "sum", "trained": "all"}
    return (
        pd.DataFrame(labels | columns).groupby(list(labels), sort=False, dropna=False).agg(how).reset_index()
    )


def by_modulus(ds: xr.Dataset, variable: str) -> dict[str, xr.DataArray]:
    """A variable by group of equally relevant modes, the most relevant first: {label: DataArray}.

    Args:
        ds: results of one chain family at one correlation length, with variables `modulus` and `variable`
            along `eigenmode`.

    Returns:
        At most 6 groups, spread evenly where there are more; the labels number them.
    """
    checks.results("ds", ds, **{variable: "eigenmode"})
    first = group_starts(ds)
    shown = np.unique(np.linspace(0, len(first) - 1, min(len(first), 6)).round().astype(int))
    names = {0: " (most relevant)", len(first) - 1: " (least relevant)"} if len(first) > 1 else {}
    return {f"group {g + 1}{names.get(g, '')}": ds[variable].isel(eigenmode=first[g]) for g in shown}


def group_starts(ds: xr.Dataset) -> np.ndarray:
    """Index of the first mode of each group of equal modulus."""
    checks.results("ds", ds, modulus="seed eigenmode")
    if set(ds.modulus.dims) != {"seed", "eigenmode"}:
        raise checks.BadValue(
            f"ds must hold one chain at one correlation length, got modulus along {ds.modulus.dims}; "
            "choose with ds.sel(...)"
        )
    modulus = checks.complete("ds", ds.modulus.isel(seed=0)).values
    return np.flatnonzero(np.diff(modulus, prepend=2) < -1e-6)


def retention_panels(ds: xr.Dataset, state: str) -> dict[str, dict[str, xr.DataArray]]:
    """R^2 by depth of each group of modes: {"ξ = ..., target": {group: DataArray}}."""
    ds = measures.one_chain(ds, **RETENTION)
    checks.choice("state", state, ds.state.values.tolist())
    panels = {}
    for xi in ds.correlation_length.values:
        here = ds.sel(correlation_length=xi, state=state)
        for name, targets in {"neighbours": ["left", "right"], "posterior": ["posterior"]}.items():
            r2 = here.r2.sel(target=targets).mean("target", skipna=False)
            panels[f"ξ = {xi:g}, {name}"] = by_modulus(here.assign(r2=r2), "r2")
    return panels


def relevance_panels(ds: xr.Dataset) -> dict[str, dict[str, xr.DataArray]]:
    """R^2 of the neighbours' modes against `|λ|`: {"ξ = ...": {"depth d": DataArray (seed, modulus)}}."""
    ds = measures.one_chain(ds, **RETENTION)
    panels = {}
    depths = sorted({1, ds.sizes["depth"] // 2, ds.sizes["depth"] - 1})
    for xi in ds.correlation_length.values:
        here = ds.sel(correlation_length=xi, state="trained")
        here = here.isel(eigenmode=group_starts(here))
        r2 = here.r2.sel(target=["left", "right"]).mean("target", skipna=False)
        r2 = r2.assign_coords(modulus=("eigenmode", here.modulus.isel(seed=0).values))
        r2 = r2.swap_dims(eigenmode="modulus")
        panels[f"ξ = {xi:g}"] = {f"depth {d}": r2.sel(depth=d) for d in depths}
    return panels


def judge_kept_modes(
    retention: xr.Dataset, correlation_length: float, gates: Sequence[Condition] = ()
) -> Verdict:
    """3a, 3b, 3c on results of `probes.mode_retention` at one correlation length.

    Args:
        retention: of one chain family with dims (correlation_length, seed, ...).
        gates: whether the networks are trained.
    """
    removals = {
        "loss_increase": "correlation_length seed direction removed depth",
        "learnable": "correlation_length seed",
    }
    retention = measures.one_chain(retention, **RETENTION, **removals)
    here = measures.chosen(retention, correlation_length=correlation_length)
    r2 = here.r2.sel(state="trained", target=["left", "right"]).isel(eigenmode=[0, -1])
    r2 = checks.complete("retention", r2).mean("target").transpose("eigenmode", "seed", "depth").values
    most, least = (Interval.of(r[:, -1] - r.max(-1)) for r in r2)
    directions = ["relevant", "irrelevant", "random, by variance"]
    middle = here.loss_increase.isel(removed=0).sel(depth=here.sizes["depth"] // 2, direction=directions)
    relevant, irrelevant, random = checks.complete("retention", middle).transpose("direction", "seed").values
    more = Interval.of(relevant - random)
    little = Interval.of(irrelevant / checks.complete("retention", here.learnable).values)
    conditions = (
        above("3a: R² of the most relevant mode, last depth minus maximum,", most, -rules.KEPT),
        below("3b: R² of the least relevant modes, last depth minus maximum,", least, -rules.INTEGRATED_OUT),
        above("3c: loss from removing the most relevant direction minus a random one's (nats),", more, 0),
        below(
            "3c: loss from removing a least relevant direction, share of the learnable,",
            little,
            rules.HARDLY_USED,
        ),
    )
    numbers = {"kept": most, "integrated out": least, "relevant minus random": more, "irrelevant": little}
    name = f"Exactly the relevant modes are kept, ξ = {correlation_length:g}"
    return Verdict.of(name, conditions, numbers, gates, here.sizes["seed"])


def judge_fixed_point(
    ds: xr.Dataset, drift: xr.DataArray, correlation_length: float, gates: Sequence[Condition] = ()
) -> Verdict:
    """4a, 4b on results of `probes.perturbations` at one correlation length.

    Args:
        ds: of one chain family with dims (correlation_length, seed, ...).
        drift: kernel drift of the same networks, (seed, transition); the two transitions with the largest
            means do not belong to the plateau.
        gates: whether the networks are trained.
    """
    along = "correlation_length seed"
    read = {"growth": f"{along} state perturbation transition", "scaled_drift": f"{along} scale transition"}
    ds = measures.one_chain(ds, **read)
    dims = getattr(drift, "dims", None)
    if dims is None or set(dims) != {"seed", "transition"} or drift.sizes["transition"] < 3:
        raise checks.BadType("drift must be a DataArray (seed, transition), 3 transitions or more")
    here = measures.chosen(ds, correlation_length=correlation_length)
    mean = checks.complete("drift", drift).transpose("seed", "transition").mean("seed")
    plateau = sorted(drift["transition"].values[np.argsort(mean.values)[:-2]].tolist())
    level = 1 - (1 - rules.CONFIDENCE) / len(plateau)
    growth = here.growth.sel(state="trained", perturbation="random", transition=plateau)
    growth = checks.complete("ds", growth).transpose("seed", "transition")
    conditions, numbers = [], {}
    for t in plateau:
        numbers[f"growth {t}"] = factor = Interval.of(growth.sel(transition=t).values, level)
        what = f"4a: growth of random perturbations from depth {t} to {t + 1},"
        conditions.append(below(what, factor, rules.SHRINKS))
    scaled = checks.complete("ds", here.scaled_drift.sel(transition=plateau, scale=[0.25, 1.0]))
    small, own = scaled.mean("transition").transpose("scale", "seed").values
    numbers["ratio"] = ratio = Interval.of(
        np.divide(small, own, out=np.full_like(own, np.nan), where=own > 0)
    )
    what = "4b: drift of the stream scaled by 1/4 over that at its own scale,"
    conditions.append(below(what, ratio, rules.OWN_SCALE))
    name = f"Near an attracting fixed point, ξ = {correlation_length:g}"
    return Verdict.of(name, conditions, numbers, gates, growth.sizes["seed"])
