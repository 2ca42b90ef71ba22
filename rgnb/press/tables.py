"""The book's tables, one function each."""

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


def statistics_table(verdicts: dict[str, Verdict]) -> pd.DataFrame:
    """Verdicts side by side, {column title: Verdict} with statistics; in brackets where the gate fails."""
    _check("verdicts", verdicts, Verdict)
    words = {
        title: {"verdict": v.outcome, "networks": str(v.networks or "")}
        | {name: str(interval) for name, interval in v.statistics.items()}
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


def bench_table(rows: list[dict]) -> pd.DataFrame:
    """Rows that `benchmarks/bench.py` stored, those with a peer: one line per side."""
    lines = []
    for row in rows:
        fastest = min(row["others"].values(), default=None)
        for name, seconds in row["others"].items():
            ratio, goal = seconds / row["seconds"], row["goal"] if seconds == fastest else 0
            reached = f"{goal:g}, {'reached' if ratio >= goal else 'missed'}" if goal else ""
            times = (_seconds(row["seconds"]), _seconds(seconds), f"{ratio:.3g}")
            lines.append((row["work"], name, *times, reached))
    columns = ["work", "against", "rgnb (s)", "other (s)", "times as fast", "goal"]
    return pd.DataFrame(lines, columns=columns).set_index(["work", "against"])


def bench_notes(rows: list[dict]) -> pd.DataFrame:
    """What else such rows say: seconds, what was found equal before timing, and what else was measured."""
    shown = [(row, row["seconds"]) for row in rows if not row["points"]]
    lines = [
        (row["work"], "" if seconds is None else _seconds(seconds), row["agreement"], row["note"])
        for row, seconds in shown
    ]
    return pd.DataFrame(lines, columns=["work", "rgnb (s)", "agreement", "also measured"]).set_index("work")


def _seconds(value):
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def bench_costs(rows: list[dict]) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Costs against size as panels for `lines`, sizes in units of the smallest.

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
