"""The execution record: where, when and in what time each notebook and each stored result was made."""

import json
import math
import re
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from rgnb.chains import FAMILIES
from rgnb.press import notebooks
from rgnb.study.store import attributes, load, provenances, results_folder

MIXING = {
    "tokens": "token mixing",
    "none": "no mixing",
    "window": "first-block mixing",
    "embedding": "window at the embedding",
    "attention": "attention",
}
SECONDS = ("core seconds, training", "core seconds, measuring")
COLUMNS = ("device", "threads", "python", "torch", "date")


def notebooks_table(but: Collection[str] = (), root: Path | None = None) -> pd.DataFrame:
    """One line per executed notebook: seconds, device, versions and the day its present output was made.

    Args:
        but: names to leave out.
        root: of the book; None: this checkout.
    """
    made = {name: notebooks.record(name, root) for name in notebooks.names(root) if name not in but}
    lines = {name: {key: m[key] for key in ("seconds", *COLUMNS)} for name, m in made.items()}
    return _table(lines, "notebook")


def parameters_table(but: Collection[str] = (), root: Path | None = None) -> pd.DataFrame:
    """One line per executed notebook: the parameters it ran with, in words."""
    made = {name: notebooks.record(name, root) for name in notebooks.names(root) if name not in but}
    words = {n: ", ".join(f"{k} = {v!r}" for k, v in m["parameters"].items()) for n, m in made.items()}
    return pd.DataFrame({"parameters": words}).rename_axis("notebook")


def _table(lines, index, columns=None):
    return pd.DataFrame.from_dict(lines, orient="index", columns=columns).rename_axis(index)


def results_table(results: str | Path | None = None) -> pd.DataFrame:
    """One line per stored file: its (setting, seed) entries, where and when made, and seconds times threads.

    A network that several files measure is trained once: the seconds of its training stand in one of them.

    Args:
        results: folder of results, as in `Experiment.run`.
    """
    lines: dict[str, dict] = {}
    counted: set[tuple] = set()
    # Analyses come after what they measure.
    paths = sorted(results_folder(results).glob("*.nc"))
    for path in sorted(paths, key=lambda path: not _kind(path.name).startswith(("single", "sweep"))):
        found = provenances(path)
        for made, network in zip(found, _networks(path, len(found)), strict=True):
            if "seconds_training" in made:
                training = network, made["seconds_training"]
                made["seconds_training"] *= training not in counted
                counted.add(training)
        line: dict = {"entries": len(found)}
        for key in ("seconds_training", "seconds_measuring"):
            known = [p[key] * p["threads"] for p in found if key in p]
            line[key.replace("seconds_", "core seconds, ")] = round(sum(known)) if known else ""
        for key in (*COLUMNS, "commit"):
            line[key] = ", ".join(sorted({str(p[key]) for p in found}))
        lines[path.name] = line
    return _table(dict(sorted(lines.items())), "file", ["entries", *SECONDS, *COLUMNS, "commit"])


def _networks(path, entries):
    # Which network each entry of a file measures; of early sweeps, which do not say, each entry its own.
    about = attributes(path)
    if "setting" in about:
        asked = [json.loads(about["setting"]) | {"seed": int(about["seed"])}]
    else:
        experiments = json.loads(about.get("config", "{}")).get("experiments", [])
        asked = [row for experiment in experiments for row in experiment]
    trained = [json.dumps(row, sort_keys=True) for row in asked]
    found = list(dict.fromkeys(trained))
    return found if len(found) == entries else [f"{path.name} {k}" for k in range(entries)]


def rules_table(results: str | Path | None = None) -> pd.DataFrame:
    """Which rules stored files name: one line per version, with the files' number, commits and dates.

    Args:
        results: folder of results, as in `Experiment.run`.
    """
    found: dict[str, list[tuple[str, str, str]]] = {}
    for path in sorted(results_folder(results).glob("*.nc")):
        for made in provenances(path):
            if "rules" in made:  # the first round's name none
                found.setdefault(made["rules"][:12], []).append((path.name, made["commit"], made["date"]))
    lines = {}
    for digest, entries in found.items():
        files, commits, dates = map(set, zip(*entries, strict=True))
        lines[digest] = (len(files), ", ".join(sorted(commits)), ", ".join(sorted(dates)))
    return _table(lines, "rules", ["files", "commits", "dates"])


def hours_table(files: pd.DataFrame) -> pd.DataFrame:
    """Core hours by kind of result, the longest first, from the output of `results_table`."""
    hours = files[list(SECONDS)].apply(pd.to_numeric).fillna(0) / 3600
    hours.columns = [name.replace("seconds", "hours") for name in SECONDS]
    grouped = hours.assign(entries=files["entries"]).groupby([_kind(name) for name in files.index]).sum()
    order = grouped.drop(columns="entries").sum(axis=1).sort_values(ascending=False, kind="stable").index
    return grouped.loc[order, ["entries", *hours.columns]].round(1).rename_axis("results")


def deviations(again: str | Path, results: str | Path | None = None) -> pd.DataFrame:
    """How far results that were made again lie from the stored ones of the same name.

    Args:
        again, results: folders of results; None: as in `Experiment.run`.

    Returns:
        DataFrame, one line per variable: the number of files compared, its largest absolute difference
        (infinite where only one of the two has a value) and its largest size.
    """
    lines: dict[str, tuple[int, float, float]] = {}
    for path in sorted(results_folder(again).glob("*.nc")):
        ours, theirs = load(results_folder(results) / path.name), load(path)
        if ours is None or theirs is None:
            continue
        for name in map(str, ours.data_vars):
            if ours[name].dtype.kind in "fi":
                files, difference, size = lines.get(name, (0, 0.0, 0.0))
                both = ours[name].isnull().equals(theirs[name].isnull())
                here = float(abs(ours[name] - theirs[name]).max()) if both else math.inf
                difference = max(difference, here)
                lines[name] = files + 1, difference, max(size, float(abs(ours[name]).max()))
    return _table(lines, "variable", ["files", "largest difference", "largest size"])


def reproduction(names: list[str], root: Path, again: Path) -> dict:
    """What a book that was made again gave, beside this checkout's own: plain data (JSON).

    Args:
        names: of the notebooks that were executed again.
        root: of the book made again.
        again: its folder of results.

    Returns:
        {"made": where it was made last, "entries", "core hours", "values": [[notebook, name, in the book,
        made again], ...] of all that pages quote, "deviations": rows of `deviations` by variable}.
    """
    files = results_table(again)
    pages = {name: notebooks.executed(name, root) for name in names}
    last = max((notebooks.record(name, root) for name in names), key=lambda made: made["date"])
    return {
        "made": {key: last[key] for key in COLUMNS} | {"notebooks": names},
        "entries": int(files["entries"].sum()),
        "core hours": round(float(hours_table(files).drop(columns="entries").sum().sum()), 1),
        "values": [[name, *row] for name, page in pages.items() for row in notebooks.beside(name, page)],
        "deviations": deviations(again, notebooks.ROOT / "results").to_dict("index"),
    }


def reproduced() -> tuple[dict, pd.DataFrame, pd.DataFrame]:
    """How the book was made again: {"made", "entries", "core hours"}, the quoted values, the deviations."""
    found = json.loads((notebooks.ROOT / "results" / "reproduced.json").read_text(encoding="utf-8"))
    columns = ["notebook", "what", "in the book", "made again"]
    values = pd.DataFrame(found["values"], columns=columns).set_index(columns[:2])
    values = values.map(lambda text: f"{float(text):.3g}" if re.fullmatch(r"-?\d+\.\d+", text) else text)
    return found, values, _table(found["deviations"], "variable")


def _kind(name):
    # What a stored file belongs to, from its name.
    if sweep := re.match(rf"(sweep-.*?)(-({'|'.join(FAMILIES)}))?-[0-9a-f]{{12}}\.nc", name):
        return sweep[1].replace("-", " ", 1)
    if single := re.match(rf".*-({'|'.join(MIXING)})-(?:mask|bert)-(?:(\w+)-)?seed", name):
        return single[2] or f"single networks, {MIXING[single[1]]}"
    return name.partition("-")[0]
