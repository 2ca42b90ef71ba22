"""Measure any torch network: hooks on its modules, ranks and kernel drift of rows that arrive in batches.

Memory does not grow with the number of rows: what ranks and both forms of CKA need are sums over rows (`Moments`).
"""

import numpy as np
import torch
import xarray as xr

from rgnb import checks, metrics
from rgnb.training import resolve_device

VIEWS = ("position", "token", "pooled")  # of `metrics.view`, those whose rows can arrive in batches


class Moments:
    """Sums over rows from which ranks, CKA and kernel drift of L layers follow, exactly, in whatever batches the rows arrive.

    Memory and time for one row are O(D^2), D the layers' widths added up. Works in float64; a spectrum comes from the
    eigenvalues of a covariance matrix, so that singular values below about 1e-8 of the largest count as 0.
    """

    def __init__(self):
        self.rows = 0

    def update(self, layers):
        """Add rows: sequence of L tensors (..., n, d_l) that share all but d_l, leading dimensions and widths as in earlier calls.

        Raises:
            ValueError: NaN or infinite values, or shapes that do not fit; nothing is added then.
        """
        layers = [self._checked(f"layers[{i}]", x) for i, x in enumerate(checks.sequence("layers", layers, 1))]
        shapes = {tuple(x.shape[:-1]) for x in layers}
        if len(shapes) > 1:
            raise ValueError(f"layers must share their leading dimensions and rows, got {sorted(shapes)}")
        shape, widths = layers[0].shape[:-2], [x.shape[-1] for x in layers]
        if not self.rows:
            self._begin(layers, shape, widths)
        elif (shape, widths) != (self._shape, self._widths):
            raise ValueError(
                f"layers must have leading dimensions {tuple(self._shape)} and widths {self._widths} as before, "
                f"got {tuple(shape)} and {widths}; start new Moments for another network or view"
            )
        x = (torch.cat(layers, -1) - self._shift[..., None, :]) / self._scale[..., None, :]
        squares = x**2 @ self._member
        self._gram += x.mT @ x
        self._sum += x.sum(-2)
        self._square_times_x += squares.mT @ x
        self._square_times_square += squares.mT @ squares
        self.rows += x.shape[-2]

    @staticmethod
    def _checked(name, x):
        x = checks.tensor(name, x).detach()
        if x.ndim < 2 or 0 in x.shape:
            raise ValueError(f"{name} must be real numbers (..., n, d) with n, d >= 1, got {x.dtype} of shape {tuple(x.shape)}")
        x = (x.cpu() if x.device.type == "mps" else x).double()  # MPS has no float64
        if not torch.isfinite(x).all():
            raise ValueError(f"{name} holds NaN or infinite values; drop those rows or fix the network first")
        return x

    def _begin(self, layers, shape, widths):
        # Sums of fourth powers cancel badly far from the mean and overflow at large sizes: rows are counted from the
        # first batch's mean, in units of its spread.
        self._shape, self._widths = shape, widths
        shift, scale, self._size = [], [], []
        for x in layers:
            mean = x.mean(-2)
            size, spread = (y.square().mean((-2, -1)).sqrt() for y in (x, x - mean[..., None, :]))
            spread = torch.where(spread > 1e-12 * size, spread, torch.where(size > 0, size, 1.0))
            shift.append(mean)
            scale.append(spread[..., None].expand_as(mean))
            self._size.append(size / spread)
        self._shift, self._scale, self._size = torch.cat(shift, -1), torch.cat(scale, -1), torch.stack(self._size, -1)
        total, new = sum(widths), self._shift.new_zeros
        self._member = torch.block_diag(*(torch.ones(d, 1) for d in widths)).to(self._shift)  # (D, L): which layer a column is of
        self._gram, self._sum = new(*shape, total, total), new(*shape, total)
        self._square_times_x = new(*shape, len(widths), total)
        self._square_times_square = new(*shape, len(widths), len(widths))

    def singular_values(self, center=True):
        """Singular values of each layer's rows: list of L tensors (..., d_l); see `metrics.singular_values`."""
        self._enough(1)
        gram = self._centred()[0] if center else self._uncentred()
        spectra, start = [], 0
        for d in self._widths:
            block = gram[..., start : start + d, start : start + d]
            s = torch.linalg.eigvalsh(block).flip(-1)
            floor = max(d, 16) * torch.finfo(s.dtype).eps * s[..., :1]
            unit = 1.0 if not center else self._scale[..., start, None]
            spectra.append(torch.where(s > floor, s.clamp(min=0), 0.0).sqrt() * unit)
            start += d
        if center:
            constant = self._constant()
            spectra = [torch.where(constant[..., i, None], 0.0, s) for i, s in enumerate(spectra)]
        return spectra

    def cka_matrix(self, debiased=True):
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
            outer = q[..., :, None] * m2[..., None, :]
            qr = self._square_times_square - 2 * (w + w.mT) + outer + outer.mT + 4 * k - 3 * n * m2[..., :, None] * m2[..., None, :]
            q = q - n * m2
            cross = metrics.unbiased_hsic(cross, q[..., :, None], q[..., None, :], qr, n)
        return metrics.cka_from_hsic(cross, self._constant())

    def kernel_drift(self, debiased=True):
        """`1 - CKA` between consecutive layers: (..., L - 1); see `metrics.kernel_drift`."""
        return 1 - self.cka_matrix(debiased).diagonal(1, -2, -1)

    def _enough(self, rows):
        if self.rows < rows:
            raise ValueError(f"at least {rows} rows are needed, got {self.rows}; update() with more")

    def _centred(self):
        mean = self._sum / self.rows
        return self._gram - self.rows * mean[..., :, None] * mean[..., None, :], mean

    def _uncentred(self):
        scaled = self._gram * self._scale[..., :, None] * self._scale[..., None, :]
        cross = (self._sum * self._scale)[..., :, None] * self._shift[..., None, :]
        return scaled + cross + cross.mT + self.rows * self._shift[..., :, None] * self._shift[..., None, :]

    def _constant(self):
        spread = self._centred()[0].diagonal(dim1=-2, dim2=-1) @ self._member
        return spread.clamp(min=0).sqrt() <= self.rows * torch.finfo(spread.dtype).eps * self._size * self.rows**0.5


def observe(model, batches, modules, view="token", device="auto"):
    """Ranks, CKA and kernel drift of the outputs of a network's modules, over batches of its inputs.

    Args:
        model: torch.nn.Module; it is put into evaluation mode while it is observed, and moved to `device`.
        batches: iterable of inputs: a tensor for `model(x)`, a tuple for `model(*x)`, a dict for `model(**x)`.
        modules: names of submodules as `model.named_modules()` gives them, in the order of depth. Where a module returns
            a tuple, its first entry is taken.
        view: "token", "position" or "pooled", for outputs (batch, length, d) (see `metrics.view`); or a function of a module's output
            that returns (..., n, d).
        device: see `training.resolve_device`.

    Returns:
        xarray.Dataset with dims among (centring, spectrum, depth, other_depth, transition, mode), names as in the results of
        `Experiment.run`, the modules' names along `depth`; averaged over leading dimensions. Join several networks with
        `xr.concat(datasets, "seed")`.

    Raises:
        ValueError: an unknown module or view, no batch, or outputs that do not fit.
        TypeError: no network, or batches that hold something else than tensors.
    """
    checks.instance("model", model, torch.nn.Module)
    if isinstance(batches, str | bytes | dict | torch.Tensor) or not hasattr(batches, "__iter__"):
        raise TypeError(f"batches must be an iterable of inputs, got {type(batches).__name__}; pass a list such as [x]")
    named = dict(model.named_modules())
    modules = [checks.choice("module", name, [n for n in named if n]) for name in checks.sequence("modules", modules, 1)]
    if not callable(view):
        checks.choice("view", view, VIEWS)
    device, found, moments = resolve_device(device), {}, Moments()

    def hook(name):
        def keep(module, arguments, output):
            found[name] = output[0] if isinstance(output, tuple) else output

        return keep

    handles = [named[name].register_forward_hook(hook(name)) for name in modules]
    training = model.training
    try:
        model.to(device).eval()
        for batch in batches:
            found.clear()
            _call(model, batch, device)
            if missing := [name for name in modules if name not in found]:
                raise ValueError(f"modules {missing} were not called by the model; name ones that its forward pass uses")
            moments.update([_arranged(name, found[name], view) for name in modules])
    finally:
        for handle in handles:
            handle.remove()
        model.train(training)
    if not moments.rows:
        raise ValueError("batches holds none; give at least one batch (an iterator can be used up only once)")
    return _dataset(moments, modules)


@torch.no_grad()
def _call(model, batch, device):
    named = batch if isinstance(batch, dict) else {}
    plain = () if named else batch if isinstance(batch, tuple | list) else (batch,)
    for x in (*plain, *named.values()):
        if not isinstance(x, torch.Tensor):
            raise TypeError(f"batches must hold tensors, or tuples or dicts of them, got {type(x).__name__}")
    return model(*(x.to(device) for x in plain), **{k: v.to(device) for k, v in named.items()})


def _arranged(name, output, view):
    if callable(view):
        return view(output)
    if not isinstance(output, torch.Tensor) or output.ndim != 3:
        shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise ValueError(f"module {name!r} returns {shape}, not (batch, length, d); pass a function as view that makes it (..., n, d)")
    return metrics.view(output, view)


def _dataset(moments, modules):
    spectra = {c: moments.singular_values(center=c == "centred") for c in ("centred", "uncentred")}

    def over(function):
        # (centring, depth), averaged over leading dimensions.
        return [[function(s).mean().item() for s in layers] for layers in spectra.values()]

    width = max(s.shape[-1] for s in spectra["centred"])
    values = np.full((2, len(modules), width), np.nan)
    for c, layers in enumerate(spectra.values()):
        for depth, s in enumerate(layers):
            values[c, depth, : s.shape[-1]] = s.square().flatten(0, -2).mean(0).sqrt().cpu() if s.ndim > 1 else s.cpu()
    rank = np.stack([over(lambda s, kind=kind: metrics.spectrum_rank(s, kind)) for kind in metrics.SPECTRA], 1)
    cka = moments.cka_matrix().flatten(0, -3).nanmean(0).cpu().numpy() if moments._shape else moments.cka_matrix().cpu().numpy()
    variables = {  # name: (dims, values, long name)
        "effective_rank": (("centring", "spectrum", "depth"), rank, "effective rank, mean over the view's matrices"),
        "participation_ratio": (("centring", "depth"), over(metrics.spectrum_participation), "participation ratio"),
        "stable_rank": (("centring", "depth"), over(metrics.spectrum_stable), "stable rank"),
        "singular_value": (("centring", "depth", "mode"), values, "root mean square over matrices of each singular value"),
        "cka": (("depth", "other_depth"), cka, "debiased linear CKA between depths, mean over matrices"),
        "kernel_drift": (("transition",), 1 - np.diagonal(cka, 1), "1 - CKA of consecutive depths"),
    }
    depths = range(len(modules))
    return xr.Dataset(
        {k: (dims, v, {"long_name": name, "units": "1"}) for k, (dims, v, name) in variables.items()},
        coords={
            "centring": list(spectra), "spectrum": list(metrics.SPECTRA), "depth": depths, "other_depth": depths,
            "transition": depths[:-1], "module": ("depth", modules),
        },
        attrs={"rows": moments.rows},
    )  # fmt: skip
