"""The book's tables, one function each."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr

from rgnb import checks
from rgnb.press.figures import _check
from rgnb.verdicts import measures
from rgnb.verdicts.intervals import Interval, Verdict


def verdict_table(panels: dict[str, dict[tuple, Verdict]]) -> pd.DataFrame:
    """Verdicts by definition of rank, in words, a column per view; in brackets where the gate fails.

    Args:
        panels: {title: output of `first_round.by_definition`}.
    """
    _check("panels", panels, dict, Verdict)
    words = {"supported": "yes", "partly supported": "partly", "not supported": "no"}
    index = ["centring", "spectrum", "from depth"]
    tables = {}
    for title, verdicts in panels.items():
        cells = {d: f"[{words[v.ungated]}]" if v.ungated else words[v.status] for d, v in verdicts.items()}
        rows = [(*definition, word) for definition, word in cells.items()]
        table = pd.DataFrame(rows, columns=["view", *index, "status"])
        order = list(dict.fromkeys(table["view"]))
        tables[title] = table.pivot(index=index, columns="view", values="status")[order]
    return pd.concat(tables)


def step_table(panels: dict[str, dict[int, Verdict]]) -> pd.DataFrame:
    """Verdicts by training step, in words; in brackets where the gate fails.

    Args:
        panels: {column title: output of `first_round.by_step`}.
    """
    _check("panels", panels, dict, Verdict)
    words = {title: {step: v.outcome for step, v in verdicts.items()} for title, verdicts in panels.items()}
    return pd.DataFrame(words).rename_axis("training step")


def interval_table(intervals: dict[tuple[str, ...], Interval], names: list[str]) -> pd.DataFrame:
    """Intervals by key: {tuple of labels: Interval} -> DataFrame of words; `names` name the labels."""
    checks.mapping("intervals", intervals, Interval)
    index = pd.MultiIndex.from_tuples(list(intervals) or [("",) * len(names)], names=names)[: len(intervals)]
    return pd.DataFrame({"mean [interval]": [str(i) for i in intervals.values()]}, index=index)


def statistics_table(verdicts: dict[str, Verdict], names: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Verdicts side by side, {column title: Verdict} with statistics; in brackets where the gate fails.

    Args:
        names: what statistics are called in the table; None: what they are called in a verdict.
    """
    _check("verdicts", verdicts, Verdict)
    called = {} if names is None else names
    words = {
        title: {"verdict": v.outcome, "networks": str(v.networks or "")}
        | {called.get(name, name): str(interval) for name, interval in v.statistics.items()}
        for title, v in verdicts.items()
    }
    table = pd.DataFrame(words).fillna("")
    first = ["verdict", "networks"]
    return table.loc[[*first, *sorted(table.index.drop(first))]]


def modes_table(results: dict[tuple[str, str], xr.Dataset]) -> pd.DataFrame:
    """Relevant modes beside the last rank when trained: {(family, size): Dataset of Experiment.run}."""
    _check("results", results, xr.Dataset)
    rows = []
    for (family, size), ds in results.items():
        rank = measures.RANK["effective_rank"]
        ds = measures.one_chain(ds, relevant_modes="correlation_length floor", effective_rank=rank)
        last = ds.isel(depth=-1).effective_rank.sel(state="trained", view="position", centring="centred")
        last = checks.complete("results", last)
        relevant = checks.complete("results", ds.isel(floor=0).relevant_modes)
        for xi in ds.correlation_length.values:
            here = last.sel(correlation_length=xi)
            ranks = [str(Interval.of(here.sel(spectrum=s).values)) for s in ("eigen", "singular")]
            modes = float(relevant.sel(correlation_length=xi).mean())
            rows.append((family, size, f"{xi:g}", f"{modes:.2f}", *ranks))
    index = ["family", "size", "ξ"]
    columns = ["relevant modes", "last rank, eigenvalues", "last rank, singular values"]
    return pd.DataFrame(rows, columns=index + columns).set_index(index)


def stack_table(stacks: dict[int, xr.Dataset]) -> pd.DataFrame:
    """Drift of stacks of several depths, {blocks: Dataset of Experiment.run}: total, largest two, others."""
    _check("stacks", stacks, xr.Dataset)
    rows = []
    for blocks, ds in stacks.items():
        ds = measures.one_chain(ds, kernel_drift=measures.DRIFT["kernel_drift"])
        for xi in ds.correlation_length.values:
            drift = measures.defined_drift(ds, view="position", state="trained", correlation_length=xi)
            d = np.sort(drift.values.clip(min=0))
            cells = (Interval.of(d.sum(-1)), Interval.of(d[:, -2:].sum(-1)), Interval.of(d[:, :-2].sum(-1)))
            rows.append((f"{xi:g}", blocks, *map(str, cells), f"{np.median(d[:, :-2]):.4f}"))
    columns = ["ξ", "blocks", "total drift", "largest two", "all others", "median of the others"]
    return pd.DataFrame(rows, columns=columns).set_index(["ξ", "blocks"]).sort_index(kind="stable")


def share_table(
    verdicts: dict[tuple[str, str, str, str, str], Verdict], titles: dict[str, str], by: int
) -> pd.DataFrame:
    """Share of the trained settings in which a finding is supported (and partly), by a part of the key.

    Args:
        verdicts, titles: as in `status_grid`.
        by: place in the key of what the rows are: 1 definition, 2 family, 4 variant.

    Returns:
        DataFrame of words, columns (finding, architecture).
    """
    _check("verdicts", verdicts, Verdict)
    cells: dict[tuple[str, str], dict[str, list[str]]] = {}
    for key, verdict in verdicts.items():
        cells.setdefault((key[0], titles[key[3]]), {}).setdefault(key[by], []).append(verdict.status)
    words = {c: {row: _share(found) for row, found in rows.items()} for c, rows in cells.items()}
    table = pd.DataFrame(words)
    return table.loc[list(dict.fromkeys(k[by] for k in verdicts))].fillna("")


def _share(found):
    trained = [status for status in found if status != "not trained"]
    if not trained:
        return "none trained"
    yes, partly = (trained.count(name) for name in ("supported", "partly supported"))
    return f"{yes}" + (f" (+{partly})" if partly else "") + f" of {len(trained)}"


def bench_table(stored: dict[str, dict]) -> pd.DataFrame:
    """What `benchmarks/bench.py` stored by processor, of rows with a peer: one line per side and processor.

    A ratio is the median of the runs, with their range. A goal, against the fastest side of each run, is met
    if every run meets it.
    """
    lines = []
    for processor, found in stored.items():
        for place, row in enumerate(found["rows"]):
            seconds, others = np.array(row["seconds"]), {k: np.array(v) for k, v in row["others"].items()}
            fastest = min(others, key=lambda name: np.median(others[name]), default=None)
            for side, (name, theirs) in enumerate(others.items()):
                times = (_seconds(np.median(seconds)), _seconds(np.median(theirs)), _range(theirs / seconds))
                goal = row["goal"] if name == fastest else 0
                met = _met(np.min(list(others.values()), axis=0) / seconds, goal) if goal else ""
                lines.append((place, side, row["work"], name, processor, *times, met))
    lines.sort(key=lambda line: line[:2])  # processors side by side
    columns = ["work", "against", "processor", "rgnb (s)", "other (s)", "times as fast", "goal"]
    return _by_processor([line[2:] for line in lines], columns, 3)


def _by_processor(lines, columns, indices):
    # A single processor is not said in every line.
    frame = pd.DataFrame(lines, columns=columns).set_index(columns[:indices])
    several = frame.index.get_level_values("processor").nunique() > 1
    return frame if several else frame.droplevel("processor")


def _range(ratios):
    low, middle, high = (f"{value:.3g}" for value in (ratios.min(), np.median(ratios), ratios.max()))
    return f"{middle} [{low}, {high}]"


def _met(ratios, goal):
    if ratios.min() >= goal:
        return f"{goal:g}, met"
    return f"{goal:g}, missed" + (" in some runs" if ratios.max() >= goal else "")


def bench_notes(stored: dict[str, dict]) -> pd.DataFrame:
    """What else such rows say: seconds, what was found equal before timing, and what else was measured."""
    lines = [
        (row["work"], processor, _seconds(np.median(row["seconds"] or np.nan)), row["agreement"], row["note"])
        for processor, found in stored.items()
        for row in found["rows"]
        if not row["points"]
    ]
    columns = ["work", "processor", "rgnb (s)", "agreement", "also measured"]
    return _by_processor(lines, columns, 2)


def _seconds(value):
    if np.isnan(value):  # not measured, which the note explains
        return ""
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def bench_costs(rows: list[dict]) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Costs against size, from one processor's rows, as panels for `lines`; sizes in units of the smallest.

    The labels end with the exponent of the larger ones.
    """
    panels: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {
        "training step (s)": {},
        "measures (s)": {},
    }
    for row in rows:
        if row["points"]:
            sizes, seconds = np.array(row["points"]).T
            what, _, name = row["work"].partition(" against ")
            panel, label = ("training step (s)", name) if what == "training step" else ("measures (s)", what)
            panels[panel][f"{label}: {row['note'].rpartition('^')[2]}"] = (sizes / sizes[0], seconds)
    return panels
