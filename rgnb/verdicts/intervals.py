"""Statistics over seeds, and what a verdict is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from rgnb import checks
from rgnb.verdicts import rules

Numbers = Any  # of which `rgnb.checks` makes an array: lists, numpy, torch, xarray, pandas


@dataclass(frozen=True)
class Interval:
    """Mean over seeds with its t interval; unbounded for a single seed, which decides nothing.

    One of a bootstrap holds no `values`.
    """

    values: tuple
    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Numbers, confidence: float = rules.CONFIDENCE) -> Interval:
        """From one number per seed, (seeds,); also unbounded if one of them is not finite."""
        values = checks.vector("values", values)
        mean = values.mean()
        if len(values) < 2 or not np.isfinite(values).all():
            return cls(tuple(values), mean, -np.inf, np.inf)
        quantile = stats.t.ppf((1 + checks.fraction("confidence", confidence)) / 2, len(values) - 1)
        half = quantile * stats.sem(values)
        return cls(tuple(values), mean, mean - half, mean + half)

    def __str__(self) -> str:
        if np.isnan(self.mean):
            missing = len(self.values) - np.isfinite(self.values).sum()
            return "undefined" + f" ({missing} of {len(self.values)} have no value)" * bool(self.values)
        if not np.isfinite([self.low, self.high]).all():
            return f"{self.mean:z.2f} (no interval)"
        if max(abs(self.low), abs(self.high)) < 0.005:  # two digits would show nothing but zeros
            return "below 0.01" if self.low >= 0 else "within 0.01 of 0"
        return f"{self.mean:z.2f} [{self.low:z.2f}, {self.high:z.2f}]"


@dataclass(frozen=True)
class Condition:
    """One rule of a verdict: what was asked, in words with its numbers, and whether it holds."""

    text: str
    holds: bool
    parts: tuple[str, ...] = ()  # what a table says of it: quantity, measured, needed
    undecided: bool = False  # it fails, but its interval does not lie beyond the bound either

    @property
    def word(self) -> str:
        """Yes, no, or "not shown" where the interval is too wide for either."""
        return "yes" if self.holds else "not shown" if self.undecided else "no"

    def __str__(self) -> str:
        return f"{self.text}: {self.word}"

    def _repr_markdown_(self) -> str:
        return f"- {self.text}: {self.word if self.holds else f'**{self.word}**'}"


def above(name: str, interval: Interval, bound: float) -> Condition:
    """Whether an interval lies above a bound."""
    bound = checks.number("bound", bound)
    return bounded(name, interval, f"above {bound:g}", low=bound)


def below(name: str, interval: Interval, bound: float) -> Condition:
    """Whether an interval lies below a bound."""
    bound = checks.number("bound", bound)
    return bounded(name, interval, f"below {bound:g}", high=bound)


def inside(name: str, interval: Interval, bounds: tuple[float, float]) -> Condition:
    """Whether an interval lies between two bounds."""
    low, high = (checks.number("bounds", bound) for bound in checks.sequence("bounds", bounds))
    return bounded(name, interval, f"within {low:g} to {high:g}", low, high)


def bounded(
    name: str, interval: Interval, needed: str, low: float = -np.inf, high: float = np.inf
) -> Condition:
    """Whether an interval lies strictly between two bounds; `needed` says so in words."""
    interval = checks.instance("interval", interval, Interval)
    holds = bool(interval.low > low and interval.high < high)
    beyond = bool(interval.high <= low or interval.low >= high)
    parts = (name.rstrip(","), str(interval), needed)
    return Condition(f"{name} {interval} lies {needed}", holds, parts, not holds and not beyond)


@dataclass(frozen=True)
class Verdict:
    """A finding's status, the conditions that decided it and the statistics behind them."""

    finding: str
    status: str  # supported | partly supported | not supported | not trained
    reason: str
    conditions: tuple  # of Condition, the gate's first
    statistics: dict  # name -> Interval
    ungated: str = ""  # if the gate failed: what the other conditions alone would give
    networks: int = 0  # how many trained networks were judged; 0: not counted

    @classmethod
    def of(
        cls,
        finding: str,
        conditions: Sequence[Condition],
        statistics: dict,
        gates: Sequence[Condition] = (),
        networks: int = 0,
        partly: bool = False,
    ) -> Verdict:
        """What the conditions decide: supported if all hold, but not trained if one of the gates does not.

        Args:
            partly: call it partly supported if a condition fails.
        """
        failed: Sequence[Condition] = [c for c in conditions if not c.holds]
        status = "supported" if not failed else "partly supported" if partly else "not supported"
        ungated, decisive = "", failed or conditions
        if untrained := [g for g in gates if not g.holds]:
            status, ungated, decisive = "not trained", status, untrained
        reason = "Decided by: " + "; ".join(map(str, decisive)) + "."
        return cls(finding, status, reason, (*gates, *conditions), statistics, ungated, networks)

    @property
    def outcome(self) -> str:
        """The status in words; if the gate failed, with what the other conditions would give."""
        return f"{self.status} [{self.ungated}]" if self.ungated else self.status

    def __str__(self) -> str:
        return f"{self.finding}: {self.outcome}{self._counted()} ({self.reason})"

    def _counted(self) -> str:
        return f", {self.networks} network{'s' * (self.networks > 1)}" if self.networks else ""

    def _repr_markdown_(self) -> str:
        marks = "\n".join(c._repr_markdown_() for c in self.conditions)
        return f"**{self.finding}: {self.outcome}**{self._counted()}\n\n{marks}"
