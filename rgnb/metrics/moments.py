"""Sums over rows that arrive in batches, from which ranks, CKA and drift follow exactly."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from rgnb import checks
from rgnb.metrics._rows import _finite
from rgnb.metrics.similarity import cka_from_hsic, unbiased_hsic

LIMIT = 2**29  # entries of the largest sum over rows: 4 GiB, of which a result takes a few


class Moments:
    """Sums over rows from which ranks, CKA and kernel drift of L layers follow exactly.

    Rows may arrive in any batches. Memory, and time for one row, are O(D^2), D the layers' widths added up,
    at most 23170 (4 GiB). Works in float64; a spectrum comes from the eigenvalues of a covariance matrix, so
    that singular values below about 1e-8 of the largest count as 0.

    Attributes:
        rows: how many were added; widths: of the layers, empty before the first rows.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.widths: list[int] = []

    def update(self, layers: Sequence[Tensor]) -> None:
        """Add rows: sequence of L tensors (..., n, d_l) that share all but d_l.

        Leading dimensions and widths are as in earlier calls.

        Raises:
            ValueError: NaN or infinite values, shapes that do not fit, or rows that are too wide; nothing is
                added then.
        """
        given = checks.sequence("layers", layers, 1)
        self._add({f"layers[{i}]": x for i, x in enumerate(given)})

    def _add(self, named: Mapping[str, Tensor]) -> None:
        # `update` with the layers' names, which errors say.
        found = [_finite(name, x) for name, x in named.items()]
        shapes = {tuple(x.shape[:-1]) for x in found}
        if len(shapes) > 1:
            shared = "layers must share their leading dimensions and rows"
            raise checks.BadValue(f"{shared}, got {sorted(shapes)}")
        shape, widths = found[0].shape[:-2], [x.shape[-1] for x in found]
        if not self.rows:
            self._begin(found, shape, widths)
        elif (shape, widths) != (self._shape, self.widths):
            raise checks.BadValue(
                f"layers must have leading dimensions {tuple(self._shape)} and widths {self.widths} as "
                f"before, got {tuple(shape)} and {widths}; start new Moments for another network or view"
            )
        x = (torch.cat(found, -1) - self._shift[..., None, :]) / self._scale[..., None, :]
        squares = x**2 @ self._member
        self._gram += x.mT @ x
        self._sum += x.sum(-2)
        self._square_times_x += squares.mT @ x
        self._square_times_square += squares.mT @ squares
        self.rows += x.shape[-2]

    def _begin(self, layers: list[Tensor], shape: torch.Size, widths: list[int]) -> None:
        total = sum(widths)
        entries = math.prod(shape) * total**2
        if entries > LIMIT:
            raise checks.BadValue(
                f"layers are too wide for sums over rows: {total} features in all, with leading dimensions "
                f"{tuple(shape)}, take {entries / 2**27:.3g} GiB, and {LIMIT / 2**27:g} are allowed; take "
                "fewer layers at a time, pool features (feature maps: view=lambda x: x.mean((-2, -1))), or "
                "give metrics.kernel_drift a sample of rows, whose memory grows with the rows"
            )
        # Sums of fourth powers cancel badly far from the mean and overflow at large sizes: rows are counted
        # from the first batch's mean, in units of its spread.
        self._shape, self.widths = shape, widths
        shifts, scales, sizes = [], [], []
        for x in layers:
            mean = x.mean(-2)
            size, spread = (y.square().mean((-2, -1)).sqrt() for y in (x, x - mean[..., None, :]))
            spread = torch.where(spread > 1e-12 * size, spread, torch.where(size > 0, size, 1.0))
            shifts.append(mean)
            scales.append(spread[..., None].expand_as(mean))
            sizes.append(size / spread * x.shape[-1] ** 0.5)  # of a row
        self._shift, self._scale = torch.cat(shifts, -1), torch.cat(scales, -1)
        self._size = torch.stack(sizes, -1)
        # (D, L): which layer a column is of.
        self._member = torch.block_diag(*(torch.ones(d, 1) for d in widths)).to(self._shift)
        new = self._shift.new_zeros
        self._gram, self._sum = new(*shape, total, total), new(*shape, total)
        self._square_times_x = new(*shape, len(widths), total)
        self._square_times_square = new(*shape, len(widths), len(widths))

    def singular_values(self, center: bool = True) -> list[Tensor]:
        """Singular values of each layer: list of L tensors (..., d_l); see `metrics.singular_values`."""
        self._enough(1)
        gram = self._centred()[0] if center else self._uncentred()
        constant, spectra, start = self._constant(), [], 0
        for i, d in enumerate(self.widths):
            block = gram[..., start : start + d, start : start + d]
            s = torch.linalg.eigvalsh(block).flip(-1)
            floor = max(d, 16) * torch.finfo(s.dtype).eps * s[..., :1]
            s = torch.where(s > floor, s.clamp(min=0), 0.0).sqrt()
            if center:
                s = torch.where(constant[..., i, None], 0.0, s * self._scale[..., start, None])
            spectra.append(s)
            start += d
        return spectra

    def cka_matrix(self, debiased: bool = True) -> Tensor:
        """CKA between every two layers: (..., L, L); see `metrics.cka_matrix`."""
        self._enough(4)
        n, member = self.rows, self._member
        gram, mean = self._centred()
        cross = member.T @ gram**2 @ member
        if debiased:
            # Sums of |x - m|^2 and of |x - m|^2 |y - m|^2, multiplied out.
            q = self._gram.diagonal(dim1=-2, dim2=-1) @ member
            m2 = mean**2 @ member
            w = (self._square_times_x * mean[..., None, :]) @ member
            k = member.T @ (mean[..., :, None] * self._gram * mean[..., None, :]) @ member
            qm, mm = q[..., :, None] * m2[..., None, :], 3 * n * m2[..., :, None] * m2[..., None, :]
            qr = self._square_times_square - 2 * (w + w.mT) + qm + qm.mT + 4 * k - mm
            q = q - n * m2
            cross = unbiased_hsic(cross, q[..., :, None], q[..., None, :], qr, n)
        return cka_from_hsic(cross, self._constant())

    def kernel_drift(self, debiased: bool = True) -> Tensor:
        """`1 - CKA` between consecutive layers: (..., L - 1); see `metrics.kernel_drift`."""
        return 1 - self.cka_matrix(debiased).diagonal(1, -2, -1)

    def _enough(self, rows: int) -> None:
        if self.rows < rows:
            raise checks.BadValue(f"at least {rows} rows are needed, got {self.rows}; give more")

    def _centred(self) -> tuple[Tensor, Tensor]:
        mean = self._sum / self.rows
        return self._gram - self.rows * mean[..., :, None] * mean[..., None, :], mean

    def _uncentred(self) -> Tensor:
        scaled = self._gram * self._scale[..., :, None] * self._scale[..., None, :]
        cross = (self._sum * self._scale)[..., :, None] * self._shift[..., None, :]
        return scaled + cross + cross.mT + self.rows * self._shift[..., :, None] * self._shift[..., None, :]

    def _constant(self) -> Tensor:
        mean = self._sum / self.rows
        spread = (self._gram.diagonal(dim1=-2, dim2=-1) - self.rows * mean**2) @ self._member
        noise = self.rows * torch.finfo(spread.dtype).eps * self._size * self.rows**0.5
        return spread.clamp(min=0).sqrt() <= noise
