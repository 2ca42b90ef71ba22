"""The paper's three claims judged by the rules of the second round, and related questions.

Results are those of one chain family as `Experiment.run` returns them, measured ones or those of `anatomy`;
or of your own networks, see `rgnb.verdicts.measures.from_observed`, for claims 1 to 3.
Missing values are not judged, they raise. See `rgnb.verdicts.rules`.
"""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from rgnb import checks, metrics
from rgnb.verdicts import rules
from rgnb.verdicts.intervals import Condition, Interval, Numbers, Verdict, above, below
from rgnb.verdicts.measures import (
    DRIFT,
    GATE,
    NO_GATE,
    NOTHING,
    RANK,
    Definition,
    chosen,
    contrast,
    defined_drift,
    fall,
    lengths,
    one_chain,
    rank_profiles,
)

NOTHING_LEFT = "nothing left to judge"
TOO_FEW = "open, for want of networks"  # fewer than `rules.GROUP_SEEDS` answer nothing


@dataclass(frozen=True)
class Claim:
    """The answer to one claim: its headline, the verdict under each definition, and what decided it."""

    claim: str
    # supported | depends on the definition (n of m) | not supported | not trained; "..., gate not judged"
    # where results leave the gate to their reader
    headline: str
    gate: tuple  # of Condition, one per correlation length that is used; none where it was not judged
    verdicts: dict  # definition in words -> Verdict
    seeds: int  # networks of each kind
    otherwise: tuple = ()  # other headlines that leaving out one or two seeds gives; two stay at least

    @property
    def close(self) -> bool:
        """Whether leaving out some one or two seeds changes the headline."""
        return bool(self.otherwise)

    def __str__(self) -> str:
        headline = f"{self.headline}{', close' * self.close}"
        return f"{TOO_FEW if self.seeds < rules.GROUP_SEEDS else headline} ({self.seeds} networks each)"

    def _repr_markdown_(self) -> str:
        lines = [f"**{self.claim}: {self}**", ""]
        lines += [c._repr_markdown_() for c in self.gate]
        for name, verdict in self.verdicts.items():
            lines.append(f"- {name}: **{verdict.status}**")
            lines += [f"  {c._repr_markdown_()}" for c in verdict.conditions]
        return "\n".join(lines)


def _gate(ds: xr.Dataset, xi: float, seeds: np.ndarray) -> Condition:
    # The gate at one correlation length, over chosen seeds (positions).
    here = chosen(ds, correlation_length=xi)
    excess = checks.complete("ds", here.excess_loss.isel(step=-1)).values[seeds]
    learnable = checks.complete("ds", here.marginal_entropy - here.reachable_loss).values.mean()
    if learnable <= NOTHING:
        needed, worst = f"at most {rules.GATE_NATS:g} nats", f"{excess.max():.4f} nats"
        text = f"the largest excess loss at correlation length {xi:g}, {worst}, is {needed}"
        return Condition(text, bool(excess.max() <= rules.GATE_NATS), (f"excess, ξ = {xi:g}", worst, needed))
    share = excess / learnable
    mean = Interval.of(share)
    found = (
        f"{100 * mean.mean:.1f} % [{100 * mean.low:.1f}, {100 * mean.high:.1f}], largest "
        f"{100 * share.max():.1f} %"
    )
    needed = f"below {100 * rules.GATE_MEAN:g} %, largest at most {100 * rules.GATE_WORST:g} %"
    text = f"excess at correlation length {xi:g}, {found} of what can be learned, is {needed}"
    worst_passes = bool(share.max() <= rules.GATE_WORST)
    holds = worst_passes and bool(mean.high < rules.GATE_MEAN)
    undecided = worst_passes and not holds and bool(mean.low < rules.GATE_MEAN)
    return Condition(text, holds, (f"excess, ξ = {xi:g}", found, needed), undecided)


def _rank_collapse(profile: np.ndarray) -> Verdict:
    numbers = fall(profile)
    conditions = [
        above("C", numbers["collapse"], rules.COLLAPSE),
        below("largest rise", numbers["largest rise"], rules.RISE),
    ]
    numbers["strictly falling"] = Interval.of((np.diff(profile) < 0).all(-1).astype(float))
    return Verdict.of("Rank collapse", conditions, numbers)


def _selectivity(short: np.ndarray, long: np.ndarray) -> Verdict:
    c = contrast(short, long)
    conditions = [
        above("C, short memory,", c["collapse, short"], rules.COLLAPSE),
        below("C, long memory,", c["collapse, long"], rules.NO_COLLAPSE),
        below("C, long memory, from the maximum,", c["collapse, long, from maximum"], rules.NO_COLLAPSE),
        above("C, short minus long,", c["difference"], rules.DIFFERENCE),
    ]
    return Verdict.of("Selectivity", conditions, c)


def noise_share(transitions: int) -> float:
    """The share that noise gives: that of the `rules.LEADING` largest of n independent exponential drifts.

    The k-th largest of n exponential spacings of 1 has mean `sum_{j=k..n} 1 / j / n`; for n = 6 the two
    largest hold 0.65.
    """
    transitions = checks.integer("transitions", transitions, 1, 10_000)
    ranks = range(1, min(rules.LEADING, transitions) + 1)
    return sum(sum(1 / j for j in range(k, transitions + 1)) / transitions for k in ranks)


def _kernel_drift(trained: np.ndarray, untrained: np.ndarray, start: int) -> Verdict:
    # Of drifts (seed, transition), of which the first `start` do not count.
    trained, untrained = trained[:, start:], untrained[:, start:]
    total = Interval.of(np.clip(trained, 0, None).sum(-1))
    share, control = (metrics.concentration(d, rules.LEADING).numpy() for d in (trained, untrained))
    numbers = {"share": Interval.of(share), "gain": Interval.of(share - control), "total": total}
    conditions = [
        above("share of the two largest transitions", numbers["share"], rules.LEADING_SHARE),
        above("its gain over the untrained network", numbers["gain"], rules.SHARE_GAIN),
        above("total drift", total, rules.TOTAL_DRIFT),
    ]
    verdict = Verdict.of("Kernel drift", conditions, numbers)
    if start and total.mean < rules.TOTAL_DRIFT:
        return replace(verdict, status=NOTHING_LEFT, reason=f"Decided by: total drift {total}.")
    return verdict


def _headline(gates: Iterable[Condition], verdicts: Iterable[Verdict]) -> str:
    if not all(g.holds for g in gates):
        return "not trained"
    counted = [v.status == "supported" for v in verdicts if v.status != NOTHING_LEFT]
    if not any(counted):
        return "not supported"
    return "supported" if all(counted) else f"depends on the definition ({sum(counted)} of {len(counted)})"


def _gate_left(ds: xr.Dataset) -> bool:
    return isinstance(ds, xr.Dataset) and ds.attrs.get("gate") == NO_GATE


def _read(ds: xr.Dataset, variables: dict[str, str]) -> xr.Dataset:
    # Results of one chain with what a claim reads, but for the gate's where it is left to the reader.
    unread = GATE if _gate_left(ds) else {}
    return one_chain(ds, **{name: dims for name, dims in variables.items() if name not in unread})


def _answer(claim: str, ds: xr.Dataset, xis: Iterable[float], forms: dict[str, Callable]) -> Claim:
    # forms: {definition: function of seeds (positions) -> Verdict}
    left = _gate_left(ds)

    def judged(seeds):
        gates = tuple(_gate(ds, xi, seeds) for xi in xis if not left)
        verdicts = {name: form(seeds) for name, form in forms.items()}
        return _headline(gates, verdicts.values()) + ", gate not judged" * left, gates, verdicts

    n = ds.sizes["seed"]
    headline, gates, verdicts = judged(np.arange(n))
    left_out = itertools.chain(*(itertools.combinations(range(n), k) for k in (1, 2) if n - k > 1))
    others = {judged(np.delete(np.arange(n), out))[0] for out in left_out} - {headline}
    return Claim(claim, headline, gates, verdicts, n, tuple(sorted(others)))


def _by_definition(claim: str, ds: xr.Dataset, xis: Iterable[float], judge: Callable) -> Claim:
    # A claim about rank: `judge` takes profiles (seed, depth), one per correlation length.
    forms = {}
    for centring, start in itertools.product(("centred", "uncentred"), (0, 1)):
        definition = Definition(centring=centring, start=start)
        profiles = [rank_profiles(ds, xi, definition) for xi in xis]
        name = f"{centring}, from depth {start}"
        forms[name] = lambda seeds, profiles=profiles: judge(*(p[seeds] for p in profiles))
    return _answer(claim, ds, xis, forms)


def judge_rank_collapse(ds: xr.Dataset) -> Claim:
    """Claim 1, at the shortest correlation length, under the four definitions.

    Its verdicts hold the statistics "collapse", "largest rise" and "strictly falling" (the share of seeds).
    """
    ds = _read(ds, RANK)
    return _by_definition("Rank collapses with depth", ds, lengths(ds)[:1], _rank_collapse)


def judge_selectivity(ds: xr.Dataset) -> Claim:
    """Claim 2, paired by seed, under the four definitions. ValueError for a single correlation length."""
    ds = _read(ds, RANK)
    ends = lengths(ds, several=True)[[0, -1]]
    return _by_definition("The collapse is selective", ds, ends, _selectivity)


def judge_kernel_drift(ds: xr.Dataset, correlation_length: float) -> Claim:
    """Claim 3 at one correlation length, with and without the first transition.

    Its verdicts hold the statistics "share", "gain" and "total". Needs one transition more than lead without
    the first, since those that lead would hold all drift: five depths.
    """
    ds = _read(ds, DRIFT)
    xi = checks.choice("correlation_length", correlation_length, lengths(ds).tolist())
    if "init" not in ds.state.values:
        raise checks.BadValue("ds lacks the untrained networks (state 'init'), beside which drift is judged")
    if (n := ds.sizes["transition"]) < rules.LEADING + 2:
        least = f"{rules.LEADING + 3} depths or more"
        raise checks.BadValue(
            f"ds holds {n + 1} depths, drift is judged from {least}: the {rules.LEADING} largest of {n - 1} "
            "transitions, without the first, would hold too much of it"
        )
    trained, untrained = (
        defined_drift(ds, view="position", correlation_length=xi, state=s).values for s in ("trained", "init")
    )
    names = {0: "all transitions", 1: "without the first"}
    forms = {
        name: lambda seeds, start=start: _kernel_drift(trained[seeds], untrained[seeds], start)
        for start, name in names.items()
    }
    return _answer(f"Drift sits in one or two transitions at correlation length {xi:g}", ds, [xi], forms)


def supporting(claim: Claim) -> int:
    """How many definitions support a claim, whatever its gate."""
    return sum(v.status == "supported" for v in checks.instance("claim", claim, Claim).verdicts.values())


def decides(base: Claim, varied: Claim) -> bool:
    """Whether a choice decides a claim: varied alone, it changes what half of the definitions or more say.

    Not if either answer is close, "not trained", or of fewer than `rules.GROUP_SEEDS` networks.
    """
    changed = abs(supporting(varied) - supporting(base))
    plain = not any(c.close or c.headline == "not trained" for c in (base, varied))
    enough = min(base.seeds, varied.seeds) >= rules.GROUP_SEEDS
    return plain and enough and 2 * changed >= len(base.verdicts)


def coupling_sign(dissected: xr.Dataset) -> xr.DataArray:
    """The marker of a network's group: the sign of the first block's coupling between neighbours, +1 or -1.

    Args:
        dissected: results of `anatomy` with any leading dims; the last training step counts.
    """
    checks.results("dissected", dissected, coupling="step block offset")
    last = dissected.coupling.isel(step=-1)
    both = [checks.complete("dissected", chosen(last, block=1, offset=k)) for k in (-1, 1)]
    return np.sign(sum(x.reset_coords(drop=True) for x in both))


def judge_marker(ranks: Numbers, signs: Numbers) -> Verdict:
    """Whether the sign of the coupling tells two groups of networks apart in one cell, by rank at depth 1.

    Args:
        ranks: (seeds,) effective rank at depth 1, position view, centred, singular values.
        signs: (seeds,) +1 or -1, see `coupling_sign`.

    Returns:
        Verdict; its status is `NOTHING_LEFT` where all signs are the same.
    """
    ranks, signs = checks.paired(checks.known, ranks=ranks, signs=signs)
    if not np.isin(signs, (1, -1)).all():
        raise checks.BadValue(f"signs must be +1 or -1, got {signs[:20]}")
    plus, minus = (np.sort(ranks[signs == sign]) for sign in (1, -1))
    name = "The sign of the coupling tells the groups apart"
    if not len(plus) or not len(minus):
        return Verdict(name, NOTHING_LEFT, "Decided by: all signs are the same.", (), {}, networks=len(ranks))
    ends = [f"{r[0]:.1f} to {r[-1]:.1f} ({len(r)})" for r in (plus, minus)]
    apart = bool(plus[-1] < minus[0] or minus[-1] < plus[0])
    condition = Condition(f"ranks at depth 1, + {ends[0]} and - {ends[1]}, do not overlap", apart)
    return Verdict.of(name, [condition], {}, networks=len(ranks))


def chance_of_marker(ranks: Numbers, signs: Numbers, draws: int = 20_000) -> float:
    """The probability that `judge_marker` confirms all cells when networks are dealt each other's signs.

    A seed gives the same initial weights in every cell, so that cells are not independent of each other:
    seeds keep their signs together and change places with those that occur in the same cells. From random
    permutations, always the same ones; the observed one counts among them.

    Args:
        ranks, signs: (cells, seeds) as in `judge_marker`, NaN where a cell lacks the seed.
        draws: how many permutations.
    """
    ranks, signs = checks.paired(checks.array, ranks=ranks, signs=signs)
    if ranks.ndim != 2 or ranks.shape != signs.shape or not ranks.size:
        raise checks.BadValue(f"ranks and signs must be (cells, seeds), got {ranks.shape} and {signs.shape}")
    if (np.isnan(ranks) != np.isnan(signs)).any() or not np.isin(signs[~np.isnan(signs)], (1, -1)).all():
        raise checks.BadValue("signs must be +1 or -1 wherever ranks are given, and NaN elsewhere")
    draws = checks.integer("draws", draws, 1, 10**6)
    kind = np.unique(~np.isnan(ranks), axis=1, return_inverse=True)[1].ravel()
    order = np.argsort(kind, kind="stable")
    dealt = np.empty((draws, len(kind)), dtype=int)
    dealt[:, order] = np.argsort(kind + np.random.default_rng(0).random(dealt.shape), axis=1)
    confirmed = np.ones(draws, dtype=bool)
    for rank, sign in zip(ranks, signs, strict=True):
        given = sign[dealt]
        (least, most), (low, high) = (
            (np.where(given == s, rank, np.inf).min(1), np.where(given == s, rank, -np.inf).max(1))
            for s in (1, -1)
        )
        confirmed &= (most < low) | (high < least)
    return float((1 + confirmed.sum()) / (1 + draws))


def by_group(
    judge: Callable[..., Claim], ds: xr.Dataset, signs: xr.DataArray, *arguments: float
) -> dict[int, Claim]:
    """One claim per sign of the coupling that has at least `rules.GROUP_SEEDS` seeds: {+1 or -1: Claim}.

    Args:
        judge: one of `judge_...`.
        ds, arguments: what it takes.
        signs: (correlation_length, seed), from `coupling_sign`. A claim about two correlation lengths takes
            the seeds that have the same sign at both.
    """
    checks.instance("signs", signs, xr.DataArray)
    found = {}
    for sign in (1, -1):
        seeds = signs.seed.values[(signs == sign).all("correlation_length").values]
        if len(seeds) >= rules.GROUP_SEEDS:
            found[sign] = judge(ds.sel(seed=seeds), *arguments)
    return found


def rank_at_excess(ranks: Numbers, shares: Numbers, target: float) -> float:
    """Rank at the point of training with a given excess share, linear in its logarithm between snapshots.

    Args:
        ranks, shares: (steps,) ranks and excess shares at the snapshots.
        target: the share asked for.

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


def slopes(outcome: Numbers, **covariates: Numbers) -> dict[str, np.ndarray]:
    """Least-squares slopes of an outcome on covariates and 1, within each seed.

    Args:
        outcome: (recipes, seeds).
        covariates: by name, each (recipes,) or (recipes, seeds).

    Returns:
        {name: (seeds,) slopes}.

    Raises:
        ValueError: missing values, no more recipes than unknowns, or covariates that do not vary apart.
    """
    outcome = checks.matrix("outcome", outcome).numpy()
    n, seeds = outcome.shape
    columns = []
    for name, values in covariates.items():
        column = checks.array(name, values)
        if column.shape not in ((n,), outcome.shape):
            raise checks.BadValue(
                f"{name} must be ({n},) or {outcome.shape} like outcome, got {column.shape}"
            )
        column = np.broadcast_to(column.reshape(n, -1), outcome.shape)
        columns.append(checks.matrix(name, column).numpy())
    if n <= len(columns) + 1:
        raise checks.BadValue(f"{n} recipes cannot give {len(columns) + 1} unknowns; pass more")
    design = np.stack([np.ones_like(outcome), *columns], -1)
    sizes = np.abs(design).max(0, keepdims=True)
    if (np.linalg.matrix_rank((design / np.where(sizes, sizes, 1)).swapaxes(0, 1)) < design.shape[-1]).any():
        raise checks.BadValue(f"{' and '.join(covariates)} must each vary, apart from the others")
    found = np.array([np.linalg.lstsq(design[:, s], outcome[:, s], rcond=None)[0] for s in range(seeds)])
    return {name: found[:, k + 1] for k, name in enumerate(covariates)}


def effect(values: xr.DataArray, axis: str) -> Interval:
    """What the largest value of an axis gives minus what the smallest gives, paired by seed.

    Args:
        values: with dims `seed` and axes of a grid of recipes; averaged over the other axes.
        axis: one of them.
    """
    checks.choice(
        "axis", axis, [d for d in checks.instance("values", values, xr.DataArray).dims if d != "seed"]
    )
    values = checks.complete("values", values.sortby(axis))
    ends = values.isel({axis: -1}, drop=True) - values.isel({axis: 0}, drop=True)
    return Interval.of(ends.mean([d for d in ends.dims if d != "seed"]).values)


def judge_rate(collapses: Numbers, rates: Numbers, shares: Numbers) -> Verdict:
    """Whether C grows with the learning rate at equal excess, at paper size: "slope of ln rate".

    Args:
        collapses, shares: (recipes, seeds) C and excess shares.
        rates: (recipes,) learning rates.
    """
    rates = checks.positives("rates", rates)
    slope = Interval.of(slopes(collapses, rate=np.log(rates), excess=shares)["rate"])
    condition = above("slope of C against ln rate", slope, 0)
    return Verdict.of("C grows with the learning rate", [condition], {"slope of ln rate": slope})


def judge_small_size(
    collapses: Numbers, rates: Numbers, batches: Numbers, decays: Numbers, shares: Numbers
) -> dict[str, Verdict]:
    """Whether C grows with rate and weight decay and falls with batch size, at equal excess: {name: Verdict}.

    Args:
        collapses, shares: (recipes, seeds).
        rates, batches, decays: (recipes,).
    """
    rate, batch = (np.log(checks.positives(name, v)) for name, v in (("rates", rates), ("batches", batches)))
    found = slopes(collapses, rate=rate, batch=batch, decay=decays, excess=shares)
    confidence = 1 - (1 - rules.CONFIDENCE) / rules.COMPARISONS
    verdicts = {}
    for name, side, covariate, words in (
        ("rate", above, "ln rate", "C grows with the learning rate"),
        ("batch", below, "ln batch", "C falls with the batch size"),
        ("decay", above, "decay", "C grows with weight decay"),
    ):
        slope = Interval.of(found[name], confidence)
        condition = side(f"slope of C against {covariate}", slope, 0)
        verdicts[name] = Verdict.of(words, [condition], {f"slope of {covariate}": slope})
    return verdicts


def judge_gradient_noise(small: Numbers, large: Numbers, exact: Numbers) -> Verdict:
    """Whether collapse without mixing is mostly gradient noise.

    Args:
        small, large, exact: (seeds,) C at batch 32, at batch 512 and under the exact gradient, of the same
            seeds.
    """
    small, large, exact = checks.paired(checks.known, small=small, large=large, exact=exact)
    steps = {"C(32) - C(512)": Interval.of(small - large), "C(512) - C(exact)": Interval.of(large - exact)}
    conditions = [above(name, interval, 0) for name, interval in steps.items()]
    half = f"mean C(exact) {exact.mean():.2f} is less than half of mean C(32) {small.mean():.2f}"
    conditions.append(Condition(half, bool(exact.mean() < small.mean() / 2)))
    return Verdict.of("Without mixing, collapse is mostly gradient noise", conditions, steps)
