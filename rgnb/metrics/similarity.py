"""Linear CKA and kernel drift, plain and debiased, exact at any number of rows.

Linear CKA after Kornblith et al. (arXiv:1905.00414); its debiased form after Song et al. (JMLR 2012) and
Nguyen et al. (arXiv:2010.15327), here from sums over rows where n >= d and from Gram matrices of rows where
n < d, so that memory is O(n d + min(n, d)^2). Rows are samples: `x` is (..., n, d); sums are taken in float64.
"""

from itertools import combinations_with_replacement
from typing import NamedTuple

import torch

from rgnb import checks
from rgnb.metrics._rows import _matrix, _scaled


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
    out = normalised_hsic(
        hsic, own[..., None], own[..., None, :], constant[..., None] | constant[..., None, :]
    )
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
    drift = [
        1 - normalised_hsic(_hsic(x, y, debiased), xx, yy, cx | cy) for ((x, cx), xx), ((y, cy), yy) in pairs
    ]
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
