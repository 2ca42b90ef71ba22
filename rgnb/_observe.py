"""Measure any torch network: hooks on its modules, ranks and kernel drift of rows that arrive in batches.

Memory does not grow with the number of rows: sums over them (`Moments`) give ranks and both forms of CKA.
"""

import inspect
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from rgnb import checks, metrics
from rgnb.metrics._rows import _matrix
from rgnb.metrics.moments import Moments
from rgnb.randomness import resolve_device

VIEWS = ("position", "token", "pooled")  # of `metrics.view`, those whose rows can arrive in batches
Arrange = Callable[[str, Any, Any], Any]  # a module's name, its output and the batch -> rows


def observe(
    model: nn.Module,
    batches: Iterable,
    modules: Sequence[str],
    view: str | Callable[..., Tensor] = "token",
    device: str | torch.device = "auto",
    inputs: Callable[[Any], Any] | None = None,
) -> xr.Dataset:
    """Ranks, CKA and kernel drift of the outputs of a network's modules, over batches of its inputs.

    Args:
        model: torch.nn.Module, compiled or not; it is moved to `device`, and is in evaluation mode while it
            is observed.
        batches: iterable of inputs: a tensor for `model(x)`, a tuple for `model(*x)`, a dict or another
            mapping for `model(**x)`; or of anything that `inputs` turns into one of these.
        modules: names of submodules as `model.named_modules()` gives them, in the order of depth. An output
            may be a tensor or hold one: its `last_hidden_state`, else its first tensor. Where a module is
            called several times in a forward pass, each call is a depth of its own (`name`, `name#2`, ...),
            depths are in the order of the calls, and every batch has to make the same calls.
        view: "token", "position" or "pooled", for outputs (batch, length, d) (see `metrics.view`); "token"
            also for (batch, d), and for nested tensors, whose rows it takes. Or a function that returns
            (..., n, d), of an output's tensor, or of that and its batch as `batches` gave it, for padding.
        device: see `randomness.resolve_device`.
        inputs: function of a batch that returns what the model gets, such as `lambda batch: batch[0]` for
            pairs of input and label; None: batches are what it gets.

    Returns:
        xarray.Dataset with dims among (centring, spectrum, depth, other_depth, transition, mode), names as
        in the results of `Experiment.run`, the modules' names along `depth`; averaged over leading
        dimensions. Its attrs hold `rows`, how many there were, and `view`, "own" for a function's. Combine
        several networks with `xr.concat(datasets, "seed")`; `rgnb.verdicts.measures.from_observed` makes of
        them what the verdicts take.

    Raises:
        ValueError: an unknown module or view, fewer than 4 rows in all, batches that call the modules
            differently, or outputs that do not fit or are too wide (see `Moments`).
        TypeError: not a network, or batches that hold anything but tensors or do not suit the model.

    Warns:
        UserWarning: fewer rows than a module has features: the sample then limits its rank.
    """
    checks.instance("model", model, nn.Module)
    if any(x.is_meta for x in (*model.parameters(), *model.buffers())):
        raise checks.BadValue("model has weights on the meta device, which hold no values; load them first")
    if isinstance(batches, str | bytes | Mapping | torch.Tensor) or not hasattr(batches, "__iter__"):
        found = type(batches).__name__
        raise checks.BadType(f"batches must be an iterable of inputs, got {found}; pass a list such as [x]")
    if inputs is not None and not callable(inputs):
        raise checks.BadType(f"inputs must be a function of a batch or None, got {type(inputs).__name__}")
    named, arrange, device = _named(model, modules), _arranging(view), resolve_device(device)
    moments, labels, batch = Moments(), list[str](), None
    calls: list[tuple[str, Tensor]] = []

    def hook(name: str) -> Callable:
        def keep(module: nn.Module, arguments: Any, output: Any) -> None:
            rows = _matrix(_view_of(name), arrange(name, _tensor_of(name, output), batch))
            # A copy: later modules may write into this output.
            calls.append((name, rows.to(torch.float64, copy=True)))

        return keep

    handles = [module.register_forward_hook(hook(name)) for name, module in named.items()]
    try:
        model.to(device)
        with _evaluating(model):
            for batch in batches:
                calls.clear()
                _call(model, batch if inputs is None else inputs(batch), device)
                depths = _by_depth(calls, list(named))
                labels = labels or list(depths)
                if labels != list(depths):
                    one, other = next(pair for pair in zip_longest(labels, depths) if len(set(pair)) > 1)
                    raise checks.BadValue(
                        f"batches must call the modules alike, but where the first calls {one!r}, a later "
                        f"one calls {other!r}; observe batches that make other numbers of calls apart"
                    )
                moments._add({_view_of(label): rows for label, rows in depths.items()})
    finally:
        for handle in handles:
            handle.remove()
    if not moments.rows:
        raise checks.BadValue("batches holds none; give at least one batch (an iterator runs only once)")
    wide = [label for label, d in zip(labels, moments.widths, strict=True) if d > moments.rows]
    if wide:
        warnings.warn(
            f"the sample limits ranks: its {moments.rows} rows are fewer than the features of "
            f"{', '.join(wide[:10])}{', ...' * (len(wide) > 10)}; give more rows",
            stacklevel=2,
        )
    # Verdicts are about one view: what a result's rows are has to go with it.
    return _dataset(moments, labels).assign_attrs(view="own" if callable(view) else view)


def _named(model: nn.Module, modules: Sequence[str]) -> dict[str, nn.Module]:
    # {name: module} of those asked for. torch.compile puts `_orig_mod` into the names of modules it wraps.
    every = model.named_modules(remove_duplicate=False)
    known = {name.replace("_orig_mod.", ""): module for name, module in every if name}
    found: dict[str, nn.Module] = {}
    for name in checks.sequence("modules", modules, 1):
        name = name.replace("_orig_mod.", "") if isinstance(name, str) else name
        module = known[checks.choice("module", name, known)]
        if same := [other for other, one in found.items() if one is module]:
            again = "is named twice" if same == [name] else f"is the same as {same[0]!r}"
            advice = "name it once, each of its calls is its own depth"
            raise checks.BadValue(f"module {name!r} {again}; {advice}")
        found[name] = module
    return found


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    # Compiled code calls no hooks, and fused attention turns padded batches into nested tensors: both are
    # switched off.
    training = {module: module.training for module in model.modules()}
    fused = torch.backends.mha.get_fastpath_enabled()
    compiled = "torch._dynamo" in sys.modules  # needed to compile anything, and slow to import
    eager = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
    try:
        model.eval()
        torch.backends.mha.set_fastpath_enabled(False)
        with torch.no_grad(), eager:
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for module, flag in training.items():  # one by one: some may have been frozen
            module.training = flag


def _call(model: nn.Module, given: Any, device: torch.device) -> None:
    if isinstance(given, list) and len(given) > 1:
        raise checks.BadType(
            f"batches: a list of {len(given)}, as a DataLoader gives, may hold labels; say what the model "
            "gets by inputs=lambda batch: batch[0] for its first entry, or inputs=tuple for all"
        )
    named = dict(given) if isinstance(given, Mapping) else {}
    plain = () if isinstance(given, Mapping) else given if isinstance(given, tuple | list) else (given,)
    for x in (*plain, *named.values()):
        if not isinstance(x, torch.Tensor) or x.is_meta:
            found = "one without values (meta)" if isinstance(x, torch.Tensor) else type(x).__name__
            raise checks.BadType(
                f"batches must hold tensors, or tuples or mappings of them, got {found}; "
                "pass as inputs a function of a batch that returns what the model gets"
            )
    try:
        inspect.signature(getattr(model, "_orig_mod", model).forward).bind(*plain, **named)
    except TypeError as error:
        example = f"{{name: batch[name] for name in {list(named)[:1]}}}" if named else "batch[0]"
        raise checks.BadType(
            f"batches do not suit the model, whose forward takes other arguments ({error}); "
            f"say what it gets by inputs=lambda batch: {example}"
        ) from None
    model(*(x.to(device) for x in plain), **{k: v.to(device) for k, v in named.items()})


def _view_of(name: str) -> str:
    return f"the view of module {name!r}"


def _tensor_of(name: str, output: Any) -> Tensor:
    # Outputs such as transformers' are mappings, named tuples, or objects with attributes.
    if isinstance(output, torch.Tensor):
        return output
    if hasattr(output, "_asdict"):
        output = output._asdict()
    if isinstance(output, tuple | list):
        output = dict(enumerate(output))
    held = dict(output) if isinstance(output, Mapping) else getattr(output, "__dict__", {})
    for x in (held.get("last_hidden_state"), *held.values()):
        if isinstance(x, torch.Tensor):
            return x
    found = type(output).__name__
    raise checks.BadValue(f"module {name!r} returns {found} without a tensor; name one of its submodules")


def _arranging(view: str | Callable) -> Arrange:
    if not callable(view):
        checks.choice("view", view, VIEWS)
        return lambda name, x, batch: _arranged(name, x, view)
    try:
        parameters = inspect.signature(view).parameters.values()
    except (ValueError, TypeError):  # it does not say
        parameters = {}.values()
    needed = sum(p.default is p.empty and p.kind <= p.POSITIONAL_OR_KEYWORD for p in parameters)
    return (lambda name, x, batch: view(x, batch)) if needed > 1 else (lambda name, x, batch: view(x))


def _arranged(name: str, x: Tensor, view: str) -> Tensor:
    if view == "token" and (x.is_nested or x.ndim == 2):
        return torch.cat(x.unbind()) if x.is_nested else x
    if x.is_nested or x.ndim != 3:
        shape, advice = "a nested tensor" if x.is_nested else tuple(x.shape), "token as view"
        if not x.is_nested and x.ndim != 2:
            advice = "a function as view that makes it (..., n, d)"
            advice += ", such as lambda x: x.mean((-2, -1)) for feature maps" * (x.ndim == 4)
        raise checks.BadValue(f"module {name!r} returns {shape}, not (batch, length, d); pass {advice}")
    return metrics.view(x, view)


def _by_depth(calls: list[tuple[str, Tensor]], names: list[str]) -> dict[str, Tensor]:
    # {label: rows} of calls [(name, rows)], in the order of names if each is called once, else of the calls.
    counts = Counter(name for name, _ in calls)
    if missing := [name for name in names if name not in counts]:
        advice = "name ones that the model's forward pass uses"
        raise checks.BadValue(f"modules {missing} were not called; {advice}")
    if len(calls) == len(names):
        calls = sorted(calls, key=lambda call: names.index(call[0]))
    seen, found = Counter[str](), {}
    for name, rows in calls:
        seen[name] += 1
        found[name if seen[name] == 1 else f"{name}#{seen[name]}"] = rows
    return found


def _dataset(moments: Moments, modules: list[str]) -> xr.Dataset:
    spectra = {"centred": moments.singular_values(True), "uncentred": moments.singular_values(False)}

    def mean(function: Callable[[Tensor], Tensor]) -> list[list[float]]:
        # (centring, depth), over leading dimensions.
        return [[function(s).mean().item() for s in layers] for layers in spectra.values()]

    values = np.full((len(spectra), len(modules), max(moments.widths)), np.nan)
    for c, layers in enumerate(spectra.values()):
        for depth, s in enumerate(layers):
            size = s.square().flatten(0, -2).mean(0).sqrt() if s.ndim > 1 else s
            values[c, depth, : s.shape[-1]] = size.cpu()
    ranks = [mean(partial(metrics.spectrum_rank, spectrum=kind)) for kind in metrics.SPECTRA]
    cka = moments.cka_matrix().reshape(-1, len(modules), len(modules)).nanmean(0).cpu().numpy()
    depths = range(len(modules))
    ds = xr.Dataset(
        coords={"centring": list(spectra), "spectrum": list(metrics.SPECTRA), "depth": depths}
        | {"other_depth": depths, "transition": depths[:-1], "module": ("depth", modules)},
        attrs={"rows": moments.rows},
    )

    def put(name: str, dims: str, values: Any, long_name: str) -> None:
        ds[name] = (dims.split(), values, {"long_name": long_name, "units": "1"})

    rank = np.stack(ranks, 1)
    put("effective_rank", "centring spectrum depth", rank, "effective rank, mean over the view's matrices")
    put("participation_ratio", "centring depth", mean(metrics.spectrum_participation), "participation ratio")
    put("stable_rank", "centring depth", mean(metrics.spectrum_stable), "stable rank")
    what = "root mean square over matrices of each singular value"
    put("singular_value", "centring depth mode", values, what)
    put("cka", "depth other_depth", cka, "debiased linear CKA between depths, mean over matrices")
    put("kernel_drift", "transition", 1 - np.diagonal(cka, 1), "1 - CKA of consecutive depths")
    return ds
