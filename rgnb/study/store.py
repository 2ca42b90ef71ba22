"""Results on disk: NetCDF files, whole or absent, with the digest of their content and where they were made.

A file that is damaged is set aside and made again.
"""

import hashlib
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path

import netCDF4
import torch
import xarray as xr

from rgnb import checks, files
from rgnb.study.settings import RESULTS_VERSION, content_key
from rgnb.verdicts import rules


def stored(name, config, make, results=None, **encoding):
    """A Dataset of any kind, stored under its name and everything that it hangs on: loaded, or made and stored.

    Args:
        name: of the file, letters, digits and dashes.
        config: plain data (JSON) that says what was asked for, all of it.
        make: function without arguments that returns the Dataset; one with an attribute `failed` is incomplete, and is
            returned but not stored.
        results: folder, as in `Experiment.run`.
        encoding: of every variable in the file, as xarray takes it.

    Raises:
        ValueError: a bad name, or a results folder that is read-only; OSError: the file cannot be written.
    """
    if not name.replace("-", "").isalnum() or not name.isascii():
        raise checks.BadValue(f"name must be made of letters, digits and dashes, got {name!r}")
    path = results_folder(results) / f"{name}-{content_key(config)}.nc"
    if (dataset := load(path)) is not None:
        return dataset
    _make_writable(path.parent)
    where = json.dumps(provenance(torch.device("cpu")))
    dataset = make()
    dataset = dataset.assign_attrs(config=json.dumps(config, sort_keys=True), provenance=where)
    if "failed" in dataset.attrs:
        return dataset
    store(dataset, path, **encoding)
    return load(path)


def store(dataset, path, **encoding):
    """Write a compressed NetCDF file, never seen half written and sealed (see `seal`); `encoding` holds for every variable."""
    with files.replacing(path) as partial:
        dataset.to_netcdf(
            partial, engine="netcdf4", encoding={v: {"zlib": True, **encoding} for v in dataset.data_vars}
        )
        seal(partial)


SEAL = b"rgnb-sha256:"


def seal(path):
    """Append the SHA-256 of a NetCDF file's bytes to it, which no NetCDF reader looks at."""
    found = hashlib.sha256(path.read_bytes()).digest()
    with open(path, "ab") as file:
        file.write(SEAL + found)


def load(path, **expected):
    """A Dataset that `store` wrote, or None where there is no such file; a file that is damaged is set aside.

    Args:
        expected: attributes that the file must have, by name.

    Raises:
        OSError, MemoryError, ImportError: the file could not be read, and is left as it is.
    """
    if (content := files.content(path)) is None:
        return None
    # The digest comes first: a damaged HDF5 file can keep its library busy for ever. What has the right one
    # was written like this, so that an error in parsing it is no damage.
    if content[-len(SEAL) - 32 :] != SEAL + hashlib.sha256(content[: -len(SEAL) - 32]).digest():
        files.set_aside(path, "its content was changed, or it was not written by rgnb")
        return None
    with files.reading(path):
        dataset = xr.load_dataset(xr.backends.NetCDF4DataStore(netCDF4.Dataset(path.name, memory=content)))
    for name, value in expected.items():
        if dataset.attrs.get(name) != value:
            files.set_aside(path, f"its {name} is another")
            return None
    return dataset


def _concat(datasets, dim):
    return xr.concat(datasets, dim, data_vars="all", coords=["provenance"], compat="equals", join="exact")


def results_folder(results=None):
    """The folder of stored results: the argument, else $RGNB_RESULTS, else `results/` of the checkout.

    Where the package is installed without its checkout, the last is `results/` in the working folder, and
    stderr says so.
    """
    if results is not None:
        return checks.path("results", results)
    if named := os.environ.get("RGNB_RESULTS"):
        return checks.path("RGNB_RESULTS", named)
    root = files.checkout()
    return root / "results" if root else _said(Path.cwd() / "results")


@cache
def _said(folder):
    # Once a folder.
    print(f"results are kept in {folder}; set RGNB_RESULTS to keep them elsewhere", file=sys.stderr)
    return folder


def _make_writable(folder):
    files.make_writable(folder, "results folder", "set RGNB_RESULTS to a folder that can be written")


def entries(setting, seeds, folder, analysis=None):
    """The stored results of one setting: {seed: Dataset}, without those that are missing; damaged ones are set aside."""
    about = {"version": RESULTS_VERSION, "setting": json.dumps(setting.config(), sort_keys=True)}
    found = {seed: load(setting.path(folder, seed, analysis), seed=seed, **about) for seed in seeds}
    found = {
        seed: ds.assign_coords(provenance=ds.attrs["provenance"])
        for seed, ds in found.items()
        if ds is not None
    }
    for ds in found.values():
        ds.attrs = {}
    return found


def provenance(device):
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


def _commit():
    # Of rgnb's own checkout: a repository that the package was installed into says nothing about its code.
    if (root := files.checkout()) is None:
        return "unknown"
    # The repository is named: else git looks for one in the folders above, or takes that of $GIT_DIR.
    git = ["git", "-C", root, f"--git-dir={root / '.git'}", f"--work-tree={root}"]
    describe = ["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        found = subprocess.run([*git, *describe], capture_output=True, text=True, check=False)
    except OSError:  # no git
        return "unknown"
    return found.stdout.strip() or "unknown"
