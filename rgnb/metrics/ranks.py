"""Effective rank, participation ratio and stable rank of activations from any network.

Rows are samples: `x` is (..., n, d), leading dimensions are batched; sums are taken in float64. Effective
rank after Roy and Vetterli (EUSIPCO 2007).
"""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rgnb import checks, cores
from rgnb.metrics._rows import _matrix, _scaled

SPECTRA = ("singular", "eigen")


def singular_values(x: Tensor, center: bool = True) -> Tensor:
    """Singular values of x, its column means removed if `center`: (..., n, d) -> (..., min(n, d)).

    Values that are rounding error, below `max(n, d) * eps` times the size of x before centring, are
    set to 0, so that a constant input has spectrum 0 once centred. The error of the others is below 1e-12 of
    the largest.
    """
    x = _matrix("x", x)
    n, d = x.shape[-2:]
    # Matrices that fit the caches are taken a few at a time, on a CPU each few by a core of its own. Larger
    # ones are taken one after the other: each keeps all cores busy by itself, and a copy per core would take
    # memory.
    some = 2**18 // (n * d)
    parts = x.reshape(-1, n, d).split(max(1, some))
    with cores.workers(len(parts) if some and x.device.type == "cpu" else 1) as each:
        values = torch.cat(list(each(partial(_part_values, center=center), parts)))
    return values.reshape(*x.shape[:-2], min(n, d))


def _part_values(x: Tensor, center: bool) -> Tensor:
    x, size, unit = _scaled("x", x)
    x = x - x.mean(-2, keepdim=True) if center else x
    n, d = x.shape[-2:]
    noise = max(n, d) * torch.finfo(x.dtype).eps * size
    tall = x if n >= d else x.mT
    s = _gram_values(tall, noise) if max(n, d) > 2 * min(n, d) else torch.linalg.svdvals(x)
    return torch.where(s > noise, s * unit, 0.0)


def _gram_values(x: Tensor, noise: Tensor) -> Tensor:
    # Several times faster than an SVD, but a Gram matrix squares: it knows a value s, in units of the
    # largest, to eps / s.
    gram = x.mT @ x
    squares = torch.linalg.eigvalsh(gram).flip(-1)
    values, weak = squares.clamp(min=torch.finfo(x.dtype).tiny).sqrt(), squares <= 1e-6 * squares[:, :1]
    if not weak.any():
        return values
    # The values below the k largest are at most the norm of x along any d - k orthonormal directions
    # (Courant-Fischer). Along the weak ones it is rounding error where the rank is deficient; where it is
    # more, the matrix goes to the SVD.
    directions = torch.linalg.eigh(gram).eigenvectors.flip(-1) * weak[:, None]
    exact = torch.linalg.matrix_norm(x @ directions) > noise[:, 0]
    return torch.where(weak, 0.0, values).index_put((exact,), torch.linalg.svdvals(x[exact]))


def _relative(s: Any) -> Tensor:
    # Singular values over their largest, so that squares neither over- nor underflow; 0 stays 0.
    s = checks.tensor("s", s).double()
    if s.ndim < 1 or not s.shape[-1] or not ((s >= 0) & (s < torch.inf)).all():
        wanted = "(..., k) singular values, finite and not negative, k >= 1"
        raise checks.BadValue(f"s must be {wanted}, got shape {tuple(s.shape)}; use singular_values")
    top = s.amax(-1, keepdim=True)
    return s / torch.where(top > 0, top, 1.0)


def spectrum_rank(s: Tensor, spectrum: str = "singular") -> Tensor:
    """Effective rank of singular values s (..., k) -> (...): `exp(-sum p ln p)`.

    Args:
        spectrum: "singular": p = s / sum s (Roy and Vetterli); "eigen": p = s^2 / sum s^2.

    Returns:
        Between 1 and k; 0 where s is all zero, by convention.
    """
    s = _relative(s)
    weights = s if checks.choice("spectrum", spectrum, SPECTRA) == "singular" else s**2
    total = weights.sum(-1, keepdim=True)
    p = weights / torch.where(total > 0, total, 1.0)
    return torch.where(total.squeeze(-1) > 0, torch.special.entr(p).sum(-1).exp(), 0.0)


def effective_rank(x: Tensor, center: bool = True, spectrum: str = "singular") -> Tensor:
    """Effective rank, the exponential of the spectrum's entropy: (..., n, d) -> (...).

    See `spectrum_rank` for the two spectra. At most min(n - 1, d) when centred. Invariant under
    rotation and scaling. A constant input has rank 0 when centred.

    Raises:
        ValueError: NaN or infinite values, or not at least 2-dimensional.
    """
    checks.choice("spectrum", spectrum, SPECTRA)
    return spectrum_rank(singular_values(x, center), spectrum)


def participation_ratio(x: Tensor, center: bool = True) -> Tensor:
    """`(sum s^2)^2 / sum s^4`: (..., n, d) -> (...); 0 for a zero spectrum (Gao et al. 2017)."""
    return spectrum_participation(singular_values(x, center))


def spectrum_participation(s: Tensor) -> Tensor:
    """Participation ratio of singular values s: (..., k) -> (...)."""
    squares = _relative(s) ** 2
    return squares.sum(-1) ** 2 / (squares**2).sum(-1).clamp(min=torch.finfo(squares.dtype).tiny)


def stable_rank(x: Tensor, center: bool = True) -> Tensor:
    """`sum s^2 / max s^2`: (..., n, d) -> (...); 0 for a zero spectrum."""
    return spectrum_stable(singular_values(x, center))


def spectrum_stable(s: Tensor) -> Tensor:
    """Stable rank of singular values s: (..., k) -> (...)."""
    return (_relative(s) ** 2).sum(-1)


def relevant_modes(posterior: Tensor, floor: float = 1e-6, spectrum: str = "eigen") -> float:
    """Degrees of freedom that prediction needs: effective rank of the centred Bayes log-posterior.

    Args:
        posterior: (n, V) exact posteriors at masked positions, from `masking.bayes_posterior`.
        floor: probabilities below it are raised to it; the number depends on it, so name it.
        spectrum: "eigen" or "singular", see `spectrum_rank`.

    Returns:
        Effective rank of the log-posteriors, centred over the vocabulary and over rows.
    """
    q = _matrix("posterior", posterior).double()
    if q.ndim != 2 or not ((q >= 0) & (q <= 1 + 1e-9)).all():
        advice = "use masking.bayes_posterior's, at the masked positions"
        raise checks.BadValue(f"posterior must be (n, V) probabilities, got shape {tuple(q.shape)}; {advice}")
    log_q = q.clamp(min=checks.fraction("floor", floor)).log()
    return effective_rank(log_q - log_q.mean(-1, keepdim=True), spectrum=spectrum).item()


def initial_ranks(n: int, depths: int, center: bool = True, spectrum: str = "singular") -> Tensor:
    """Effective rank at initialisation in closed form: n orthonormal inputs, a wide ReLU MLP, depth by depth.

    Without residual, LayerNorm and biases, weights N(0, 2 / fan_in). Inputs of unit length with cosine rho
    have after a layer the kernel `(sqrt(1 - rho^2) + rho (pi - arccos rho)) / pi`, and length 1 again (Cho
    and Saul 2009). All pairs stay alike: the Gram matrix `(1 - rho) I + rho 1 1^T` has the eigenvalue
    `1 + (n - 1) rho` along the mean, which centring removes, and n - 1 times `1 - rho`.

    Returns:
        (depths,) float64, the inputs' first.
    """
    n, rho, found = checks.integer("n", n, 2, 10**6), 0.0, []
    for _ in range(checks.integer("depths", depths, 1, 10_000)):
        squares = torch.full((n,), 1 - rho, dtype=torch.float64)
        squares[0] = 0.0 if center else 1 + (n - 1) * rho
        found.append(spectrum_rank(squares.sqrt(), spectrum))
        rho = (math.sqrt(1 - rho**2) + rho * (math.pi - math.acos(rho))) / math.pi
    return torch.stack(found)
