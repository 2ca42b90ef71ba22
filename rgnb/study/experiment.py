"""Experiments: a grid of settings and seeds in, one labelled Dataset out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import xarray as xr

from rgnb import chains, checks
from rgnb.model import ModelConfig
from rgnb.randomness import LAST_SEED, resolve_device
from rgnb.study.runner import settle, shared
from rgnb.study.settings import PROFILES, RECIPES, Analysis, Setting
from rgnb.study.store import Store, results_folder
from rgnb.training import TrainConfig


@dataclass(frozen=True)
class Experiment:
    """A grid of settings (chain family x correlation length) and seeds, trained and measured alike.

    `Experiment.profile("quick", mixing="none", seeds=3)` starts from a profile and takes any field of
    this class, `ModelConfig` or `TrainConfig` by name.

    Args:
        families: names in `chains.FAMILIES`.
        correlation_lengths: in steps.
        own: MarkovChains to use instead of families; they form the family "own", each with its own
            correlation length, of which labels keep nine digits: `ds.sel(correlation_length=xi,
            method="nearest")`.
        seeds: a number of seeds (0, 1, ...) or the seeds themselves.
        sequences: fresh sequences, of a fixed seed, on which everything is measured.
        device: where to train and measure; see `randomness.resolve_device`. Not part of a result's key.
    """

    families: Sequence[str] = ("hierarchical",)
    correlation_lengths: Sequence[float] = (1.0, 7.0)
    own: Sequence[chains.MarkovChain] = ()
    seeds: Any = 8  # kept as a tuple of seeds
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainConfig = field(default_factory=TrainConfig)
    sequences: int = 4096
    device: str = "auto"

    def __post_init__(self) -> None:
        for name, kind in {"model": ModelConfig, "training": TrainConfig}.items():
            checks.instance(name, getattr(self, name), kind, "Experiment.profile makes one from its fields")
        families = checks.sequence("families", self.families, 0)
        lengths = checks.sequence("correlation_lengths", self.correlation_lengths, 0)
        several = hasattr(self.seeds, "__iter__") and not isinstance(self.seeds, str)
        seeds = self.seeds if several else range(checks.integer("seeds", self.seeds, 1, 10_000))
        checked = {
            "families": tuple(checks.choice("family", f, chains.FAMILIES) for f in families),
            "correlation_lengths": tuple(checks.positive("correlation_length", xi) for xi in lengths),
            "own": checks.sequence("own", self.own, 0),
            "seeds": tuple(
                checks.integer("seeds", s, 0, LAST_SEED) for s in checks.sequence("seeds", seeds, 0)
            ),
            "sequences": checks.integer("sequences", self.sequences, 64),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        for name in ("seeds",) if self.own else ("seeds", "families", "correlation_lengths"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise checks.BadValue(f"{name} must hold at least one value and none twice, got {values}")
        for chain in self.own:
            checks.instance("own", chain, chains.MarkovChain, "wrap a matrix as MarkovChain(P)")
        # What cannot be trained is refused here.
        for setting in self.settings():
            setting.run(self.device)
        if self.own and len({setting.correlation_length for setting in self.settings()}) < len(self.own):
            raise checks.BadValue(
                "own chains must differ in correlation length; run equal ones as separate experiments"
            )

    @classmethod
    def profile(cls, profile: str = "paper", recipe: str | None = None, **changes: Any) -> Experiment:
        """An Experiment from a profile in `PROFILES` with fields changed by name.

        Args:
            recipe: in `RECIPES`, how it is trained; None: as the profile says.
        """
        trained = {} if recipe is None else RECIPES[checks.choice("recipe", recipe, RECIPES)]
        changes = PROFILES[checks.choice("profile", profile, PROFILES)] | trained | changes
        parts = {"model": ModelConfig, "training": TrainConfig}
        own = {f.name for f in fields(cls)} - set(parts)
        known = own.union(*({f.name for f in fields(part)} for part in parts.values()))
        for name in changes:
            checks.choice("parameter", name, sorted(known))
        built = {
            part: kind(**{f.name: changes[f.name] for f in fields(kind) if f.name in changes})
            for part, kind in parts.items()
        }
        return cls(**built, **{name: value for name, value in changes.items() if name in own})

    def settings(self) -> list[Setting]:
        """The grid's settings."""
        common: dict[str, Any] = {"model": self.model, "training": self.training, "sequences": self.sequences}
        if self.own:
            return [Setting.own(chain, **common) for chain in self.own]
        return [Setting(f, xi, (), **common) for f in self.families for xi in self.correlation_lengths]

    def missing(
        self, results: str | Path | None = None, analysis: Analysis | None = None
    ) -> list[tuple[Setting, int]]:
        """The (setting, seed) pairs that are not stored yet; damage to a file shows only when it is read."""
        store = Store(results_folder(results), analysis)
        return [(s, seed) for s in self.settings() for seed in self.seeds if not store.holds(s, seed)]

    def run(
        self, results: str | Path | None = None, progress: bool = True, analysis: Analysis | None = None
    ) -> xr.Dataset:
        """Load every stored (setting, seed), train and measure the others, and combine them.

        Args:
            results: folder of results; None takes $RGNB_RESULTS, or `results/` of this checkout.
            progress: show bars on stderr.
            analysis: what is measured on the trained networks: a function of (task, setting, seed, snapshots,
                device) that returns a Dataset, as those in `rgnb.study.probes`; its id and version (see
                `analysis`) are part of a result's key. None: ranks, drift and losses, see `measure`.

        Returns:
            xarray.Dataset with dims (chain, correlation_length, seed) and those of the analysis; by default
            among (state, view, centring, spectrum, depth, other_depth, mode, transition, step, block, rows,
            floor). Every variable has a `long_name` and `units`, and the coordinate `provenance` says in JSON
            where each entry was made.

        Raises:
            FloatingPointError: training diverged; the other seeds, and what was stored before, are kept.
            OSError: a file cannot be written or read, or a damaged one cannot be set aside.
            ValueError: the results folder is read-only and something is missing.
        """
        store, device = Store(results_folder(results), analysis), resolve_device(self.device)

        def work(setting: Setting, wait: bool) -> dict[int, xr.Dataset] | None:
            return settle(setting, self.seeds, store, device, progress, wait)

        done = shared(self.settings(), work)
        found = {setting: _concat(list(entries.values()), "seed") for setting, entries in done}
        by_family: dict[str, list] = {}
        for setting in self.settings():
            by_family.setdefault(setting.family, []).append(found[setting])
        return _concat([_concat(d, "correlation_length") for d in by_family.values()], "chain")


def _concat(datasets: list[xr.Dataset], dim: str) -> xr.Dataset:
    return xr.concat(datasets, dim, data_vars="all", coords=["provenance"], compat="equals", join="exact")
