"""Argument checks shared by every room: one clear error before any long work starts."""

import difflib
import math
import numbers
import os
from collections.abc import Hashable
from pathlib import Path


class BadInput(Exception):
    """What was passed in cannot be used; the message says what to pass instead.

    Only its two subclasses are raised. Any other error is a fault of the package or the machine's.
    """


class BadValue(BadInput, ValueError):
    """A value that cannot be used."""


class BadType(BadInput, TypeError):
    """Something of a kind that cannot be used."""


class Failed(RuntimeError):
    """Work that could not be done, for a reason that the message gives in full: no traceback adds to it."""


def instance(name, value, kind, where=""):
    """Return `value` if it is of a class. TypeError that says what else it is, and `where` one comes from."""
    if not isinstance(value, kind):
        raise BadType(
            f"{name} must be a {kind.__module__.partition('.')[0]} {kind.__name__}, "
            f"got {type(value).__name__}{where and f'; {where}'}"
        )
    return value


def path(name, value):
    """Return `value` as a Path. TypeError if it is none, ValueError if no file can have such a name."""
    if not isinstance(value, str | os.PathLike) or (isinstance(value, str) and not value):
        raise BadType(f"{name} must be a path, got {value!r}")
    if "\0" in os.fspath(value):
        raise BadValue(f"{name} must not hold a null character, got {value!r}")
    return Path(value)


def integer(name, value, minimum, maximum=2**63 - 1):
    """Return `value` as an int. TypeError if it is not an integer, ValueError if it is below `minimum` or above `maximum`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise BadType(f"{name} must be an integer, got {value!r}; pass a whole number >= {minimum}")
    if value < minimum:
        raise BadValue(f"{name} must be at least {minimum}, got {value}")
    if value > maximum:
        raise BadValue(f"{name} must be at most {maximum}, got {value}")
    return int(value)


def number(name, value, above=-math.inf):
    """Return `value` as a float. TypeError if it is not a real number, ValueError unless it is finite and greater than `above`."""
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


def positive(name, value):
    """Return `value` as a float. TypeError if it is not a real number, ValueError unless finite and > 0."""
    return number(name, value, above=0)


def fraction(name, value):
    """Return `value` as a float. ValueError unless it lies strictly between 0 and 1."""
    if positive(name, value) >= 1:
        raise BadValue(f"{name} must lie strictly between 0 and 1, got {value}")
    return float(value)


def sequence(name, values, minimum=1):
    """Return `values` as a tuple. TypeError if they cannot be iterated, ValueError if there are fewer than `minimum`."""
    if (
        isinstance(values, str | bytes | dict)
        or not hasattr(values, "__iter__")
        or getattr(values, "ndim", 1) == 0
    ):
        raise BadType(f"{name} must be a sequence, got {values!r}; pass a list such as [{values!r}]")
    if hasattr(values, "is_nested"):  # a torch tensor: only a dense one can be taken apart into its rows
        tensor(name, values)
    values = tuple(values)
    if len(values) < minimum:
        raise BadValue(f"{name} must hold at least {minimum}, got {len(values)}")
    return values


def choice(name, value, options):
    """Return `value` if it is one of `options`; else a ValueError that names the closest."""
    options = list(options)
    several = getattr(value, "ndim", 0) or not isinstance(value, Hashable)  # an array or a list equals none
    if several or value not in options:
        named = [str(option) for option in options]
        close = difflib.get_close_matches(str(value), named, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        some = difflib.get_close_matches(str(value), named, n=10, cutoff=0) if len(named) > 25 else named
        rest = f", ... ({len(named)} in all)" if len(named) > len(some) else ""
        raise BadValue(f"unknown {name} {value!r}: {hint}choose from {', '.join(some)}{rest}")
    return value


def unmasked(name, values):
    """ValueError if `values` are a numpy masked array, or lists that hold one, with masked entries."""
    import numpy as np

    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        missing = f"{np.ma.count_masked(values)} of {values.size}"
        raise BadValue(f"{name} has masked (missing) entries, {missing}; leave out rows that hold them")
    if isinstance(values, list | tuple):
        for i, value in enumerate(values):
            if isinstance(value, list | tuple | np.ma.MaskedArray):
                unmasked(f"{name}[{i}]", value)


def tensor(name, values):
    """Return `values` as a dense tensor of real numbers, one that is such a tensor already as it is.

    Raises:
        TypeError: something else, or a sparse, nested or quantized tensor, or one on the meta device.
        ValueError: a masked array with masked entries.
    """
    import numpy as np
    import torch

    if isinstance(values, torch.Tensor):
        _dense(name, values)
    else:
        unmasked(name, values)
        try:
            values = np.asarray(values)
            values = torch.from_numpy(
                np.array(values, dtype=values.dtype.newbyteorder("="))
            )  # any layout and byte order
        except (TypeError, ValueError, OverflowError, RuntimeError) as error:
            raise BadType(f"{name} must be a tensor or array of numbers: {error}") from None
    if values.is_complex():
        raise BadType(f"{name} must be real, got {values.dtype}")
    return values


def _dense(name, x):
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


def matrix(name, values):
    """Return `values` as an (n, k) float64 tensor. ValueError unless it has that shape, n and k >= 1, and is finite."""
    found = tensor(name, values).double()
    if found.ndim != 2 or 0 in found.shape or not found.isfinite().all():
        raise BadValue(f"{name} must be (n, k) finite numbers, n and k >= 1, got shape {tuple(found.shape)}")
    return found


def array(name, values):
    """Return `values` as a float64 numpy array of any shape."""
    return tensor(name, values).detach().cpu().double().numpy()


def vector(name, values):
    """Return `values` as an (n,) float64 array. ValueError unless it has that shape, n >= 1."""
    found = array(name, values)
    if found.ndim != 1 or not len(found):
        raise BadValue(f"{name} must be (n,) numbers, n >= 1, got shape {found.shape}")
    return found


def positives(name, values):
    """Return `values` as a `vector`. ValueError unless they are finite and > 0."""
    found = vector(name, values)
    if not ((found > 0) & (found < math.inf)).all():
        raise BadValue(f"{name} must be finite and greater than 0, got {found[:20]}")
    return found


def paired(check, **values):
    """Return several arguments that pass `check`, such as `vector` or `matrix`. ValueError unless they are of one length."""
    found = [check(name, v) for name, v in values.items()]
    if len({len(v) for v in found}) > 1:
        raise BadValue(f"{' and '.join(values)} must be of one length, got {[len(v) for v in found]}")
    return found


WORDS = ("family", "mixing", "scheme")  # labels of a sweep's rows
LABELLED = (
    "state",
    "view",
    "centring",
    "spectrum",
    "correlation_length",
    "target",
    "direction",
    "perturbation",
    "scale",
)


def results(name, ds, **variables):
    """TypeError unless `ds` is a Dataset; ValueError unless it holds these variables, of real numbers or `WORDS`, with (at least) these dims.

    Args:
        variables: name of a variable -> its dims, separated by spaces. Dims of `LABELLED` need their coordinate, since values are chosen by it.
    """
    import xarray as xr

    if not isinstance(ds, xr.Dataset):
        raise BadType(
            f"{name} must be an xarray Dataset such as Experiment.run or sweep returns, "
            f"got {type(ds).__name__}"
        )
    for variable, dims in variables.items():
        if variable not in ds:
            raise BadValue(
                f"{name} lacks the variable {variable!r}; it holds {sorted(map(str, ds.data_vars))}"
            )
        values = ds[variable]
        if values.dtype.kind not in ("UTO" if variable in WORDS else "fiub"):
            raise BadType(
                f"{name}: {variable} must hold {'words' if variable in WORDS else 'real numbers'}, "
                f"got {values.dtype}"
            )
        for dim in (*dims.split(), *map(str, values.dims)):
            if not values.sizes.get(dim):
                raise BadValue(
                    f"{name}: {variable} must have the dimension {dim!r}, of size 1 or more, "
                    f"got {dict(values.sizes)}"
                )
            if dim in LABELLED and dim not in values.indexes:
                raise BadValue(
                    f"{name}: {variable} needs the coordinate {dim!r}, by which its values are chosen"
                )


def complete(name, values):
    """Return `values`, a DataArray chosen from the results `name`.

    Raises:
        ValueError: an entry has no value (NaN); says which one, and what to do.
    """
    import numpy as np

    missing = values.isnull().values
    if not missing.any():
        return values
    place = dict(zip(values.dims, np.argwhere(missing)[0].tolist()))
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


def mapping(name, values, kind):
    """TypeError unless `values` is a dict whose values are all of one class."""
    if not isinstance(values, dict):
        raise BadType(f"{name} must be a dict, got {type(values).__name__}")
    for key, value in values.items():
        if not isinstance(value, kind):
            raise BadType(f"{name}[{key!r}] must be a {kind.__name__}, got {type(value).__name__}")


def states(name, values, n_states, mask=False):
    """Return `values` as an int64 tensor of states 0..n_states-1, and n_states, which stands for [MASK], if `mask`."""
    given, last = tensor(name, values), n_states if mask else n_states - 1
    found = given.long()
    if given.dtype.is_floating_point or (found.numel() and not 0 <= found.min() <= found.max() <= last):
        raise BadValue(
            f"{name} must be integers in 0..{last}{f' ([MASK] is {last})' * mask}, "
            f"got {given.dtype} {found.unique().tolist()[:20]}"
        )
    return found
