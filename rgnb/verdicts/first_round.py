"""The three findings by the first round's rules: statistics on per-seed values, 95 % t intervals over seeds.

The rules are those of the paragraph "The first round's rules" of `rgnb.verdicts.rules`. They also had the
status "partly supported": rank collapse if the condition on C alone holds, selectivity if the interval of the
difference lies above 0.

Each function takes results as `Experiment.run` returns them (one chain family; choose among several with
`.sel(chain=...)`) and returns a `Verdict`. Nothing is judged on missing values: a ValueError names the first.
"""

import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from rgnb import checks, metrics
from rgnb.verdicts import measures, rules
from rgnb.verdicts.intervals import Condition, Interval, Verdict, above, below
from rgnb.verdicts.measures import (
    DRIFT,
    GATE,
    PRIMARY,
    RANK,
    STEP_DRIFT,
    STEP_RANK,
    Definition,
    chosen,
    one_chain,
    rank_profiles,
)


def gate_limit(ds: xr.Dataset, correlation_length: float) -> float:
    """Largest excess loss (nats) of a network that counts as trained.

    `rules.FIRST_GATE` of what can be learned, or `rules.GATE_NATS` where nothing can.
    """
    ds = one_chain(ds, **GATE)
    entropy, reachable = (
        checks.complete("ds", chosen(losses, correlation_length=correlation_length)).values
        for losses in (ds.marginal_entropy, ds.reachable_loss)
    )
    return float(limits((entropy - reachable).mean()))


def limits(learnable: Any) -> Any:
    """The same of what can be learned itself, in nats: a number or an array."""
    return np.where(learnable > measures.NOTHING, rules.FIRST_GATE * learnable, rules.GATE_NATS)


def gate(ds: xr.Dataset, correlation_length: float, step: int | None = None) -> Condition:
    """Whether every seed at this correlation length is trained; `step` as in `judge_rank_collapse`."""
    limit = gate_limit(ds, correlation_length)
    excess = chosen(one_chain(ds, **GATE).excess_loss, correlation_length=correlation_length)
    excess = excess.isel(step=-1) if step is None else chosen(excess, step=step)
    worst = float(checks.complete("ds", excess).max())
    where = f"largest excess loss at correlation length {correlation_length:g}"
    return Condition(f"{where}, {worst:.4f} nats, is at most {limit:.4f}", worst <= limit)


def judge_rank_collapse(ds: xr.Dataset, definition: Definition = PRIMARY, step: int | None = None) -> Verdict:
    """Finding 1: effective rank falls with depth, at the shortest correlation length.

    Args:
        ds: results of one chain family with variables effective_rank (step_rank where a step is given),
            excess_loss, marginal_entropy and reachable_loss.
        definition: of rank, such as `Definition(spectrum="eigen")`.
        step: training step; None is the end. Before the end only the position view, centred, was measured.

    Returns:
        Verdict with statistics "collapse" and "largest rise".
    """
    ds = one_chain(ds, **(RANK if step is None else STEP_RANK))
    xi = measures.lengths(ds)[0]
    profile = rank_profiles(ds, xi, definition, step)
    numbers = measures.fall(profile)
    conditions = (
        above(f"collapse C at correlation length {xi:g},", numbers["collapse"], rules.COLLAPSE),
        below("largest rise", numbers["largest rise"], rules.RISE),
    )
    gates = [gate(ds, xi, step)]
    return Verdict.of("Rank collapse", conditions, numbers, gates, len(profile), partly=conditions[0].holds)


def judge_selectivity(ds: xr.Dataset, definition: Definition = PRIMARY, step: int | None = None) -> Verdict:
    """Finding 2: rank collapses at the shortest correlation length and not at the longest, paired by seed.

    Arguments as in `judge_rank_collapse`; needs two correlation lengths.

    Returns:
        Verdict with statistics "collapse, short", "collapse, long", "collapse, long, from maximum" and
        "difference".
    """
    ds = one_chain(ds, **(RANK if step is None else STEP_RANK))
    short, long = ends = measures.lengths(ds, several=True)[[0, -1]]
    profiles = [rank_profiles(ds, xi, definition, step) for xi in ends]
    c = measures.contrast(*profiles)
    from_maximum = c["collapse, long, from maximum"]
    conditions = (
        above(f"collapse C at correlation length {short:g},", c["collapse, short"], rules.COLLAPSE),
        below(f"collapse C at correlation length {long:g},", c["collapse, long"], rules.NO_COLLAPSE),
        below(f"the same from the profile's maximum, {long:g},", from_maximum, rules.NO_COLLAPSE),
        above("difference of C, short minus long,", c["difference"], rules.DIFFERENCE),
    )
    gates, networks = [gate(ds, xi, step) for xi in ends], sum(map(len, profiles))
    return Verdict.of("Selectivity", conditions, c, gates, networks, partly=bool(c["difference"].low > 0))


def judge_kernel_drift(
    ds: xr.Dataset,
    view: str = "position",
    correlation_length: float | None = None,
    start: int = 0,
    step: int | None = None,
) -> Verdict:
    """Finding 3: kernel drift sits in one or two transitions, the rest is a plateau.

    Args:
        ds: results of one chain family with variables kernel_drift (step_drift where a step is given),
            excess_loss, marginal_entropy and reachable_loss; and the ranks that say where drift is not
            defined, see `measures.defined_drift`.
        correlation_length: the one to judge; None is the shortest.
        start: first transition that counts; 1 leaves out the transition from the embedding.
        view: of the stream; step: as in `judge_rank_collapse`.

    Returns:
        Verdict with statistics "total", "leading share" and "leading share, untrained".
    """
    ds = one_chain(ds, **(DRIFT if step is None else STEP_DRIFT))
    lengths = measures.lengths(ds)
    if correlation_length is None:
        correlation_length = lengths[0]
    xi = checks.choice("correlation_length", correlation_length, lengths)
    if step is not None and view != "position":
        raise checks.BadValue(f"training steps were measured for the position view, got {view!r}")
    if checks.integer("start", start, 0) >= ds.sizes["transition"]:
        raise checks.BadValue(f"start must leave one transition of {ds.sizes['transition']}, got {start}")
    # Where nothing changes, debiased drift scatters around 0.
    after = {"view": view, "state": "trained"} if step is None else {"step": step}
    drift, untrained = (
        measures.defined_drift(ds, correlation_length=xi, **labels).values[:, start:].clip(min=0)
        for labels in (after, {"view": view, "state": "init"})
    )
    total = Interval.of(drift.sum(-1))
    for k in (1, 2):
        conditions, share, control = _leaders(drift, untrained, k, start, total)
        if all(c.holds for c in conditions):
            break
    numbers = {"total": total, "leading share": share, "leading share, untrained": control}
    name = f"Kernel drift at correlation length {xi:g}"
    return Verdict.of(name, conditions, numbers, [gate(ds, xi, step)], len(drift))


def _leaders(
    drift: np.ndarray, untrained: np.ndarray, k: int, start: int, total: Interval
) -> tuple[tuple[Condition, ...], Interval, Interval]:
    # What is asked of the k transitions that lead most often; their share, and that of the untrained leaders.
    seeds, transitions = drift.shape
    lead, count = Counter(tuple(sorted(map(int, np.argsort(-d)[:k]))) for d in drift).most_common(1)[0]
    with np.errstate(invalid="ignore"):
        share = Interval.of(drift[:, lead].sum(-1) / drift.sum(-1))
        control = Interval.of(metrics.concentration(untrained, k).numpy())
    others = float(np.median(np.delete(drift, lead, axis=1))) if transitions > k else 0.0
    least, plateau, agreement = rules.FIRST_TRANSITIONS, rules.FIRST_PLATEAU, rules.FIRST_AGREEMENT
    leads = " and ".join(f"{start + t} → {start + t + 1}" for t in lead) + (" lead" if k > 1 else " leads")
    conditions = (
        Condition(f"there are {transitions} transitions, at least {least}", transitions >= least),
        above("total drift", total, rules.TOTAL_DRIFT),
        Condition(
            f"{leads} in {count} of {seeds} seeds, at least {100 * agreement:g} % of them",
            count >= agreement * seeds,
        ),
        above("its share of the drift", share, rules.LEADING_SHARE),
        Condition(f"that share lies above the untrained network's {control}", bool(share.low > control.high)),
        Condition(f"the median of the others, {others:.3f}, is at most {plateau:g}", others <= plateau),
    )
    return conditions, share, control


def by_definition(judge: Callable[..., Verdict], ds: xr.Dataset) -> dict[Definition, Verdict]:
    """One verdict per definition of rank: view x centring x spectrum x starting depth 0 or 1.

    Args:
        judge: `judge_rank_collapse` or `judge_selectivity`.

    Returns:
        {Definition: Verdict}; the primary definition comes first.
    """
    checks.choice("judge", judge, (judge_rank_collapse, judge_selectivity))
    ds = one_chain(ds, **RANK)
    labels = (map(str, ds[label].values) for label in ("view", "centring", "spectrum"))
    definitions = itertools.starmap(Definition, itertools.product(*labels, (0, 1)))
    return {definition: judge(ds, definition) for definition in definitions}


def tally(verdicts: dict[Any, Verdict]) -> str:
    """How many verdicts have each status, the most frequent first; in brackets where the gate failed."""
    checks.mapping("verdicts", verdicts, Verdict)
    counts = Counter(f"[{v.ungated}]" if v.ungated else v.status for v in verdicts.values())
    return ", ".join(f"{status} {n}" for status, n in counts.most_common())


def by_step(judge: Callable[..., Verdict], ds: xr.Dataset) -> dict[int, Verdict]:
    """One verdict per measured training step: {step: Verdict}."""
    checks.choice("judge", judge, (judge_rank_collapse, judge_selectivity, judge_kernel_drift))
    ds = one_chain(ds, **GATE)
    return {int(step): judge(ds, step=int(step)) for step in ds.step.values if step > 0}
