"""One setting of an experiment, the profiles and recipes it starts from, and the key of its results.

A result's key is its whole setting, its seed and the version of what was measured.
"""

import hashlib
import json
from dataclasses import dataclass, fields
from pathlib import Path

from rgnb import chains, checks
from rgnb.model import ModelConfig
from rgnb.training import TrainConfig, plain

RESULTS_VERSION = 1  # raise by hand when the meaning of a stored number changes

PROFILES = {
    # The size of arXiv:2607.15449's baseline: the defaults of ModelConfig and TrainConfig.
    "paper": {},
    # Minutes on a laptop: everything smaller, trained faster.
    "quick": {
        "n_states": 8,
        "length": 16,
        "width": 32,
        "batch": 128,
        "steps": 1500,
        "learning_rate": 1e-3,
        "snapshots": (100, 300, 700),
        "sequences": 1024,
    },
    # About a minute a network: the least size at which pilots saw the findings' pattern.
    "small": {
        "length": 16,
        "width": 32,
        "batch": 128,
        "steps": 4000,
        "snapshots": (50, 100, 150, 200, 350, 550, 900, 1450, 2350),
        "sequences": 1024,
    },
}
# How a network is trained; see the rules. Snapshots are spaced evenly in the logarithm of the step.
RECIPES = {
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

    @property
    def chain(self):
        if self.matrix:
            return chains.MarkovChain(self.matrix)
        return chains.FAMILIES[self.family](self.model.n_states, self.correlation_length)

    def config(self):
        """The whole setting as plain data: what a result's key is made of."""
        return json.loads(json.dumps({f.name: getattr(self, f.name) for f in fields(self)}, default=plain))

    def path(self, folder, seed, analysis=None):
        """Where the result of one seed is stored."""
        label = f"{self.family}-{self.correlation_length:.4g}-{self.model.mixing}-{self.training.scheme}"
        config = self.config() | {"seed": seed}
        if analysis is not None:
            config |= analysis_key(analysis)
            label += f"-{config['analysis'].rpartition('.')[2]}"
        return Path(folder) / f"{label}-seed{seed}-{content_key(config)}.nc"

    def weights(self, folder):
        """Folder of the trained weights of every seed."""
        return (
            Path(folder)
            / "weights"
            / content_key({k: v for k, v in self.config().items() if k != "sequences"})
        )


def content_key(config):
    """Short hash of plain data and of `RESULTS_VERSION`: the end of a result's file name."""
    text = json.dumps(config | {"version": RESULTS_VERSION}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def analysis(id, version):
    """Decorator that gives an analysis the id and version by which its results are found, wherever the function lives.

    Args:
        id: dotted name, such as "mygroup.spectra"; its last part stands in file names.
        version: raise it when the meaning of a stored number changes, so that it is measured again.
    """
    if not isinstance(id, str) or not all(part.isidentifier() for part in id.split(".")):
        raise checks.BadValue(f'id must be a dotted name such as "mygroup.spectra", got {id!r}')
    version = checks.integer("version", version, 1)

    def name(function):
        function.id, function.version = id, version
        return function

    return name


def analysis_key(analysis):
    """The part of a result's key that an analysis makes: its id, and its version from the second on.

    An analysis that was not given one by `analysis` is found by its module and name. TypeError unless it is a function with a name of its
    own, which lambdas have not.
    """
    if not callable(analysis) or not getattr(analysis, "__name__", "<").isidentifier():
        raise checks.BadType(
            f"analysis must be a function made with def, got {analysis!r}; its name is what its results are found by"
        )
    key = {"analysis": getattr(analysis, "id", f"{analysis.__module__}.{analysis.__name__}")}
    version = getattr(analysis, "version", 1)
    return key if version == 1 else key | {"analysis_version": version}


def _digits(x, digits):
    # The last digits of what was computed differ from machine to machine, and must not decide whether a result is found.
    return float(f"{x:.{digits}g}")


def _frozen(chain):
    return tuple(tuple(_digits(p, 12) for p in row) for row in chain.transition_matrix.tolist())
