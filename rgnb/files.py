"""Files that are whole or not there: written aside and moved into place, checked when read, set aside where damaged."""

import hashlib
import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path


class Damaged(ValueError):
    """A file is not what was written to it."""


@contextmanager
def replacing(path):
    """Yield a path to write to; what was written there takes the place of `path` at once, or not at all.

    Raises:
        OSError: it could not be written, because the disk is full for instance; says what to do.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield partial
        with open(partial, "rb") as file:
            os.fsync(file.fileno())  # before the name is: a power cut must not leave an empty file under it
        os.replace(partial, path)
    except Exception as error:  # netCDF and safetensors raise their own kinds when a disk is full
        advice = "make space, or choose another folder, and run again: what was stored before is whole"
        raise OSError(f"cannot write {path} ({type(error).__name__}: {error}); {advice}") from error
    finally:
        partial.unlink(missing_ok=True)


def remove_partial(folder, name="*"):
    """Remove what processes that were killed left half written beside `folder/name`; only for who holds the lock on those files."""
    for partial in Path(folder).glob(f".{name}.[0-9]*"):
        partial.unlink(missing_ok=True)


def set_aside(path, why):
    """Rename a damaged file, so that it can be looked at and made again, and say so on stderr.

    Raises:
        OSError: it cannot be renamed.
    """
    path, k = Path(path), 0
    while (aside := path.with_name(f"{path.name}.damaged-{k}")).exists():
        k += 1
    try:
        os.replace(path, aside)
    except OSError as error:
        raise OSError(f"{path} is damaged ({why}) and cannot be set aside ({error.strerror}); move it away and run again") from None
    print(f"{path} is damaged ({why}); it is kept as {aside.name} and made again", file=sys.stderr, flush=True)


def digest(arrays):
    """SHA-256 of named arrays of numbers or strings: {name: array} -> hex digits."""
    import numpy as np

    found = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        array = np.asarray(array)
        numbers = array.dtype.kind in "biuf"
        found.update(json.dumps([name, array.shape, array.dtype.str if numbers else "text"]).encode())
        found.update(np.ascontiguousarray(array).data if numbers else json.dumps(array.tolist(), default=str).encode())
    return found.hexdigest()
