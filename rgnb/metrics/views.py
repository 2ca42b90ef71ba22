"""Views of a residual stream: which rows a rank or a similarity is taken over."""

import torch
from torch import Tensor

from rgnb import checks

VIEWS = ("position", "token", "masked", "pooled", "sequence")


def view(x: Tensor, name: str, selected: Tensor | None = None) -> Tensor:
    """Arrange a stream as activation matrices: x (sequences, length, d) -> (..., n, d).

    "position": rows are sequences, one matrix per position -> (length, sequences, d).
    "token": rows are all positions of all sequences.  "masked": only those in `selected`
    (sequences, length).  "pooled": rows are sequences, averaged over positions.
    "sequence": rows are the positions of one sequence -> (sequences, length, d).
    """
    checks.choice("view", name, VIEWS)
    x = checks.tensor("x", x)
    if x.ndim != 3:
        raise checks.BadValue(f"x must be (sequences, length, d), got shape {tuple(x.shape)}")
    if name == "position":
        return x.transpose(0, 1)
    if name == "token":
        return x.flatten(0, 1)
    if name == "pooled":
        return x.mean(1, dtype=torch.promote_types(x.dtype, torch.float32))
    if name == "sequence":
        return x
    chosen = checks.tensor("selected", False if selected is None else selected)
    if chosen.dtype != torch.bool or chosen.shape != x.shape[:2]:
        wanted = f"booleans of shape {tuple(x.shape[:2])}"
        raise checks.BadValue(f"selected must be {wanted} for the masked view")
    return x[chosen]
