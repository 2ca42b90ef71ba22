"""The book's figures: one function each, one style for all."""

from collections.abc import Iterable
from itertools import product

import matplotlib as mpl
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from rgnb import checks
from rgnb.chains import MarkovChain
from rgnb.verdicts.intervals import Interval, Verdict

# Okabe and Ito's palette, distinguishable with any colour vision.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY = "#6b6b6b"
STYLE: dict = {
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "axes.prop_cycle": plt.cycler(color=PALETTE),
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "svg.fonttype": "path",
    # Equal results make equal files, byte for byte.
    "svg.hashsalt": "rgnb",
}


def use_style() -> None:
    """Apply the book's style to all figures from here on, SVG in notebooks; table cells are shown whole."""
    mpl.rcParams.update(STYLE)
    pd.set_option("display.max_colwidth", None)
    try:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("svg", metadata={"Date": None})
    except ImportError:  # not in a notebook
        pass


def _check(name, values, *kinds):
    # A dict, not empty, of values of one class or of dicts of such.
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
    figure, axes = plt.subplots(
        rows, columns, figsize=(width * columns, height * rows), squeeze=False, **kwargs
    )
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


def transition_matrices(chains: dict[str, MarkovChain]) -> Figure:
    """Heat maps of transition matrices: {title: MarkovChain}."""
    _check("chains", chains, MarkovChain)
    columns = min(4, len(chains))
    rows = -(-len(chains) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.3 * columns, 2.45 * rows), squeeze=False)
    for ax in axes.flat[len(chains) :]:
        ax.axis("off")
    for ax, (title, chain) in zip(axes.flat, chains.items(), strict=False):
        matrix, norm = chain.transition_matrix.numpy(), mpl.colors.PowerNorm(0.5, 0, 1)
        image = ax.imshow(matrix, cmap="cividis", norm=norm)
        ax.set_title(title)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.grid(False)
    axes[0, 0].set_ylabel("state now")
    axes[-1, 0].set_xlabel("next state")
    figure.colorbar(image, ax=axes, label="transition probability", shrink=0.8, ticks=[0, 0.1, 0.3, 0.6, 1])
    return figure


def spectra(chains: dict[str, MarkovChain]) -> Figure:
    """Moduli of the eigenvalues by rank: {title: MarkovChain}, one line per chain."""
    _check("chains", chains, MarkovChain)
    figure, (ax,) = _panels(1, 6.4, 3.4)
    for k, (title, chain) in enumerate(chains.items()):
        values = chain.eigenvalues.abs().numpy()
        # Families with equal spectra stand side by side.
        x = np.arange(1, len(values) + 1) + 0.09 * (k - (len(chains) - 1) / 2)
        color = (*PALETTE, "black")[k % 7]
        ax.plot(x, values, marker="osD^vPX"[k % 7], ms=3.5, lw=0.9, label=title, color=color)
    ax.set_xlabel("eigenvalue, by decreasing modulus")
    ax.set_ylabel("modulus")
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def autocorrelation(curves: dict[str, tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike]]) -> Figure:
    """Exact (line) and measured (dots) autocorrelation: {title: (lags, exact, measured, standard error)}."""
    _check("curves", curves, tuple)
    figure, (ax,) = _panels(1, 6.4, 3.2)
    colors = _colors(curves)
    for title, (lags, exact, measured, error) in curves.items():
        color = colors[title]
        ax.plot(lags, np.asarray(exact), color=color, lw=1.4, label=title)
        ax.errorbar(lags, np.asarray(measured), 2 * np.asarray(error), fmt="o", ms=3.5, color=color, lw=1)
    _say_missing(ax, *(values for _, *drawn in curves.values() for values in drawn))
    ax.axhline(0, color=GREY, lw=0.8)
    ax.set_xlabel("lag (steps)")
    ax.set_ylabel("autocorrelation")
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def lines(panels: dict[str, dict[str, tuple[ArrayLike, ArrayLike]]], xlabel: str, log: str = "") -> Figure:
    """Plain curves: {panel title: {label: (x, y)}}; panels share the label colours."""
    _check("panels", panels, dict, tuple)
    figure, axes = _panels(len(panels))
    colors = _colors(label for curves in panels.values() for label in curves)
    for ax, (title, curves) in zip(axes, panels.items(), strict=True):
        for label, (x, y) in curves.items():
            ax.plot(x, y, marker="o", ms=3, lw=1.4, color=colors[label], label=label)
        _say_missing(ax, *(values for curve in curves.values() for values in curve))
        _finish(ax, title, xlabel, log)
    _legend(figure, axes)
    return figure


def seed_lines(
    panels: dict[str, dict[str, xr.DataArray]],
    dim: str,
    xlabel: str,
    ylabel: str,
    log: str = "",
    reference: dict[str, tuple[float, str]] | None = None,
    shared: bool = True,
    own_legends: bool = False,
) -> Figure:
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
    every = [label for curves in panels.values() for label in curves]
    for ax, (title, curves) in zip(axes, panels.items(), strict=True):
        colors = _colors(curves if own_legends else every)
        for label, data in curves.items():
            if set(data.dims) != {"seed", dim}:
                where = f"panels[{title!r}][{label!r}]"
                raise checks.BadValue(f"{where} must have dims ('seed', {dim!r}), got {data.dims}")
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
                shown = low > 0 if "y" in log else None
                ax.fill_between(x, low, high, where=shown, color=colors[label], alpha=0.18, lw=0)
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
        values = np.concatenate([data.values.ravel() for p in panels.values() for data in p.values()])
        values = values[np.isfinite(values)]
        if len(values):
            axes[0].set_ylim(min(0, 1.1 * values.min()), 1.1 * values.max())
    if own_legends:
        for ax in axes:
            ax.legend(fontsize=8)
    else:
        _legend(figure, axes)
    return figure


def effects(rows: dict[str, dict[str, Interval]], bounds: Iterable[float], xlabel: str) -> Figure:
    """Effect sizes with intervals: {row label: {series label: Interval}}, side by side; `bounds` dotted.

    Of an unbounded interval the bar ends 9 beyond 0 and the mean; an effect without a value (NaN) is named
    undefined.
    """
    _check("rows", rows, dict, Interval)
    series = list(dict.fromkeys(label for intervals in rows.values() for label in intervals))
    figure, (ax,) = _panels(1, 6.6, 0.9 + 0.34 * len(rows))
    for k, (label, color) in enumerate(_colors(series).items()):
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


def definition_effects(
    panels: dict[str, dict[tuple, Verdict]], statistic: str, bounds: Iterable[float], xlabel: str
) -> Figure:
    """`effects` of one statistic under every definition in the position view.

    Args:
        panels: {series label: output of `first_round.by_definition`}.
    """
    _check("panels", panels, dict, Verdict)
    rows: dict[str, dict[str, Interval]] = {}
    for title, verdicts in panels.items():
        for (view, centring, spectrum, start), verdict in verdicts.items():
            if view == "position":
                row = rows.setdefault(f"{centring}, {spectrum}, from depth {start}", {})
                row[title] = verdict.statistics[statistic]
    return effects(rows, bounds, xlabel)


def scatter(
    panels: dict[str, dict[str, tuple[ArrayLike, ArrayLike]]],
    xlabel: str | dict[str, str],
    ylabel: str,
    log: str = "xy",
) -> Figure:
    """Points by group: {panel title: {label: (x, y)}}, coloured and marked by label; `xlabel` by panel."""
    _check("panels", panels, dict, tuple)
    figure, axes = _panels(len(panels))
    colors = _colors(label for groups in panels.values() for label in groups)
    for ax, (title, groups) in zip(axes, panels.items(), strict=True):
        for (label, (x, y)), marker in zip(groups.items(), "osD^vPX", strict=False):
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


def paths(panels: dict[str, dict[str, tuple[ArrayLike, ArrayLike]]], xlabel: str, ylabel: str) -> Figure:
    """A line per network through a plane, x on a log scale, a dot where it ends.

    Args:
        panels: {panel title: {label: (x, y)}}, both (points, networks); points where x is not positive are
            left out.
    """
    _check("panels", panels, dict, tuple)
    figure, axes = _panels(len(panels))
    colors = _colors(label for curves in panels.values() for label in curves)
    for ax, (title, curves) in zip(axes, panels.items(), strict=True):
        for (label, (x, y)), marker in zip(curves.items(), "osD^vPX", strict=False):
            style = {"color": colors[label], "lw": 1, "alpha": 0.8}
            ax.plot(x, y, **style)
            ax.plot(
                np.asarray(x)[-1],
                np.asarray(y)[-1],
                marker=marker,
                ls="",
                ms=5,
                label=label,
                color=colors[label],
            )
        _say_missing(ax, *(values for curve in curves.values() for values in curve))
        _finish(ax, title, xlabel, "x")
    _label_y(axes, ylabel)
    _legend(figure, axes)
    return figure


def cka_matrices(panels: dict[str, xr.DataArray]) -> Figure:
    """Heat maps of CKA between depths: {panel title: DataArray (depth, other_depth)}."""
    _check("panels", panels, xr.DataArray)
    for title, cka in panels.items():
        if cka.dims != ("depth", "other_depth"):
            dims = ("depth", "other_depth")
            raise checks.BadValue(f"panels[{title!r}] must have dims {dims}, got {cka.dims}")
    figure, axes = _panels(len(panels), 3.0, 2.8)
    for ax, (title, cka) in zip(axes, panels.items(), strict=True):
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


STATUS = {
    "supported": ("#0072B2", "o"),
    "partly supported": ("#56B4E9", "^"),
    "not supported": ("#D55E00", "x"),
}  # colour, mark


def status_grid(
    verdicts: dict[tuple[str, str, str, str, str], Verdict],
    stays: dict[tuple[str, str, str, str, str], bool],
    titles: dict[str, str],
) -> Figure:
    """Verdicts as a grid: a row of panels per finding and a column per architecture.

    In a panel the rows are families and the columns variants; grey where the gate failed.

    Args:
        verdicts: {(finding, definition, family, mixing, variant): Verdict}.
        stays: {the same key: whether a supported verdict survives a correction}; those get a ring.
        titles: {mixing: its name}.
    """
    _check("verdicts", verdicts, Verdict)
    found, rows, columns = (list(dict.fromkeys(k[i] for k in verdicts)) for i in (0, 2, 4))
    size = (9.6, 2.3 + len(found) * (0.45 + 0.22 * len(rows)))
    shape = (len(found), len(titles))
    figure, axes = plt.subplots(*shape, figsize=size, sharex=True, sharey=True, squeeze=False)
    panel = dict(zip(product(found, titles), axes.flat, strict=True))
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


def _colors(labels):
    labels = dict.fromkeys(labels)
    trained = [label for label in labels if not label.startswith("untrained")]
    if len(trained) > len(PALETTE):
        most = f"at most {len(PALETTE)} curves can be told apart"
        raise checks.BadValue(f"{most}, got {len(trained)}: {trained}")
    return dict.fromkeys(labels, GREY) | dict(zip(trained, PALETTE, strict=False))


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
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    figure.legend(found.values(), found, loc="outside lower center", ncols=min(len(found), 3))
