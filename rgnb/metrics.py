"""Ranks and similarities of activations: pure functions on tensors from any network.

Rows are samples: `x` is (..., n, d), leading dimensions are batched. Inputs of any float type are
converted to float64. Source formulas: effective rank, Roy and Vetterli (EUSIPCO 2007); linear CKA,
Kornblith et al. (arXiv:1905.00414); its debiased form after Song et al. (JMLR 2012) and Nguyen et al.
(arXiv:2010.15327), here from sums over rows where n >= d and from Gram matrices of rows where n < d, so that
memory is O(n d + min(n, d)^2).
"""

from functools import partial
from itertools import combinations_with_replacement
from typing import NamedTuple

import torch

from rgnb import checks, cores

SPECTRA = ("singular", "eigen")
VIEWS = ("position", "token", "masked", "pooled", "sequence")


def _matrix(name, x, rows=1):
    x = checks.tensor(name, x)
    if x.ndim < 2 or x.shape[-2] < rows or x.shape[-1] < 1:
        raise checks.BadValue(f"{name} must be (..., n, d) with n >= {rows} rows and d >= 1, got shape {tuple(x.shape)}")
    return x.cpu() if x.device.type == "mps" else x  # MPS has no float64


def _scaled(name, x):
    # Float64 matrices in a unit in which no square over- or underflows, their Frobenius norms in it, and the unit, both (..., 1).
    x = x.double().contiguous()
    size = torch.linalg.matrix_norm(x)[..., None]
    if ((size > 1e-100) & (size < 1e100)).all():
        return x, size, torch.ones_like(size)
    largest = torch.linalg.vector_norm(x, ord=torch.inf, dim=(-2, -1))[..., None]
    if not torch.isfinite(largest).all():
        raise checks.BadValue(f"{name} holds NaN or infinite values; drop those rows or fix the network first")
    unit = torch.where(largest > 0, largest, 1.0)
    x = x / unit[..., None]
    return x, torch.linalg.matrix_norm(x)[..., None], unit


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
        if not isinstance(selected, torch.Tensor) or selected.shape != x.shape[:2] or selected.dtype != torch.bool:
            raise checks.BadValue(f"selected must be a boolean tensor of shape {tuple(x.shape[:2])} for the masked view")
        return x[checks.tensor("selected", selected)]
    return {
        "position": lambda: x.transpose(0, 1),
        "token": lambda: x.flatten(0, 1),
        "pooled": lambda: x.mean(1, dtype=torch.promote_types(x.dtype, torch.float32)),
        "sequence": lambda: x,
    }[name]()


def singular_values(x, center=True):
    """Singular values of x, its column means removed if `center`: (..., n, d) -> (..., min(n, d)).

    Values that are rounding error, below `max(n, d) * eps` times the size of x before centring, are
    set to 0, so that a constant input has spectrum 0 once centred. The error of the others is below 1e-12 of the largest.
    """
    x = _matrix("x", x)
    n, d = x.shape[-2:]
    # Matrices that fit the caches are taken a few at a time, on a CPU by each core its own. Larger ones are taken one after the
    # other: each keeps all cores busy by itself, and as many copies as there are cores would take memory.
    some = 2**18 // (n * d)
    parts = x.reshape(-1, n, d).split(max(1, some))
    with cores.workers(len(parts) if some and x.device.type == "cpu" else 1) as each:
        values = torch.cat(list(each(partial(_part_values, center=center), parts)))
    return values.reshape(*x.shape[:-2], min(n, d))


def _part_values(x, center):
    x, size, unit = _scaled("x", x)
    x = x - x.mean(-2, keepdim=True) if center else x
    n, d = x.shape[-2:]
    noise = max(n, d) * torch.finfo(x.dtype).eps * size
    tall = x if n >= d else x.mT
    s = _gram_values(tall, noise) if max(n, d) > 2 * min(n, d) else torch.linalg.svdvals(x)
    return torch.where(s > noise, s * unit, 0.0)


def _gram_values(x, noise):
    # Several times faster than an SVD, but a Gram matrix squares: it knows a value s, in units of the largest, to eps / s.
    gram = x.mT @ x
    squares = torch.linalg.eigvalsh(gram).flip(-1)
    values, weak = squares.clamp(min=torch.finfo(x.dtype).tiny).sqrt(), squares <= 1e-6 * squares[:, :1]
    if not weak.any():
        return values
    # The values below the k largest are at most the norm of x along any d - k orthonormal directions (Courant-Fischer). Along the
    # weak ones it is rounding error where the rank is deficient; where it is more, the matrix goes to the SVD.
    directions = torch.linalg.eigh(gram).eigenvectors.flip(-1) * weak[:, None]
    exact = torch.linalg.matrix_norm(x @ directions) > noise[:, 0]
    return torch.where(weak, 0.0, values).index_put((exact,), torch.linalg.svdvals(x[exact]))


def _relative(s):
    # Singular values over their largest, so that squares neither over- nor underflow; 0 stays 0.
    s = checks.tensor("s", s).double()
    if s.ndim < 1 or not s.shape[-1] or not ((s >= 0) & (s < torch.inf)).all():
        raise checks.BadValue(f"s must be (..., k) singular values, finite and not negative, k >= 1, got shape {tuple(s.shape)}; use singular_values")
    top = s.amax(-1, keepdim=True)
    return s / torch.where(top > 0, top, 1.0)


def spectrum_rank(s, spectrum="singular"):
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


def effective_rank(x, center=True, spectrum="singular"):
    """Effective rank, the exponential of the spectrum's entropy: (..., n, d) -> (...).

    See `spectrum_rank` for the two spectra. At most min(n - 1, d) when centred. Invariant under
    rotation and scaling. A constant input has rank 0 when centred.

    Raises:
        ValueError: NaN or infinite values, or not at least 2-dimensional.
    """
    checks.choice("spectrum", spectrum, SPECTRA)
    return spectrum_rank(singular_values(x, center), spectrum)


def participation_ratio(x, center=True):
    """`(sum s^2)^2 / sum s^4`: (..., n, d) -> (...); 0 for a zero spectrum (Gao et al. 2017)."""
    return spectrum_participation(singular_values(x, center))


def spectrum_participation(s):
    """Participation ratio of singular values s: (..., k) -> (...)."""
    squares = _relative(s) ** 2
    return squares.sum(-1) ** 2 / (squares**2).sum(-1).clamp(min=torch.finfo(squares.dtype).tiny)


def stable_rank(x, center=True):
    """`sum s^2 / max s^2`: (..., n, d) -> (...); 0 for a zero spectrum."""
    return spectrum_stable(singular_values(x, center))


def spectrum_stable(s):
    """Stable rank of singular values s: (..., k) -> (...)."""
    return (_relative(s) ** 2).sum(-1)


class _Side(NamedTuple):
    # One side of a CKA: n centred rows x_i in some unit, or their Gram matrix where they are wider than n.
    matrix: torch.Tensor  # (..., n, d) rows, or (..., n, n) inner products of rows
    squares: torch.Tensor  # (..., n) |x_i|^2
    shape: tuple  # of the rows

    @property
    def gram(self):
        return self.shape[-1] > self.shape[-2]


def _prepared(name, x):
    # Centring changes neither form of HSIC and keeps its sums from cancelling. Normalising to unit
    # size does the same for over- and underflow. Returns the side and which matrices are constant.
    x, size, _ = _scaled(name, _matrix(name, x, rows=4))
    x = x - x.mean(-2, keepdim=True)
    squares = x.square().sum(-1)
    norm = squares.sum(-1).sqrt()[..., None, None]
    constant = norm <= x.shape[-2] * torch.finfo(x.dtype).eps * size[..., None]
    scale = torch.where(constant, 1.0, norm)
    side = _Side(x / scale, squares / scale[..., 0] ** 2, tuple(x.shape))
    return side._replace(matrix=side.matrix @ side.matrix.mT) if side.gram else side, constant[..., 0, 0]


def _cross(x, y):
    # |X^T Y|_F^2 = tr(X X^T Y Y^T)
    if x.gram and y.gram:
        return (x.matrix * y.matrix).sum((-2, -1))
    if x.gram or y.gram:
        gram, rows = (x.matrix, y.matrix) if x.gram else (y.matrix, x.matrix)
        return (gram @ rows * rows).sum((-2, -1))
    return torch.linalg.matrix_norm(x.matrix.mT @ y.matrix) ** 2


def _hsic(x, y, debiased):
    # Of two sides, up to a factor that cancels in CKA. Biased: |X^T Y|_F^2.
    cross, q, r = _cross(x, y), x.squares, y.squares
    return unbiased_hsic(cross, q.sum(-1), r.sum(-1), (q * r).sum(-1), q.shape[-1]) if debiased else cross


def unbiased_hsic(cross, q, r, qr, n):
    """Song et al.'s U-statistic, up to a factor that cancels in CKA, of n centred rows x_i and y_i.

    With centred columns its sums over off-diagonal Gram entries reduce to `cross = |X^T Y|_F^2`, `q = sum |x_i|^2`,
    `r = sum |y_i|^2` and `qr = sum |x_i|^2 |y_i|^2`.
    """
    return cross - qr + q * r / ((n - 1) * (n - 2)) - 2 * qr / (n - 2)


def normalised_hsic(xy, xx, yy, constant):
    """CKA from three HSIC values; NaN where a side is constant."""
    # A debiased self-similarity can be <= 0 only for data without structure at tiny n: no CKA then.
    valid = ~constant & (xx > 0) & (yy > 0)
    return torch.where(valid, xy / torch.sqrt(torch.where(valid, xx * yy, 1.0)), torch.nan)


def cka_from_hsic(hsic, constant):
    """CKA between every two of L layers from their HSIC (..., L, L) and which of them are constant (..., L); see `normalised_hsic`."""
    own = hsic.diagonal(dim1=-2, dim2=-1)
    out = normalised_hsic(hsic, own[..., None], own[..., None, :], constant[..., None] | constant[..., None, :])
    one = torch.eye(out.shape[-1], dtype=torch.bool, device=out.device) & ~out.isnan()
    return torch.where(one, 1.0, out)  # free of rounding


def linear_cka(x, y, debiased=True):
    """Linear centred kernel alignment: (..., n, d1), (..., n, d2) -> (...).

    Debiased (default): exact unbiased HSIC estimates, near 0 for independent data at any n, can be
    slightly negative. Biased: Kornblith et al.'s form, in [0, 1], upward biased at small n.
    1 for y = x. Invariant under rotation, scaling and shift of each side. NaN where a side is constant.

    Raises:
        ValueError: fewer than 4 rows, different numbers of rows, NaN or infinite values.
    """
    x, x_constant = _prepared("x", x)
    y, y_constant = _prepared("y", y)
    if x.shape[:-1] != y.shape[:-1]:
        shapes = f"{x.shape} and {y.shape}"
        raise checks.BadValue(f"x and y must have the same leading dimensions and rows, got {shapes}")
    xy, xx, yy = (_hsic(a, b, debiased) for a, b in ((x, y), (x, x), (y, y)))
    return normalised_hsic(xy, xx, yy, x_constant | y_constant)


def cka_matrix(layers, debiased=True):
    """CKA between every two of L layers: sequence of (..., n, d_l) -> (..., L, L). See `linear_cka`."""
    sides, constant = zip(*_prepared_layers(layers))
    cross, constant = _crosses(sides), torch.stack(constant, -1)
    sizes = torch.stack([side.squares for side in sides], -2)  # (..., L, n)
    q, n = sizes.sum(-1), sizes.shape[-1]
    hsic = unbiased_hsic(cross, q[..., None], q[..., None, :], sizes @ sizes.mT, n) if debiased else cross
    return cka_from_hsic(hsic, constant)


def _crosses(sides):
    # `_cross` of every two of L sides: (..., L, L).
    depths = len(sides)
    cross = sides[0].matrix.new_empty(*sides[0].squares.shape[:-1], depths, depths)
    for i, j in combinations_with_replacement(range(depths), 2):
        if sides[i].gram or sides[j].gram:
            cross[..., i, j] = cross[..., j, i] = _cross(sides[i], sides[j])
    narrow = [i for i, side in enumerate(sides) if not side.gram]
    widths = [sides[i].matrix.shape[-1] for i in narrow]
    rows = torch.cat([sides[i].matrix for i in narrow], -1) if narrow else None
    for k, i in enumerate(narrow):  # with every later one from one product
        squares = (sides[i].matrix.mT @ rows).square().sum(-2)
        sums = torch.stack([part.sum(-1) for part in squares.split(widths[k:], -1)], -1)
        cross[..., i, narrow[k:]] = cross[..., narrow[k:], i] = sums
        rows = rows[..., widths[k] :]
    return cross


def kernel_drift(layers, debiased=True):
    """`1 - CKA` between consecutive layers: sequence of L (..., n, d_l) -> (..., L - 1).

    NaN next to a constant layer. See `linear_cka` for what is raised.
    """
    prepared = _prepared_layers(layers)
    selfs = [_hsic(x, x, debiased) for x, _ in prepared]
    pairs = zip(zip(prepared, selfs), zip(prepared[1:], selfs[1:]))
    drift = [1 - normalised_hsic(_hsic(x, y, debiased), xx, yy, cx | cy) for ((x, cx), xx), ((y, cy), yy) in pairs]
    return torch.stack(drift, -1)


def _prepared_layers(layers):
    prepared = [_prepared(f"layers[{i}]", x) for i, x in enumerate(checks.sequence("layers", layers, 2))]
    rows = {side.shape[:-1] for side, _ in prepared}
    if len(rows) > 1:
        raise checks.BadValue(f"layers must share their leading dimensions and rows, got {sorted(rows)}")
    return prepared


def concentration(drift, leading=2):
    """Share of the total drift held by the `leading` largest transitions: (..., L) -> (...). NaN is skipped.

    Debiased drift can be slightly negative, which counts as 0. NaN if there is no drift at all.
    """
    d = checks.tensor("drift", drift).double()
    if d.ndim < 1 or d.shape[-1] < 1 or d.isinf().any():
        raise checks.BadValue(f"drift must be (..., L) finite numbers, L >= 1, got shape {tuple(d.shape)}")
    d = torch.nan_to_num(d, nan=0.0).clamp(min=0)
    return d.topk(min(checks.integer("leading", leading, 1), d.shape[-1])).values.sum(-1) / d.sum(-1)


def relevant_modes(posterior, floor=1e-6):
    """Degrees of freedom that prediction needs: effective rank of the centred Bayes log-posterior.

    Args:
        posterior: (n, V) exact posteriors at masked positions, from `masking.bayes_posterior`.
        floor: probabilities below it are raised to it; the number depends on it, so name it.

    Returns:
        Effective rank (eigenvalues) of the log-posteriors, centred over the vocabulary and over rows.
    """
    q = _matrix("posterior", posterior).double()
    if q.ndim != 2 or not ((q >= 0) & (q <= 1 + 1e-9)).all():
        raise checks.BadValue(f"posterior must be (n, V) probabilities, got shape {tuple(q.shape)}; use masking.bayes_posterior's, at the masked positions")
    log_q = q.clamp(min=checks.fraction("floor", floor)).log()
    return effective_rank(log_q - log_q.mean(-1, keepdim=True), spectrum="eigen").item()
