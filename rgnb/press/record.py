"""The execution record: where, when and how long each notebook and each stored result of the book was made."""

import json
import math
import re

import pandas as pd
from netCDF4 import Dataset

from rgnb.chains import FAMILIES
from rgnb.press import notebooks
from rgnb.study.store import load, results_folder

ANALYSES = ("mode_retention", "perturbations", "anatomy")
SECONDS = ("core seconds, training", "core seconds, measuring")
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
    found = {
        name: notebooks.record(name, root)["parameters"] for name in notebooks.names(root) if name not in but
    }
    words = {name: ", ".join(f"{k} = {v!r}" for k, v in values.items()) for name, values in found.items()}
    return pd.DataFrame({"parameters": words}).rename_axis("notebook")


def results_table(results=None):
    """One line a stored file: the (setting, seed) entries in it, where and when they were made, and the seconds they took, times threads.

    Args:
        results: folder of results, as in `Experiment.run`.
    """
    lines = {}
    for path in sorted(results_folder(results).glob("*.nc")):
        found = provenances(path)
        line = {"entries": len(found)}
        for key in ("seconds_training", "seconds_measuring"):
            known = [p[key] * p["threads"] for p in found if key in p]
            line[key.replace("seconds_", "core seconds, ")] = round(sum(known)) if known else ""
        for key in (*COLUMNS, "commit"):
            line[key] = ", ".join(sorted({str(p[key]) for p in found}))
        lines[path.name] = line
    columns = ["entries", *SECONDS, *COLUMNS, "commit"]
    return pd.DataFrame.from_dict(lines, orient="index", columns=columns).rename_axis("file")


def rules_table(results=None):
    """Which rules stored files name: one line for each version of the rules, with how many files name it and where and when they were made.

    Args:
        results: folder of results, as in `Experiment.run`.
    """
    lines = {}
    for path in sorted(results_folder(results).glob("*.nc")):
        for made in provenances(path):
            if "rules" in made:  # the first round's name none
                line = lines.setdefault(
                    made["rules"][:12], {"files": set(), "commits": set(), "dates": set()}
                )
                line["files"].add(path.name)
                line["commits"].add(made["commit"])
                line["dates"].add(made["date"])
    rows = {
        digest: {"files": len(v["files"]), **{k: ", ".join(sorted(v[k])) for k in ("commits", "dates")}}
        for digest, v in lines.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=["files", "commits", "dates"]).rename_axis(
        "rules"
    )


def provenances(path):
    """Where and with what each entry of a stored file was made: list of records."""
    with Dataset(path) as file:
        return [
            json.loads(text)
            for text in (
                file["provenance"][:] if "provenance" in file.variables else [file.getncattr("provenance")]
            )
        ]


def hours_table(files):
    """Core hours by kind of result, the longest first: output of `results_table` -> DataFrame.

    The analyses of `rgnb.study.probes` measure networks that are counted among the single ones: their training counts as 0.
    """
    hours = files[list(SECONDS)].apply(pd.to_numeric).fillna(0) / 3600
    hours.columns = [name.replace("seconds", "hours") for name in SECONDS]
    hours.loc[[_kind(name) in ANALYSES for name in files.index], hours.columns[0]] = 0
    grouped = hours.assign(entries=files["entries"]).groupby([_kind(name) for name in files.index]).sum()
    order = grouped.drop(columns="entries").sum(axis=1).sort_values(ascending=False, kind="stable").index
    return grouped.loc[order, ["entries", *hours.columns]].round(1).rename_axis("results")


def deviations(again, results=None):
    """How far results that were made again are from the stored ones of the same name.

    Args:
        again, results: folders of results; None: as in `Experiment.run`.

    Returns:
        DataFrame, one line a variable: in how many files it was compared, its largest absolute difference,
        infinite where only one of the two has a value, and its largest size.
    """
    lines = {}
    for path in sorted(results_folder(again).glob("*.nc")):
        ours, theirs = load(results_folder(results) / path.name), load(path)
        if ours is None or theirs is None:
            continue
        for name in ours.data_vars:
            if ours[name].dtype.kind in "fi":
                files, difference, size = lines.get(name, (0, 0.0, 0.0))
                both = ours[name].isnull().equals(theirs[name].isnull())
                here = float(abs(ours[name] - theirs[name]).max()) if both else math.inf
                difference = max(difference, here)
                lines[name] = files + 1, difference, max(size, float(abs(ours[name]).max()))
    return pd.DataFrame.from_dict(
        lines, orient="index", columns=["files", "largest difference", "largest size"]
    ).rename_axis("variable")


def reproduction(names, root, again):
    """What a book made again gave beside this checkout's own, as plain data (JSON).

    Args:
        names: of the notebooks that were executed again; root: of the book made again; again: its folder of results.

    Returns:
        {"made": where it was made last, "entries", "core hours", "values": [[notebook, name, in the book, made again], ...] of every verdict and
        number that pages quote, "deviations": rows of `deviations` by variable}.
    """
    files = results_table(again)
    values = [
        [name, *row] for name in names for row in notebooks.beside(name, notebooks.executed(name, root))
    ]
    hours = hours_table(files)[["core hours, training", "core hours, measuring"]].sum().sum()
    rows = deviations(again, notebooks.ROOT / "results").to_dict("index")
    last = max((notebooks.record(name, root) for name in names), key=lambda made: made["date"])
    made = {key: last[key] for key in COLUMNS} | {"notebooks": list(names)}
    return {
        "made": made,
        "entries": int(files["entries"].sum()),
        "core hours": round(float(hours), 1),
        "values": values,
        "deviations": rows,
    }


def reproduced():
    """The book's own record of how it was made again: {"made", "entries", "core hours"} and two tables, the quoted values and the deviations."""
    found = json.loads((notebooks.ROOT / "results" / "reproduced.json").read_text(encoding="utf-8"))
    values = pd.DataFrame(
        found["values"], columns=["notebook", "what", "in the book", "made again"]
    ).set_index(["notebook", "what"])
    values = values.map(lambda text: f"{float(text):.3g}" if re.fullmatch(r"-?\d+\.\d+", text) else text)
    return found, values, pd.DataFrame.from_dict(found["deviations"], orient="index").rename_axis("variable")


def _kind(name):
    # What a stored file belongs to, from its name.
    if sweep := re.match(rf"(sweep-.*?)(-({'|'.join(FAMILIES)}))?-[0-9a-f]{{12}}\.nc", name):
        return sweep[1].replace("-", " ", 1)
    if single := re.match(r".*-(tokens|none)-(?:mask|bert)-(?:(\w+)-)?seed", name):
        return single[2] or f"single networks, {'token' if single[1] == 'tokens' else 'no'} mixing"
    return name.partition("-")[0]
