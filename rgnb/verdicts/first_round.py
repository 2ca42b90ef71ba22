"""The three findings as verdicts: statistics on per-seed values, fixed rules, 95 % t intervals over seeds.

Each function takes results as `Experiment.run` returns them (one chain family; several need
`.sel(chain=...)`) and returns a `Verdict`. Nothing is judged on missing values: where one that is read is
NaN, each raises a ValueError that names it. The rules:

- Gate. Every seed's excess loss over the floor that its architecture can reach is at most 5 % of what it
  can learn, `H(pi) - floor`, or 0.01 nats where nothing can be learned; else "not trained".
- Rank collapse, at the shortest correlation length: the interval of `C = 1 - r_L / r_0` lies above 0.2 and
  that of the largest rise, `max over i < j of (r_j - r_i) / r_0`, below 0.05. C alone: partly supported.
- Selectivity, paired by seed: C at the shortest correlation length as above; the interval of C at the longest,
  taken from r_0 and from the profile's maximum, lies below 0.1; that of the difference above 0.1.
  Only the difference, above 0: partly supported.
- Kernel drift: at least 5 transitions; the interval of total drift lies above 0.1; the same one or two
  transitions lead in at least 7 of 8 seeds, hold a share whose interval lies above 0.8 and above the
  untrained network's own leading share; the median of the others is at most 0.05. Next to a depth where all
  rows are alike, such as the masked view's embedding, drift is not defined; it counts as 0.
"""

from collections import Counter

import numpy as np

from rgnb import checks, metrics
from rgnb.verdicts import rules
from rgnb.verdicts.intervals import Condition, Interval, Verdict, above, below
from rgnb.verdicts.measures import (
    DRIFT,
    GATE,
    RANK,
    STEP_DRIFT,
    STEP_RANK,
    chosen,
    collapse,
    collapse_from_maximum,
    defined_drift,
    largest_rise,
    one_chain,
)


def _profiles(ds, lengths, view, centring, spectrum, start, step):
    # Rank by depth, (correlation_length, seed, depth), at chosen correlation lengths.
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
    ranks = ranks.isel(depth=slice(start, None)).sel(correlation_length=lengths)
    return checks.complete("ds", ranks.transpose("correlation_length", "seed", "depth"))


def gate_limit(ds, correlation_length):
    """Largest excess loss (nats) with which a network counts as trained: 5 % of what it can learn, or 0.01."""
    ds = one_chain(ds, **GATE)
    losses = chosen(ds[["marginal_entropy", "reachable_loss"]], correlation_length=correlation_length)
    entropy, reachable = (checks.complete("ds", losses[name]) for name in losses)
    learnable = float((entropy - reachable).mean())
    return rules.FIRST_GATE * learnable if learnable > 1e-9 else rules.GATE_NATS


def gate(ds, correlation_length, step=None):
    """Whether every seed at this correlation length is trained, as a `Condition`."""
    limit = gate_limit(ds, correlation_length)
    excess = chosen(one_chain(ds, **GATE).excess_loss, correlation_length=correlation_length)
    excess = excess.isel(step=-1) if step is None else chosen(excess, step=step)
    worst = float(checks.complete("ds", excess).max())
    text = f"largest excess loss at correlation length {correlation_length:g}, {worst:.4f} nats, is at most {limit:.4f}"
    return Condition(text, worst <= limit)


def _decide(finding, gates, status, conditions, statistics, networks):
    failed, ungated = [g for g in gates if not g.holds], ""
    if failed:
        status, ungated, decisive = "not trained", status, failed
    else:
        decisive = [c for c in conditions if not c.holds] if status != "supported" else conditions
    reason = "Decided by: " + "; ".join(map(str, decisive)) + "."
    return Verdict(finding, status, reason, (*gates, *conditions), statistics, ungated, networks)


def rank_collapse(ds, view="position", centring="centred", spectrum="singular", start=0, step=None):
    """Finding 1: effective rank falls with depth, at the shortest correlation length.

    Args:
        ds: results of one chain family with variables effective_rank (step_rank where a step is given),
            excess_loss, marginal_entropy and reachable_loss.
        view, centring, spectrum: the definition of rank; the defaults are the primary definition.
        start: depth from which the profile is taken.
        step: training step; None is the end. Steps before the end know the position view, centred.

    Returns:
        Verdict with statistics "collapse" and "largest rise".
    """
    ds = one_chain(ds, **(RANK if step is None else STEP_RANK))
    xi = ds.correlation_length.values.min()
    profile = _profiles(ds, [xi], view, centring, spectrum, start, step).sel(correlation_length=xi)
    c, rise = Interval.of(collapse(profile)), Interval.of(largest_rise(profile))
    conditions = (
        above(f"collapse C at correlation length {xi:g},", c, rules.COLLAPSE),
        below("largest rise", rise, rules.RISE),
    )
    if all(k.holds for k in conditions):
        status = "supported"
    else:
        status = "partly supported" if conditions[0].holds else "not supported"
    numbers = {"collapse": c, "largest rise": rise}
    return _decide("Rank collapse", [gate(ds, xi, step)], status, conditions, numbers, len(profile))


def selectivity(ds, view="position", centring="centred", spectrum="singular", start=0, step=None):
    """Finding 2: rank collapses at the shortest correlation length and not at the longest, paired by seed.

    Arguments as in `rank_collapse`; needs two correlation lengths.

    Returns:
        Verdict with statistics "collapse, short", "collapse, long", "collapse, long, from maximum", "difference".
    """
    ds = one_chain(ds, **(RANK if step is None else STEP_RANK))
    lengths = np.sort(ds.correlation_length.values)
    if len(lengths) < 2:
        raise checks.BadValue(f"selectivity needs two correlation lengths, the results hold {list(lengths)}")
    short, long = lengths[0], lengths[-1]
    profiles = _profiles(ds, [short, long], view, centring, spectrum, start, step)
    c_short, c_long = (collapse(profiles.sel(correlation_length=xi)) for xi in (short, long))
    from_maximum = collapse_from_maximum(profiles.sel(correlation_length=long))
    numbers = {
        "collapse, short": Interval.of(c_short),
        "collapse, long": Interval.of(c_long),
        "collapse, long, from maximum": Interval.of(from_maximum),
        "difference": Interval.of(c_short - c_long),
    }
    conditions = (
        above(f"collapse C at correlation length {short:g},", numbers["collapse, short"], rules.COLLAPSE),
        below(f"collapse C at correlation length {long:g},", numbers["collapse, long"], rules.NO_COLLAPSE),
        below(
            f"the same from the profile's maximum, {long:g},",
            numbers["collapse, long, from maximum"],
            rules.NO_COLLAPSE,
        ),
        above("difference of C, short minus long,", numbers["difference"], rules.DIFFERENCE),
    )
    if all(k.holds for k in conditions):
        status = "supported"
    else:
        status = "partly supported" if numbers["difference"].low > 0 else "not supported"
    gates = [gate(ds, xi, step) for xi in (short, long)]
    return _decide("Selectivity", gates, status, conditions, numbers, 2 * profiles.sizes["seed"])


def kernel_drift(ds, view="position", correlation_length=None, start=0, step=None):
    """Finding 3: kernel drift sits in one or two transitions, the rest is a plateau.

    Args:
        ds: results of one chain family with variables kernel_drift (step_drift where a step is given),
            excess_loss, marginal_entropy and reachable_loss; and the ranks that say where drift is not
            defined, see `defined_drift`.
        correlation_length: which to judge; None is the shortest.
        start: first transition that counts; 1 leaves out the one from the embedding.
        view, step: as in `rank_collapse`.

    Returns:
        Verdict with statistics "total", "leading share" and "leading share, untrained".
    """
    ds = one_chain(ds, **(DRIFT if step is None else STEP_DRIFT))
    lengths = np.sort(ds.correlation_length.values)
    xi = (
        lengths[0]
        if correlation_length is None
        else checks.choice("correlation_length", correlation_length, lengths)
    )
    if step is not None and view != "position":
        raise checks.BadValue(f"training steps were measured for the position view, got {view!r}")
    if checks.integer("start", start, 0) >= ds.sizes["transition"]:
        raise checks.BadValue(f"start must leave one transition of {ds.sizes['transition']}, got {start}")
    # Debiased drift scatters around 0 where nothing changes.
    after = {"view": view, "state": "trained"} if step is None else {"step": step}
    before = {"view": view, "state": "init"}
    drift, untrained = (
        defined_drift(ds, correlation_length=xi, **labels).values[:, start:].clip(min=0)
        for labels in (after, before)
    )
    total = Interval.of(drift.sum(-1))
    seeds, transitions = drift.shape
    for k in (1, 2):
        tops = [tuple(sorted(map(int, np.argsort(-d)[:k]))) for d in drift]
        lead, count = Counter(tops).most_common(1)[0]
        with np.errstate(invalid="ignore"):
            share = Interval.of(drift[:, lead].sum(-1) / drift.sum(-1))
            control = Interval.of(metrics.concentration(untrained, k).numpy())
        others = float(np.median(np.delete(drift, lead, axis=1))) if transitions > k else 0.0
        named = " and ".join(f"{start + t} → {start + t + 1}" for t in lead)
        conditions = (
            Condition(
                f"there are {transitions} transitions, at least {rules.FIRST_TRANSITIONS}",
                transitions >= rules.FIRST_TRANSITIONS,
            ),
            above("total drift", total, rules.TOTAL_DRIFT),
            Condition(
                f"{named} {'lead' if k > 1 else 'leads'} in {count} of {seeds} seeds, at least 7 of 8",
                count >= rules.FIRST_AGREEMENT * seeds,
            ),
            above("its share of the drift", share, rules.LEADING_SHARE),
            Condition(
                f"that share lies above the untrained network's {control}", bool(share.low > control.high)
            ),
            Condition(
                f"the median of the others, {others:.3f}, is at most {rules.FIRST_PLATEAU:g}",
                others <= rules.FIRST_PLATEAU,
            ),
        )
        if all(c.holds for c in conditions):
            break
    status = "supported" if all(c.holds for c in conditions) else "not supported"
    numbers = {"total": total, "leading share": share, "leading share, untrained": control}
    name = f"Kernel drift at correlation length {xi:g}"
    return _decide(name, [gate(ds, xi, step)], status, conditions, numbers, seeds)


def by_definition(finding, ds):
    """One verdict for each definition of rank: view x centring x spectrum x starting depth 0 or 1.

    Args:
        finding: `rank_collapse` or `selectivity`.

    Returns:
        {(view, centring, spectrum, start): Verdict}; the primary definition comes first.
    """
    checks.choice("finding", finding, (rank_collapse, selectivity))
    ds = one_chain(ds, **RANK)
    definitions = [
        (view, centring, spectrum, start)
        for view in ds.view.values
        for centring in ds.centring.values
        for spectrum in ds.spectrum.values
        for start in (0, 1)
    ]
    return {tuple(map(str, d[:3])) + d[3:]: finding(ds, *d) for d in definitions}


def tally(verdicts):
    """How many verdicts of `by_definition` have each status, in words, the most frequent first; in brackets where the gate failed."""
    checks.mapping("verdicts", verdicts, Verdict)
    counts = Counter(f"[{v.ungated}]" if v.ungated else v.status for v in verdicts.values())
    return ", ".join(f"{status} {n}" for status, n in counts.most_common())


def by_step(finding, ds, **definition):
    """One verdict for each training step that was measured: {step: Verdict}."""
    checks.choice("finding", finding, (rank_collapse, selectivity, kernel_drift))
    ds = one_chain(ds, **GATE)
    return {int(step): finding(ds, step=int(step), **definition) for step in ds.step.values if step > 0}
