"""Linear CKA and kernel drift, plain and debiased, exact at any number of rows.

Linear CKA after Kornblith et al. (arXiv:1905.00414); its debiased form after Song et al. (JMLR 2012) and
Nguyen et al. (arXiv:2010.15327), here from sums over rows where n >= d and from Gram matrices of rows where
n < d, so that memory is O(n d + min(n, d)^2). Rows are samples: `x` is (..., n, d); sums are taken in
float64.
"""

from collections.abc import Sequence
from itertools import combinations_with_replacement, pairwise
from typing import NamedTuple

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from rgnb import checks
from rgnb.metrics._rows import _matrix, _scaled


class _Side(NamedTuple):
    # One side of a CKA: n centred rows x_i in some unit, or their Gram matrix where they are wider than n.
    matrix: Tensor  # (..., n, d) rows, or (..., n, n) inner products of rows
    squares: Tensor  # (..., n) |x_i|^2
    shape: tuple[int, ...]  # of the rows
    constant: Tensor  # (...) which matrices are

    @property
    def gram(self) -> bool:
        return self.shape[-1] > self.shape[-2]


def _side(name: str, x: Tensor) -> _Side:
    # Centring changes neither form of HSIC and keeps its sums from cancelling. Normalising to unit size does
    # the same for over- and underflow.
    x, size, _ = _scaled(name, _matrix(name, x, rows=4))
    x = x - x.mean(-2, keepdim=True)
    squares = x.square().sum(-1)
    norm = squares.sum(-1).sqrt()[..., None, None]
    constant = norm <= x.shape[-2] * torch.finfo(x.dtype).eps * size[..., None]
    scale = torch.where(constant, 1.0, norm)
    side = _Side(x / scale, squares / scale[..., 0] ** 2, tuple(x.shape), constant[..., 0, 0])
    return side._replace(matrix=side.matrix @ side.matrix.mT) if side.gram else side


def _cross(x: _Side, y: _Side) -> Tensor:
    # |X^T Y|_F^2 = tr(X X^T Y Y^T)
    if x.gram and y.gram:
        return (x.matrix * y.matrix).sum((-2, -1))
    if x.gram or y.gram:
        gram, rows = (x.matrix, y.matrix) if x.gram else (y.matrix, x.matrix)
        return (gram @ rows * rows).sum((-2, -1))
    return torch.linalg.matrix_norm(x.matrix.mT @ y.matrix) ** 2


def _hsic(x: _Side, y: _Side, debiased: bool) -> Tensor:
    # Up to a factor that cancels in CKA. Biased: |X^T Y|_F^2.
    cross, q, r = _cross(x, y), x.squares, y.squares
    return unbiased_hsic(cross, q.sum(-1), r.sum(-1), (q * r).sum(-1), q.shape[-1]) if debiased else cross


def unbiased_hsic(cross: Tensor, q: Tensor, r: Tensor, qr: Tensor, n: int) -> Tensor:
    """Song et al.'s U-statistic, up to a factor that cancels in CKA, of n centred rows x_i and y_i.

    With centred columns its sums over off-diagonal Gram entries reduce to `cross = |X^T Y|_F^2`,
    `q = sum |x_i|^2`, `r = sum |y_i|^2` and `qr = sum |x_i|^2 |y_i|^2`. What rounding alone leaves of them
    is 0, as where one row differs and all others are equal.
    """
    found = cross - qr + q * r / ((n - 1) * (n - 2)) - 2 * qr / (n - 2)
    noise = 8 * n * torch.finfo(found.dtype).eps * (cross + qr)
    return torch.where(found.abs() > noise, found, 0.0)


def normalised_hsic(xy: Tensor, xx: Tensor, yy: Tensor, constant: Tensor) -> Tensor:
    """CKA from three HSIC values; NaN where a side is constant."""
    # A debiased self-similarity can be <= 0 only for data without structure at tiny n: no CKA then.
    valid = ~constant & (xx > 0) & (yy > 0)
    return torch.where(valid, xy / torch.sqrt(torch.where(valid, xx * yy, 1.0)), torch.nan)


def cka_from_hsic(hsic: Tensor, constant: Tensor) -> Tensor:
    """CKA between every two of L layers, from their HSIC (..., L, L) and which are constant (..., L)."""
    own = hsic.diagonal(dim1=-2, dim2=-1)
    either = constant[..., None] | constant[..., None, :]
    out = normalised_hsic(hsic, own[..., None], own[..., None, :], either)
    one = torch.eye(out.shape[-1], dtype=torch.bool, device=out.device) & ~out.isnan()
    return torch.where(one, 1.0, out)  # free of rounding


def linear_cka(x: Tensor, y: Tensor, debiased: bool = True) -> Tensor:
    """Linear centred kernel alignment: (..., n, d1), (..., n, d2) -> (...).

    Debiased (default): exact unbiased HSIC estimates, near 0 for independent data at any n, can be
    slightly negative. Biased: Kornblith et al.'s form, in [0, 1], upward biased at small n.
    1 for y = x. Invariant under rotation, scaling and shift of each side. NaN where a side is constant.

    Raises:
        ValueError: fewer than 4 rows, different numbers of rows, NaN or infinite values.
    """
    a, b = _side("x", x), _side("y", y)
    if a.shape[:-1] != b.shape[:-1]:
        shapes = f"{a.shape} and {b.shape}"
        raise checks.BadValue(f"x and y must have the same leading dimensions and rows, got {shapes}")
    ab, aa, bb = _hsic(a, b, debiased), _hsic(a, a, debiased), _hsic(b, b, debiased)
    return normalised_hsic(ab, aa, bb, a.constant | b.constant)


def cka_matrix(layers: Sequence[Tensor], debiased: bool = True) -> Tensor:
    """CKA between every two of L layers: sequence of (..., n, d_l) -> (..., L, L). See `linear_cka`."""
    return _every_two(_sides(layers=checks.sequence("layers", layers, 2)), debiased)


def cka_between(layers_a: Sequence[Tensor], layers_b: Sequence[Tensor], debiased: bool = True) -> Tensor:
    """CKA between every layer of one network and every layer of another, on the same rows.

    Args:
        layers_a: sequence of La tensors (..., n, d_l); layers_b: of Lb, with the same n rows.

    Returns:
        (..., La, Lb). See `linear_cka`.
    """
    a, b = checks.sequence("layers_a", layers_a), checks.sequence("layers_b", layers_b)
    return _every_two(_sides(layers_a=a, layers_b=b), debiased)[..., : len(a), len(a) :]


def identified(cka: Tensor) -> Tensor:
    """Share of layers whose most similar layer of the other network is the same layer.

    After Kornblith et al. (arXiv:1905.00414), who match networks of one architecture from two seeds. Chance
    is 1 / L.

    Args:
        cka: (..., L, L) from `cka_between`; a layer without CKA (NaN) is matched with none.

    Returns:
        (...) float64.
    """
    cka = checks.tensor("cka", cka)
    if cka.ndim < 2 or cka.shape[-1] != cka.shape[-2] or not cka.shape[-1]:
        raise checks.BadValue(f"cka must be (..., L, L), from cka_between, got shape {tuple(cka.shape)}")
    best = cka.double().nan_to_num(nan=-torch.inf).argmax(-1)
    same = (best == torch.arange(cka.shape[-1], device=cka.device)) & ~cka.isnan().all(-1)
    return same.double().mean(-1)


def _every_two(sides: list[_Side], debiased: bool) -> Tensor:
    hsic = _crosses(sides)
    if debiased:
        sizes = torch.stack([side.squares for side in sides], -2)  # (..., L, n)
        q, n = sizes.sum(-1), sizes.shape[-1]
        hsic = unbiased_hsic(hsic, q[..., None], q[..., None, :], sizes @ sizes.mT, n)
    return cka_from_hsic(hsic, torch.stack([side.constant for side in sides], -1))


def _crosses(sides: list[_Side]) -> Tensor:
    # `_cross` of every two of L sides: (..., L, L).
    depths = len(sides)
    cross = sides[0].matrix.new_empty(*sides[0].squares.shape[:-1], depths, depths)
    for i, j in combinations_with_replacement(range(depths), 2):
        if sides[i].gram or sides[j].gram:
            cross[..., i, j] = cross[..., j, i] = _cross(sides[i], sides[j])
    narrow = [i for i, side in enumerate(sides) if not side.gram]
    widths = [sides[i].matrix.shape[-1] for i in narrow]
    rows = torch.cat([sides[i].matrix for i in narrow], -1) if narrow else cross
    for k, i in enumerate(narrow):  # with every later one from one product
        squares = (sides[i].matrix.mT @ rows).square().sum(-2)
        sums = torch.stack([part.sum(-1) for part in squares.split(widths[k:], -1)], -1)
        cross[..., i, narrow[k:]] = cross[..., narrow[k:], i] = sums
        rows = rows[..., widths[k] :]
    return cross


def kernel_drift(layers: Sequence[Tensor], debiased: bool = True) -> Tensor:
    """`1 - CKA` between consecutive layers: sequence of L (..., n, d_l) -> (..., L - 1).

    NaN next to a constant layer. See `linear_cka` for what is raised.
    """
    sides = _sides(layers=checks.sequence("layers", layers, 2))
    own = [_hsic(side, side, debiased) for side in sides]
    cka = [
        normalised_hsic(_hsic(x, y, debiased), xx, yy, x.constant | y.constant)
        for (x, xx), (y, yy) in pairwise(zip(sides, own, strict=True))
    ]
    return 1 - torch.stack(cka, -1)


def _sides(**networks: tuple[Tensor, ...]) -> list[_Side]:
    # The layers of all networks, one after the other.
    sides = [_side(f"{name}[{i}]", x) for name, layers in networks.items() for i, x in enumerate(layers)]
    rows, names = {side.shape[:-1] for side in sides}, " and ".join(networks)
    if len(rows) > 1:
        raise checks.BadValue(f"{names} must share their leading dimensions and rows, got {sorted(rows)}")
    return sides


def concentration(drift: Tensor | ArrayLike, leading: int = 2) -> Tensor:
    """Share of the total drift held by the `leading` largest transitions: (..., L) -> (...). NaN is skipped.

    Debiased drift can be slightly negative, which counts as 0. NaN if there is no drift at all.
    """
    d = checks.tensor("drift", drift).double()
    if d.ndim < 1 or d.shape[-1] < 1 or d.isinf().any():
        raise checks.BadValue(f"drift must be (..., L) finite numbers, L >= 1, got shape {tuple(d.shape)}")
    d = torch.nan_to_num(d, nan=0.0).clamp(min=0)
    return d.topk(min(checks.integer("leading", leading, 1), d.shape[-1])).values.sum(-1) / d.sum(-1)
