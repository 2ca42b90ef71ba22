"""Views of a residual stream: which rows a rank or a similarity is taken over."""

import torch

from rgnb import checks

VIEWS = ("position", "token", "masked", "pooled", "sequence")


def view(x, name, selected=None):
    """Arrange a stream as activation matrices: x (sequences, length, d) -> (..., n, d).

    "position": rows are sequences, one matrix a position -> (length, sequences, d).
    "token": rows are all positions of all sequences.  "masked": only those in `selected`
    (sequences, length).  "pooled": rows are sequences, averaged over positions.
    "sequence": rows are the positions of one sequence -> (sequences, length, d).
    """
    checks.choice("view", name, VIEWS)
    x = checks.tensor("x", x)
    if x.ndim != 3:
        raise checks.BadValue(f"x must be (sequences, length, d), got shape {tuple(x.shape)}")
    if name == "masked":
        if (
            not isinstance(selected, torch.Tensor)
            or selected.shape != x.shape[:2]
            or selected.dtype != torch.bool
        ):
            raise checks.BadValue(
                f"selected must be a boolean tensor of shape {tuple(x.shape[:2])} for the masked view"
            )
        return x[checks.tensor("selected", selected)]
    return {
        "position": lambda: x.transpose(0, 1),
        "token": lambda: x.flatten(0, 1),
        "pooled": lambda: x.mean(1, dtype=torch.promote_types(x.dtype, torch.float32)),
        "sequence": lambda: x,
    }[name]()
