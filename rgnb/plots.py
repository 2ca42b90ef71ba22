"""One figure a function, one style for the whole book. Each returns a matplotlib Figure."""

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

from rgnb.findings import Interval

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
    """Apply the book's style to every figure made from here on; figures come out as SVG in notebooks."""
    mpl.rcParams.update(STYLE)
    try:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("svg", metadata={"Date": None})
    except ImportError:  # not in a notebook
        pass


def _panels(n, width=3.1, height=3.0, **kwargs):
    figure, axes = plt.subplots(1, n, figsize=(width * n, height), squeeze=False, **kwargs)
    return figure, axes[0]


def transition_matrices(chains):
    """Heat maps of transition matrices: {title: MarkovChain}."""
    columns = min(4, len(chains))
    rows = -(-len(chains) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.3 * columns, 2.45 * rows), squeeze=False)
    for ax in axes.flat[len(chains) :]:
        ax.axis("off")
    for ax, (title, chain) in zip(axes.flat, chains.items()):
        image = ax.imshow(chain.transition_matrix, cmap="cividis", norm=mpl.colors.PowerNorm(0.5, 0, 1))
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
    figure, (ax,) = _panels(1, 6.4, 3.4)
    for (title, chain), marker in zip(chains.items(), "osD^vPX"):
        values = chain.eigenvalues.abs().numpy()
        ax.plot(np.arange(1, len(values) + 1), values, marker=marker, ms=4, lw=1.2, label=title)
    ax.set_xlabel("eigenvalue, by decreasing modulus")
    ax.set_ylabel("modulus")
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def autocorrelation(curves):
    """Exact (line) and measured (dots) autocorrelation: {title: (lags, exact, measured, standard error)}."""
    figure, (ax,) = _panels(1, 6.4, 3.2)
    for (title, (lags, exact, measured, error)), color in zip(curves.items(), PALETTE):
        ax.plot(lags, exact, color=color, lw=1.4, label=title)
        ax.errorbar(lags, measured, 2 * np.asarray(error), fmt="o", ms=3.5, color=color, lw=1)
    ax.axhline(0, color=GREY, lw=0.8)
    ax.set_xlabel("lag (steps)")
    ax.set_ylabel("autocorrelation")
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def lines(panels, xlabel, ylabel, log=""):
    """Plain curves: {panel title: {label: (x, y)}}; panels share the label colours."""
    figure, axes = _panels(len(panels), 3.6)
    colors = _colors(panels)
    for ax, (title, curves) in zip(axes, panels.items()):
        for label, (x, y) in curves.items():
            ax.plot(x, y, marker="o", ms=3, lw=1.4, color=colors[label], label=label)
        _finish(ax, title, xlabel, log)
    axes[0].set_ylabel(ylabel)
    _legend(figure, axes)
    return figure


def seed_lines(panels, dim, xlabel, ylabel, log="", reference=None, sharey=True):
    """Per-seed lines under their mean with its 95 % t interval.

    Args:
        panels: {panel title: {label: DataArray with dims (seed, `dim`)}}; a label that starts with
            "untrained" is drawn in grey dashes.
        dim: the dimension on the x axis.
        log: axes on a log scale, of "x", "y", "xy".
        reference: {panel title: (value, text)} drawn as a horizontal line.
    """
    figure, axes = _panels(len(panels), sharey=sharey)
    colors = _colors(panels)
    for ax, (title, curves) in zip(axes, panels.items()):
        for label, data in curves.items():
            data = data.transpose("seed", dim)
            x = data[dim].values
            style = {"color": colors[label], "ls": "--" if label.startswith("untrained") else "-"}
            ax.plot(x, data.values.T, lw=0.6, alpha=0.45, **style)
            intervals = [Interval.of(column) for column in data.values.T]
            ax.plot(x, [i.mean for i in intervals], lw=2, marker="o", ms=3.5, label=label, **style)
            if data.sizes["seed"] > 1:
                low, high = [i.low for i in intervals], [i.high for i in intervals]
                ax.fill_between(x, low, high, color=colors[label], alpha=0.18, lw=0)
        if reference and title in reference:
            value, text = reference[title]
            ax.axhline(value, color="black", lw=1, ls=":", label=text)
        _finish(ax, title, xlabel, log)
        if dim in ("depth", "transition"):
            ax.set_xticks(x, [f"{t}→{t + 1}" for t in x] if dim == "transition" else x)
    axes[0].set_ylabel(ylabel)
    if "y" not in log:
        axes[0].set_ylim(bottom=min(0, axes[0].get_ylim()[0]))
    _legend(figure, axes)
    return figure


def effects(rows, bounds, xlabel):
    """Effect sizes with intervals: {row label: {series label: Interval}}, dots side by side; `bounds` as dotted lines."""
    series = list(dict.fromkeys(label for intervals in rows.values() for label in intervals))
    figure, (ax,) = _panels(1, 6.6, 0.9 + 0.34 * len(rows))
    for k, (label, color) in enumerate(zip(series, PALETTE)):
        for y, intervals in enumerate(rows.values()):
            if label in intervals and np.isfinite(intervals[label].mean):
                i = intervals[label]
                offset = y + 0.22 * (k - (len(series) - 1) / 2)
                reach = [[i.mean - max(i.low, -9)], [min(i.high, 9) - i.mean]]
                first = label if y == next(r for r, v in enumerate(rows.values()) if label in v) else None
                ax.errorbar(i.mean, offset, xerr=reach, fmt="os"[k % 2], ms=4.5, color=color, lw=1.4, label=first)
    for bound in bounds:
        ax.axvline(bound, color="black", lw=1, ls=":")
    ax.axvline(0, color=GREY, lw=0.8)
    ax.set_yticks(range(len(rows)), rows)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(xlabel)
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def cka_matrices(panels):
    """Heat maps of CKA between depths: {panel title: DataArray (depth, other_depth)}."""
    figure, axes = _panels(len(panels), 2.6, 2.7)
    for ax, (title, cka) in zip(axes, panels.items()):
        image = ax.imshow(cka.values, vmin=0, vmax=1, cmap="cividis", origin="lower")
        ax.set_title(title)
        ax.set_xlabel("depth")
        ax.grid(False)
        ax.set_xticks(cka.depth.values)
        ax.set_yticks(cka.depth.values)
    axes[0].set_ylabel("depth")
    figure.colorbar(image, ax=axes, label="CKA", shrink=0.85)
    return figure


def _colors(panels):
    labels = dict.fromkeys(label for curves in panels.values() for label in curves)
    trained = [label for label in labels if not label.startswith("untrained")]
    if len(trained) > len(PALETTE):
        raise ValueError(f"at most {len(PALETTE)} curves can be told apart, got {len(trained)}: {trained}")
    return dict.fromkeys(labels, GREY) | dict(zip(trained, PALETTE))


def _finish(ax, title, xlabel, log):
    ax.set_title(title)
    ax.set_xlabel(xlabel)
    if "x" in log:
        ax.set_xscale("symlog" if ax.get_xlim()[0] <= 0 else "log")
    if "y" in log:
        ax.set_yscale("log")


def _legend(figure, axes):
    # One legend for all panels, below them, each label once.
    found = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels()):
            found.setdefault(label, handle)
    figure.legend(found.values(), found, loc="outside lower center", ncols=min(len(found), 3))
