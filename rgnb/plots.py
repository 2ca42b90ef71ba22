"""One figure or table a function, one style for the whole book."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib import pyplot as plt

from rgnb import checks, findings
from rgnb.chains import MarkovChain
from rgnb.findings import Interval, Verdict

# Okabe and Ito's palette, distinguishable with any colour vision.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY = "#6b6b6b"
STYLE = {
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "axes.prop_cycle": mpl.cycler(color=PALETTE),
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "svg.fonttype": "path",
    # Equal results make equal files, byte for byte.
    "svg.hashsalt": "rgnb",
}


def use_style():
    """Apply the book's style to every figure made from here on; figures come out as SVG in notebooks, cells of tables whole."""
    mpl.rcParams.update(STYLE)
    pd.set_option("display.max_colwidth", None)
    try:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("svg", metadata={"Date": None})
    except ImportError:  # not in a notebook
        pass


def _check(name, values, *kinds):
    # A dict of values of one class, or of dicts of such, with something to show.
    checks.mapping(name, values, kinds[0])
    if not values:
        raise checks.BadValue(f"{name} is empty; pass one entry or more")
    for key, inner in values.items():
        if kinds[1:]:
            checks.mapping(f"{name}[{key!r}]", inner, kinds[1])


def _panels(n, width=3.3, height=2.9, **kwargs):
    # Up to three panels side by side; more in two columns, so that a page's width suffices.
    columns = n if n <= 3 else 2
    rows = -(-n // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(width * columns, height * rows), squeeze=False, **kwargs)
    return figure, axes.flat[:n]


def _label_y(axes, label):
    for ax in axes:
        if ax.get_subplotspec().is_first_col():
            ax.set_ylabel(label)


def _say_missing(ax, *values):
    # What is NaN is not drawn: the panel says how much that is.
    values = np.concatenate([[], *(np.ravel(np.asarray(v, dtype=float)) for v in values)])
    if missing := np.isnan(values).sum():
        text = f"{missing} of {values.size} values are NaN"
        box = {"color": "white", "alpha": 0.8, "pad": 1}
        ax.text(0.98, 0.98, text, ha="right", va="top", fontsize=8, transform=ax.transAxes, bbox=box)


def transition_matrices(chains):
    """Heat maps of transition matrices: {title: MarkovChain}."""
    _check("chains", chains, MarkovChain)
    columns = min(4, len(chains))
    rows = -(-len(chains) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.3 * columns, 2.45 * rows), squeeze=False)
    for ax in axes.flat[len(chains) :]:
        ax.axis("off")
    for ax, (title, chain) in zip(axes.flat, chains.items()):
        image = ax.imshow(chain.transition_matrix.numpy(), cmap="cividis", norm=mpl.colors.PowerNorm(0.5, 0, 1))
        ax.set_title(title)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.grid(False)
    axes[0, 0].set_ylabel("state now")
    axes[-1, 0].set_xlabel("next state")
    figure.colorbar(image, ax=axes, label="transition probability", shrink=0.8, ticks=[0, 0.1, 0.3, 0.6, 1])
    return figure


def spectra(chains):
    """Moduli of the eigenvalues by rank: {title: MarkovChain}, one line a chain."""
    _check("chains", chains, MarkovChain)
    figure, (ax,) = _panels(1, 6.4, 3.4)
    for k, ((title, chain), marker) in enumerate(zip(chains.items(), "osD^vPX")):
        values = chain.eigenvalues.abs().numpy()
        # Families with equal spectra stand side by side.
        x = np.arange(1, len(values) + 1) + 0.09 * (k - (len(chains) - 1) / 2)
        ax.plot(x, values, marker=marker, ms=3.5, lw=0.9, label=title, color=(*PALETTE, "black")[k % 7])
    ax.set_xlabel("eigenvalue, by decreasing modulus")
    ax.set_ylabel("modulus")
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def autocorrelation(curves):
    """Exact (line) and measured (dots) autocorrelation: {title: (lags, exact, measured, standard error)}."""
    _check("curves", curves, tuple)
    figure, (ax,) = _panels(1, 6.4, 3.2)
    for (title, (lags, exact, measured, error)), color in zip(curves.items(), PALETTE):
        ax.plot(lags, np.asarray(exact), color=color, lw=1.4, label=title)
        ax.errorbar(lags, np.asarray(measured), 2 * np.asarray(error), fmt="o", ms=3.5, color=color, lw=1)
    _say_missing(ax, *(values for _, *drawn in curves.values() for values in drawn))
    ax.axhline(0, color=GREY, lw=0.8)
    ax.set_xlabel("lag (steps)")
    ax.set_ylabel("autocorrelation")
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def lines(panels, xlabel, log=""):
    """Plain curves: {panel title: {label: (x, y)}}; panels share the label colours."""
    _check("panels", panels, dict, tuple)
    figure, axes = _panels(len(panels))
    colors = _colors(panels)
    for ax, (title, curves) in zip(axes, panels.items()):
        for label, (x, y) in curves.items():
            ax.plot(x, y, marker="o", ms=3, lw=1.4, color=colors[label], label=label)
        _say_missing(ax, *(values for curve in curves.values() for values in curve))
        _finish(ax, title, xlabel, log)
    _legend(figure, axes)
    return figure


def seed_lines(panels, dim, xlabel, ylabel, log="", reference=None, shared=True, own_legends=False):
    """Per-seed lines under their mean with its 95 % t interval.

    Where a seed has no value (NaN) there is no mean, and the panel says how many are lacking.

    Args:
        panels: {panel title: {label: DataArray with dims (seed, `dim`)}}; a label that starts with
            "untrained" is drawn in grey dashes.
        dim: the dimension on the x axis.
        log: axes on a log scale, of "x", "y", "xy".
        reference: {panel title: (value, text)} drawn as a horizontal line.
        shared: one y axis from 0 for all panels; else each panel its own range.
        own_legends: panels show different things, each with its own colours and legend.
    """
    _check("panels", panels, dict, xr.DataArray)
    figure, axes = _panels(len(panels), sharey=shared)
    for ax, (title, curves) in zip(axes, panels.items()):
        colors = _colors({title: curves} if own_legends else panels)
        for label, data in curves.items():
            if set(data.dims) != {"seed", dim}:
                raise checks.BadValue(f"panels[{title!r}][{label!r}] must have dims ('seed', {dim!r}), got {data.dims}")
            data = data.transpose("seed", dim)
            x = data[dim].values
            style = {"color": colors[label], "ls": "--" if label.startswith("untrained") else "-"}
            ax.plot(x, data.values.T, lw=0.6, alpha=0.45, **style)
            intervals = [Interval.of(column) for column in data.values.T]
            marker = "o" if len(x) <= 30 else None
            ax.plot(x, [i.mean for i in intervals], lw=2, marker=marker, ms=3.5, label=label, **style)
            if data.sizes["seed"] > 1:
                low, high = (np.array([getattr(i, end) for i in intervals]) for end in ("low", "high"))
                # On a log scale an interval that reaches 0 would fill the panel.
                ax.fill_between(x, low, high, where=low > 0 if "y" in log else None, color=colors[label], alpha=0.18, lw=0)
        if reference and title in reference:
            value, text = reference[title]
            ax.axhline(value, color="black", lw=1, ls=":", label=text)
        _say_missing(ax, *curves.values())
        _finish(ax, title, xlabel, log)
        if dim in ("depth", "transition"):
            ax.set_xticks(x, [f"{t}→{t + 1}" for t in x] if dim == "transition" else x)
    _label_y(axes, ylabel)
    if shared and "y" not in log:
        # The seeds set the range: a wide interval of few seeds may leave the panel.
        values = np.concatenate([data.values.ravel() for curves in panels.values() for data in curves.values()])
        values = values[np.isfinite(values)]
        if len(values):
            axes[0].set_ylim(min(0, 1.1 * values.min()), 1.1 * values.max())
    if own_legends:
        for ax in axes:
            ax.legend(fontsize=8)
    else:
        _legend(figure, axes)
    return figure


def effects(rows, bounds, xlabel):
    """Effect sizes with intervals: {row label: {series label: Interval}}, side by side; `bounds` dotted.

    Of an unbounded interval the bar ends 9 beyond 0 and the mean; an effect without a value (NaN) is named
    undefined.
    """
    _check("rows", rows, dict, Interval)
    series = list(dict.fromkeys(label for intervals in rows.values() for label in intervals))
    figure, (ax,) = _panels(1, 6.6, 0.9 + 0.34 * len(rows))
    for k, (label, color) in enumerate(zip(series, PALETTE)):
        for y, intervals in enumerate(rows.values()):
            if label in intervals:
                i = intervals[label]
                offset = y + 0.22 * (k - (len(series) - 1) / 2)
                mean = i.mean
                if not np.isfinite(mean):
                    mean = np.nan
                    ax.text(0, offset, " undefined", va="center", fontsize=8, color=color)
                low = i.low if np.isfinite(i.low) else min(mean, 0) - 9
                high = i.high if np.isfinite(i.high) else max(mean, 0) + 9
                first = label if y == next(r for r, v in enumerate(rows.values()) if label in v) else None
                style = {"fmt": "os"[k % 2], "ms": 4.5, "color": color, "lw": 1.4, "label": first}
                ax.errorbar(mean, offset, xerr=[[mean - low], [high - mean]], **style)
    for bound in bounds:
        ax.axvline(bound, color="black", lw=1, ls=":")
    ax.axvline(0, color=GREY, lw=0.8)
    ax.set_yticks(range(len(rows)), rows)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(xlabel)
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def definition_effects(panels, statistic, bounds, xlabel):
    """`effects` of one statistic under every definition in the position view: {series label: output of findings.by_definition}."""
    _check("panels", panels, dict, Verdict)
    rows = {}
    for title, verdicts in panels.items():
        for (view, centring, spectrum, start), verdict in verdicts.items():
            if view == "position":
                rows.setdefault(f"{centring}, {spectrum}, from depth {start}", {})[title] = verdict.statistics[statistic]
    return effects(rows, bounds, xlabel)


def scatter(panels, xlabel, ylabel, log="xy"):
    """Points by group: {panel title: {label: (x, y)}}, colour and marker by label; `xlabel` one for all or by panel title."""
    _check("panels", panels, dict, tuple)
    figure, axes = _panels(len(panels))
    colors = _colors(panels)
    for ax, (title, groups) in zip(axes, panels.items()):
        for (label, (x, y)), marker in zip(groups.items(), "osD^vP"):
            ax.plot(x, y, ls="", marker=marker, ms=5, alpha=0.75, color=colors[label], label=label)
        _say_missing(ax, *(values for group in groups.values() for values in group))
        ax.set_title(title)
        ax.set_xlabel(xlabel if isinstance(xlabel, str) else xlabel[title])
        for axis, name in ((ax.xaxis, "x"), (ax.yaxis, "y")):
            if name in log and (_drawn(ax, name) > 0).any():
                getattr(ax, f"set_{name}scale")("log")
                axis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:g}"))
                axis.set_major_locator(mpl.ticker.LogLocator(10, (1, 2, 5)))
                axis.set_minor_formatter(mpl.ticker.NullFormatter())
    _label_y(axes, ylabel)
    _legend(figure, axes)
    return figure


def cka_matrices(panels):
    """Heat maps of CKA between depths: {panel title: DataArray (depth, other_depth)}."""
    _check("panels", panels, xr.DataArray)
    for title, cka in panels.items():
        if cka.dims != ("depth", "other_depth"):
            raise checks.BadValue(f"panels[{title!r}] must have dims ('depth', 'other_depth'), got {cka.dims}")
    figure, axes = _panels(len(panels), 3.0, 2.8)
    for ax, (title, cka) in zip(axes, panels.items()):
        image = ax.imshow(cka.values, vmin=0, vmax=1, cmap="cividis", origin="lower")
        _say_missing(ax, cka.values)
        ax.set_title(title)
        ax.set_xlabel("depth")
        ax.grid(False)
        ax.set_xticks(cka.depth.values)
        ax.set_yticks(cka.depth.values)
    _label_y(axes, "depth")
    figure.colorbar(image, ax=list(axes), label="CKA", shrink=0.85)
    return figure


def verdict_table(panels):
    """Verdicts by definition of rank: {title: output of findings.by_definition} -> DataFrame of words, a column a view; in brackets where the gate fails."""
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


def step_table(panels):
    """Verdicts by training step: {column title: output of findings.by_step} -> DataFrame of words; in brackets where the gate fails."""
    _check("panels", panels, dict, Verdict)
    table = pd.DataFrame({title: {step: f"not trained [{v.ungated}]" if v.ungated else v.status for step, v in verdicts.items()} for title, verdicts in panels.items()})
    return table.rename_axis("training step")


def interval_table(intervals, names):
    """Intervals by key: {tuple of labels: Interval} -> DataFrame of words; `names` name the labels."""
    checks.mapping("intervals", intervals, Interval)
    index = pd.MultiIndex.from_tuples(list(intervals) or [("",) * len(names)], names=names)[: len(intervals)]
    return pd.DataFrame({"mean [interval]": [str(i) for i in intervals.values()]}, index=index)


def statistics_table(verdicts):
    """Verdicts side by side: {column title: Verdict} -> DataFrame of words, the verdict and its statistics; in brackets where the gate fails."""
    _check("verdicts", verdicts, Verdict)
    table = {
        title: {
            "verdict": f"not trained [{v.ungated}]" if v.ungated else v.status,
            "networks": str(v.networks or ""),
        }
        | {k: str(i) for k, i in v.statistics.items()}
        for title, v in verdicts.items()
    }
    table = pd.DataFrame(table).fillna("")
    first = ["verdict", "networks"]
    return table.loc[[*first, *sorted(table.index.drop(first))]]


def modes_table(results):
    """Relevant modes beside the last rank of trained networks: {(family, size): Dataset of Experiment.run} -> DataFrame."""
    _check("results", results, xr.Dataset)
    rows = []
    for (family, size), ds in results.items():
        ds = findings.one_chain(ds, relevant_modes="correlation_length floor", effective_rank=findings.RANK["effective_rank"])
        last = ds.isel(depth=-1).effective_rank.sel(state="trained", view="position", centring="centred")
        last = checks.complete("results", last)
        relevant = checks.complete("results", ds.isel(floor=0).relevant_modes)
        for xi in ds.correlation_length.values:
            ranks = [str(Interval.of(last.sel(correlation_length=xi, spectrum=s).values)) for s in ("eigen", "singular")]
            modes = float(relevant.sel(correlation_length=xi).mean())
            rows.append((family, size, f"{xi:g}", f"{modes:.2f}", *ranks))
    columns = ["family", "size", "ξ", "relevant modes", "last rank, eigenvalues", "last rank, singular values"]
    return pd.DataFrame(rows, columns=columns).set_index(["family", "size", "ξ"])


def stack_table(stacks):
    """Drift of stacks of several depths: {blocks: Dataset of Experiment.run} -> DataFrame: all, the leading two, a median of the others."""
    _check("stacks", stacks, xr.Dataset)
    rows = []
    for blocks, ds in stacks.items():
        ds = findings.one_chain(ds, kernel_drift=findings.DRIFT["kernel_drift"])
        for xi in ds.correlation_length.values:
            drift = findings.defined_drift(ds, view="position", state="trained", correlation_length=xi)
            d = np.sort(drift.values.clip(min=0))
            cells = (Interval.of(d.sum(-1)), Interval.of(d[:, -2:].sum(-1)), Interval.of(d[:, :-2].sum(-1)))
            rows.append((f"{xi:g}", blocks, *map(str, cells), f"{np.median(d[:, :-2]):.4f}"))
    columns = ["ξ", "blocks", "total drift", "largest two", "all others", "median of the others"]
    return pd.DataFrame(rows, columns=columns).set_index(["ξ", "blocks"]).sort_index(kind="stable")


STATUS = {"supported": ("#0072B2", "o"), "partly supported": ("#56B4E9", "^"), "not supported": ("#D55E00", "x")}  # colour, mark


def status_grid(verdicts, stays, titles):
    """Verdicts as a grid, a row of panels for each finding, a column for each architecture; rows families, columns variants; grey where the gate failed.

    Args:
        verdicts: {(finding, definition, family, mixing, variant): Verdict}.
        stays: {the same key: whether a supported verdict survives a correction}; such get a ring.
        titles: {mixing: its name}.
    """
    _check("verdicts", verdicts, Verdict)
    found, rows, columns = (list(dict.fromkeys(k[i] for k in verdicts)) for i in (0, 2, 4))
    size = (9.6, 2.3 + len(found) * (0.45 + 0.22 * len(rows)))
    figure, axes = plt.subplots(len(found), len(titles), figsize=size, sharex=True, sharey=True, squeeze=False)
    panel = {(finding, mixing): axes[i, j] for i, finding in enumerate(found) for j, mixing in enumerate(titles)}
    for key, verdict in verdicts.items():
        ax, x, y = panel[key[0], key[3]], columns.index(key[4]), rows.index(key[2])
        color, mark = STATUS[verdict.ungated or verdict.status]
        label = f"not trained; alone {verdict.ungated}" if verdict.ungated else verdict.status
        ax.plot(x, y, mark, color="#c0c0c0" if verdict.ungated else color, ms=5.5, mew=1.6, label=label)
        if stays[key]:
            ax.plot(x, y, "o", mfc="none", color="black", ms=9.5, mew=0.9, label="survives correction")
    for (finding, mixing), ax in panel.items():
        ax.set_title(f"{finding}; {titles[mixing]}")
        ax.set_xticks(range(len(columns)), columns, rotation=90)
        ax.set_yticks(range(len(rows)), rows)
        ax.set_xlim(-0.6, len(columns) - 0.4)
        ax.set_ylim(len(rows) - 0.4, -0.6)
    _legend(figure, axes.flat)
    return figure


def share_table(verdicts, titles, by):
    """Share of the trained settings in which a finding is supported (and partly), by a part of the key.

    Args:
        verdicts, titles: as in `status_grid`.
        by: place in the key of what the rows are: 1 definition, 2 family, 4 variant.

    Returns:
        DataFrame of words, columns (finding, architecture).
    """
    _check("verdicts", verdicts, Verdict)
    cells = {}
    for key, verdict in verdicts.items():
        cells.setdefault((key[0], titles[key[3]]), {}).setdefault(key[by], []).append(verdict.status)
    table = pd.DataFrame({column: {row: _share(found) for row, found in rows.items()} for column, rows in cells.items()})
    return table.loc[list(dict.fromkeys(k[by] for k in verdicts))].fillna("")


def _share(found):
    trained = [status for status in found if status != "not trained"]
    if not trained:
        return "none trained"
    yes, partly = (trained.count(name) for name in ("supported", "partly supported"))
    return f"{yes}" + (f" (+{partly})" if partly else "") + f" of {len(trained)}"


def bench_table(rows):
    """Rows that `benchmarks/bench.py` stored, those with a peer: DataFrame, one line a side."""
    lines = []
    for row in rows:
        fastest = min(row["others"].values(), default=None)
        for name, seconds in row["others"].items():
            ratio, goal = seconds / row["seconds"], row["goal"] if seconds == fastest else 0
            reached = f"{goal:g}, {'reached' if ratio >= goal else 'missed'}" if goal else ""
            lines.append((row["work"], name, _seconds(row["seconds"]), _seconds(seconds), f"{ratio:.3g}", reached))
    columns = ["work", "against", "rgnb (s)", "other (s)", "times as fast", "goal"]
    return pd.DataFrame(lines, columns=columns).set_index(["work", "against"])


def bench_notes(rows):
    """What else such rows say: DataFrame of seconds, what was found equal before the timing, and what else was measured."""
    shown = [row for row in rows if not row["points"]]
    lines = [(row["work"], "" if row["seconds"] is None else _seconds(row["seconds"]), row["agreement"], row["note"]) for row in shown]
    return pd.DataFrame(lines, columns=["work", "rgnb (s)", "agreement", "also measured"]).set_index("work")


def _seconds(value):
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def bench_costs(rows):
    """Costs against size as panels for `lines`, sizes in units of the smallest; the labels end with the exponent of the larger ones."""
    panels = {"training step (s)": {}, "measures (s)": {}}
    for row in rows:
        if row["points"]:
            sizes, seconds = np.array(row["points"]).T
            what, _, name = row["work"].partition(" against ")
            panel, label = ("training step (s)", name) if what == "training step" else ("measures (s)", what)
            panels[panel][f"{label}: {row['note'].rpartition('^')[2]}"] = (sizes / sizes[0], seconds)
    return panels


def _colors(panels):
    labels = dict.fromkeys(label for curves in panels.values() for label in curves)
    trained = [label for label in labels if not label.startswith("untrained")]
    if len(trained) > len(PALETTE):
        raise checks.BadValue(f"at most {len(PALETTE)} curves can be told apart, got {len(trained)}: {trained}")
    return dict.fromkeys(labels, GREY) | dict(zip(trained, PALETTE))


def _finish(ax, title, xlabel, log):
    ax.set_title(title)
    ax.set_xlabel(xlabel)
    values = _drawn(ax, "x")
    if "x" in log and len(values):
        if values[0] > 0:
            ax.set_xscale("log")
        else:  # training steps from 0: linear up to the first block of 50
            ax.set_xscale("symlog", linthresh=50)
        if len(values) <= 8:  # powers of ten say little where there are few values
            ax.set_xticks(values, [f"{v:g}" for v in values])
            ax.minorticks_off()
    if "y" in log and (_drawn(ax, "y") > 0).any():
        ax.set_yscale("log")


def _drawn(ax, axis):
    # The values of a panel's lines along an axis, sorted; without any there is no log scale.
    lines = [line for line in ax.lines if line.get_transform() == ax.transData]
    values = np.concatenate([[], *(getattr(line, f"get_{axis}data")() for line in lines)])
    values = np.unique(values.astype(float))
    return values[np.isfinite(values)]


def _legend(figure, axes):
    # One legend for all panels, below them, each label once.
    found = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels()):
            found.setdefault(label, handle)
    figure.legend(found.values(), found, loc="outside lower center", ncols=min(len(found), 3))
