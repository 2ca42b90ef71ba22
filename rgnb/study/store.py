"""Results on disk: NetCDF files, whole or absent, with a digest of their content and their provenance.

A file that is damaged is set aside and made again.
"""

import hashlib
import inspect
import json
import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import netCDF4
import torch
import xarray as xr

from rgnb import checks, files
from rgnb.study.settings import Analysis, Setting, analysis_key, content_key
from rgnb.verdicts import rules


@dataclass(frozen=True)
class Store:
    """The results of one analysis (None: of `measure`) in a results folder, by setting and seed.

    The results of a function outside rgnb carry a digest of its source, so that a change without a new
    version is noticed.
    """

    results: Path  # the folder, in which trained weights are shared by all analyses and sweeps
    analysis: Analysis | None = None
    swept: bool = False  # entries of sweeps, of which there may be hundreds, lie in a folder of their own
    source: str | None = None  # digest of its code; a worker process may not see a notebook's

    def __post_init__(self) -> None:
        analysis_key(self.analysis)  # refuses what is not an analysis
        if self.source is None:
            object.__setattr__(self, "source", _source(self.analysis))

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self.results / "entries" if self.swept else self.results

    def path(self, setting: Setting, seed: int) -> Path:
        """Where the result of one seed is."""
        return _kept_at(setting.path(self.folder, seed, self.analysis))

    def holds(self, setting: Setting, seed: int) -> bool:
        """Whether there is a file; damage shows only when it is read."""
        return self.path(setting, seed).exists()

    def get(self, setting: Setting, seeds: Iterable[int]) -> dict[int, xr.Dataset]:
        """{seed: result} of those that are stored; damaged ones are set aside."""
        about, found = _about(setting, self.analysis), {}
        for seed in seeds:
            if (dataset := load(self.path(setting, seed), seed=seed, **about)) is not None:
                self.compare(dataset)
                found[seed] = dataset.assign_coords(provenance=dataset.attrs["provenance"])
                found[seed].attrs = {}
        return found

    def put(self, dataset: xr.Dataset, setting: Setting, seed: int, made: dict[str, Any]) -> None:
        """Store the result of one seed, with its labels and where it was made (see `provenance`)."""
        labels = {"chain": setting.family, "correlation_length": setting.correlation_length, "seed": seed}
        dataset = dataset.assign_coords(labels)
        dataset.attrs = _about(setting, self.analysis) | {"seed": seed, "provenance": json.dumps(made)}
        dataset.attrs |= self.stamp()
        path = self.path(setting, seed)
        files.remove_partial(path.parent, path.name)
        store(dataset, path)

    def stamp(self) -> dict[str, str]:
        """The attribute by which `compare` knows the source; none where the source is not known."""
        return {} if self.source is None else {"source": self.source}

    def compare(self, dataset: xr.Dataset) -> None:
        """Warn if a result was measured by another source of the analysis than the present one."""
        if self.source is not None and dataset.attrs.get("source", self.source) != self.source:
            key = analysis_key(self.analysis)
            id, measured = key["analysis"], key.get("analysis_version", 1)
            warnings.warn(
                f"the function {id} has changed since these results were measured with it, its version has "
                f'not: if it measures something else now, give it @analysis("{id}", version={measured + 1})',
                stacklevel=2,
            )


def _about(setting: Setting, analysis: Analysis | None) -> dict[str, Any]:
    # What a file says about itself, and must say when it is read.
    key = analysis_key(analysis)
    version = key["version"] if analysis is None else key.get("analysis_version", 1)
    return {"version": version, "setting": json.dumps(setting.config(), sort_keys=True)}


def _source(analysis: Analysis | None) -> str | None:
    # The digest of an analysis's source; None where it is not known, and in rgnb, where versions are raised.
    if analysis is None or analysis.__module__.partition(".")[0] == "rgnb":
        return None
    try:
        return hashlib.sha256(inspect.getsource(analysis).encode()).hexdigest()
    except (OSError, TypeError):
        return None


def stored(
    name: str,
    config: dict[str, Any],
    make: Callable[[], xr.Dataset],
    results: str | Path | None = None,
    **encoding: Any,
) -> xr.Dataset:
    """A Dataset of any kind, found by its name and all that it depends on: loaded, or made and stored.

    Args:
        name: of the file, letters, digits and dashes.
        config: plain data (JSON) that says all that was asked for.
        make: function without arguments that returns the Dataset; one with an attribute `failed` is
            incomplete, and is returned but not stored.
        results: folder, as in `Experiment.run`.
        encoding: xarray's, of every variable in the file.

    Raises:
        ValueError: a bad name, or a results folder that is read-only; OSError: the file cannot be written.
    """
    path = results_folder(results) / f"{checks.label('name', name)}-{content_key(config)}.nc"
    if (dataset := load(_kept_at(path))) is not None:
        return dataset
    make_writable(path.parent)
    where = json.dumps(provenance(torch.device("cpu")))
    dataset = make()
    dataset = dataset.assign_attrs(config=json.dumps(config, sort_keys=True), provenance=where)
    if "failed" in dataset.attrs:
        return dataset
    path = _kept_at(path)
    store(dataset, path, **encoding)
    return cast(xr.Dataset, load(path))


def store(dataset: xr.Dataset, path: Path, **encoding: Any) -> None:
    """Write a compressed, sealed NetCDF file, never seen half written; `encoding` as in `stored`."""
    compressed = {name: {"zlib": True, **encoding} for name in dataset.data_vars}
    with files.replacing(path) as partial:
        dataset.to_netcdf(partial, engine="netcdf4", encoding=compressed)
        seal(partial)


SEAL = b"rgnb-sha256:"


def seal(path: Path) -> None:
    """Append the SHA-256 of a NetCDF file's bytes, which no NetCDF reader looks at.

    NetCDF's own checksums are of chunks of data, and a reader meets them after the rest of the file.
    """
    found = hashlib.sha256(path.read_bytes()).digest()
    with open(path, "ab") as file:
        file.write(SEAL + found)


def load(path: Path, **expected: Any) -> xr.Dataset | None:
    """A Dataset that `store` wrote, or None where there is no such file; a file that is damaged is set aside.

    Args:
        expected: attributes that the file must have, by name.

    Raises:
        OSError, MemoryError, ImportError: the file could not be read, and is left as it is.
    """
    if (content := _whole(path)) is None:
        return None
    with files.reading(path):
        dataset = xr.load_dataset(xr.backends.NetCDF4DataStore(netCDF4.Dataset(path.name, memory=content)))
    for name, value in expected.items():
        if dataset.attrs.get(name) != value:
            files.set_aside(path, f"its {name} is another")
            return None
    return dataset


def attributes(path: Path) -> dict[str, Any]:
    """The attributes of a Dataset that `store` wrote, without its data; as `load`, but empty for None."""
    return _read(path, lambda file: {name: file.getncattr(name) for name in file.ncattrs()}) or {}


def provenances(path: Path) -> list[dict[str, Any]]:
    """Where and with what each entry of a stored file was made; as `load`, but empty for None."""

    def texts(file: netCDF4.Dataset) -> Iterable[str]:
        return list(file["provenance"][:]) if "provenance" in file.variables else [file.provenance]

    return [json.loads(text) for text in _read(path, texts) or ()]


def _read(path: Path, get: Callable[[netCDF4.Dataset], Any]) -> Any:
    # What `get` takes from a file whose digest holds; None where there is no such file, or a damaged one.
    if (content := _whole(path)) is None:
        return None
    with files.reading(path), netCDF4.Dataset(path.name, memory=content) as file:
        return get(file)


def _whole(path: Path) -> bytes | None:
    # The digest comes first: on a damaged HDF5 file its library may never return. A file with the right one
    # is as it was written, so that an error in parsing it is not damage.
    if (content := files.content(path)) is None:
        return None
    if content[-len(SEAL) - 32 :] != SEAL + hashlib.sha256(content[: -len(SEAL) - 32]).digest():
        files.set_aside(path, "its content was changed, or it was not written by rgnb")
        return None
    return content


def results_folder(results: str | Path | None = None) -> Path:
    """The folder of stored results: the argument, else $RGNB_RESULTS, else `results/` of the checkout.

    Where the package is installed without its checkout, the last is `results/` in the working folder, and
    stderr says so.
    """
    if results is not None:
        return checks.path("results", results)
    if named := os.environ.get("RGNB_RESULTS"):
        return checks.path("RGNB_RESULTS", named).expanduser().absolute()
    root = files.checkout()
    return root / "results" if root else _said(Path.cwd() / "results")


@cache
def _said(folder: Path) -> Path:
    # Once per folder.
    print(f"results are kept in {folder}; set RGNB_RESULTS to keep them elsewhere", file=sys.stderr)
    return folder


MISSING = "missing.jsonl"  # in the folder of a rehearsal: what it did not find


def rehearsal_folder() -> Path | None:
    """The folder of the rehearsal that this process is in, see `rgnb.study.rehearsal`; None outside one."""
    return Path(named) if (named := os.environ.get("RGNB_REHEARSAL")) else None


def _kept_at(path: Path) -> Path:
    # A result's own path, or once something stands in for results, its path in the rehearsal's folder.
    folder = rehearsal_folder()
    if folder is None or path.exists() or not (folder / MISSING).exists():
        return path
    return folder / path.name


def make_writable(folder: Path) -> None:
    """Make a folder of results where there is none; an error, before any work, if it cannot be written."""
    files.make_writable(folder, "results folder", "set RGNB_RESULTS to a folder that can be written")


def provenance(device: torch.device) -> dict[str, Any]:
    """Where and with what work is done, asked before it: device, threads, versions, commit, date."""
    names = ("torch", "numpy", "scipy", "xarray")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "device": f"{device.type} ({name})",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{package: version(package) for package in names},
        "commit": _commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "rules": hashlib.sha256(Path(rules.__file__).read_bytes()).hexdigest(),
    }


def _commit() -> str:
    # Of rgnb's own checkout: a repository that the package was installed into says nothing about this code.
    if (root := files.checkout()) is None:
        return "unknown"
    # The repository is named, or git would look in the folders above, or take that of $GIT_DIR.
    git = ["git", "-C", str(root), f"--git-dir={root / '.git'}", f"--work-tree={root}"]
    describe = ["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        found = subprocess.run([*git, *describe], capture_output=True, text=True, check=False)
    except OSError:  # no git
        return "unknown"
    return found.stdout.strip() or "unknown"
