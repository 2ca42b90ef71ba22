"""The second part's rules on data made by hand, with known answers."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

from rgnb.verdicts import hypotheses, intervals, robustness
from rgnb.verdicts.intervals import Condition, Interval, Verdict

XIS, SCHEMES, SEEDS, DEPTHS = [0.5, 1.0, 4.0], ["mask", "bert"], 16, 4
rng = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def the_same_numbers():  # whichever tests came before
    rng.bit_generator.state = np.random.default_rng(0).bit_generator.state


def rows(last=lambda scheme, xi: 5.0, embedding=lambda view, xi: 10.0, noise=0.02, excess=0.0):
    """A sweep's Dataset: rank falls from `embedding` to `last` by depth, with the same scatter per seed."""
    index = [(scheme, xi, seed) for scheme in SCHEMES for xi in XIS for seed in range(SEEDS)]
    scatter = rng.standard_normal((len(index), 2))
    views = ["position", "token", "pooled", "sequence"]
    rank = np.empty((len(index), 2, len(views), DEPTHS))
    for i, (scheme, xi, _) in enumerate(index):
        for v, view in enumerate(views):
            first = embedding(view, xi) * (1 + noise * 0.1 * scatter[i, 0])
            rank[i, :, v] = np.linspace(first, last(scheme, xi) * (1 + noise * scatter[i, 1]), DEPTHS)
    n = len(index)
    return xr.Dataset(
        {
            "effective_rank": (("run", "state", "view", "depth", "centring", "spectrum"),
                rank[..., None, None]),
            "excess_loss": ("run", np.full(n, excess)),
            "marginal_entropy": ("run", np.full(n, 2.0)),
            "reachable_loss": ("run", np.full(n, 1.0)),
        },
        coords={
            "state": ["init", "trained"], "view": views, "depth": range(DEPTHS), "centring": ["centred"],
            "spectrum": ["singular"],
            "scheme": ("run", [k[0] for k in index]), "correlation_length": ("run", [k[1] for k in index]),
            "seed": ("run", [k[2] for k in index]), "family": ("run", ["sticky"] * n),
        },
    )  # fmt: skip


# --- equivalence ---


def test_equivalence_is_two_one_sided_tests():
    differences = rng.normal(0.01, 0.05, 20)
    for margin in (0.01, 0.02, 0.03, 0.04, 0.06):
        lower = stats.ttest_1samp(differences, -margin, alternative="greater").pvalue
        upper = stats.ttest_1samp(differences, margin, alternative="less").pvalue
        assert hypotheses.equivalent("d", differences, margin).holds == (max(lower, upper) < 0.05)
        assert hypotheses.equivalent("d", differences, margin, 10).holds == (max(lower, upper) < 0.005)


@pytest.mark.parametrize("mean, holds", [(0.0, True), (0.3, False), (-0.3, False)])
def test_equivalence_needs_a_small_difference_and_a_tight_interval(mean, holds):
    assert hypotheses.equivalent("d", rng.normal(mean, 0.01, 8), 0.1).holds == holds
    assert not hypotheses.equivalent("d", rng.normal(0, 1, 8), 0.1).holds  # not significant is not equivalent
    assert not hypotheses.equivalent("d", [0.0], 0.1).holds


def test_blind_networks_and_seeing_ones():
    verdict = hypotheses.judge_blind(rows())
    assert verdict.status == "supported" and len(verdict.statistics) == 2 * 2 * 2
    assert hypotheses.judge_blind(rows(last=lambda scheme, xi: 5.0 + xi)).status == "not supported"
    assert hypotheses.judge_blind(rows(noise=2.0)).status == "not supported"
    one = rows()
    with pytest.raises(ValueError, match="another correlation length than the reference 1"):
        hypotheses.judge_blind(one.isel(run=(one.correlation_length == 1.0).values))
    assert hypotheses.judge_blind(rows(excess=0.2)).status == "not trained"
    loose, strict = (
        hypotheses.judge_blind(rows(noise=0.1), comparisons=m).statistics["token", "mask", 4.0]
        for m in (1, 100)
    )
    assert strict.low < loose.low and loose.high < strict.high
    short = rows().isel(run=slice(1, None))
    with pytest.raises(ValueError, match=r"seeds at correlation lengths 1 and 0.5 differ"):
        hypotheses.judge_blind(short)


def test_embedding_artifact():
    fooled = rows(embedding=lambda view, xi: 10.0 / (1 + xi * (view in ("pooled", "sequence"))))
    verdict = hypotheses.judge_embedding_artifact(fooled, 0.5, 4.0)
    assert verdict.status == "supported"
    assert verdict.statistics["pooled", "mask"].mean == pytest.approx(1.5 / 5, rel=0.01)
    assert verdict.statistics["position", "bert"].mean == pytest.approx(1, rel=0.01)
    assert hypotheses.judge_embedding_artifact(rows(), 0.5, 4.0).status == "not supported"


def test_what_changes_collapse():
    one, other = rng.normal(0.5, 0.01, 8), rng.normal(0.2, 0.01, 8)
    assert hypotheses.judge_scheme_and_law((one, other), (other, one)).status == "supported"
    assert hypotheses.judge_scheme_and_law((one, other), (one, one + 0.01)).status == "not supported"


def test_last_depth_of_padded_profiles():
    ds = xr.DataArray([[1.0, 2.0, np.nan], [4.0, 5.0, 6.0]], dims=("run", "depth"))
    assert hypotheses.last(ds).tolist() == [2.0, 6.0]


def test_collapse_is_taken_at_each_rows_own_last_depth():
    ds = rows().isel(run=[0, 1]).assign_coords(blocks=("run", [2, 3]))
    ds.effective_rank[:] = np.array([[10.0, 8, 4, np.nan], [10, 8, 4, 3]])[:, None, None, :, None, None]
    assert hypotheses.row_collapses(ds) == pytest.approx([0.6, 0.7])
    r = ds.effective_rank.sel(state="trained", view="position", centring="centred", spectrum="singular")
    later = 1 - (1 - hypotheses.row_collapses(ds)) * (r[:, 0] / r[:, 2]).values
    assert hypotheses.row_collapses(ds, start=2) == pytest.approx(later)
    with pytest.raises(ValueError, match=r"effective_rank has no value \(NaN\) at run 0, depth 3"):
        hypotheses.row_collapses(ds.drop_vars("blocks"))  # nothing says that the row ends before
    ds.effective_rank[1, 1, 0, 3] = np.nan  # not the padding of a row of three blocks
    with pytest.raises(
        ValueError,
        match=r"no value .*run 1, depth 3.*scheme mask, correlation_length 0.5, seed 1.*ds.isel\(run=...\)",
    ):
        hypotheses.row_collapses(ds)


# --- missing values ---


@pytest.mark.parametrize("variable", ["excess_loss", "marginal_entropy", "reachable_loss", "effective_rank"])
def test_rows_with_a_missing_value_are_not_judged(variable):
    ds = rows()
    ds[variable][7] = np.nan
    readers = [hypotheses.judge_blind] + (
        [hypotheses.row_collapses]
        if variable == "effective_rank"
        else [hypotheses.trained, hypotheses.all_trained]
    )
    for reader in readers:
        with pytest.raises(ValueError, match=f"{variable} has no value .*seed 7"):
            reader(ds)


def test_the_bare_embeddings_are_paired_by_seed():
    ds = rows()
    assert hypotheses.judge_embedding_artifact(ds, 0.5, 4.0).networks == 2 * len(SCHEMES) * SEEDS
    ds.effective_rank[0, 0, 2, 0] = np.nan
    with pytest.raises(ValueError, match=r"effective_rank has no value .*seed 0"):
        hypotheses.judge_embedding_artifact(ds, 0.5, 4.0)
    for lost in ([0], [0, 2 * SEEDS + 1]):  # one that has no partner; as many on either side, and others
        with pytest.raises(ValueError, match=r"the seeds at correlation lengths 0.5 and 4 differ"):
            hypotheses.judge_embedding_artifact(rows().drop_isel(run=lost), 0.5, 4.0)


def test_a_missing_collapse_does_not_decide_what_changes_it():
    one, other = np.full(8, 0.5), np.linspace(0.1, 0.2, 8)
    assert hypotheses.judge_scheme_and_law((one, other), (other, one)).networks == 4 * 8
    with pytest.raises(ValueError, match="other of the stationary laws must hold no missing value"):
        hypotheses.judge_scheme_and_law((one, other), (other, np.where(one.cumsum() > 1, one, np.nan)))


def test_settings_are_averaged_over_whole_networks():
    ds = modes_sweep("modes")
    assert (hypotheses.settings_table(ds)["networks"] == 2).all()
    table = hypotheses.settings_table(ds.isel(run=slice(1, None)))
    assert table["networks"].tolist() == [1] + [2] * 39
    for variable in ("relevant_modes", "effective_rank", "excess_loss"):
        broken = ds.copy(deep=True)
        broken[variable][3] = np.nan
        for reader in (hypotheses.settings_table, hypotheses.judge_relevant_modes):
            with pytest.raises(ValueError, match=f"{variable} has no value .*seed 1"):
                reader(broken)


@pytest.mark.parametrize(
    "variable, labels",
    [
        ("r2", {"target": "left", "depth": 1}),
        ("loss_increase", {"direction": "relevant"}),
        ("learnable", {}),
    ],
)
def test_modes_are_not_followed_over_missing_values(variable, labels):
    ds = retention()
    assert hypotheses.judge_kept_modes(ds, 7.0).networks == 6
    ds[variable].loc[{"seed": 2, **labels}] = np.nan
    with pytest.raises(
        ValueError, match=rf"{variable} has no value .*seed 2.*retention.sel\(seed=\[0, 1, 3, 4, 5\]\)"
    ):
        hypotheses.judge_kept_modes(ds, 7.0)
    assert hypotheses.judge_kept_modes(ds.sel(seed=[0, 1, 3, 4, 5]), 7.0).status == "supported"


def test_curves_of_modes_show_what_is_missing():
    ds = retention().copy(deep=True)
    ds.r2.loc[{"seed": 2, "target": "left", "depth": 1, "state": "trained"}] = np.nan
    for curve in (
        hypotheses.retention_panels(ds, "trained")["ξ = 7, neighbours"]["group 2"],
        hypotheses.relevance_panels(ds)["ξ = 7"]["depth 1"],
    ):
        assert np.isnan(curve.sel(seed=2)).any() and not np.isnan(curve.drop_sel(seed=2)).any()
    ds.modulus[0, 0, 0, 1] = np.nan
    with pytest.raises(ValueError, match="modulus has no value"):
        hypotheses.retention_panels(ds, "trained")


def test_a_fixed_point_is_not_judged_on_missing_values():
    drift = xr.DataArray(np.tile([0.9, 0.01, 0.02, 0.3, 0.01, 0.01], (6, 1)), dims=("seed", "transition"))
    assert hypotheses.judge_fixed_point(perturbed(), drift, 7.0).networks == 6
    for variable in ("growth", "scaled_drift"):
        ds = perturbed()
        ds[variable].loc[{"seed": 2, "transition": 4}] = np.nan
        with pytest.raises(ValueError, match=f"{variable} has no value .*seed 2.*transition 4"):
            hypotheses.judge_fixed_point(ds, drift, 7.0)
    drift[3, 0] = np.nan
    with pytest.raises(ValueError, match=r"drift has no value \(NaN\) at seed 3, transition 0"):
        hypotheses.judge_fixed_point(perturbed(), drift, 7.0)


def test_equal_spectra_are_compared_over_whole_networks():
    head = ("correlation_length", "seed")
    ranks = np.linspace(10, 4, DEPTHS) * rng.normal(1, 0.01, (2, 4, DEPTHS))
    names = {"state": ["trained"], "view": ["position"], "centring": ["centred"], "spectrum": ["singular"]}
    ds = xr.Dataset(
        {"effective_rank": ((*head, "depth"), ranks), "excess_loss": ((*head, "step"), np.zeros((2, 4, 1))),
         "marginal_entropy": (head, np.full((2, 4), 2.0)), "reachable_loss": (head, np.full((2, 4), 1.0))},
        {"correlation_length": [1.0, 7.0], "seed": range(4)},
    )  # fmt: skip
    ds = ds.assign(effective_rank=ds.effective_rank.expand_dims(names))
    assert hypotheses.judge_no_selectivity({"quick": ds, "paper": ds}).networks == 16
    lost = ds.assign(effective_rank=ds.effective_rank.where(ds.seed < 3))
    with pytest.raises(ValueError, match=r"effective_rank has no value .*seed 3"):
        hypotheses.judge_no_selectivity({"quick": ds, "paper": lost})


# --- relevant modes ---


def test_explained_variance_is_that_of_a_line_between_logarithms():
    x = np.array([1.0, 2.0, 4.0, 8.0])
    assert hypotheses.explained_variance(x, 3 * x**0.7) == pytest.approx(1)
    y = np.exp(rng.normal(size=4))
    assert hypotheses.explained_variance(x, y) == pytest.approx(np.corrcoef(np.log(x), np.log(y))[0, 1] ** 2)
    assert hypotheses.explained_variance(np.ones(4), y) == 0
    few = hypotheses.explains_better(y, np.exp(y), x)  # a resample of few settings may hold one of them alone
    assert np.isfinite([few["difference"].low, few["difference"].high]).all()
    np.testing.assert_allclose(hypotheses.residuals(x, 3 * x**0.7), 0, atol=1e-12)
    assert np.isnan(hypotheses.residuals(x[:2], x[:2])).all()


def test_explains_better_finds_which_of_two_drives():
    modes, xi = np.exp(rng.uniform(0, 2, 60)), np.exp(rng.uniform(-1, 3, 60))
    rank = modes * np.exp(rng.normal(0, 0.1, 60))
    found = hypotheses.explains_better(rank, modes, xi)
    assert (
        found["relevant modes"].low > 0.9
        and found["correlation length"].high < 0.3
        and found["difference"].low > 0.5
    )
    assert found["difference"].mean == pytest.approx(
        found["relevant modes"].mean - found["correlation length"].mean
    )
    reverse = hypotheses.explains_better(rank, xi, modes)["difference"]
    assert reverse.high == pytest.approx(-found["difference"].low) and reverse.low < reverse.high < 0


def modes_sweep(driver, trained=True):
    n = 40
    modes, xi = np.exp(rng.uniform(0, 2, n)), np.exp(rng.uniform(-1, 3, n))
    last = np.repeat({"modes": modes, "xi": xi + 1}[driver], 2) * np.exp(rng.normal(0, 0.05, 2 * n))
    rank = np.stack([np.full(2 * n, 12.0), last], 1)[:, None, None, :, None, None].repeat(2, 1).repeat(2, 5)
    return xr.Dataset(
        {
            "effective_rank": (("run", "state", "view", "depth", "centring", "spectrum"), rank),
            "relevant_modes": (("run", "floor"), np.repeat(modes, 2)[:, None]),
            "excess_loss": ("run", np.full(2 * n, 0.0 if trained else 1.0)),
            "marginal_entropy": ("run", np.full(2 * n, 2.0)),
            "reachable_loss": ("run", np.full(2 * n, 1.0)),
        },
        coords={
            "state": ["init", "trained"], "view": ["position"], "depth": [0, 1], "centring": ["centred"],
            "spectrum": ["singular", "eigen"],
            "correlation_length": ("run", np.repeat(xi, 2)), "seed": ("run", [0, 1] * n),
            "family": ("run", ["ring"] * 2 * n), "mixing": ("run", ["tokens"] * 2 * n),
            "rate": ("run", [0.15] * 2 * n), "scheme": ("run", ["mask"] * 2 * n),
        },
    )  # fmt: skip


@pytest.mark.slow
def test_relevant_modes_verdict():
    verdict = hypotheses.judge_relevant_modes(modes_sweep("modes"))
    assert verdict.status == "supported" and verdict.networks == 80
    assert verdict.statistics["eigen", "difference"].low > 0
    assert hypotheses.judge_relevant_modes(modes_sweep("xi")).status == "not supported"
    assert hypotheses.judge_relevant_modes(modes_sweep("modes", trained=False)).status == "not trained"


def test_settings_table_averages_seeds():
    ds = modes_sweep("modes")
    table = hypotheses.settings_table(ds)
    assert len(table) == 40 and table["trained"].all()
    one = ds.isel(run=(ds.correlation_length == table["correlation length"][3]).values)
    assert table["last rank, eigen"][3] == pytest.approx(
        float(one.effective_rank.isel(state=1, depth=-1, spectrum=1).mean())
    )


# --- through depth ---


def retention(top=(0.2, 0.9, 0.9), bottom=(0.1, 0.8, 0.5), relevant=0.5, irrelevant=0.001, seeds=6):
    profile = np.stack([top, [0.5] * 3, [0.5] * 3, bottom])  # two modes in the middle share their modulus
    rng = np.random.default_rng(1)  # the same noise whichever tests ran before
    r2 = profile + rng.normal(0, 1e-3, (1, 1, seeds, 2, 3, 4, 3))
    loss = np.zeros((1, 1, seeds, 4, 1, 3))
    loss[:, :, :, 0], loss[:, :, :, 1], loss[:, :, :, 3] = relevant, irrelevant, 0.1
    loss += rng.normal(0, 1e-4, loss.shape)
    head = ("chain", "correlation_length", "seed")
    return xr.Dataset(
        {
            "r2": ((*head, "state", "target", "eigenmode", "depth"), r2),
            "loss_increase": ((*head, "direction", "removed", "depth"), loss),
            "learnable": (head, np.ones((1, 1, seeds))),
            "modulus": ((*head, "eigenmode"), np.broadcast_to([0.9, 0.5, 0.5, 0.1], (1, 1, seeds, 4))),
        },
        coords={
            "correlation_length": [7.0], "seed": range(seeds), "state": ["init", "trained"],
            "target": ["left", "right", "posterior"],
            "direction": ["relevant", "irrelevant", "random", "random, by variance"], "removed": [1],
            "depth": range(3),
        },
    )  # fmt: skip


@pytest.mark.parametrize(
    "change, broken",
    [
        ({}, None),
        ({"top": (0.2, 0.9, 0.7)}, "3a"),
        ({"bottom": (0.1, 0.8, 0.8)}, "3b"),
        ({"relevant": 0.1}, "3c: loss from removing the most"),
        ({"irrelevant": 0.2}, "3c: loss from removing a least"),
    ],
)
def test_exactly_the_relevant_modes(change, broken):
    verdict = hypotheses.judge_kept_modes(retention(**change), 7.0)
    assert verdict.status == ("not supported" if broken else "supported")
    assert [c.text.startswith(broken) for c in verdict.conditions if not c.holds] == [True] * bool(broken)


def test_an_untrained_network_decides_nothing():
    assert (
        hypotheses.judge_kept_modes(retention(), 7.0, [Condition("trained", False)]).status == "not trained"
    )


def test_groups_of_modes():
    here = retention().isel(chain=0, correlation_length=0)
    assert hypotheses.group_starts(here).tolist() == [0, 1, 3]
    assert list(hypotheses.by_modulus(here, "r2")) == [
        "group 1 (most relevant)",
        "group 2",
        "group 3 (least relevant)",
    ]
    panels = hypotheses.retention_panels(retention(), "trained")
    assert list(panels) == ["ξ = 7, neighbours", "ξ = 7, posterior"]
    curves = hypotheses.relevance_panels(retention())["ξ = 7"]
    assert list(curves) == ["depth 1", "depth 2"] and curves["depth 1"].modulus.values.tolist() == [
        0.9,
        0.5,
        0.1,
    ]


def perturbed(growth=0.8, small=1.0, seeds=6, blocks=6):
    head = ("chain", "correlation_length", "seed")
    scaled = np.full((1, 1, seeds, 2, blocks), 0.01)
    scaled[:, :, :, 0] *= small
    return xr.Dataset(
        {
            "growth": ((*head, "state", "perturbation", "transition"),
                growth + rng.normal(0, 1e-3, (1, 1, seeds, 2, 2, blocks))),
            "scaled_drift": ((*head, "scale", "transition"),
                scaled * (1 + rng.normal(0, 1e-3, scaled.shape))),
        },
        coords={
            "correlation_length": [7.0], "seed": range(seeds), "state": ["init", "trained"],
            "perturbation": ["random", "between sequences"], "scale": [0.25, 1.0],
            "transition": range(blocks),
        },
    )  # fmt: skip


@pytest.mark.parametrize(
    "change, status", [({}, "supported"), ({"growth": 1.1}, "not supported"), ({"small": 8}, "not supported")]
)
def test_fixed_point(change, status):
    drift = xr.DataArray(np.tile([0.9, 0.01, 0.02, 0.3, 0.01, 0.01], (6, 1)), dims=("seed", "transition"))
    verdict = hypotheses.judge_fixed_point(perturbed(**change), drift, 7.0)
    assert verdict.status == status
    later = drift.assign_coords(transition=range(6)).isel(transition=slice(1, None))  # by labels, not places
    left = hypotheses.judge_fixed_point(perturbed(**change), later, 7.0).statistics
    none = perturbed(**change)
    for nothing in (-1e-4, 0.0):  # drift is debiased
        none.scaled_drift.loc[{"scale": 1.0}] = nothing
        assert np.isnan(hypotheses.judge_fixed_point(none, drift, 7.0).statistics["ratio"].mean)
    assert set(verdict.statistics) - set(left) == {"growth 2"}
    assert set(verdict.statistics) == {
        "growth 1",
        "growth 2",
        "growth 4",
        "growth 5",
        "ratio",
    }  # the plateau leaves out the leading two


# --- robustness ---


def test_p_values_agree_with_scipy():
    interval = Interval.of(rng.normal(0.5, 0.1, 6))
    assert robustness.p_value(interval, 0.2, 1) == pytest.approx(
        stats.ttest_1samp(interval.values, 0.2, alternative="greater").pvalue
    )
    assert robustness.p_value(interval, 0.2, -1) == pytest.approx(
        stats.ttest_1samp(interval.values, 0.2, alternative="less").pvalue
    )
    for bound in (0.2, np.inf):  # the end of another seed's interval
        assert robustness.p_value(Interval.of([0.5]), bound, 1) == 1
    assert [robustness.p_value(Interval.of([x] * 3), 0.05, 1) for x in (0.1, 0.9, 0.05)] == [0, 0, 1]
    # The interval lies above a bound exactly where the one-sided p-value is below 0.025.
    for bound in np.linspace(0.3, 0.6, 13):
        assert (interval.low > bound) == (robustness.p_value(interval, bound, 1) < 0.025)


def collapse_verdict(mean, status):
    values = Interval.of(rng.normal(mean, 0.02, 4))
    return intervals.Verdict(
        "Rank collapse",
        status,
        "",
        (),
        {"collapse": values, "largest rise": Interval.of(rng.normal(0, 1e-3, 4))},
    )


def test_correction_for_many_verdicts():
    clear = {("a", i): collapse_verdict(0.6, "supported") for i in range(5)}
    none = {("b", i): collapse_verdict(0.0, "not supported") for i in range(40)}
    stays = robustness.corrected(clear | none | {"c": collapse_verdict(0.9, "not trained")})
    assert all(stays[k] for k in clear) and not any(stays[k] for k in none) and not stays["c"]
    # Benjamini and Hochberg by hand.
    edge = [robustness.finding_p(v) for v in (clear | none).values()]
    ordered = np.sort(edge)
    passing = np.flatnonzero(ordered <= 0.025 * np.arange(1, len(edge) + 1) / len(edge))
    assert sum(stays.values()) == passing.max() + 1
    assert robustness.corrected({"c": collapse_verdict(0.9, "not trained")}) == {"c": False}


def test_judge_says_what_decided():
    good, bad = Condition("good", True), Condition("bad", False)
    assert Verdict.of("x", [good], {}).status == "supported"
    verdict = Verdict.of("x", [good, bad], {})
    assert verdict.status == "not supported" and "bad: no" in verdict.reason and "good" not in verdict.reason
    assert Verdict.of("x", [good], {}, [Condition("trained", False)]).status == "not trained"


def test_gate_counts_networks():
    assert hypotheses.all_trained(rows()).holds
    assert hypotheses.all_trained(rows(excess=0.06)).text.startswith("0 of 96")
    assert isinstance(hypotheses.settings_table(modes_sweep("modes")), pd.DataFrame)


def changed_sweep():
    """A sweep of two variants, the second with one block fewer.

    Ring collapses at the short correlation length with token mixing, and nothing else does.
    """
    depths, index, labels = 8, [], ("experiment", "family", "correlation_length", "seed")
    for experiment in range(4):  # variant x architecture
        lengths = (1.0, 7.0) if experiment > 1 else (0.5, 1.0, 2.0, 4.0, 7.0)
        index += [
            (experiment, family, xi, seed)
            for family in ("ring", "block")
            for xi in lengths
            for seed in range(4)
        ]
    rank = np.full((len(index), 2, 5, 2, 2, depths), np.nan)
    drift = np.full((len(index), 2, 5, depths - 1), np.nan)
    for i, (experiment, family, xi, seed) in enumerate(index):
        here = depths - experiment // 2
        fallen = 4.0 if experiment % 2 == 0 and family == "ring" and xi <= 1 else 10.0
        rank[i, ..., :here] = np.linspace(10, fallen, here) * (1 + 1e-3 * rng.standard_normal())
        rank[i, :, :, :, 1, :here] = 10.0  # nothing collapses by eigenvalues
        drift[i, ..., : here - 1] = 0.01 + 0.001 * seed
        drift[i, 1, ..., 3] = 0.9
    n = len(index)
    return xr.Dataset(
        {
            "effective_rank": (("run", "state", "view", "centring", "spectrum", "depth"), rank),
            "kernel_drift": (("run", "state", "view", "transition"), drift),
            "excess_loss": ("run", [0.2 * (family == "block" and xi == 7.0) for _, family, xi, _ in index]),
            "marginal_entropy": ("run", np.full(n, 2.0)),
            "reachable_loss": ("run", np.full(n, 1.0)),
        },
        coords={
            "state": ["init", "trained"], "view": ["position", "token", "masked", "pooled", "sequence"],
            "depth": range(depths),
            "transition": range(depths - 1), "centring": ["centred", "uncentred"],
            "spectrum": ["singular", "eigen"],
            **{name: ("run", [k[j] for k in index]) for j, name in enumerate(labels)},
        },
    )  # fmt: skip


def changed_settings():
    ds = changed_sweep()
    return ds, robustness.judge_robustness(ds, ["as it is", "fewer blocks"], 1.0, 7.0)


def test_robustness_judges_every_setting():
    _, verdicts = changed_settings()
    definitions = len(robustness.DEFINITIONS)
    # Per family and architecture: 7 lengths with both, 5 pairs: (1, 7) twice, (0.5, 7), (2, 7), (1, 4).
    assert len(verdicts) == 2 * 2 * (7 * (definitions + 1) + 5 * definitions)
    for (finding, definition, family, mixing, variant), verdict in verdicts.items():
        # The nearer one by ratio is replaced: 2 is a short memory, 4 a long one.
        replaced = {
            "as it is": {},
            "fewer blocks": {},
            "ξ = 0.5": {"short": 0.5},
            "ξ = 2": {"short": 2},
            "ξ = 4": {"long": 4},
        }[variant]
        needed = {"short": 1, "long": 7} | replaced
        lengths = [xi for end, xi in needed.items() if end in finding or finding == "Selectivity"]
        collapsed = (
            family == "ring"
            and mixing == "tokens"
            and "eigenvalues" not in definition
            and "long" not in finding
            and needed["short"] <= 1
        )
        if family == "block" and 7 in lengths:
            expected = "not trained"
        elif "drift" in finding or collapsed:
            expected = "supported"
        else:
            expected = "not supported"
        assert verdict.status == expected, (finding, definition, family, mixing, variant)


def test_robustness_names_the_network_that_is_missing():
    ds = changed_sweep()
    ds = ds.isel(run=((ds.experiment == 2) & (ds.family == "ring")).values)

    def judged(ds):
        return robustness.judge_robustness(ds, ["as it is", "fewer blocks"], 1.0, 7.0)

    assert {key[0]: v.networks for key, v in judged(ds).items()} == {
        finding: 8 if finding == "Selectivity" else 4 for finding in robustness.FINDINGS
    }
    setting = ds.correlation_length == 7
    with pytest.raises(
        ValueError,
        match=r"ring chains, mixing tokens, fewer blocks: the seeds .* 1: \[0, 1, 2, 3\], 7: \[0, 1, 3\]",
    ):
        judged(ds.isel(run=~(setting & (ds.seed == 2)).values))
    with pytest.raises(ValueError, match=r"ring chains, mixing tokens, fewer blocks: the seeds .* 7: \[\]"):
        judged(ds.isel(run=~setting.values))
    drift = ds.kernel_drift.where(~(setting & (ds.seed == 2)))
    with pytest.raises(ValueError, match=r"kernel_drift has no value .*seed 2.*correlation_length 7"):
        judged(ds.assign(kernel_drift=drift))


def test_robustness_agrees_with_the_findings_on_the_same_networks():
    ds, verdicts = changed_settings()
    rows = ds.isel(run=((ds.experiment == 2) & (ds.family == "ring")).values)
    rank = rows.effective_rank.sel(
        state="trained", view="position", centring="centred", spectrum="singular", depth=[0, 6]
    )
    rank = rank.isel(run=(rows.correlation_length == 1).values)
    c = Interval.of(1 - rank[:, 1].values / rank[:, 0].values)
    verdict = verdicts["Rank collapse, short memory", "primary", "ring", "tokens", "fewer blocks"]
    assert verdict.statistics["collapse"].mean == pytest.approx(c.mean) and verdict.statistics[
        "collapse"
    ].low == pytest.approx(c.low)
