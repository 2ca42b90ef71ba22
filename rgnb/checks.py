"""Checks of what a caller passes in: one clear error before any long work starts."""

import difflib
import math
import numbers
import os
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:  # imported where needed: the command line checks arguments without them
    import numpy as np
    import torch

T = TypeVar("T")


class BadInput(Exception):
    """What was passed in cannot be used; the message says what to pass instead.

    Only its two subclasses are raised. Any other error is a fault of the package or of the machine.
    """


class BadValue(BadInput, ValueError):
    """A value that cannot be used."""


class BadType(BadInput, TypeError):
    """Something of a kind that cannot be used."""


class Failed(RuntimeError):
    """Work that could not be done; the message says why in full, and a traceback would add nothing."""


def instance(name: str, value: object, kind: type[T], where: str = "") -> T:
    """Return `value`. TypeError if it is not of this class, with its own and `where` to get one."""
    if not isinstance(value, kind):
        wanted = f"{kind.__module__.partition('.')[0]} {kind.__name__}"
        raise BadType(f"{name} must be a {wanted}, got {type(value).__name__}{where and f'; {where}'}")
    return value


def path(name: str, value: str | os.PathLike) -> Path:
    """Return `value` as a Path. TypeError if it is not a path, ValueError if no file can be named so."""
    if not isinstance(value, str | os.PathLike) or value == "":
        raise BadType(f"{name} must be a path, got {value!r}")
    if "\0" in str(os.fspath(value)):
        raise BadValue(f"{name} must not hold a null character, got {value!r}")
    return Path(value)


def label(name: str, value: str) -> str:
    """Return `value`, a part of a file's name. ValueError unless made of letters, digits and dashes."""
    if not value.replace("-", "").isalnum() or not value.isascii():
        raise BadValue(f"{name} must be made of letters, digits and dashes, got {value!r}")
    return value


def integer(name: str, value: object, minimum: int, maximum: int = 2**63 - 1) -> int:
    """Return `value` as an int. TypeError if it is not an integer, ValueError if it is out of range."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise BadType(f"{name} must be an integer, got {value!r}; pass a whole number >= {minimum}")
    found = int(value)
    if found < minimum:
        raise BadValue(f"{name} must be at least {minimum}, got {value}")
    if found > maximum:
        raise BadValue(f"{name} must be at most {maximum}, got {value}")
    return found


def number(name: str, value: object, above: float = -math.inf) -> float:
    """Return `value` as a float. TypeError if it is not a number, ValueError unless finite and > `above`."""
    wanted = "finite" if above == -math.inf else f"finite and greater than {above:g}"
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise BadType(f"{name} must be a number, got {value!r}; pass one that is {wanted}")
    try:
        found = float(value)
    except OverflowError:  # an int beyond the floats
        found = math.inf
    if not (math.isfinite(found) and found > above):
        raise BadValue(f"{name} must be {wanted}, got {value}")
    return found


def positive(name: str, value: object) -> float:
    """Return `value` as a float. TypeError if it is not a number, ValueError unless finite and > 0."""
    return number(name, value, above=0)


def fraction(name: str, value: object) -> float:
    """Return `value` as a float. ValueError unless it lies strictly between 0 and 1."""
    found = positive(name, value)
    if found >= 1:
        raise BadValue(f"{name} must lie strictly between 0 and 1, got {value}")
    return found


def sequence(name: str, values: Any, minimum: int = 1) -> tuple:
    """Return `values` as a tuple. TypeError if not a sequence, ValueError if shorter than `minimum`."""
    scalar = isinstance(values, str | bytes | dict) or getattr(values, "ndim", 1) == 0
    if scalar or not hasattr(values, "__iter__"):
        raise BadType(f"{name} must be a sequence, got {values!r}; pass a list such as [{values!r}]")
    if hasattr(values, "is_nested"):  # a torch tensor: only a dense one can be taken apart into its rows
        tensor(name, values)
    values = tuple(values)
    if len(values) < minimum:
        raise BadValue(f"{name} must hold at least {minimum}, got {len(values)}")
    return values


def choice(name: str, value: T, options: Iterable) -> T:
    """Return `value`. ValueError that names the closest option if it is none of `options`."""
    options = list(options)
    # An array or a list is never one of them.
    several = getattr(value, "ndim", 0) or not isinstance(value, Hashable)
    if several or value not in options:
        named = [str(option) for option in options]
        close = difflib.get_close_matches(str(value), named, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        some = difflib.get_close_matches(str(value), named, n=10, cutoff=0) if len(named) > 25 else named
        rest = f", ... ({len(named)} in all)" if len(named) > len(some) else ""
        raise BadValue(f"unknown {name} {value!r}: {hint}choose from {', '.join(some)}{rest}")
    return value


def mapping(name: str, values: object, kind: type) -> None:
    """TypeError unless `values` is a dict whose values are all of one class."""
    if not isinstance(values, dict):
        raise BadType(f"{name} must be a dict, got {type(values).__name__}")
    for key, value in values.items():
        if not isinstance(value, kind):
            raise BadType(f"{name}[{key!r}] must be a {kind.__name__}, got {type(value).__name__}")


def _unmasked(name: str, values: object) -> None:
    # ValueError if `values` are a numpy masked array, or lists that hold one, with masked entries.
    import numpy as np

    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        missing = f"{np.ma.count_masked(values)} of {values.size}"
        raise BadValue(f"{name} has masked (missing) entries, {missing}; leave out rows that hold them")
    if isinstance(values, list | tuple):
        for i, value in enumerate(values):
            if isinstance(value, list | tuple | np.ma.MaskedArray):
                _unmasked(f"{name}[{i}]", value)


def _dense(name: str, x: "torch.Tensor") -> None:
    import torch

    if x.is_nested:
        found, instead = "a nested one", "the rows of its parts, torch.cat(x.unbind())"
    elif x.is_meta:
        found, instead = "one on the meta device, which has no values", "a tensor that was computed"
    elif x.layout != torch.strided:
        found, instead = f"one of layout {x.layout}", "x.to_dense()"
    elif x.is_quantized:
        found, instead = "a quantized one", "x.dequantize()"
    else:
        return
    raise BadType(f"{name} must be a dense tensor, got {found}; pass {instead}")


def tensor(name: str, values: Any) -> "torch.Tensor":
    """Return `values` as a dense tensor of real numbers; such a tensor itself is returned unchanged.

    Raises:
        TypeError: anything else; or a sparse, nested or quantized tensor, or one on the meta device.
        ValueError: a masked array with masked entries.
    """
    import numpy as np
    import torch

    if isinstance(values, torch.Tensor):
        _dense(name, values)
        found = values
    else:
        _unmasked(name, values)
        try:
            given = np.asarray(values)
            native = np.array(given, dtype=given.dtype.newbyteorder("="))  # of any layout and byte order
            found = torch.from_numpy(native)
        except (TypeError, ValueError, OverflowError, RuntimeError) as error:
            raise BadType(f"{name} must be a tensor or array of numbers: {error}") from None
    if found.is_complex():
        raise BadType(f"{name} must be real, got {found.dtype}")
    return found


def states(name: str, values: Any, n_states: int, mask: bool = False) -> "torch.Tensor":
    """Return `values` as an int64 tensor of states 0..n_states-1, and [MASK] = n_states if `mask`."""
    import torch

    given, last = tensor(name, values), n_states if mask else n_states - 1
    found = given.long()
    if (
        given.dtype.is_floating_point
        or given.dtype == torch.bool
        or (found.numel() and not 0 <= found.min() <= found.max() <= last)
    ):
        raise BadValue(
            f"{name} must be integers in 0..{last}{f' ([MASK] is {last})' * mask}, "
            f"got {given.dtype} {given.unique().tolist()[:20]}"
        )
    return found


def matrix(name: str, values: Any) -> "torch.Tensor":
    """Return `values` as an (n, k) float64 tensor. ValueError unless finite, n and k >= 1."""
    found = tensor(name, values).double()
    if found.ndim != 2 or 0 in found.shape or not found.isfinite().all():
        raise BadValue(f"{name} must be (n, k) finite numbers, n and k >= 1, got shape {tuple(found.shape)}")
    return found


def array(name: str, values: Any) -> "np.ndarray":
    """Return `values` as a float64 numpy array of any shape."""
    return tensor(name, values).detach().cpu().double().numpy()


def vector(name: str, values: Any) -> "np.ndarray":
    """Return `values` as an (n,) float64 array. ValueError unless it has that shape, n >= 1."""
    found = array(name, values)
    if found.ndim != 1 or not len(found):
        raise BadValue(f"{name} must be (n,) numbers, n >= 1, got shape {found.shape}")
    return found


def known(name: str, values: Any) -> "np.ndarray":
    """Return `values` as a `vector`. ValueError if one of them is missing (NaN)."""
    found = vector(name, values)
    if missing := int((found != found).sum()):
        raise BadValue(
            f"{name} must hold no missing value (NaN), got {missing} of {len(found)}; leave those out"
        )
    return found


def positives(name: str, values: Any) -> "np.ndarray":
    """Return `values` as a `vector`. ValueError unless they are finite and > 0."""
    found = vector(name, values)
    if not ((found > 0) & (found < math.inf)).all():
        raise BadValue(f"{name} must be finite and greater than 0, got {found[:20]}")
    return found


def paired(check: Callable[[str, Any], Any], **values: Any) -> list:
    """Return arguments that each pass `check`, such as `vector`. ValueError unless they are of one length."""
    found = [check(name, v) for name, v in values.items()]
    if len({len(v) for v in found}) > 1:
        raise BadValue(f"{' and '.join(values)} must be of one length, got {[len(v) for v in found]}")
    return found


# Labels of a sweep's rows that are text.
WORDS = ("family", "mixing", "scheme", "schedule", "gradient", "loss_over")
CHOSEN_BY = "state view centring spectrum correlation_length target direction perturbation scale".split()


def results(name: str, ds: object, **variables: str) -> None:
    """TypeError unless `ds` is a Dataset, ValueError unless it holds these variables with these dims.

    Args:
        variables: name of a variable -> its dims, separated by spaces. Dims in `CHOSEN_BY` need their
            coordinate, since values are chosen by it. Values are real numbers, or words for `WORDS`.
    """
    import xarray as xr

    if not isinstance(ds, xr.Dataset):
        found = type(ds).__name__
        raise BadType(
            f"{name} must be an xarray Dataset such as Experiment.run or sweep returns, got {found}"
        )
    for variable, dims in variables.items():
        if variable not in ds:
            held = sorted(map(str, ds.data_vars))
            raise BadValue(f"{name} lacks the variable {variable!r}; it holds {held}")
        values, what = ds[variable], f"{name}: {variable}"
        kinds, wanted = ("UTO", "words") if variable in WORDS else ("fiub", "real numbers")
        if values.dtype.kind not in kinds:
            raise BadType(f"{what} must hold {wanted}, got {values.dtype}")
        for dim in (*dims.split(), *map(str, values.dims)):
            if not values.sizes.get(dim):
                sizes = dict(values.sizes)
                raise BadValue(f"{what} must have the dimension {dim!r}, of size 1 or more, got {sizes}")
            if dim in CHOSEN_BY and dim not in values.indexes:
                raise BadValue(f"{what} needs the coordinate {dim!r}, by which its values are chosen")


def complete(name: str, values: Any) -> Any:
    """Return `values`, a DataArray chosen from results `name`. ValueError that says where one is NaN."""
    import numpy as np

    missing = np.isnan(values.values)  # far faster than isnull
    if not missing.any():
        return values
    place = dict(zip(values.dims, np.argwhere(missing)[0].tolist(), strict=True))
    one = values.isel(place)
    labels = place | {label: one[label].item() for label in one.coords if label != "provenance"}
    where = ", ".join(f"{label} {value}" for label, value in labels.items()) or "all"
    advice = "run what is missing"
    if "run" in values.dims:
        advice = f"choose rows that are whole, {name}.isel(run=...), or {advice}"
    elif "seed" in values.dims:
        lost = missing.any(tuple(i for i, dim in enumerate(values.dims) if dim != "seed"))
        if not lost.all():
            there = values["seed"].values[~lost].tolist()
            advice = f"choose seeds that are there, {name}.sel(seed={there}), or {advice}"
    what = f"{name}: {values.name}" if values.name else name
    raise BadValue(
        f"{what} has no value (NaN) at {where}; {missing.sum()} of {missing.size} are missing, and nothing "
        f"is judged without them: {advice}"
    )
