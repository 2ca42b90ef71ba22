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
from dataclasses import dataclass

import numpy as np
from scipy import stats

from rgnb import checks, metrics

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """Mean over seeds with its t interval (95 % unless asked otherwise); unbounded for a single seed, which can decide nothing."""

    values: tuple
    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values, confidence=CONFIDENCE):
        """Of one number a seed, (seeds,); unbounded, too, where one of them is not finite."""
        values = checks.vector("values", values)
        mean = values.mean()
        if len(values) < 2 or not np.isfinite(values).all():
            return cls(tuple(values), mean, -np.inf, np.inf)
        half = stats.t.ppf((1 + checks.fraction("confidence", confidence)) / 2, len(values) - 1) * stats.sem(values)
        return cls(tuple(values), mean, mean - half, mean + half)

    def __str__(self):
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class Condition:
    """One rule of a verdict: what was asked, in words with its numbers, and whether it holds."""

    text: str
    holds: bool

    def __str__(self):
        return f"{self.text}: {'yes' if self.holds else 'no'}"


@dataclass(frozen=True)
class Verdict:
    """A finding's status, the conditions that decided it and the statistics behind them."""

    finding: str
    status: str  # supported | partly supported | not supported | not trained
    reason: str
    conditions: tuple  # of Condition, the gate's first
    statistics: dict  # name -> Interval
    ungated: str = ""  # where the gate failed: what the other conditions alone would give
    networks: int = 0  # how many trained networks it was taken over; 0: not counted

    @property
    def outcome(self):
        """The status in words, with what the other conditions would give where the gate failed."""
        return f"{self.status} (the other conditions alone: {self.ungated})" if self.ungated else self.status

    def __str__(self):
        return f"{self.finding}: {self.outcome}{self._counted()} ({self.reason})"

    def _counted(self):
        return f", {self.networks} network{'s' * (self.networks > 1)}" if self.networks else ""

    def _repr_markdown_(self):
        marks = "\n".join(f"- {'yes' if c.holds else '**no**'}: {c.text}" for c in self.conditions)
        return f"**{self.finding}: {self.outcome}**{self._counted()}\n\n{marks}"


# What the verdicts read of results, and the dims they choose from.
GATE = {"excess_loss": "correlation_length seed step", "marginal_entropy": "correlation_length", "reachable_loss": "correlation_length"}
RANK = {"effective_rank": "correlation_length seed state view centring spectrum depth", **GATE}
STEP_RANK = {"step_rank": "correlation_length seed step spectrum depth", **GATE}
DRIFT = {"kernel_drift": "correlation_length seed state view transition", **GATE}
STEP_DRIFT = {"step_drift": "correlation_length seed step transition", **DRIFT}


def one_chain(ds, **variables):
    """Results of one chain family without the dimension `chain`, checked for variables and their dims; ValueError where there are several."""
    checks.results("ds", ds, **variables)
    if "chain" in ds.dims:
        if ds.sizes["chain"] != 1:
            raise checks.BadValue(f"results hold the chains {ds.chain.values.tolist()}; choose one with ds.sel(chain=...)")
        ds = ds.isel(chain=0)
    return ds


def _profiles(ds, lengths, view, centring, spectrum, start, step):
    # Rank by depth, (correlation_length, seed, depth), at chosen correlation lengths.
    if step is None:
        ranks = chosen(ds.effective_rank, state="trained", view=view, centring=centring, spectrum=spectrum)
    elif (view, centring) == ("position", "centred"):
        ranks = chosen(ds.step_rank, step=step, spectrum=spectrum)
    else:
        raise checks.BadValue(f"training steps were measured for the position view, centred; got {view!r}, {centring!r}")
    depths = ds.sizes["depth"]
    if checks.integer("start", start, 0) > depths - 2:
        raise checks.BadValue(f"start must leave two depths of {depths}, got {start}")
    ranks = ranks.isel(depth=slice(start, None)).sel(correlation_length=lengths)
    return checks.complete("ds", ranks.transpose("correlation_length", "seed", "depth"))


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


def gate_limit(ds, correlation_length):
    """Largest excess loss (nats) with which a network counts as trained: 5 % of what it can learn, or 0.01."""
    ds = one_chain(ds, **GATE)
    losses = chosen(ds[["marginal_entropy", "reachable_loss"]], correlation_length=correlation_length)
    entropy, reachable = (checks.complete("ds", losses[name]) for name in losses)
    learnable = float((entropy - reachable).mean())
    return 0.05 * learnable if learnable > 1e-9 else 0.01


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


def above(name, interval, bound):
    """Whether an interval lies above a bound, as a `Condition`."""
    interval, bound = checks.instance("interval", interval, Interval), checks.number("bound", bound)
    return Condition(f"{name} {interval} lies above {bound:g}", bool(interval.low > bound))


def below(name, interval, bound):
    """Whether an interval lies below a bound, as a `Condition`."""
    interval, bound = checks.instance("interval", interval, Interval), checks.number("bound", bound)
    return Condition(f"{name} {interval} lies below {bound:g}", bool(interval.high < bound))


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
    conditions = (above(f"collapse C at correlation length {xi:g},", c, 0.2), below("largest rise", rise, 0.05))
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
        above(f"collapse C at correlation length {short:g},", numbers["collapse, short"], 0.2),
        below(f"collapse C at correlation length {long:g},", numbers["collapse, long"], 0.1),
        below(f"the same from the profile's maximum, {long:g},", numbers["collapse, long, from maximum"], 0.1),
        above("difference of C, short minus long,", numbers["difference"], 0.1),
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
    xi = lengths[0] if correlation_length is None else checks.choice("correlation_length", correlation_length, lengths)
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
            Condition(f"there are {transitions} transitions, at least 5", transitions >= 5),
            above("total drift", total, 0.1),
            Condition(f"{named} {'lead' if k > 1 else 'leads'} in {count} of {seeds} seeds, at least 7 of 8", 8 * count >= 7 * seeds),
            above("its share of the drift", share, 0.8),
            Condition(f"that share lies above the untrained network's {control}", bool(share.low > control.high)),
            Condition(f"the median of the others, {others:.3f}, is at most 0.05", others <= 0.05),
        )
        if all(c.holds for c in conditions):
            break
    status = "supported" if all(c.holds for c in conditions) else "not supported"
    numbers = {"total": total, "leading share": share, "leading share, untrained": control}
    name = f"Kernel drift at correlation length {xi:g}"
    return _decide(name, [gate(ds, xi, step)], status, conditions, numbers, seeds)


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
