"""The execution record: where, when and how long each notebook and each stored result of the book was made."""

import json

import pandas as pd
from netCDF4 import Dataset

from rgnb import notebooks
from rgnb.experiment import results_folder

COLUMNS = {"device": "device", "threads": "threads", "python": "python", "torch": "torch", "date": "date"}


def notebooks_table(but=(), root=None):
    """One line an executed notebook: seconds, device, versions and the day its present output was made.

    Args:
        but: names to leave out.
        root: of the book; None: this checkout.
    """
    lines = {}
    for name in notebooks.names(root):
        if name not in but:
            made = notebooks.record(name, root)
            lines[name] = {"seconds": made["seconds"]} | {k: made[k] for k in COLUMNS}
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("notebook")


def parameters_table(but=(), root=None):
    """One line an executed notebook: the parameters it ran with, in words."""
    found = {name: notebooks.record(name, root)["parameters"] for name in notebooks.names(root) if name not in but}
    words = {name: ", ".join(f"{k} = {v!r}" for k, v in values.items()) for name, values in found.items()}
    return pd.DataFrame({"parameters": words}).rename_axis("notebook")


def results_table(results=None):
    """One line a stored file: the (setting, seed) entries in it, where and when they were made, and the processor time they took.

    Args:
        results: folder of results, as in `Experiment.run`.
    """
    lines = {}
    for path in sorted(results_folder(results).glob("*.nc")):
        with Dataset(path) as file:
            found = file["provenance"][:] if "provenance" in file.variables else [file.getncattr("provenance")]
        found = [json.loads(text) for text in found]
        line = {"entries": len(found)}
        for key in ("seconds_training", "seconds_measuring"):
            known = [p[key] for p in found if key in p]
            line[key.replace("_", ", ")] = round(sum(known)) if known else ""
        for key in (*COLUMNS, "commit"):
            line[key] = ", ".join(sorted({str(p[key]) for p in found}))
        lines[path.name] = line
    columns = ["entries", "seconds, training", "seconds, measuring", *COLUMNS, "commit"]
    return pd.DataFrame.from_dict(lines, orient="index", columns=columns).rename_axis("file")
