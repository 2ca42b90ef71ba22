"""What every measure of rows checks and scales first."""

from typing import Any

import torch
from torch import Tensor

from rgnb import checks

NOT_FINITE = "holds NaN or infinite values; drop those rows or fix the network first"


def _matrix(name: str, x: Any, rows: int = 1) -> Tensor:
    x = checks.tensor(name, x)
    if x.ndim < 2 or x.shape[-2] < rows or x.shape[-1] < 1:
        wanted, shape = f"(..., n, d) with n >= {rows} rows and d >= 1", tuple(x.shape)
        raise checks.BadValue(f"{name} must be {wanted}, got shape {shape}")
    return x.cpu() if x.device.type == "mps" else x  # MPS has no float64


def _finite(name: str, x: Any) -> Tensor:
    # In float64, as sums over rows take it.
    x = _matrix(name, x).detach().double()
    if 0 in x.shape:
        raise checks.BadValue(f"{name} must not be empty, got shape {tuple(x.shape)}")
    if not torch.isfinite(x).all():
        raise checks.BadValue(f"{name} {NOT_FINITE}")
    return x


def _scaled(name: str, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # Float64 matrices in a unit in which no square over- or underflows, their Frobenius norms in it, and the
    # unit, both (..., 1).
    x = x.double().contiguous()
    size = torch.linalg.matrix_norm(x)[..., None]
    if ((size > 1e-100) & (size < 1e100)).all():
        return x, size, torch.ones_like(size)
    largest = torch.linalg.vector_norm(x, ord=torch.inf, dim=(-2, -1))[..., None]
    if not torch.isfinite(largest).all():
        raise checks.BadValue(f"{name} {NOT_FINITE}")
    unit = torch.where(largest > 0, largest, 1.0)
    x = x / unit[..., None]
    return x, torch.linalg.matrix_norm(x)[..., None], unit
