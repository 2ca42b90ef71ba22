"""Statistics over seeds, and what a verdict is made of."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from rgnb import checks

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


def above(name, interval, bound):
    """Whether an interval lies above a bound, as a `Condition`."""
    interval, bound = checks.instance("interval", interval, Interval), checks.number("bound", bound)
    return Condition(f"{name} {interval} lies above {bound:g}", bool(interval.low > bound))


def below(name, interval, bound):
    """Whether an interval lies below a bound, as a `Condition`."""
    interval, bound = checks.instance("interval", interval, Interval), checks.number("bound", bound)
    return Condition(f"{name} {interval} lies below {bound:g}", bool(interval.high < bound))


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
