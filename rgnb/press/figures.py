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

# The hues of Okabe and Ito, darkened until lines that let a quarter of the white through keep 3:1 against it.
# The dark theme turns lightness round (rgnb.css), which keeps the contrast.
PALETTE = ("#0067A6", "#B64A00", "#00714F", "#A4407F", "#7A5C00", "#5B3FA8", "#8C1D2F", "#3E6B12")
GREY = "#666666"
MARKERS = "osD^vP<*"
WIDTH = 5.2  # inches: on a phone 360 pixels wide the lettering is then 9 pixels high
STYLE: dict = {
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.labelsize": 11,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "legend.fontsize": 11,
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


class _DataFigure(Figure):
    """A figure that carries the numbers it draws; notebooks keep them beside its image, as CSV."""

    data: pd.DataFrame

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        return {"text/csv": self.data.to_csv(index=False, float_format="%.6g", lineterminator="\n")}


def _check(name, values, *kinds):
    # A dict, not empty, of values of one class or of dicts of such.
    checks.mapping(name, values, kinds[0])
    if not values:
        raise checks.BadValue(f"{name} is empty; pass one entry or more")
    for key, inner in values.items():
        if kinds[1:]:
            _check(f"{name}[{key!r}]", inner, *kinds[1:])


def _panels(n, height=2.4, **kwargs):
    # At most two panels side by side, so that they can be read on a phone.
    columns = min(n, 2)
    rows = -(-n // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(WIDTH, height * rows), squeeze=False, FigureClass=_DataFigure, **kwargs
    )
    for ax in axes.flat[n:]:
        ax.axis("off")
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
        ax.text(0.98, 0.98, text, ha="right", va="top", transform=ax.transAxes, bbox=box)


def transition_matrices(chains: dict[str, MarkovChain]) -> Figure:
    """Heat maps of transition matrices: {title: MarkovChain}."""
    _check("chains", chains, MarkovChain)
    figure, axes = _panels(len(chains), 2.35)
    for ax, (title, chain) in zip(axes, chains.items(), strict=True):
        matrix, norm = chain.transition_matrix.numpy(), mpl.colors.PowerNorm(0.5, 0, 1)
        image = ax.imshow(matrix, cmap="cividis_r", norm=norm)
        ax.set_title(title)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.grid(False)
    _label_y(axes, "state now")
    axes[-1].set_xlabel("next state")
    figure.colorbar(
        image, ax=list(axes), label="transition probability", shrink=0.8, ticks=[0, 0.1, 0.3, 0.6, 1]
    )
    rows = [(t, *at, p) for t, c in chains.items() for at, p in np.ndenumerate(c.transition_matrix.numpy())]
    figure.data = pd.DataFrame(rows, columns=["chain", "state now", "next state", "probability"])
    return figure


def spectra(chains: dict[str, MarkovChain]) -> Figure:
    """Moduli of the eigenvalues by rank: {title: MarkovChain}, one line per chain."""
    _check("chains", chains, MarkovChain)
    figure, (ax,) = _panels(1, 2.9)
    rows, looks = [], list(zip((*PALETTE, "black"), (*MARKERS, "X"), strict=True))
    for k, (title, chain) in enumerate(chains.items()):
        values = chain.eigenvalues.abs().numpy()
        # Families with equal spectra stand side by side.
        x = np.arange(1, len(values) + 1) + 0.09 * (k - (len(chains) - 1) / 2)
        color, marker = looks[k % len(looks)]
        ax.plot(x, values, ms=4, lw=0.9, label=title, color=color, marker=marker)
        rows += [(title, number, value) for number, value in enumerate(values, 1)]
    ax.set_xlabel("eigenvalue, by decreasing modulus")
    ax.set_ylabel("modulus")
    _legend(figure, [ax])
    figure.data = pd.DataFrame(rows, columns=["chain", "eigenvalue", "modulus"])
    return figure


def autocorrelation(curves: dict[str, tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike]]) -> Figure:
    """Exact (line) and measured (dots) autocorrelation: {title: (lags, exact, measured, standard error)}."""
    _check("curves", curves, tuple)
    figure, (ax,) = _panels(1, 2.9)
    looks = _looks(curves)
    rows: list[tuple] = []
    for title, drawn in curves.items():
        lags, exact, measured, error = (np.asarray(values) for values in drawn)
        look = looks[title]
        ax.plot(lags, exact, lw=1.4, label=title, **look | {"marker": None})
        ax.errorbar(lags, measured, 2 * error, ms=3.5, lw=1, **look | {"ls": ""})
        rows += zip([title] * len(lags), lags, exact, measured, error, strict=True)
    _say_missing(ax, *(values for _, *drawn in curves.values() for values in drawn))
    ax.axhline(0, color=GREY, lw=0.8)
    ax.set_xlabel("lag (steps)")
    ax.set_ylabel("autocorrelation")
    _legend(figure, [ax])
    figure.data = pd.DataFrame(rows, columns=["chain", "lag", "exact", "measured", "standard error"])
    return figure


def lines(panels: dict[str, dict[str, tuple[ArrayLike, ArrayLike]]], xlabel: str, log: str = "") -> Figure:
    """Plain curves: {panel title: {label: (x, y)}}; panels share the label colours."""
    _check("panels", panels, dict, tuple)
    figure, axes = _panels(len(panels))
    looks = _looks(label for curves in panels.values() for label in curves)
    for ax, (title, curves) in zip(axes, panels.items(), strict=True):
        for label, (x, y) in curves.items():
            ax.plot(x, y, ms=4, lw=1.4, label=label, **looks[label])
        _say_missing(ax, *(values for curve in curves.values() for values in curve))
        _finish(ax, title, xlabel, log)
    _legend(figure, axes)
    figure.data = _points(panels, "curve", xlabel, "value")
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
) -> _DataFigure:
    """Per-seed lines under their mean with its 95 % t interval, of three seeds or more.

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
    labels = [label for curves in panels.values() for label in curves]
    rows: list[tuple] = []
    for ax, (title, curves) in zip(axes, panels.items(), strict=True):
        looks = _looks(curves if own_legends else labels)
        for label, data in curves.items():
            if set(data.dims) != {"seed", dim}:
                where = f"panels[{title!r}][{label!r}]"
                raise checks.BadValue(f"{where} must have dims ('seed', {dim!r}), got {data.dims}")
            data = data.transpose("seed", dim)
            x = data[dim].values
            at = product(data["seed"].values, x)
            rows += [(title, label, *k, y) for k, y in zip(at, data.values.flat, strict=True)]
            look = looks[label]
            ax.plot(x, data.values.T, lw=0.6, alpha=0.75, **look | {"marker": None})
            intervals = [Interval.of(column) for column in data.values.T]
            # A long curve has markers, too: at shares of the panel's size.
            every = 1 if len(x) <= 15 else 0.15
            ax.plot(x, [i.mean for i in intervals], lw=2, ms=5, markevery=every, label=label, **look)
            if data.sizes["seed"] > 2:  # an interval over two says little and fills the panel
                low, high = (np.array([getattr(i, end) for i in intervals]) for end in ("low", "high"))
                # On a log scale an interval that reaches 0 would fill the panel.
                shown = low > 0 if "y" in log else None
                ax.fill_between(x, low, high, where=shown, color=look["color"], alpha=0.18, lw=0)
        if reference and title in reference:
            value, text = reference[title]
            ax.axhline(value, color="black", lw=1, ls=":", label=text)
        _say_missing(ax, *curves.values())
        _finish(ax, title, xlabel, log)
        if dim in ("depth", "transition"):
            steps = 2 if dim == "transition" and len(x) > 4 else 1  # what fits
            ax.set_xticks(x[::steps], [f"{t}→{t + 1}" for t in x[::steps]] if dim == "transition" else x)
    _label_y(axes, ylabel)
    if shared and "y" not in log:
        # The seeds set the range: a wide interval of few seeds may leave the panel.
        values = np.concatenate([data.values.ravel() for p in panels.values() for data in p.values()])
        values = values[np.isfinite(values)]
        if len(values):
            axes[0].set_ylim(min(0, 1.1 * values.min()), 1.1 * values.max())
    if own_legends:
        for ax in axes:
            ax.legend()
    else:
        _legend(figure, axes)
    figure.data = pd.DataFrame(rows, columns=["panel", "curve", "seed", dim, ylabel])
    return figure


def shares(panels: dict[str, dict[str, xr.DataArray]], ideals: dict[str, dict[str, float]]) -> Figure:
    """Shares of groups of modes by depth, as `seed_lines` draws them, and beside the last depth their ideal.

    Args:
        panels: {panel title: {label: DataArray with dims (seed, depth)}}.
        ideals: {panel title: {label: share}}, drawn as open marks.
    """
    _check("panels", panels, dict, xr.DataArray)
    checks.mapping("ideals", ideals, dict)
    if {t: set(curves) for t, curves in panels.items()} != {t: set(shares) for t, shares in ideals.items()}:
        raise checks.BadValue("ideals must have a share for every title and label of panels, and no other")
    figure = seed_lines(panels, "depth", "depth", "share")
    looks = _looks(label for curves in panels.values() for label in curves)
    for ax, (title, curves) in zip(figure.axes, panels.items(), strict=False):
        for label, data in curves.items():
            depths = data.depth.values
            at = depths[-1] + 1.3
            ax.plot(at, ideals[title][label], mfc="white", ms=7, mew=1.6, **looks[label])
            ax.set_xticks([*depths, at], [*depths, "ideal"])
    figure.data["ideal"] = [ideals[t][label] for t, label in figure.data[["panel", "curve"]].values]
    return figure


def effects(rows: dict[str, dict[str, Interval]], bounds: Iterable[float], xlabel: str) -> Figure:
    """Effect sizes with intervals: {row label: {series label: Interval}}, side by side; `bounds` dotted.

    Of an unbounded interval the bar ends 9 beyond 0 and the mean; an effect without a value (NaN) is named
    undefined.
    """
    _check("rows", rows, dict, Interval)
    series = list(dict.fromkeys(label for intervals in rows.values() for label in intervals))
    figure, (ax,) = _panels(1, 0.9 + 0.36 * len(rows))
    for k, (label, look) in enumerate(_looks(series).items()):
        for y, intervals in enumerate(rows.values()):
            if label in intervals:
                i = intervals[label]
                offset = y + 0.22 * (k - (len(series) - 1) / 2)
                mean = i.mean
                if not np.isfinite(mean):
                    mean = np.nan
                    ax.text(0, offset, " undefined", va="center", color=look["color"])
                low = i.low if np.isfinite(i.low) else min(mean, 0) - 9
                high = i.high if np.isfinite(i.high) else max(mean, 0) + 9
                first = label if y == next(r for r, v in enumerate(rows.values()) if label in v) else None
                style = look | {"ls": "", "ms": 4.5, "elinewidth": 1.4, "label": first}
                ax.errorbar(mean, offset, xerr=[[mean - low], [high - mean]], **style)
    for bound in bounds:
        ax.axvline(bound, color="black", lw=1, ls=":")
    ax.axvline(0, color=GREY, lw=0.8)
    ax.set_yticks(range(len(rows)), rows)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(xlabel)
    _legend(figure, [ax])
    drawn = [(row, label, i.mean, i.low, i.high) for row, v in rows.items() for label, i in v.items()]
    figure.data = pd.DataFrame(drawn, columns=["row", "series", xlabel, "low", "high"])
    return figure


def scatter(
    panels: dict[str, dict[str, tuple[ArrayLike, ArrayLike]]],
    xlabel: str | dict[str, str],
    ylabel: str,
    log: str = "xy",
    identity: bool = False,
) -> Figure:
    """Points by group: {panel title: {label: (x, y)}}, coloured and marked by label; `xlabel` by panel.

    Args:
        identity: draw the line y = x, dotted.
    """
    _check("panels", panels, dict, tuple)
    figure, axes = _panels(len(panels))
    looks = _looks(label for groups in panels.values() for label in groups)
    for ax, (title, groups) in zip(axes, panels.items(), strict=True):
        for label, (x, y) in groups.items():
            ax.plot(x, y, ms=5, alpha=0.75, label=label, **looks[label] | {"ls": ""})
        _say_missing(ax, *(values for group in groups.values() for values in group))
        if identity:
            ax.axline((1, 1), (2, 2), color="black", lw=1, ls=":")
        ax.set_title(title)
        ax.set_xlabel(xlabel if isinstance(xlabel, str) else xlabel[title])
        for axis, name in ((ax.xaxis, "x"), (ax.yaxis, "y")):
            if name in log and (_drawn(ax, name) > 0).any():
                getattr(ax, f"set_{name}scale")("log")
                _plain(axis)
                axis.set_major_locator(mpl.ticker.LogLocator(10, (1, 2, 5)))
    _label_y(axes, ylabel)
    _legend(figure, axes)
    figure.data = _points(panels, "group", "x", ylabel)
    return figure


def paths(panels: dict[str, dict[str, tuple[ArrayLike, ArrayLike]]], xlabel: str, ylabel: str) -> Figure:
    """A line per network through a plane, x on a log scale, a dot where it ends.

    Args:
        panels: {panel title: {label: (x, y)}}, both (points, networks); points where x is not positive are
            left out.
    """
    _check("panels", panels, dict, tuple)
    figure, axes = _panels(len(panels))
    looks = _looks(label for curves in panels.values() for label in curves)
    for ax, (title, curves) in zip(axes, panels.items(), strict=True):
        for label, (x, y) in curves.items():
            x = np.where(np.asarray(x) > 0, x, np.nan)
            ax.plot(x, y, lw=1, alpha=0.8, **looks[label] | {"marker": None})
            ends = x[-1], np.asarray(y)[-1]
            ax.plot(*ends, ms=5, label=label, **looks[label] | {"ls": ""})
        _say_missing(ax, *(values for curve in curves.values() for values in curve))
        _finish(ax, title, xlabel, "x")
    _label_y(axes, ylabel)
    _legend(figure, axes)
    figure.data = _points(panels, "group", xlabel, ylabel)
    return figure


def cka_matrices(panels: dict[str, xr.DataArray]) -> Figure:
    """Heat maps of CKA between depths: {panel title: DataArray (depth, other_depth)}."""
    _check("panels", panels, xr.DataArray)
    for title, cka in panels.items():
        if cka.dims != ("depth", "other_depth"):
            dims = ("depth", "other_depth")
            raise checks.BadValue(f"panels[{title!r}] must have dims {dims}, got {cka.dims}")
    figure, axes = _panels(len(panels), 2.6)
    for ax, (title, cka) in zip(axes, panels.items(), strict=True):
        image = ax.imshow(cka.values, vmin=0, vmax=1, cmap="cividis_r", origin="lower")
        _say_missing(ax, cka.values)
        ax.set_title(title)
        ax.set_xlabel("depth")
        ax.grid(False)
        ax.set_xticks(range(len(cka)), cka.depth.values)
        ax.set_yticks(range(len(cka)), cka.depth.values)
    _label_y(axes, "depth")
    figure.colorbar(image, ax=list(axes), label="CKA", shrink=0.85)
    data = pd.concat({title: cka.to_series() for title, cka in panels.items()})
    figure.data = data.rename_axis(["panel", "depth", "other depth"]).reset_index(name="CKA")
    return figure


STATUS = {
    "supported": (PALETTE[0], "o"),
    "partly supported": (PALETTE[2], "^"),
    "not supported": (PALETTE[1], "x"),
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
    size = (WIDTH, 1.8 + len(found) * (0.6 + 0.18 * len(rows)))
    kwargs: dict = {"figsize": size, "sharex": True, "sharey": True, "squeeze": False}
    figure, axes = plt.subplots(len(found), len(titles), FigureClass=_DataFigure, **kwargs)
    panel = dict(zip(product(found, titles), axes.flat, strict=True))
    for key, verdict in verdicts.items():
        ax, x, y = panel[key[0], key[3]], columns.index(key[4]), rows.index(key[2])
        color, mark = STATUS[verdict.ungated or verdict.status]
        label = f"not trained; alone {verdict.ungated}" if verdict.ungated else verdict.status
        ax.plot(x, y, mark, color="#8a8a8a" if verdict.ungated else color, ms=5, mew=1.5, label=label)
        if stays[key]:
            ax.plot(x, y, "o", mfc="none", color="black", ms=8, mew=0.8, label="survives correction")
    for (finding, mixing), ax in panel.items():
        # The finding's name reaches over the panels of its row.
        ax.set_title(f"{finding}\n{titles[mixing]}" if mixing == next(iter(titles)) else titles[mixing])
        ax.set_xticks(range(len(columns)), columns, rotation=90)
        ax.set_yticks(range(len(rows)), rows)
        ax.set_xlim(-0.6, len(columns) - 0.4)
        ax.set_ylim(len(rows) - 0.4, -0.6)
    _legend(figure, axes.flat)
    names = ["finding", "definition", "family", "architecture", "variant"]
    figure.data = pd.DataFrame(list(verdicts), columns=names).assign(
        verdict=[v.outcome for v in verdicts.values()], survives=[stays[key] for key in verdicts]
    )
    return figure


def _points(panels, name, xlabel, ylabel):
    # {panel title: {label: (x, y)}} as a table.
    rows = [
        (title, label, *point)
        for title, curves in panels.items()
        for label, (x, y) in curves.items()
        for point in zip(np.ravel(x), np.ravel(y), strict=True)
    ]
    return pd.DataFrame(rows, columns=["panel", name, xlabel, ylabel])


def _looks(labels):
    # {label: how its curve looks}: colours are never alone in telling curves apart.
    labels = dict.fromkeys(labels)
    trained = [label for label in labels if not label.startswith("untrained")]
    if len(trained) > len(PALETTE):
        most = f"at most {len(PALETTE)} curves can be told apart"
        raise checks.BadValue(f"{most}, got {len(trained)}: {trained}")
    own = dict(zip(trained, zip(PALETTE, MARKERS, strict=True), strict=False))
    untrained = {"color": GREY, "marker": "X", "ls": "--"}
    return {
        x: dict(zip(("color", "marker"), own[x], strict=True), ls="-") if x in own else untrained
        for x in labels
    }


def _finish(ax, title, xlabel, log):
    ax.set_title(title)
    ax.set_xlabel(xlabel)
    values = _drawn(ax, "x")
    if "x" in log and len(values):
        if values[0] > 0:
            ax.set_xscale("log")
        else:  # training steps from 0: linear up to the first block of 50
            ax.set_xscale("symlog", linthresh=50)
        _plain(ax.xaxis)
        if len(values) <= 8:  # powers of ten say little where there are few values
            named = values[(len(values) - 1) % 2 :: 2] if len(values) > 4 else values  # what fits
            ax.set_xticks(named, [f"{v:g}" for v in named])
            ax.minorticks_off()
    if "y" in log and (_drawn(ax, "y") > 0).any():
        ax.set_yscale("log")
        _plain(ax.yaxis)


def _plain(axis):
    # Of a log scale: 0.01, not a power with an exponent that is too small to read.
    axis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(mpl.ticker.NullFormatter())


def _drawn(ax, axis):
    # The values of a panel's lines along an axis, sorted; without any there is no log scale.
    lines = [line for line in ax.lines if line.get_transform() == ax.transData]
    values = np.concatenate([[], *(getattr(line, f"get_{axis}data")() for line in lines)])
    values = np.unique(values.astype(float))
    return values[np.isfinite(values)]


def _legend(figure, axes):
    # Names stand at the curves of the first panel where they fit; else one legend for all panels, below them.
    found = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if set(found) == set(axes[0].get_legend_handles_labels()[1]) and _named(figure, axes[0]):
        return
    columns = max(1, min(len(found), int(WIDTH / (0.6 + 0.085 * max(map(len, found))))))  # inches of a letter
    figure.set_figheight(figure.get_figheight() + 0.24 * -(-len(found) // columns))
    figure.legend(found.values(), found, loc="outside lower center", ncols=columns)


def _named(figure, ax):
    # Whether each curve found a place for its name: near itself, clear of the others, inside the panel.
    lines = [line for line in ax.lines if not line.get_label().startswith("_")]
    if len(lines) > 3 or len(ax.get_legend_handles_labels()[0]) > len(lines):
        return False
    figure.draw_without_rendering()
    curves = [ax.transData.transform(line.get_path().interpolated(10).vertices) for line in lines]
    names = []
    for line, own in zip(lines, curves, strict=True):
        style = {"color": line.get_color(), "ha": "center", "textcoords": "offset points"}
        for x, y in own[np.isfinite(own).all(1)][::-1]:
            for side, align in ((7, "bottom"), (-7, "top")):
                at = ax.transData.inverted().transform((x, y))
                name = ax.annotate(line.get_label(), at, (0, side), va=align, **style)
                box = name.get_window_extent()
                free = ax.bbox.containsx(box.x0) and ax.bbox.containsx(box.x1)
                free &= ax.bbox.containsy(box.y0) and ax.bbox.containsy(box.y1)
                free &= not any(box.overlaps(other.get_window_extent()) for other in names)
                for curve in curves:
                    wide = box.padded(4 if curve is own else 10)
                    free &= not wide.count_contains(curve)
                if free:
                    break
                name.remove()
            else:
                continue
            names.append(name)
            break
    if len(names) < len(lines):
        for name in names:
            name.remove()
    return len(names) == len(lines)
