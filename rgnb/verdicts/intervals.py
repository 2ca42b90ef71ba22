"""Statistics over seeds, and what a verdict is made of."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from rgnb import checks
from rgnb.verdicts import rules


@dataclass(frozen=True)
class Interval:
    """Mean over seeds with its t interval (95 % unless asked otherwise); unbounded for a single seed, which can decide nothing."""

    values: tuple
    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values, confidence=rules.CONFIDENCE):
        """Of one number a seed, (seeds,); unbounded, too, where one of them is not finite."""
        values = checks.vector("values", values)
        mean = values.mean()
        if len(values) < 2 or not np.isfinite(values).all():
            return cls(tuple(values), mean, -np.inf, np.inf)
        half = stats.t.ppf((1 + checks.fraction("confidence", confidence)) / 2, len(values) - 1) * stats.sem(
            values
        )
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


def above(name, interval, bound):
    """Whether an interval lies above a bound, as a `Condition`."""
    interval, bound = checks.instance("interval", interval, Interval), checks.number("bound", bound)
    return Condition(f"{name} {interval} lies above {bound:g}", bool(interval.low > bound))


def below(name, interval, bound):
    """Whether an interval lies below a bound, as a `Condition`."""
    interval, bound = checks.instance("interval", interval, Interval), checks.number("bound", bound)
    return Condition(f"{name} {interval} lies below {bound:g}", bool(interval.high < bound))
