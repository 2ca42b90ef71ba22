"""Argument checks shared by every room: one clear error before any long work starts."""

import difflib
import math
import numbers


def integer(name, value, minimum, maximum=2**63 - 1):
    """Return `value` as an int. TypeError if it is not an integer, ValueError if it is below `minimum` or above `maximum`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}; pass a whole number >= {minimum}")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
    if value > maximum:
        raise ValueError(f"{name} must be at most {maximum}, got {value}")
    return int(value)


def positive(name, value):
    """Return `value` as a float. TypeError if it is not a real number, ValueError unless finite and > 0."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r}; pass a finite number > 0")
    try:
        number = float(value)
    except OverflowError:  # an int beyond the floats
        number = math.inf
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name} must be finite and greater than 0, got {value}")
    return number


def fraction(name, value):
    """Return `value` as a float. ValueError unless it lies strictly between 0 and 1."""
    if positive(name, value) >= 1:
        raise ValueError(f"{name} must lie strictly between 0 and 1, got {value}")
    return float(value)


def sequence(name, values, minimum=1):
    """Return `values` as a tuple. TypeError if they cannot be iterated, ValueError if there are fewer than `minimum`."""
    if isinstance(values, str | bytes | dict) or not hasattr(values, "__iter__") or getattr(values, "ndim", 1) == 0:
        raise TypeError(f"{name} must be a sequence, got {values!r}; pass a list such as [{values!r}]")
    values = tuple(values)
    if len(values) < minimum:
        raise ValueError(f"{name} must hold at least {minimum}, got {len(values)}")
    return values


def choice(name, value, options):
    """Return `value` if it is one of `options`; else a ValueError that names the closest one."""
    options = list(options)
    if value not in options:
        named = [str(option) for option in options]
        close = difflib.get_close_matches(str(value), named, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"unknown {name} {value!r}: {hint}choose from {', '.join(named)}")
    return value


def tensor(name, values):
    """Return `values` as a tensor of real numbers, one that is a tensor already as it is. TypeError if they are something else."""
    import numpy as np
    import torch

    if not isinstance(values, torch.Tensor):
        try:
            values = np.asarray(values)
            values = torch.from_numpy(np.array(values, dtype=values.dtype.newbyteorder("=")))  # any layout and byte order
        except (TypeError, ValueError, OverflowError) as error:
            raise TypeError(f"{name} must be a tensor or array of numbers: {error}") from None
    if values.is_complex():
        raise TypeError(f"{name} must be real, got {values.dtype}")
    return values


def states(name, values, n_states, mask=False):
    """Return `values` as an int64 tensor of states 0..n_states-1, and n_states, which stands for [MASK], if `mask`."""
    given, last = tensor(name, values), n_states if mask else n_states - 1
    found = given.long()
    if given.dtype.is_floating_point or found.numel() and not 0 <= found.min() <= found.max() <= last:
        raise ValueError(f"{name} must be integers in 0..{last}{f' ([MASK] is {last})' * mask}, got {given.dtype} {found.unique().tolist()[:20]}")
    return found
