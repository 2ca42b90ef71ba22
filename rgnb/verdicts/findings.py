"""The paper's three claims judged by the rules of the second round, and what is asked around them; see `rgnb.verdicts.rules`.

Every function takes results of one chain family as `Experiment.run` returns them, measured ones or those of
`anatomy`. Nothing is judged on missing values: they raise.
"""

import itertools
from dataclasses import dataclass, replace

import numpy as np

from rgnb import checks
from rgnb.verdicts import rules
from rgnb.verdicts.intervals import Condition, Interval, Verdict, above, below
from rgnb.verdicts.measures import (
    DRIFT,
    GATE,
    RANK,
    chosen,
    collapse,
    collapse_from_maximum,
    largest_rise,
    one_chain,
)

DEFINITIONS = tuple((centring, start) for centring in ("centred", "uncentred") for start in (0, 1))
NOTHING_LEFT = "nothing left to judge"


@dataclass(frozen=True)
class Claim:
    """The answer to one claim: its headline, the verdict under each definition, and what it was taken from."""

    claim: str
    headline: str  # supported | depends on the definition (n of m) | not supported | not trained
    gate: tuple  # of Condition, one for each correlation length that is used
    verdicts: dict  # definition in words -> Verdict
    seeds: int  # networks of each kind
    close: bool  # leaving out some one or two seeds changes the headline

    def __str__(self):
        return f"{self.headline}{', close' * self.close} ({self.seeds} networks each)"

    def _repr_markdown_(self):
        lines = [f"**{self.claim}: {self}**", ""]
        lines += [f"- {'yes' if c.holds else '**no**'}: {c.text}" for c in self.gate]
        for name, verdict in self.verdicts.items():
            lines.append(f"- {name}: **{verdict.status}**")
            lines += [f"  - {'yes' if c.holds else '**no**'}: {c.text}" for c in verdict.conditions]
        return "\n".join(lines)


def definition_name(centring, start):
    """A definition of rank in words."""
    return f"{centring}, from depth {start}"


def excess_share(ds):
    """Excess loss at the end of training as a share of what can be learned: DataArray (correlation_length, seed)."""
    ds = one_chain(ds, **GATE)
    return ds.excess_loss.isel(step=-1) / (ds.marginal_entropy - ds.reachable_loss)


def _gate(ds, xi, seeds):
    # The gate at one correlation length, over chosen seeds (positions).
    here = chosen(ds, correlation_length=xi)
    excess = checks.complete("ds", here.excess_loss.isel(step=-1)).values[seeds]
    learnable = checks.complete("ds", here.marginal_entropy - here.reachable_loss).values
    if learnable.mean() <= 1e-9:
        text = f"no excess loss at correlation length {xi:g} lies above {rules.GATE_NATS:g} nats; the largest is {excess.max():.4f}"
        return Condition(text, excess.max() <= rules.GATE_NATS)
    share = excess / learnable.mean()
    mean = Interval.of(share)
    text = (
        f"excess at correlation length {xi:g} is {100 * mean.mean:.1f} % [{100 * mean.low:.1f}, {100 * mean.high:.1f}] of what can be learned, "
        f"below {100 * rules.GATE_MEAN:g} %, and at most {100 * share.max():.1f} %, below {100 * rules.GATE_WORST:g} %"
    )
    return Condition(text, bool(mean.high < rules.GATE_MEAN and share.max() <= rules.GATE_WORST))


def _profiles(ds, centring, start, xi, seeds):
    # (seed, depth) ranks of the primary view by singular values.
    labels = {
        "state": "trained",
        "view": "position",
        "centring": centring,
        "spectrum": "singular",
        "correlation_length": xi,
    }
    ranks = checks.complete("ds", chosen(ds.effective_rank, **labels)).transpose("seed", "depth").values
    return ranks[seeds, start:]


def _verdict(finding, conditions, statistics):
    status = "supported" if all(c.holds for c in conditions) else "not supported"
    failed = [c for c in conditions if not c.holds]
    reason = "Decided by: " + "; ".join(map(str, failed or conditions)) + "."
    return Verdict(finding, status, reason, tuple(conditions), statistics)


def _rank_collapse(ds, seeds, centring, start):
    profile = _profiles(ds, centring, start, _lengths(ds)[0], seeds)
    c, rise = Interval.of(collapse(profile)), Interval.of(largest_rise(profile))
    conditions = [above("C", c, rules.COLLAPSE), below("largest rise", rise, rules.RISE)]
    falling = Interval.of((np.diff(profile) < 0).all(-1).astype(float))
    return _verdict(
        "Rank collapse", conditions, {"collapse": c, "largest rise": rise, "strictly falling": falling}
    )


def _selectivity(ds, seeds, centring, start):
    short, long = (_profiles(ds, centring, start, xi, seeds) for xi in (_lengths(ds)[0], _lengths(ds)[-1]))
    c = {
        "collapse, short": Interval.of(collapse(short)),
        "collapse, long": Interval.of(collapse(long)),
        "collapse, long, from maximum": Interval.of(collapse_from_maximum(long)),
        "difference": Interval.of(collapse(short) - collapse(long)),
    }
    conditions = [
        above("C at the shortest correlation length,", c["collapse, short"], rules.COLLAPSE),
        below("C at the longest,", c["collapse, long"], rules.NO_COLLAPSE),
        below("C at the longest, from the maximum,", c["collapse, long, from maximum"], rules.NO_COLLAPSE),
        above("their difference", c["difference"], rules.DIFFERENCE),
    ]
    return _verdict("Selectivity", conditions, c)


def leading_share(drift):
    """Share of the drift that the `rules.LEADING` largest transitions of each row hold: (..., transitions) -> (...). Negative drift counts as 0."""
    drift = np.clip(drift, 0, None)
    return np.sort(drift, -1)[..., -rules.LEADING :].sum(-1) / drift.sum(-1)


def noise_share(transitions):
    """The share that noise gives: the expected share of the `rules.LEADING` largest of n independent exponential drifts.

    The k-th largest of n exponential spacings of 1 has mean `sum_{j=k..n} 1 / j / n`; for n = 6 the two largest hold 0.65.
    """
    ranks = range(1, min(rules.LEADING, transitions) + 1)
    return sum(sum(1 / j for j in range(k, transitions + 1)) / transitions for k in ranks)


def _kernel_drift(ds, seeds, xi, start):
    drifts = chosen(ds.kernel_drift, view="position", correlation_length=xi).transpose(
        "state", "seed", "transition"
    )
    checks.complete("ds", drifts)
    trained, untrained = (chosen(drifts, state=s).values[seeds, start:] for s in ("trained", "init"))
    total = Interval.of(np.clip(trained, 0, None).sum(-1))
    share, control = leading_share(trained), leading_share(untrained)
    numbers = {"share": Interval.of(share), "gain": Interval.of(share - control), "total": total}
    conditions = [
        above("share of the two largest transitions", numbers["share"], rules.LEADING_SHARE),
        above("its gain over the untrained network", numbers["gain"], rules.SHARE_GAIN),
        above("total drift", total, rules.TOTAL_DRIFT),
    ]
    verdict = _verdict("Kernel drift", conditions, numbers)
    if start and total.mean < rules.TOTAL_DRIFT:
        return replace(verdict, status=NOTHING_LEFT, reason=f"Decided by: total drift {total}.")
    return verdict


def _lengths(ds):
    return np.sort(ds.correlation_length.values)


def _headline(gates, verdicts):
    if not all(g.holds for g in gates):
        return "not trained"
    counted = [v.status == "supported" for v in verdicts if v.status != NOTHING_LEFT]
    held = sum(counted)
    return (
        "supported"
        if held == len(counted) > 0
        else f"depends on the definition ({held} of {len(counted)})"
        if held
        else "not supported"
    )


def _answer(claim, ds, lengths, forms):
    # forms: {definition: function of (ds, seeds) -> Verdict}
    def judged(seeds):
        gates = tuple(_gate(ds, xi, seeds) for xi in lengths)
        verdicts = {name: form(ds, seeds) for name, form in forms.items()}
        return _headline(gates, verdicts.values()), gates, verdicts

    n = ds.sizes["seed"]
    headline, gates, verdicts = judged(np.arange(n))
    left_out = itertools.chain(*(itertools.combinations(range(n), k) for k in (1, 2)))
    subsets = (np.delete(np.arange(n), out) for out in left_out)
    close = any(judged(seeds)[0] != headline for seeds in subsets if len(seeds) > 1)
    return Claim(claim, headline, gates, verdicts, n, close)


def judge_rank_collapse(ds):
    """Claim 1, at the shortest correlation length, under the four definitions: a `Claim`.

    Its verdicts hold the statistics "collapse", "largest rise" and "strictly falling" (the share of seeds).
    """
    ds = one_chain(ds, **RANK)
    forms = {
        definition_name(c, s): lambda ds, seeds, c=c, s=s: _rank_collapse(ds, seeds, c, s)
        for c, s in DEFINITIONS
    }
    return _answer("Rank collapses with depth", ds, _lengths(ds)[:1], forms)


def judge_selectivity(ds):
    """Claim 2, paired by seed, under the four definitions: a `Claim`. ValueError unless there are two correlation lengths."""
    ds = one_chain(ds, **RANK)
    lengths = _lengths(ds)
    if len(lengths) < 2:
        raise checks.BadValue(
            f"selectivity needs two correlation lengths, the results hold {lengths.tolist()}"
        )
    forms = {
        definition_name(c, s): lambda ds, seeds, c=c, s=s: _selectivity(ds, seeds, c, s)
        for c, s in DEFINITIONS
    }
    return _answer("The collapse is selective", ds, lengths[[0, -1]], forms)


def judge_kernel_drift(ds, correlation_length):
    """Claim 3 at one correlation length, with and without the first transition: a `Claim` with statistics "share", "gain", "total"."""
    ds = one_chain(ds, **DRIFT)
    xi = checks.choice("correlation_length", correlation_length, _lengths(ds).tolist())
    names = {0: "all transitions", 1: "without the first"}
    forms = {name: lambda ds, seeds, s=s: _kernel_drift(ds, seeds, xi, s) for s, name in names.items()}
    return _answer(f"Drift sits in one or two transitions at correlation length {xi:g}", ds, [xi], forms)


def coupling_sign(dissected):
    """The marker of a network's group: the sign of the first block's coupling between neighbours, +1 or -1.

    Args:
        dissected: results of `anatomy`, whatever their leading dims.

    Returns:
        DataArray of the last training step.
    """
    last = chosen(dissected.coupling.isel(step=-1), block=1)
    return np.sign(checks.complete("dissected", last.sel(offset=[-1, 1])).mean("offset"))


def by_group(judge, ds, signs, *arguments):
    """A claim for each sign of the coupling that has at least `rules.GROUP_SEEDS` seeds: {+1 or -1: Claim}.

    Args:
        judge: one of `judge_...`; ds: its results; signs: (correlation_length, seed), as `coupling_sign` gives them. A claim over
            two correlation lengths takes the seeds whose sign is the same at both.
    """
    found = {}
    for sign in (1, -1):
        seeds = signs.seed.values[(signs == sign).all("correlation_length").values]
        if len(seeds) >= rules.GROUP_SEEDS:
            found[sign] = judge(ds.sel(seed=seeds), *arguments)
    return found


def rank_at_excess(ranks, shares, target):
    """Rank where training had come to an excess share, between the snapshots that enclose it, linear in its logarithm.

    Args:
        ranks: (steps,) at the snapshots; shares: (steps,) excess shares there; target: the share asked for.

    Returns:
        float, of the last pair of snapshots that encloses the target; NaN where none does.
    """
    ranks, shares = checks.paired(checks.vector, ranks=ranks, shares=shares)
    level = np.log(np.clip(shares, 1e-12, None)) - np.log(checks.positive("target", target))
    crossed = np.flatnonzero((level[:-1] >= 0) & (level[1:] <= 0) & (level[:-1] > level[1:]))
    if not len(crossed):
        return float("nan")
    k = crossed[-1]
    return float(ranks[k] + (ranks[k + 1] - ranks[k]) * level[k] / (level[k] - level[k + 1]))


def slopes(outcome, **covariates):
    """Least-squares slopes of an outcome on covariates and 1, within each seed.

    Args:
        outcome: (recipes, seeds); covariates: by name, each (recipes,) or (recipes, seeds).

    Returns:
        {name: (seeds,) slopes}.

    Raises:
        ValueError: missing values, or fewer recipes than unknowns.
    """
    outcome = checks.matrix("outcome", outcome).numpy()
    n, seeds = outcome.shape
    columns = {k: np.asarray(v, dtype=float).reshape(n, -1) for k, v in covariates.items()}
    columns = [checks.matrix(name, np.broadcast_to(v, outcome.shape)).numpy() for name, v in columns.items()]
    if n <= len(columns) + 1:
        raise checks.BadValue(f"{n} recipes cannot give {len(columns) + 1} unknowns; pass more")
    design = np.stack([np.ones_like(outcome), *columns], -1)
    found = np.array([np.linalg.lstsq(design[:, s], outcome[:, s], rcond=None)[0] for s in range(seeds)])
    return {name: found[:, k + 1] for k, name in enumerate(covariates)}


def judge_rate(collapses, rates, shares):
    """Whether C grows with the learning rate at equal excess, at paper size: a `Verdict` with the statistic "slope of ln rate".

    Args:
        collapses: (recipes, seeds) C; rates: (recipes,) learning rates; shares: (recipes, seeds) excess shares.
    """
    slope = Interval.of(slopes(collapses, rate=np.log(rates), excess=shares)["rate"])
    return _verdict(
        "C grows with the learning rate",
        [above("slope of C against ln rate", slope, 0)],
        {"slope of ln rate": slope},
    )


def judge_small_size(collapses, rates, batches, decays, shares):
    """Whether C grows with rate and weight decay and falls with batch size, at equal excess: {name: Verdict}.

    Args:
        collapses, shares: (recipes, seeds); rates, batches, decays: (recipes,).
    """
    found = slopes(collapses, rate=np.log(rates), batch=np.log(batches), decay=decays, excess=shares)
    confidence = 1 - (1 - rules.CONFIDENCE) / rules.COMPARISONS
    verdicts = {}
    for name, condition, words in (
        ("rate", above, "C grows with the learning rate"),
        ("batch", below, "C falls with the batch size"),
        ("decay", above, "C grows with weight decay"),
    ):
        slope = Interval.of(found[name], confidence)
        against = name if name == "decay" else f"ln {name}"
        verdicts[name] = _verdict(
            words, [condition(f"slope of C against {against}", slope, 0)], {f"slope of {against}": slope}
        )
    return verdicts


def judge_gradient_noise(small, large, exact):
    """Whether collapse without mixing is mostly gradient noise: a `Verdict`.

    Args:
        small, large, exact: (seeds,) C at batch 32, at batch 512 and under the exact gradient, the same seeds in each.
    """
    small, large, exact = checks.paired(checks.vector, small=small, large=large, exact=exact)
    steps = {"C(32) - C(512)": Interval.of(small - large), "C(512) - C(exact)": Interval.of(large - exact)}
    conditions = [above(name, interval, 0) for name, interval in steps.items()]
    half = f"mean C(exact) {exact.mean():.2f} is less than half of mean C(32) {small.mean():.2f}"
    conditions.append(Condition(half, bool(exact.mean() < small.mean() / 2)))
    return _verdict("Without mixing, collapse is mostly gradient noise", conditions, steps)
