"""Argument checks shared by every room: one clear error before any long work starts."""

import difflib
import math
import numbers


def integer(name, value, minimum):
    """Return `value` as an int. TypeError if it is not an integer, ValueError if it is below `minimum`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}; pass a whole number >= {minimum}")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
    return int(value)


def positive(name, value):
    """Return `value` as a float. TypeError if it is not a real number, ValueError unless finite and > 0."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r}; pass a finite number > 0")
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be finite and greater than 0, got {value}")
    return float(value)


def fraction(name, value):
    """Return `value` as a float. ValueError unless it lies strictly between 0 and 1."""
    if positive(name, value) >= 1:
        raise ValueError(f"{name} must lie strictly between 0 and 1, got {value}")
    return float(value)


def sequence(name, values, minimum=1):
    """Return `values` as a tuple. TypeError if they cannot be iterated, ValueError if there are fewer than `minimum`."""
    if isinstance(values, str) or not hasattr(values, "__iter__"):
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
