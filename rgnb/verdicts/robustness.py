"""Verdicts over hundreds of settings, with p-values corrected for their number."""

from collections.abc import Hashable, Sequence

import numpy as np
import xarray as xr
from scipy import stats

from rgnb import checks
from rgnb.verdicts import first_round, rules
from rgnb.verdicts.hypotheses import GATE, RANK
from rgnb.verdicts.intervals import Interval, Verdict
from rgnb.verdicts.measures import PRIMARY, Definition, as_results

DEFINITIONS = {  # of rank
    "primary": PRIMARY,
    "eigenvalues": Definition(spectrum="eigen"),
    "uncentred": Definition(centring="uncentred"),
    "uncentred eigenvalues": Definition(centring="uncentred", spectrum="eigen"),
    "from depth 1": Definition(start=1),
    "token": Definition(view="token"),
    "masked": Definition(view="masked"),
    "pooled": Definition(view="pooled"),
}
FINDINGS = (
    *("Rank collapse, short memory", "Rank collapse, long memory", "Selectivity"),
    *("Kernel drift, short memory", "Kernel drift, long memory"),
)


def judge_robustness(
    ds: xr.Dataset, variants: Sequence[str], short: float, long: float
) -> dict[tuple[str, str, str, str, str], Verdict]:
    """5: verdicts on all findings in every setting of a sweep, under all of `DEFINITIONS`.

    Rank collapse and kernel drift are judged at each correlation length, selectivity between two. A
    correlation length other than `short` and `long` is a variant of its own, named after it: it takes the
    place of the nearer one by ratio.

    Args:
        ds: sweep whose rows' coordinate `experiment` numbers (variant, mixing) in the order of `variants` x
            ("tokens", "none").
        variants: names of the variants.
        short, long: correlation lengths (steps) that every variant has.

    Returns:
        {(finding, definition, family, mixing, variant): Verdict}, by finding and variant. Kernel drift has no
        definition of rank: it has the primary one only.
    """
    labels = {"experiment": "run", "family": "run", "correlation_length": "run", "seed": "run"}
    checks.results("ds", ds, kernel_drift="run state view transition", **RANK, **GATE, **labels)
    variants = checks.sequence("variants", variants)
    verdicts = {}
    for k, (variant, mixing) in enumerate((v, m) for v in variants for m in ("tokens", "none")):
        rows = ds.isel(run=(ds.experiment == k).values)
        for family in dict.fromkeys(rows.family.values.tolist()):
            own = rows.isel(run=(rows.family == family).values)
            _check_whole(own, f"{family} chains, mixing {mixing}, {variant}", short, long)
            one = as_results(own)
            for xi in map(float, one.correlation_length.values):
                here = one.sel(correlation_length=[xi])
                end, pair = ("short", [xi, long]) if xi**2 < short * long else ("long", [short, xi])
                key = (family, mixing, variant if xi in (short, long) else f"ξ = {xi:g}")
                drift = first_round.judge_kernel_drift(here)
                verdicts[f"Kernel drift, {end} memory", "primary", *key] = drift
                for name, definition in DEFINITIONS.items():
                    fall = first_round.judge_rank_collapse(here, definition)
                    verdicts[f"Rank collapse, {end} memory", name, *key] = fall
                    if xi != short:
                        both = one.sel(correlation_length=pair)
                        verdicts["Selectivity", name, *key] = first_round.judge_selectivity(both, definition)

    def place(key):  # the other correlation lengths come after the named variants
        named = variants.index(key[-1]) if key[-1] in variants else len(variants)
        return FINDINGS.index(key[0]), named

    return {key: verdicts[key] for key in sorted(verdicts, key=place)}


def _check_whole(rows: xr.Dataset, name: str, short: float, long: float) -> None:
    # A missing row would become NaN among the others, without its labels.
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


def p_value(interval: Interval, bound: float, direction: int) -> float:
    """One-sided t test that the mean of an Interval's values lies above (direction 1) or below (-1) a bound.

    1 where the values decide nothing, 0 where they are all the same and keep the bound.
    """
    checks.instance("interval", interval, Interval)
    if not interval.values:
        raise checks.BadValue("interval must hold its values; one of a bootstrap has no t test")
    sign = checks.choice("direction", direction, (1, -1))
    if len(interval.values) < 2:  # a bound that is itself an interval's end may be infinite then
        return 1.0
    values = sign * (np.asarray(interval.values) - checks.number("bound", bound))
    if not np.isfinite(values).all():
        return 1.0
    if np.ptp(values) == 0:
        return float(values[0] <= 0)
    return float(stats.ttest_1samp(values, 0, alternative="greater").pvalue)


def finding_p(verdict: Verdict) -> float:
    """p-value of a finding of `first_round`: the largest of its conditions' (an intersection-union test)."""
    s = checks.instance("verdict", verdict, Verdict).statistics
    if "difference" in s:
        tests = [
            (s["collapse, short"], rules.COLLAPSE, 1),
            (s["collapse, long"], rules.NO_COLLAPSE, -1),
            (s["collapse, long, from maximum"], rules.NO_COLLAPSE, -1),
            (s["difference"], rules.DIFFERENCE, 1),
        ]
    elif "collapse" in s:
        tests = [(s["collapse"], rules.COLLAPSE, 1), (s["largest rise"], rules.RISE, -1)]
    elif "total" not in s:
        raise checks.BadValue(f"verdict must be one of rgnb.verdicts.first_round, got {verdict.finding!r}")
    else:
        least = max(rules.LEADING_SHARE, s["leading share, untrained"].high)
        tests = [(s["total"], rules.TOTAL_DRIFT, 1), (s["leading share"], least, 1)]
    return max(p_value(*test) for test in tests)


def corrected(verdicts: dict[Hashable, Verdict]) -> dict[Hashable, bool]:
    """Which supported verdicts stay so by Benjamini and Hochberg, false discovery rate 0.025 (one-sided)."""
    checks.mapping("verdicts", verdicts, Verdict)
    keys = [k for k, v in verdicts.items() if v.status != "not trained"]
    if not keys:
        return dict.fromkeys(verdicts, False)
    adjusted = stats.false_discovery_control([finding_p(verdicts[k]) for k in keys])
    stays = {k: bool(q <= (1 - rules.CONFIDENCE) / 2) for k, q in zip(keys, adjusted, strict=True)}
    return {k: stays.get(k, False) and v.status == "supported" for k, v in verdicts.items()}
