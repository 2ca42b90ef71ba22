import io
import re

import matplotlib
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb

from rgnb import chains
from rgnb.press import figures, notebooks, tables
from rgnb.verdicts import intervals

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def style():
    with matplotlib.rc_context():
        figures.use_style()
        yield
        plt.close("all")


def data(dim="depth", n=5, seeds=3):
    values = np.arange(1, n + 1) + 0.1 * np.arange(seeds)[:, None]
    return xr.DataArray(values, dims=("seed", dim), coords={"seed": range(seeds), dim: range(n)})


def texts(figure):
    return {t.get_text() for t in figure.findobj(matplotlib.text.Text)}


def svg(figure):
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


@pytest.mark.parametrize("panels, shape", [(1, (1, 1)), (2, (1, 2)), (3, (2, 2)), (5, (3, 2))])
def test_panels_fit_a_page(panels, shape):
    figure = figures.seed_lines(
        {f"panel {i}": {"trained": data()} for i in range(panels)}, "depth", "depth", "rank"
    )
    assert figure.axes[0].get_gridspec().get_geometry() == shape
    assert {"depth", "rank", "trained", "panel 0"} <= texts(figure)


def test_seed_lines_draws_every_seed_the_mean_and_its_interval():
    d = data()
    figure = figures.seed_lines(
        {"a": {"trained": d, "untrained": d + 1}}, "depth", "depth", "rank", reference={"a": (2.5, "floor")}
    )
    lines = figure.axes[0].lines
    drawn = [line.get_ydata() for line in lines]
    for seed in d.values:
        assert any(np.array_equal(seed, y) for y in drawn)
    assert any(np.allclose(d.mean("seed"), y) for y in drawn)
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    interval = intervals.Interval.of(d.values[:, 0])
    assert band[:, 1].min() == pytest.approx(interval.low)
    assert [line.get_linestyle() for line in lines if line.get_label() == "untrained"] == ["--"]
    assert "floor" in texts(figure)


def test_transitions_are_named_by_their_depths():
    assert "0→1" in texts(
        figures.seed_lines({"a": {"x": data("transition")}}, "transition", "transition", "drift")
    )


@pytest.mark.parametrize("first, scale", [(0, "symlog"), (1, "log")])
def test_log_axis_copes_with_step_0(first, scale):
    d = data("step").assign_coords(step=np.arange(first, first + 5))
    assert figures.seed_lines({"a": {"x": d}}, "step", "step", "loss", log="x").axes[0].get_xscale() == scale


def test_too_many_curves_are_refused():
    with pytest.raises(ValueError, match="at most 8 curves"):
        figures.seed_lines({"a": {str(i): data() for i in range(9)}}, "depth", "depth", "rank")


def test_equal_results_make_equal_files():
    made = [svg(figures.seed_lines({"a": {"trained": data()}}, "depth", "depth", "rank")) for _ in range(2)]
    assert made[0] == made[1]


def luminance(color):
    """Relative luminance of sRGB components, as WCAG defines it."""
    c = np.array(color)
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


def contrast(a, b):
    low, high = sorted(luminance(x) + 0.05 for x in (a, b))
    return high / low


def in_the_dark(color):
    """What the dark theme's filter makes of a colour: lightness turned round, hue kept."""
    css = (notebooks.ROOT / "book" / "_static" / "rgnb.css").read_text()
    share, degrees = map(float, re.search(r"filter: invert\(([\d.]+)\) hue-rotate\((\d+)deg\)", css).groups())
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    weights = np.array([0.213, 0.715, 0.072])
    turn = [[-0.213, -0.715, 0.928], [0.143, 0.140, -0.283], [-0.787, 0.715, 0.072]]
    rotated = weights + c * (np.eye(3) - weights) + s * np.array(turn)
    return np.clip(rotated @ (share + (1 - 2 * share) * np.array(color)), 0, 1)


@pytest.mark.parametrize("color", [*figures.PALETTE, figures.GREY, *(c for c, _ in figures.STATUS.values())])
def test_lines_and_names_stand_out_in_both_themes(color):
    color, white, dark = np.array(to_rgb(color)), np.ones(3), np.full(3, 0x12 / 255)
    np.testing.assert_allclose(in_the_dark(white), dark, atol=0.005)  # the theme's background
    for drawn in (color, 0.75 * color + 0.25):  # means and names; seeds
        assert contrast(drawn, white) >= 3
        assert contrast(in_the_dark(drawn), dark) >= 3


def drawn():
    """A figure of every kind, with labels as long as the book's."""
    interval = intervals.Interval.of([0.1, 0.2, 0.3])
    cka = xr.DataArray(np.eye(3), dims=("depth", "other_depth"), coords={"depth": range(3)})
    rows = {f"uncentred, singular, from depth {k}": {"token mixing": interval} for k in range(3)}
    verdict = intervals.Verdict("", "not trained", "", (), {}, "partly supported")
    keys = [("Kernel drift, short memory", "primary", "hierarchical", m, "2 times as long") for m in "ab"]
    panels = {
        f"hierarchical, ξ = {i}": {"between sequences": data(), "untrained": 2 * data()} for i in range(3)
    }
    yield figures.seed_lines(panels, "depth", "depth", "effective rank")
    yield figures.seed_lines(
        {"a": {"group 1 (most relevant)": 1e-3 * data()}},
        "depth",
        "depth",
        "drift",
        "xy",
        {"a": (0.1, "bound")},
    )
    yield figures.seed_lines(panels, "depth", "depth", "effective rank", own_legends=True)
    yield figures.lines({"floor": {"ring": ([1, 2], [0.02, np.nan])}}, "size, relative", log="xy")
    yield figures.scatter(
        {"modes": {"hierarchical": ([1, 10], [2, 3])}}, "relevant modes", "last effective rank"
    )
    yield figures.effects(rows, [0.2], "collapse C")
    yield figures.cka_matrices({f"no mixing, trained, ξ = {i}": cka for i in range(3)})
    yield figures.transition_matrices({name: chains.ring(6, 2.0) for name in "abcde"})
    yield figures.spectra({"ring": chains.ring(6, 2.0)})
    yield figures.autocorrelation({"ring": ([0, 1], [1.0, 0.5], [1.0, 0.52], [0.01, 0.02])})
    yield figures.status_grid(
        dict.fromkeys(keys, verdict), dict.fromkeys(keys, False), {"a": "token", "b": "no"}
    )


def test_lettering_is_nine_pixels_high_on_a_phone_and_all_figures_have_data():
    for figure in drawn():
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", bbox_inches="tight")  # as notebooks do
        width = float(re.search(rb'width="([\d.]+)pt"', buffer.getvalue())[1])
        sizes = [t.get_fontsize() for t in figure.findobj(matplotlib.text.Text) if t.get_text()]
        assert min(sizes) * 328 / width >= 9  # of 360 pixels 328 are the page's
        assert len(figure.data)


def test_figures_carry_their_numbers():
    d = data(seeds=2)
    figure = figures.seed_lines({"a": {"trained": d}}, "depth", "depth", "rank")
    found = pd.read_csv(io.StringIO(figure._repr_mimebundle_()["text/csv"]))
    assert found.columns.tolist() == ["panel", "curve", "seed", "depth", "rank"]
    np.testing.assert_allclose(found.pivot(index="seed", columns="depth", values="rank"), d)
    points = figures.lines({"floor": {"ring": ([1, 2], [2, 3])}}, "xi").data
    assert points.values.tolist() == [["floor", "ring", 1, 2], ["floor", "ring", 2, 3]]


def test_shares_end_in_their_ideals():
    panels = {"stream": {"group 1": data(), "group 2": data() / 2}, "lens": {"group 1": data()}}
    ideals = {"stream": {"group 1": 3.0, "group 2": 1.5}, "lens": {"group 1": 2.0}}
    figure = figures.shares(panels, ideals)
    ends = [[line.get_ydata()[0] for line in ax.lines if line.get_markersize() == 7] for ax in figure.axes]
    assert ends == [[3.0, 1.5], [2.0]] and "ideal" in texts(figure)
    with pytest.raises(ValueError, match="ideals must have a share"):
        figures.shares(panels, ideals | {"lens": {}})


def test_names_stand_at_curves_where_there_is_room():
    def names(apart):
        panels = {"a": {"trained": data(), "untrained": data() + apart}}
        figure = figures.seed_lines(panels, "depth", "depth", "rank")
        return [t.get_text() for t in figure.axes[0].texts], len(figure.legends)

    assert names(20) == (["trained", "untrained"], 0)
    assert names(0.1) == ([], 1)


def test_chain_figures():
    shown = {"ring": chains.ring(6, 2.0), "sticky": chains.sticky(6, 2.0)}
    assert {"ring", "sticky"} <= texts(figures.transition_matrices(shown))
    spectrum = figures.spectra(shown).axes[0].lines[1].get_ydata()
    np.testing.assert_allclose(spectrum, shown["sticky"].eigenvalues.abs())
    curve = ([0, 1], [1.0, 0.5], [1.0, 0.52], [0.01, 0.02])
    assert "ring" in texts(figures.autocorrelation({"ring": curve}))
    assert "ring" in texts(figures.lines({"floor": {"ring": ([1, 2], [2, 1])}}, "xi", log="x"))


def test_effects_and_matrices():
    interval = intervals.Interval.of([0.1, 0.2, 0.3])
    unbounded = intervals.Interval.of([np.nan, 1.0])
    figure = figures.effects({"row": {"a": interval, "b": interval}, "other": {"a": unbounded}}, [0.2], "C")
    assert {"row", "other", "a", "b", "C"} <= texts(figure)
    depths = {"depth": range(1, 4), "other_depth": range(1, 4)}
    shown = figures.cka_matrices({"title": xr.DataArray(np.eye(3), depths, ("depth", "other_depth"))})
    assert {"title", "CKA"} <= texts(shown)
    assert [label.get_text() for label in shown.axes[0].get_xticklabels()] == ["1", "2", "3"]
    assert shown.data["depth"].tolist() == [1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_a_path_leaves_out_where_x_is_not_positive():
    figure = figures.paths({"title": {"a": ([[100.0], [5.0], [-0.1]], [[1.0], [2.0], [3.0]])}}, "x", "y")
    assert figure.axes[0].get_xscale() == "log"
    assert figure.axes[0].lines[0].get_xdata()[:2].tolist() == [100, 5]
    assert np.isnan(figure.axes[0].lines[0].get_xdata()[2])


@pytest.mark.parametrize("values", [[-20.0, -21.0, -22.0], [20.0, 21.0, 22.0], [-30.0, 5.0, 2.0]])
def test_effects_of_any_size_are_drawn_with_their_intervals(values):
    interval = intervals.Interval.of(values)
    figure = figures.effects({"row": {"a": interval}}, [0.2], "C")
    (bar,) = figure.axes[0].collections[0].get_segments()
    assert bar[:, 0] == pytest.approx([interval.low, interval.high])
    assert figure.axes[0].lines[0].get_xdata() == pytest.approx([interval.mean])
    svg(figure)


def test_effects_that_are_unbounded_or_undefined():
    rows = {
        "one": {"a": intervals.Interval.of([-20.0])},
        "none": {"b": intervals.Interval.of([np.nan, np.nan])},
    }
    figure = figures.effects(rows, [0.2], "C")
    assert figure.axes[0].collections[0].get_segments()[0][:, 0].tolist() == [-29, 9]
    assert {"a", "b", " undefined"} <= texts(figure)
    svg(figure)


@pytest.mark.parametrize("log", ["", "x", "y", "xy"])
@pytest.mark.parametrize("shared", [True, False])
def test_panels_say_what_they_lack(log, shared):
    nothing, part = data() * np.nan, data().where(lambda d: (d.seed > 0) | (d.depth != 2))
    drawn = [
        figures.seed_lines(
            {"a": {"x": nothing}, "b": {"x": nothing}}, "depth", "depth", "rank", log=log, shared=shared
        ),
        figures.lines({"a": {"x": ([1, 2], [np.nan] * 2)}}, "xi", log),
        figures.scatter({"a": {"x": ([1, 2], [np.nan] * 2)}, "b": {"x": ([1, 2], [1, 3])}}, "k", "rank", log),
    ]
    for figure, wanted in zip(drawn, ("15 of 15", "2 of 4", "2 of 4"), strict=True):
        assert f"{wanted} values are NaN" in texts(figure)
        svg(figure)
    assert drawn[2].axes[1].get_yscale() == ("log" if "y" in log else "linear")
    figure = figures.seed_lines({"a": {"x": part}}, "depth", "depth", "rank", log=log, shared=shared)
    assert "1 of 15 values are NaN" in texts(figure)
    (mean,) = (line.get_ydata() for line in figure.axes[0].lines if line.get_label() == "x")
    assert np.isnan(mean).tolist() == [False, False, True, False, False]


def test_heat_maps_and_correlations_say_what_they_lack():
    cka = xr.DataArray(np.full((3, 3), np.nan), dims=("depth", "other_depth"), coords={"depth": range(3)})
    assert "9 of 9 values are NaN" in texts(figures.cka_matrices({"a": cka}))
    assert "1 of 6 values are NaN" in texts(
        figures.autocorrelation({"ring": ([0, 1], [1.0, 0.5], [1.0, np.nan], [0.1, 0.1])})
    )


def stack(constant=False):
    rank = np.full((1, 1, 3, 1, 1, 1, 1, 5), 3.0)
    drift = np.tile([0.5, 0.01, 0.3, 0.02], (1, 1, 3, 1, 1, 1))
    if constant:
        rank[..., 4], drift[..., 3] = 0.0, np.nan
    names = {
        "correlation_length": [1.0],
        "state": ["trained"],
        "view": ["position"],
        "centring": ["centred"],
        "spectrum": ["singular"],
    }
    head = ("chain", "correlation_length", "seed", "state", "view")
    variables = {
        "effective_rank": ((*head, "centring", "spectrum", "depth"), rank),
        "kernel_drift": ((*head, "transition"), drift),
    }
    return xr.Dataset(variables, names)


def test_drift_of_stacks():
    (row,) = tables.stack_table({4: stack()}).values
    assert [text.split()[0] for text in row] == ["0.83", "0.80", "0.03", "0.0150"]
    (row,) = tables.stack_table({4: stack(constant=True)}).values
    assert [text.split()[0] for text in row] == ["0.81", "0.80", "0.01", "0.0050"]
    broken = stack()
    broken.kernel_drift[0, 0, 1, 0, 0, 3] = np.nan
    with pytest.raises(ValueError, match=r"kernel_drift has no value .*seed 1, transition 3"):
        tables.stack_table({4: broken})


def test_scatter():
    figure = figures.scatter(
        {"modes": {"ring": ([1, 10], [2, 3])}, "length": {"ring": ([1, 2], [2, 3])}},
        {"modes": "k", "length": "xi"},
        "rank",
    )
    assert {"ring", "modes", "k", "xi", "rank"} <= texts(figure) and figure.axes[0].get_xscale() == "log"
    assert figures.scatter({"none": {"ring": ([], [])}}, "k", "rank").axes[0].get_xscale() == "linear"


def test_relevant_modes_beside_rank():
    dims = ("chain", "correlation_length", "seed")
    rank = xr.DataArray(
        np.full((1, 2, 3, 1, 1, 1, 2, 2), 5.0), dims=(*dims, "state", "view", "centring", "spectrum", "depth")
    )
    rank = rank.assign_coords(
        correlation_length=[1.0, 7.0],
        state=["trained"],
        view=["position"],
        centring=["centred"],
        spectrum=["eigen", "singular"],
    )
    modes = xr.DataArray(np.full((1, 2, 3, 1), 2.5), dims=(*dims, "floor"))
    table = tables.modes_table(
        {("ring", "quick"): xr.Dataset({"effective_rank": rank, "relevant_modes": modes})}
    )
    assert table.loc[("ring", "quick", "7")].tolist() == ["2.50", "5.00 [5.00, 5.00]", "5.00 [5.00, 5.00]"]
    for variable in ("relevant_modes", "effective_rank"):
        ds = xr.Dataset({"effective_rank": rank, "relevant_modes": modes}).copy(deep=True)
        ds[variable][0, 1, 2] = np.nan
        with pytest.raises(ValueError, match=f"{variable} has no value .*seed 2"):
            tables.modes_table({("ring", "quick"): ds})


def test_tables():
    verdict = intervals.Verdict("Selectivity", "partly supported", "", (), {})
    found = {("position", "centred", "singular", 0): verdict, ("pooled", "centred", "singular", 0): verdict}
    table = tables.verdict_table({"tokens": found})
    assert list(table.columns) == ["position", "pooled"]
    assert table.loc[("tokens", "centred", "singular", 0), "pooled"] == "partly"
    assert set(table.values.ravel()) == {"partly"}
    assert tables.step_table({"tokens": {100: verdict}}).loc[100, "tokens"] == "partly supported"
    counted = intervals.Verdict(
        "Selectivity", "supported", "", (), {"difference": intervals.Interval.of([0.1, 0.3])}, networks=16
    )
    assert tables.statistics_table({"tokens": counted})["tokens"].tolist() == [
        "supported",
        "16",
        str(counted.statistics["difference"]),
    ]


def test_verdicts_over_settings():
    words = ["supported", "partly supported", "not supported"]
    made = [intervals.Verdict("", word, "", (), {}) for word in words] + [
        intervals.Verdict("", "not trained", "", (), {}, "partly supported")
    ]
    verdicts = {
        (finding, "primary", "ring", mixing, f"change {i}"): verdict
        for finding in ("Rank collapse", "Selectivity") for mixing in ("none", "tokens")
        for i, verdict in enumerate(made)
    }  # fmt: skip
    titles = {"tokens": "token mixing", "none": "no mixing"}
    stays = {key: v.status == "supported" for key, v in verdicts.items()}
    figure = figures.status_grid(verdicts, stays, titles)
    assert {
        "ring",
        "change 3",
        "Rank collapse\ntoken mixing",
        "survives correction",
        *words,
        "not trained; alone partly supported",
    } <= texts(figure)
    assert [ax.get_title("left") for ax in figure.axes] == [
        t for f in ("Rank collapse", "Selectivity") for t in (f"{f}\ntoken mixing", "no mixing")
    ]
    by_family = tables.share_table(verdicts, titles, by=2)
    assert by_family.loc["ring", ("Rank collapse", "token mixing")] == "1 (+1) of 3"
    by_change = tables.share_table(verdicts, titles, by=4)
    assert (
        by_change.loc["change 3", ("Selectivity", "no mixing")] == "none trained"
        and by_change.loc["change 2", ("Selectivity", "no mixing")] == "0 of 1"
    )
    assert list(tables.share_table(verdicts, titles, by=1).index) == ["primary"]


def test_benchmarks():
    others = {"a": [2.0, 2.0, 4.0], "b": [1.0, 2.0, 1.5]}
    sampling = {
        "work": "sampling",
        "others": others,
        "goal": 3,
        "agreement": "equal",
        "note": "",
        "points": [],
    }
    width = {"work": "training step against width", "seconds": [4.0, 5.0, 3.0], "others": {}, "goal": 0}
    width |= {"agreement": "", "note": "size^2.00", "points": [(8, 1.0), (16, 4.0)]}
    absent = {"work": "on a GPU", "seconds": [], "others": {}, "goal": 0, "agreement": "", "points": []}
    rows = [sampling | {"seconds": [0.5, 0.5, 0.5]}, width, absent | {"note": "not measured"}]
    stored = {"one": {"rows": rows}, "two": {"rows": [sampling | {"seconds": [0.25, 0.5, 0.25]}]}}
    table = tables.bench_table(stored)
    assert table.index.tolist() == [("sampling", side, p) for side in "ab" for p in ("one", "two")]
    assert table.loc[("sampling", "b", "one")].tolist() == [
        "0.5",
        "1.5",
        "3 [2, 4]",
        "3, missed in some runs",
    ]
    assert table.loc[("sampling", "b", "two")].tolist() == ["0.25", "1.5", "4 [4, 6]", "3, met"]
    assert table.loc[("sampling", "a", "one"), "goal"] == ""
    strict = tables.bench_table({"one": {"rows": [rows[0] | {"goal": 5}]}})
    assert strict.loc[("sampling", "b"), "goal"] == "5, missed"
    notes = tables.bench_notes(stored)
    assert notes["rgnb (s)"].tolist() == ["0.5", "", "0.25"]
    (curve,) = tables.bench_costs(rows)["training step (s)"].items()
    assert curve[0] == "width: 2.00" and curve[1][0].tolist() == [1, 2]


@pytest.mark.parametrize("draw", [figures.seed_lines, figures.shares, figures.scatter])
def test_an_empty_panel_is_named(draw):
    arguments = {
        figures.seed_lines: ("depth", "depth", "rank"),
        figures.shares: ({},),
        figures.scatter: ("x", "y"),
    }
    with pytest.raises(ValueError, match=r"panels\['one'\] is empty"):
        draw({"one": {}}, *arguments[draw])
