"""Definitions of rank that the robustness page compares, as arguments of `first_round.rank_collapse`."""

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats

from rgnb import checks
from rgnb.verdicts import first_round, measures, rules
from rgnb.verdicts.intervals import Condition, Interval, Verdict, above, below

# What is read of the rows of a sweep.
RETENTION = {
    "r2": "correlation_length seed state target eigenmode depth",
    "modulus": "correlation_length seed eigenmode",
}
LABELS = {"scheme": "run", "correlation_length": "run", "seed": "run"}
GATE = {"excess_loss": "run", "marginal_entropy": "run", "reachable_loss": "run"}
RANK = {"effective_rank": "run state view centring spectrum depth"}


def judge(finding, conditions, statistics, gates=(), networks=0):
    """A Verdict that is supported if every condition holds, and not trained if a gate does not.

    Args:
        conditions, gates: sequences of Condition.
        statistics: {name: Interval}.
        networks: how many trained networks it is taken over; 0: not counted.
    """
    failed = [c for c in conditions if not c.holds]
    status, ungated = "not supported" if failed else "supported", ""
    reasons = failed or conditions
    if any(not g.holds for g in gates):
        status, ungated, reasons = "not trained", status, [g for g in gates if not g.holds]
    reason = "Decided by: " + "; ".join(map(str, reasons)) + "."
    return Verdict(finding, status, reason, (*gates, *conditions), statistics, ungated, networks)


def _equivalence_interval(differences, comparisons):
    # Inside the margin where both one-sided tests at level 0.05 / comparisons reject.
    return Interval.of(differences, 1 - 2 * (1 - rules.CONFIDENCE) / comparisons)


def equivalent(name, differences, margin, comparisons=1):
    """Two one-sided tests at level 0.05 / comparisons, as a `Condition`: the mean difference lies within +-margin."""
    margin = checks.positive("margin", margin)
    interval = _equivalence_interval(differences, checks.integer("comparisons", comparisons, 1))
    return Condition(
        f"{name} {interval} lies within ±{margin:g}", bool(-margin < interval.low and interval.high < margin)
    )


def trained(ds):
    """Which rows of a sweep pass the gate of `first_round.gate_limit`: (run,) bool."""
    checks.results("ds", ds, **GATE)
    excess, entropy, reachable = (checks.complete("ds", ds[name]) for name in GATE)
    learnable = entropy - reachable
    return excess <= np.where(learnable > 1e-9, rules.FIRST_GATE * learnable, rules.GATE_NATS)


def gate(ds):
    """Whether all rows of a sweep are trained, as a `Condition`."""
    passed = trained(ds).values
    return Condition(f"{passed.sum()} of {passed.size} networks pass the gate", bool(passed.all()))


def collapse(ds, view="position", centring="centred", spectrum="singular"):
    """C = 1 - r_L / r_0 of every row of a sweep, each at its own last depth: (run,) array."""
    checks.results("ds", ds, **RANK)
    rank = _whole(
        measures.chosen(ds.effective_rank, state="trained", view=view, centring=centring, spectrum=spectrum)
    )
    return 1 - last(rank) / rank.isel(depth=0).values


def _whole(rank):
    # Ranks of a sweep's rows, none missing: NaN is padding only beyond a row's own depth, its blocks.
    if "blocks" in rank.coords:
        padding = xr.DataArray(np.arange(rank.sizes["depth"]), dims="depth") > rank.blocks
        checks.complete("ds", rank.where(~padding, 0))
    else:
        checks.complete("ds", rank)
    return rank


def last(x):
    """Values at each row's own last depth: DataArray (run, depth), padded with NaN -> (run,) array."""
    x = x.transpose("run", "depth").values
    return x[np.arange(len(x)), (~np.isnan(x)).cumsum(1).argmax(1)]


def blind(ds, reference=1.0, margin=0.05, comparisons=None):
    """1a: without mixing the collapse does not depend on the correlation length.

    Args:
        ds: sweep of one family, no mixing, with rows for several correlation lengths and schemes, the same seeds in each.
        reference: the correlation length that the others are compared with, paired by seed.
        margin: of equivalence, in units of C.
        comparisons: how many are corrected for; None: as many as are made here.

    Returns:
        Verdict; its statistics hold the difference for every (view, scheme, correlation length).
    """
    checks.results("ds", ds, **RANK, **GATE, **LABELS)
    margin, reference = (
        checks.positive("margin", margin),
        checks.choice("reference", reference, ds.correlation_length.values.tolist()),
    )
    keys = [
        (view, scheme, xi)
        for view in ("position", "token")
        for scheme in sorted(set(ds.scheme.values), reverse=True)
        for xi in sorted(set(ds.correlation_length.values))
        if xi != reference
    ]
    m = comparisons or len(keys)
    conditions, differences = [], {}
    for view, scheme, xi in keys:
        one, other = (collapse(rows, view) for rows in _paired(ds, scheme, (reference, xi)))
        d = other - one
        name = f"{view} view, {scheme}: C at ξ = {xi:g} minus C at ξ = {reference:g},"
        conditions.append(equivalent(name, d, margin, m))
        differences[view, str(scheme), float(xi)] = _equivalence_interval(d, m)
    return judge(
        "The correlation length does not matter", conditions, differences, [gate(ds)], ds.sizes["run"]
    )


def _paired(ds, scheme, lengths):
    # A sweep's rows under a scheme at each of two correlation lengths, by their seeds, the same in both.
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


def embedding_artifact(ds, short, long):
    """1b: pooled and sequence ranks of a bare, untrained embedding depend on the correlation length.

    Returns:
        Verdict; its statistics hold the ratio of the ranks, long over short, for every (view, scheme), and for the position view
        as a control that is not judged.
    """
    checks.results("ds", ds, **RANK, **LABELS)
    for name, xi in {"short": short, "long": long}.items():
        checks.choice(name, xi, ds.correlation_length.values.tolist())
    labels = {"state": "init", "centring": "centred", "spectrum": "singular", "depth": 0}
    conditions, ratios = [], {}
    schemes = sorted(set(ds.scheme.values), reverse=True)
    pairs = {scheme: _paired(ds, scheme, (short, long)) for scheme in schemes}
    level = 1 - (1 - rules.CONFIDENCE) / (2 * len(schemes))
    for view in ("pooled", "sequence", "position"):
        for scheme, pair in pairs.items():
            at = [
                checks.complete("ds", measures.chosen(rows.effective_rank, view=view, **labels)).values
                for rows in pair
            ]
            ratio = Interval.of(at[1] / at[0], level)
            ratios[view, scheme] = ratio
            if view != "position":
                text = f"{view} view, {scheme}: rank at ξ = {long:g} over that at ξ = {short:g}, {ratio}, excludes 1"
                conditions.append(Condition(text, bool(ratio.low > 1 or ratio.high < 1)))
    networks = sum(rows.sizes["run"] for pair in pairs.values() for rows in pair)
    return judge("Pooling makes the bare embedding depend on it", conditions, ratios, networks=networks)


def what_changes_collapse(by_scheme, by_law, bound=0.05):
    """1c: the corruption scheme and the stationary law change the collapse in the token view.

    Args:
        by_scheme: two arrays of C, none missing, paired by seed, under the two schemes.
        by_law: the same for two stationary laws.
        bound: what their mean difference has to exceed, in either direction.
    """
    level = 1 - (1 - rules.CONFIDENCE) / 2
    numbers, conditions, networks = {}, [], 0
    for name, (one, other) in {"schemes": by_scheme, "stationary laws": by_law}.items():
        one, other = checks.paired(checks.vector, one=one, other=other)
        if np.isnan([one, other]).any():
            raise checks.BadValue(
                f"one and other of the {name} must hold no missing value (NaN), got {one[:20]} and "
                f"{other[:20]}; leave those pairs out"
            )
        networks += 2 * len(one)
        d = Interval.of(one - other, level)
        numbers[name] = d
        conditions.append(
            Condition(
                f"difference of C between the {name}, {d}, exceeds {bound:g}",
                bool(d.low > bound or d.high < -bound),
            )
        )
    return judge("The scheme and the stationary law do matter", conditions, numbers, networks=networks)


def explained_variance(x, y):
    """R^2 of the least-squares line between ln x and ln y; 0 where x or y is constant: nothing is explained."""
    x, y = checks.paired(checks.positives, x=x, y=y)
    return _explained(np.log(x), np.log(y))


def _explained(x, y):
    return stats.linregress(x, y).rvalue ** 2 if min(np.ptp(x), np.ptp(y)) > 0 else 0.0


def explains_better(rank, modes, correlation_length, confidence=rules.CONFIDENCE, resamples=4000):
    """2a: R^2 of relevant modes, of the correlation length, and their difference, with bootstrap intervals over settings.

    Args:
        rank, modes, correlation_length: (settings,) positive arrays.

    Returns:
        {"relevant modes", "correlation length", "difference": Interval} with percentile intervals.
    """
    data = checks.paired(checks.positives, rank=rank, modes=modes, correlation_length=correlation_length)
    if len(data[0]) < 2:
        raise checks.BadValue("rank must hold 2 settings or more; a line through one explains nothing")
    data = [np.log(v) for v in data]
    confidence, resamples = (
        checks.fraction("confidence", confidence),
        checks.integer("resamples", resamples, 1, 10**6),
    )

    def both(rank, modes, xi):
        a, b = _explained(modes, rank), _explained(xi, rank)
        return np.array([a, b, a - b])

    found = stats.bootstrap(
        data, both, paired=True, vectorized=False, n_resamples=resamples, confidence_level=confidence,
        method="percentile", rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    names = ("relevant modes", "correlation length", "difference")
    return {name: Interval((), *numbers) for name, *numbers in zip(names, both(*data), found.low, found.high)}


def explained_variances(table):
    """`explains_better` of the rank from either spectrum: output of `settings_table` -> {(spectrum, name): Interval}, corrected for the two."""
    columns = ["relevant modes", "correlation length", "last rank, eigen", "last rank, singular"]
    if not isinstance(table, pd.DataFrame) or not set(columns) <= set(table.columns):
        raise checks.BadType(
            f"table must be a DataFrame with columns {columns}, as settings_table returns it"
        )
    modes, xi = table["relevant modes"], table["correlation length"]
    found = {
        s: explains_better(table[f"last rank, {s}"], modes, xi, 1 - (1 - rules.CONFIDENCE) / 2)
        for s in ("eigen", "singular")
    }
    return {
        (spectrum, name): value for spectrum, intervals in found.items() for name, value in intervals.items()
    }


def relevant_modes(ds):
    """2a: the number of relevant modes explains the last depth's rank better than the correlation length does.

    Args:
        ds: sweep with token mixing; seeds of a setting are averaged, settings that are not trained are left out.

    Returns:
        Verdict; statistics by (spectrum, name).
    """
    table = settings_table(ds)
    table, asked = table[table["trained"]], len(table)
    networks = int(table["networks"].sum())
    enough = Condition(f"{len(table)} of {asked} settings pass the gate, at least 5", len(table) >= 5)
    if not enough.holds:
        reason = f"Decided by: {enough}."
        return Verdict("Relevant modes set the rank", "not trained", reason, (enough,), {}, "", networks)
    numbers = explained_variances(table)
    conditions = [
        above(
            f"{spectrum} values: R² of relevant modes minus R² of the correlation length,",
            numbers[spectrum, "difference"],
            0,
        )
        for spectrum in ("eigen", "singular")
    ]
    return judge("Relevant modes set the rank", conditions, numbers, [enough], networks)


def residuals(x, y):
    """ln y minus the least-squares line in ln x: (settings,) arrays -> (settings,); NaN for fewer than 3 settings, or equal x."""
    settings = len(checks.sequence("x", x, 0))
    if settings < 3:
        return np.full(settings, np.nan)
    x, y = checks.paired(checks.positives, x=x, y=y)
    if np.ptp(x) == 0:
        return np.full(settings, np.nan)
    line = stats.linregress(np.log(x), np.log(y))
    return np.log(y) - line.intercept - line.slope * np.log(x)


def no_selectivity(results, family="sticky", margin=0.1):
    """2b: the collapse C of a family does not differ between the shortest and the longest correlation length.

    Args:
        results: {size: Dataset of Experiment.run}; every one of them is a comparison.
        margin: of equivalence, in units of C.
    """
    checks.mapping("results", results, xr.Dataset)
    if not results:
        raise checks.BadValue("results must hold one Dataset or more")
    conditions, numbers, gates, networks = [], {}, [], 0
    for size, ds in results.items():
        checks.results(f"results[{size!r}]", ds, **measures.RANK)
        ends = (
            first_round.gate(ds, float(xi))
            for xi in (ds.correlation_length.min(), ds.correlation_length.max())
        )
        gates += [Condition(f"{size} size: {gate.text}", gate.holds) for gate in ends]
        found = first_round.selectivity(ds)
        numbers[size], networks = found.statistics["difference"], networks + found.networks
        name = f"{family}, {size} size: C short minus C long,"
        conditions.append(equivalent(name, numbers[size].values, margin, len(results)))
    return judge(f"No selectivity on {family} chains", conditions, numbers, gates, networks)


def settings_table(ds):
    """One line a setting of a sweep, seeds averaged: its labels, networks, relevant modes and last rank."""
    checks.results(
        "ds", ds, relevant_modes="run floor", family="run", mixing="run", rate="run", **RANK, **GATE, **LABELS
    )
    rank = _whole(measures.chosen(ds.effective_rank, state="trained", view="position", centring="centred"))
    columns = {
        "networks": 1,
        "relevant modes": checks.complete("ds", ds.relevant_modes.isel(floor=0)).values,
        "trained": trained(ds).values,
        **{f"last rank, {s}": last(rank.sel(spectrum=s)) for s in ("eigen", "singular")},
    }
    labels = {
        "family": "family",
        "correlation length": "correlation_length",
        "mixing": "mixing",
        "rate": "rate",
        "scheme": "scheme",
    }
    frame = ds[list(labels.values())].reset_coords().to_dataframe()[list(labels.values())]
    frame.columns = list(labels)
    frame = frame.assign(**columns)
    grouped = frame.groupby(list(labels), sort=False, dropna=False)
    how = dict.fromkeys(columns, "mean") | {"networks": "sum", "trained": "all"}
    return grouped.agg(how).reset_index()


def by_modulus(ds, variable):
    """A variable by groups of modes of equal relevance, the most relevant first: {label: DataArray}.

    Args:
        ds: results of one chain family at one correlation length, with variables `modulus` and `variable` along `eigenmode`.

    Returns:
        At most 6 groups, spread evenly where there are more; the labels number them.
    """
    checks.results("ds", ds, **{variable: "eigenmode"})
    first = group_starts(ds)
    shown = np.unique(np.linspace(0, len(first) - 1, min(len(first), 6)).round().astype(int))
    names = {0: " (most relevant)", len(first) - 1: " (least relevant)"} if len(first) > 1 else {}
    return {f"group {g + 1}{names.get(g, '')}": ds[variable].isel(eigenmode=first[g]) for g in shown}


def group_starts(ds):
    """Index of the first mode of each group of equal modulus."""
    checks.results("ds", ds, modulus="seed eigenmode")
    if set(ds.modulus.dims) != {"seed", "eigenmode"}:
        raise checks.BadValue(
            f"ds must hold one chain at one correlation length, got modulus along {ds.modulus.dims}; choose with ds.sel(...)"
        )
    modulus = checks.complete("ds", ds.modulus.isel(seed=0)).values
    return np.flatnonzero(np.diff(modulus, prepend=2) < -1e-6)


def retention_panels(ds, state):
    """R^2 by depth of each group of modes: {"ξ = ..., target": {group: DataArray}} for `figures.seed_lines`."""
    ds = measures.one_chain(ds, **RETENTION)
    checks.choice("state", state, ds.state.values.tolist())
    panels = {}
    for xi in ds.correlation_length.values:
        here = ds.sel(correlation_length=xi, state=state)
        for name, targets in {"neighbours": ["left", "right"], "posterior": ["posterior"]}.items():
            r2 = here.r2.sel(target=targets).mean("target", skipna=False)
            panels[f"ξ = {xi:g}, {name}"] = by_modulus(here.assign(r2=r2), "r2")
    return panels


def relevance_panels(ds):
    """R^2 of the neighbours' modes against `|λ|`, one curve a depth: {"ξ = ...": {"depth d": DataArray (seed, modulus)}}."""
    ds = measures.one_chain(ds, **RETENTION)
    panels = {}
    depths = sorted({1, ds.sizes["depth"] // 2, ds.sizes["depth"] - 1})
    for xi in ds.correlation_length.values:
        here = ds.sel(correlation_length=xi, state="trained")
        r2 = here.r2.sel(target=["left", "right"]).mean("target", skipna=False)
        first = group_starts(here)
        modulus = here.modulus.isel(seed=0, eigenmode=first).values
        r2 = (
            r2.isel(eigenmode=first)
            .assign_coords(modulus=("eigenmode", modulus))
            .swap_dims(eigenmode="modulus")
        )
        panels[f"ξ = {xi:g}"] = {f"depth {d}": r2.sel(depth=d) for d in depths}
    return panels


def kept(retention, correlation_length, gates=()):
    """3a, 3b, 3c on results of `probes.mode_retention` at one correlation length: four conditions' Verdict.

    Args:
        retention: Dataset of one chain family with dims (correlation_length, seed, ...).
        gates: Conditions that say whether the networks are trained.
    """
    removals = {
        "loss_increase": "correlation_length seed direction removed depth",
        "learnable": "correlation_length seed",
    }
    retention = measures.one_chain(retention, **RETENTION, **removals)
    here = measures.chosen(retention, correlation_length=correlation_length)
    r2 = here.r2.sel(state="trained", target=["left", "right"]).isel(eigenmode=[0, -1])
    r2 = checks.complete("retention", r2).mean("target").transpose("seed", "eigenmode", "depth")
    top, bottom = r2.isel(eigenmode=0), r2.isel(eigenmode=-1)
    lost = {
        name: Interval.of(r.isel(depth=-1) - r.max("depth")) for name, r in (("most", top), ("least", bottom))
    }
    directions = ["relevant", "irrelevant", "random, by variance"]
    middle = here.loss_increase.isel(removed=0).sel(depth=here.sizes["depth"] // 2, direction=directions)
    relevant, irrelevant, random = checks.complete("retention", middle).transpose("direction", "seed")
    more = Interval.of((relevant - random).values)
    little = Interval.of((irrelevant / checks.complete("retention", here.learnable)).values)
    conditions = (
        above("3a: R² of the most relevant mode, last depth minus maximum,", lost["most"], -0.05),
        below("3b: R² of the least relevant modes, last depth minus maximum,", lost["least"], -0.1),
        above("3c: loss from removing the most relevant direction minus a random one's (nats),", more, 0),
        below("3c: loss from removing a least relevant direction, share of the learnable,", little, 0.05),
    )
    numbers = {
        "kept": lost["most"],
        "integrated out": lost["least"],
        "relevant minus random": more,
        "irrelevant": little,
    }
    name = f"Exactly the relevant modes are kept, ξ = {correlation_length:g}"
    return judge(name, conditions, numbers, gates, r2.sizes["seed"])


def fixed_point(ds, drift, correlation_length, gates=()):
    """4a, 4b on results of `probes.perturbations` at one correlation length.

    Args:
        ds: Dataset of one chain family with dims (correlation_length, seed, ...).
        drift: kernel drift of the same networks, DataArray (seed, transition): its two largest means are left out of the plateau.
        gates: Conditions that say whether the networks are trained.
    """
    along = "correlation_length seed"
    ds = measures.one_chain(
        ds, growth=f"{along} state perturbation transition", scaled_drift=f"{along} scale transition"
    )
    if (
        getattr(drift, "dims", None) is None
        or set(drift.dims) != {"seed", "transition"}
        or drift.sizes["transition"] < 3
    ):
        raise checks.BadType("drift must be a DataArray (seed, transition), 3 transitions or more")
    here = measures.chosen(ds, correlation_length=correlation_length)
    order = np.argsort(checks.complete("drift", drift).transpose("seed", "transition").mean("seed").values)
    plateau = sorted(map(int, order[:-2]))
    level = 1 - (1 - rules.CONFIDENCE) / len(plateau)
    growth = here.growth.sel(state="trained", perturbation="random", transition=plateau)
    growth = checks.complete("ds", growth).transpose("seed", "transition")
    conditions, numbers = [], {}
    for t in plateau:
        factor = Interval.of(growth.sel(transition=t).values, level)
        numbers[f"growth {t}"] = factor
        conditions.append(below(f"4a: growth of random perturbations from depth {t} to {t + 1},", factor, 1))
    scaled = checks.complete("ds", here.scaled_drift.sel(transition=plateau, scale=[0.25, 1.0]))
    small, own = scaled.mean("transition").transpose("scale", "seed").values
    ratio = Interval.of(small / own)
    numbers["ratio"] = ratio
    conditions.append(below("4b: drift of the stream scaled by 1/4 over that at its own scale,", ratio, 2))
    name = f"Near an attracting fixed point, ξ = {correlation_length:g}"
    return judge(name, conditions, numbers, gates, growth.sizes["seed"])


def _check_whole(rows, name, short, long):
    # A row that is missing would become NaN among the others, without its labels.
    lengths = rows.correlation_length.values
    seeds = {
        xi: sorted(rows.seed.values[lengths == xi].tolist())
        for xi in dict.fromkeys([short, long, *lengths.tolist()])
    }
    if any(found != seeds[short] for found in seeds.values()):
        found = ", ".join(f"{xi:g}: {s}" for xi, s in seeds.items())
        raise checks.BadValue(
            f"ds: {name}: the seeds must be the same at all correlation lengths, got {found}; run the "
            "missing ones, or choose rows with seeds that all have, ds.isel(run=...)"
        )
