"""The law for the rank that is left: its networks, and what it compares on them. See `rgnb.verdicts.law`."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import xarray as xr

from rgnb import checks
from rgnb.study.anatomy import anatomy, ranks
from rgnb.study.experiment import Experiment
from rgnb.study.settings import judged_seeds
from rgnb.study.sweep import pivot, sweep
from rgnb.verdicts import rules
from rgnb.verdicts.measures import excess_share

# Families whose prediction varies with the correlation length, and all.
VARYING = ("hierarchical", "hierarchical_steep", "hierarchical_pair", "nested_blocks", "nested_halves")
FAMILIES = (*VARYING, "sticky", "ring", "cycle")
LOSSES = ("excess_loss", "marginal_entropy", "reachable_loss")
DISSECTED = (
    *("masked_singular_value", "bayes_singular_value", "lens_singular_value"),
    *("feature_singular_value", "head_singular_value", "alignment", "unread"),
)


def experiments(
    mixing: str = "tokens",
    families: Sequence[str] = FAMILIES,
    correlation_lengths: Sequence[float] = (1.0, 2.5, 7.0, 16.0),
    n: int = 4,
    profile: str = "small",
    **changes: Any,
) -> list[Experiment]:
    """The networks that judge the law, an experiment for each family; measured only at the end.

    Args:
        mixing: "tokens", or "window" in the first block alone.
        n: networks, seeds 2, 3, ...
        profile, changes: as in `Experiment.profile`; in the profile "small" the sizes are those of the rules.
    """
    sizes: dict[str, Any] = {"length": 24, "width": 64, "batch": 32, "steps": 5000}
    asked = {"snapshots": (), "mixing": mixing, "correlation_lengths": correlation_lengths}
    asked |= {"seeds": judged_seeds(n)} | (sizes if profile == "small" else {})
    return [
        Experiment.profile(profile, recipe="cosine", **asked | {"families": (family,)} | changes)
        for family in checks.sequence("families", families)
    ]


def compared(asked: Sequence[Experiment], progress: bool = True) -> xr.Dataset:
    """What the law says of networks and what they show; settings above `rules.LAW_EXCESS` trained anew.

    Args:
        asked: from `experiments`; a setting whose mean excess share lies above the bound is replaced by
            the same over twice the steps.
        progress: as in `Experiment.run`.

    Returns:
        Dataset with dims (family, correlation_length, seed): `predicted`, the effective rank by singular
        values of the Bayes log-posterior at masked positions; `measured`, that by eigenvalues of the last
        stream there; `features`, of its LayerNorm; `head`, of the weights that read it; `logits`, the rank by
        singular values of the log-probabilities; `alignment` of features and head; `unread`, the share of the
        features' variance that the head does not read; `excess`, the excess share; `steps`.
    """
    first = _measured(asked, progress)
    above = checks.complete("excess", first.excess).mean("seed") > rules.LAW_EXCESS
    again = []
    for e in asked:
        training = replace(e.training, steps=2 * e.training.steps)
        for family in e.families:
            lengths = [xi for xi in e.correlation_lengths if above.sel(family=family, correlation_length=xi)]
            if lengths:
                one = replace(e, families=(family,), correlation_lengths=lengths, training=training)
                again.append(one)
    if not again:
        return first
    return xr.where(above, _measured(again, progress).reindex_like(first), first)


def _measured(asked: Sequence[Experiment], progress: bool) -> xr.Dataset:
    losses = sweep("law", asked, LOSSES, progress=progress)
    ds = sweep("law", asked, DISSECTED, progress=progress, analysis=anatomy)
    last = ds.isel(depth=-1)
    stream = last.masked_singular_value.sel(centring="centred")
    variables = {
        "predicted": ranks(ds.bayes_singular_value, "symbol", "singular"),
        "measured": ranks(stream, "mode", "eigen"),
        "features": ranks(ds.feature_singular_value, "mode", "eigen"),
        "head": ranks(ds.head_singular_value, "symbol", "eigen"),
        "logits": ranks(last.lens_singular_value, "symbol", "singular"),
        "alignment": ds.alignment,
        "unread": last.unread,
        "steps": ds.steps,
    }
    dims = ("family", "correlation_length", "seed")
    found = {name: pivot(ds, values, *dims) for name, values in variables.items()}
    return xr.Dataset(found | {"excess": pivot(losses, excess_share(losses), *dims)})
