"""Files that are either whole or absent: moved into place once written, set aside if damaged."""

import errno
import hashlib
import json
import os
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rgnb import checks


def checkout() -> Path | None:
    """The root of the checkout of rgnb that this package lies in; None where it is installed without one."""
    root = Path(__file__).resolve().parent.parent
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
    except (OSError, ValueError):  # there is none, or none in TOML
        return None
    return root if project.get("name") == "rgnb" else None


def make_writable(folder: Path, what: str, advice: str) -> None:
    """Make a folder where there is none, and make sure that files can be written there, before any work.

    Args:
        what, advice: what the folder is for, and what to do where it cannot be written, for the message.

    Raises:
        ValueError: it is read-only; OSError: it cannot be written for another reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        read_only = error.errno in (errno.EROFS, errno.EACCES, errno.EPERM)
        why = "is read-only" if read_only else f"cannot be written ({error.strerror})"
        raise (checks.BadValue if read_only else OSError)(f"{what} {folder} {why}; {advice}") from error


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a path to write to; what was written there takes the place of `path` at once, or not at all.

    Raises:
        OSError: it could not be written, because the disk is full for instance; says what to do.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield partial
        with open(partial, "r+b") as file:
            # Before it is renamed: a power cut must not leave an empty file under its name.
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:  # netCDF has its own
        advice = "make space, or choose another folder, and run again: what was stored before is whole"
        raise OSError(f"cannot write {path} ({type(error).__name__}: {error}); {advice}") from error
    finally:
        partial.unlink(missing_ok=True)


def remove_partial(folder: str | Path, name: str = "*") -> None:
    """Remove what killed processes left half written beside `folder/name`; hold the lock on those files."""
    for partial in Path(folder).glob(f".{name}.[0-9]*"):
        partial.unlink(missing_ok=True)


READING: dict[Any, str] = {  # what to do about an error in reading a file
    errno.EACCES: "get the right to read it",
    errno.EPERM: "get the right to read it",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the limit of open files (ulimit -n)",
    MemoryError: "free some memory",
    ImportError: "install what rgnb needs again",
}


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Add to an error in reading a file that the file was left as it is, and what to do."""
    try:
        yield
    except (OSError, MemoryError, ImportError) as error:
        kinds = (getattr(error, "errno", None), *type(error).__mro__)
        known = [READING[kind] for kind in kinds if kind in READING]
        advice = known[0] if known else "see to the disk, the file server or the library"
        error.add_note(f"{path} could not be read and was left as it is; {advice} and run again")
        raise


def content(path: str | Path) -> bytes | None:
    """The bytes of a file, None where there is no such file; other errors as in `reading`."""
    with reading(path):
        try:
            return Path(path).read_bytes()
        except FileNotFoundError:
            return None


def set_aside(path: str | Path, why: str) -> None:
    """Rename a file that is damaged or of another kind, so that it can be made again, and say so on stderr.

    Raises:
        OSError: it cannot be renamed.
    """
    path, k = Path(path), 0
    while (aside := path.with_name(f"{path.name}.damaged-{k}")).exists():
        k += 1
    try:
        os.replace(path, aside)
    except FileNotFoundError:
        return  # another process was faster
    except OSError as error:
        problem = f"cannot be set aside ({error.strerror}); move it away and run again"
        raise OSError(f"{path} is not used ({why}) and {problem}") from None
    done = f"it is kept as {aside.name} and made again"
    print(f"{path} is not used ({why}); {done}", file=sys.stderr, flush=True)


def digest(arrays: Mapping[str, Any]) -> str:
    """SHA-256 of named arrays of numbers: {name: array} -> hex digits."""
    import numpy as np

    found = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        array = np.asarray(array)
        found.update(json.dumps([name, array.shape, array.dtype.str]).encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()
