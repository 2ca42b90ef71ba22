"""Many settings in one Dataset: each (setting, seed) is trained and stored as ever, what was asked for is kept in one file.

A sweep's own file is small and holds everything that is read from it, so that hundreds of settings can be committed and
loaded at once; the entries it was made from stay in a folder of their own.
"""

import sys

import numpy as np
import pandas as pd
import xarray as xr

from rgnb import checks
from rgnb.experiment import full_name, results_folder, stored

LABELS = ("n_states", "mixing", "width", "blocks", "scheme", "rate", "learning_rate")  # of a setting, beside its chain


def sweep(name, experiments, variables, results=None, progress=True, analysis=None):
    """Run experiments of any sizes and return chosen variables of all of them, one row a (setting, seed).

    Args:
        name: of the sweep's file, letters, digits and dashes.
        experiments: sequence of Experiments; a (setting, seed) that two of them share is one row.
        variables: names of variables that the analysis measures. Where depths or other dimensions differ in length
            they are padded with NaN; of training steps the last is kept.
        results, progress, analysis: as in `Experiment.run`; entries are kept in the folder `<results>/entries`,
            unless an experiment is stored in `<results>` itself.

    Returns:
        xarray.Dataset with a dimension `run` and along it the coordinates family, correlation_length, seed, provenance,
        those in `LABELS` and `experiment`, the number of the first experiment that has the row.

    Raises:
        ValueError: a bad name, an unknown variable, or a stored sweep that is damaged.
    """
    asked = [[(setting, seed) for setting in e.settings() for seed in e.seeds] for e in experiments]
    if not asked:
        raise ValueError("experiments must hold at least one Experiment, got none")
    measured = full_name(analysis) if analysis else None
    config = [[setting.config() | {"seed": seed} for setting, seed in rows] for rows in asked]
    asked_for = {"experiments": config, "variables": list(variables), "analysis": measured}
    entries = results_folder(results) / "entries"
    make = lambda: _combine(name, experiments, asked, list(variables), entries, progress, analysis)  # noqa: E731
    return stored(f"sweep-{name}", asked_for, make, results, dtype="float32")


def pivot(ds, values, *dims):
    """Values of a sweep's rows, (run,), arranged by coordinates of theirs: DataArray with `dims`, NaN where there is no row."""
    frame = pd.DataFrame({d: ds[d].values for d in dims} | {"value": np.asarray(values)})
    return xr.DataArray.from_series(frame.set_index(list(dims))["value"])


def _combine(name, experiments, asked, variables, entries, progress, analysis):
    parts, seen = [], set()
    for i, (e, rows) in enumerate(zip(experiments, asked)):
        new = [k for k, row in enumerate(rows) if row not in seen]
        seen.update(rows)
        if not new:
            continue
        if progress:
            print(f"{name}: experiment {i + 1} of {len(experiments)}", file=sys.stderr, flush=True)
        whole = not e.missing(entries.parent, analysis)  # stored as results of their own, as those of the findings' pages are
        ds = e.run(entries.parent if whole else entries, progress, analysis)
        for variable in variables:
            checks.choice("variable", variable, list(ds.data_vars))
        ds = (ds.isel(step=-1, drop=True) if "step" in ds.dims else ds)[variables]
        # Rows come out in the order of `rows`: chains, then correlation lengths, then seeds.
        ds = ds.stack(run=("chain", "correlation_length", "seed")).reset_index("run").rename(chain="family").isel(run=new)
        labels = vars(e.model) | vars(e.training) | {"blocks": e.model.depth, "experiment": i}
        parts.append(ds.assign_coords({k: ("run", [labels[k]] * len(new)) for k in (*LABELS, "experiment")}))
    return xr.concat(parts, "run", data_vars="all", coords="different", compat="equals", join="outer")
