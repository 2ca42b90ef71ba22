"""One setting of an experiment, the profiles and recipes it starts from, and the key of its results.

A result's key is its whole setting, its seed, and the version of what was measured.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import torch

from rgnb import chains, checks
from rgnb._checkpoints import weights_file
from rgnb.model import ModelConfig
from rgnb.training import Run, TrainConfig, plain

# Of `measurement.measure`: raise it for a new variable, or when a stored number changes its meaning. Trained
# weights and the results of other analyses do not depend on it.
MEASURED_VERSION = 1

Analysis = Callable[..., Any]  # (task, setting, seed, snapshots, device) -> xarray.Dataset
F = TypeVar("F", bound=Analysis)

PROFILES: dict[str, dict[str, Any]] = {
    # The size of arXiv:2607.15449's baseline: the defaults of ModelConfig and TrainConfig.
    "paper": {},
    # Minutes on a laptop: everything smaller, trained faster.
    "quick": {
        **{"n_states": 8, "length": 16, "width": 32, "batch": 128, "sequences": 1024},
        **{"steps": 1500, "learning_rate": 1e-3, "snapshots": (100, 300, 700)},
    },
    # About a minute per network: the smallest size at which pilots saw the pattern of the findings.
    "small": {
        **{"length": 16, "width": 32, "batch": 128, "sequences": 1024},
        **{"steps": 4000, "snapshots": (50, 100, 150, 200, 350, 550, 900, 1450, 2350)},
    },
}
# How a network is trained; see the rules. Snapshots are spaced evenly in the logarithm of the step.
RECIPES: dict[str, dict[str, Any]] = {
    "sequel": {"learning_rate": 3e-4, "schedule": "constant"},
    "cosine": {
        "learning_rate": 1e-3,
        "schedule": "cosine",
        "snapshots": (50, 100, 150, 200, 350, 550, 900, 1450, 2350, 3800, 6200),
    },
}


@dataclass(frozen=True)
class Setting:
    """One row of an experiment's grid: a chain, a network, its training and its measurement."""

    family: str
    correlation_length: float
    matrix: tuple  # of an own chain; () for a family
    model: ModelConfig
    training: TrainConfig
    sequences: int

    @classmethod
    def own(cls, chain: chains.MarkovChain, **parts: Any) -> Setting:
        """The setting of a chain outside the families; `parts`: model, training and sequences."""
        matrix = tuple(tuple(_digits(p, 12) for p in row) for row in chain.transition_matrix.tolist())
        return cls("own", _digits(chain.correlation_length, 9), matrix, **parts)

    @property
    def chain(self) -> chains.MarkovChain:
        if self.matrix:
            return chains.MarkovChain(self.matrix)
        return chains.FAMILIES[self.family](self.model.n_states, self.correlation_length)

    def run(self, device: str | torch.device = "auto") -> Run:
        """What `rgnb.training.train` takes."""
        return Run(self.model, self.training, self.chain, device)

    def config(self) -> dict[str, Any]:
        """The whole setting as plain data: what a result's key is made of."""
        return json.loads(json.dumps({f.name: getattr(self, f.name) for f in fields(self)}, default=plain))

    def path(self, folder: str | Path, seed: int, analysis: Analysis | None = None) -> Path:
        """Where the result of one seed is stored."""
        label = f"{self.family}-{self.correlation_length:.4g}-{self.model.mixing}-{self.training.scheme}"
        if analysis is not None:
            label += f"-{analysis_key(analysis)['analysis'].rpartition('.')[2]}"
        return Path(folder) / f"{label}-seed{seed}-{self.key(seed, analysis)}.nc"

    def key(self, seed: int, analysis: Analysis | None = None) -> str:
        """What the result of one seed is found by."""
        return content_key(self.config() | {"seed": seed} | analysis_key(analysis))

    def weights(self, folder: str | Path) -> Path:
        """Folder of the trained weights of every seed; what is measured does not decide it."""
        trained = {k: v for k, v in self.config().items() if k != "sequences"}
        return Path(folder) / "weights" / content_key(trained)

    def last_weights(self, folder: str | Path, seed: int) -> Path:
        """File of a network's weights at the end of its training."""
        return weights_file(self.weights(folder), seed, self.training.steps)


def judged_seeds(n: int, first: int = 2) -> range:
    """The first n seeds that are judged: pilots used those below (`rgnb.verdicts.rules`)."""
    return range(first, first + checks.integer("n", n, 1, 10_000))


def content_key(config: dict[str, Any]) -> str:
    """Short hash of plain data: the end of a file's name."""
    text = json.dumps({"version": 1} | config, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def analysis(id: str, version: int) -> Callable[[F], F]:
    """Decorator that gives an analysis the id and version by which its results are found, wherever it lives.

    Args:
        id: dotted name, such as "mygroup.spectra"; its last part appears in file names.
        version: raise it when a stored number changes its meaning, so that it is measured again.
    """
    if not isinstance(id, str) or not all(part.isidentifier() for part in id.split(".")):
        raise checks.BadValue(f'id must be a dotted name such as "mygroup.spectra", got {id!r}')
    version = checks.integer("version", version, 1)

    def name(function: F) -> F:
        vars(function).update(id=id, version=version)
        return function

    return name


def analysis_key(analysis: Analysis | None) -> dict[str, Any]:
    """The part of a result's key that says what was measured; None: by `measurement.measure`.

    An analysis that was not given an id by `analysis` is found by its module and name.

    Raises:
        TypeError: it takes other arguments, or is not a function with a name of its own; lambdas have none,
            and those that are made inside another function may differ under one name.
    """
    if analysis is None:
        return {"version": MEASURED_VERSION}
    if not callable(analysis) or not getattr(analysis, "__name__", "<").isidentifier():
        raise checks.BadType(
            f"analysis must be a function made with def, got {analysis!r}; "
            "its name is what its results are found by"
        )
    if not hasattr(analysis, "id") and "<locals>" in getattr(analysis, "__qualname__", ""):
        raise checks.BadType(
            f"analysis {analysis.__name__} is made inside another function, so that its name does not say "
            "what it measures; give it an id and a version with @analysis of rgnb.study"
        )
    try:
        inspect.signature(analysis).bind("task", "setting", "seed", "snapshots", "device")
    except ValueError:  # it does not say
        pass
    except TypeError:
        raise checks.BadType(
            f"analysis {analysis.__name__} must take (task, setting, seed, snapshots, device)"
        ) from None
    key = {"analysis": getattr(analysis, "id", f"{analysis.__module__}.{analysis.__name__}")}
    version = getattr(analysis, "version", 1)
    return key if version == 1 else key | {"analysis_version": version}


def _digits(x: float, digits: int) -> float:
    # The last digits of computed numbers differ between machines: they must not decide what is found.
    return float(f"{x:.{digits}g}")
