"""Rank, similarity and fixed points of residual networks on Markov chains with known spectra.

The library: `chains`, `masking`, `model`, `training`, `metrics` and `observe`. What builds on it:
`rgnb.verdicts` (the rules), `rgnb.study` (the experiments) and `rgnb.press` (the book).
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rgnb import chains, masking, metrics, model, training
    from rgnb._observe import observe
    from rgnb.chains import MarkovChain
    from rgnb.metrics import cka_matrix, effective_rank, kernel_drift, linear_cka
    from rgnb.model import ModelConfig, ResidualMLP

__all__ = [
    "MarkovChain",
    "ModelConfig",
    "ResidualMLP",
    "chains",
    "cka_matrix",
    "effective_rank",
    "kernel_drift",
    "linear_cka",
    "masking",
    "metrics",
    "model",
    "observe",
    "training",
]

_HOMES = {
    "MarkovChain": "chains",
    "ModelConfig": "model",
    "ResidualMLP": "model",
    "cka_matrix": "metrics",
    "effective_rank": "metrics",
    "kernel_drift": "metrics",
    "linear_cka": "metrics",
    "observe": "_observe",
}


def __getattr__(name: str) -> object:
    # Imported on first use, so that the command line can list and check without waiting for torch.
    if name == "__version__":
        return version("rgnb")
    if name not in __all__:
        raise AttributeError(f"module 'rgnb' has no attribute {name!r}")
    home = import_module(f"rgnb.{_HOMES.get(name, name)}")
    return getattr(home, name) if name in _HOMES else home


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
