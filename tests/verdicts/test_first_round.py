"""Verdicts on results made by hand, with known statistics."""

import re

import numpy as np
import pytest
import xarray as xr
from made import CENTRINGS, CONCENTRATED, FALLING, FLAT, SEEDS, SPECTRA, VIEWS, results
from scipy import stats

from rgnb.verdicts import first_round, intervals, measures
from rgnb.verdicts.measures import Definition


def test_interval_is_the_t_interval():
    values = [1.0, 2.0, 4.0, 5.0]
    interval = intervals.Interval.of(values)
    expected = stats.t.interval(0.95, 3, loc=3.0, scale=np.std(values, ddof=1) / 2)
    assert (interval.mean, interval.low, interval.high) == pytest.approx((3.0, *expected))


@pytest.mark.parametrize("values", [[1.0], [1.0, np.nan]])
def test_too_little_gives_an_unbounded_interval(values):
    interval = intervals.Interval.of(values)
    assert (interval.low, interval.high) == (-np.inf, np.inf)


def test_statistics_by_hand():
    profiles = np.array([[10, 12, 8, 9, 4], [10, 9, 8, 7, 5], [0, 3, 3, 2, 2]])
    np.testing.assert_allclose(measures.collapse(profiles), [0.6, 0.5, np.nan])
    np.testing.assert_allclose(measures.collapse_from_maximum(profiles), [1 - 4 / 12, 0.5, 1 / 3])
    np.testing.assert_allclose(measures.largest_rise(profiles), [0.2, -0.1, np.nan])
    assert measures.largest_rise([10, 4, 9, 8, 12.0]) == pytest.approx(0.8)  # from the lowest point before


@pytest.mark.parametrize(
    "short, status",
    [
        (FALLING, "supported"),
        ([10, 13, 12, 10, 8, 6, 4], "partly supported"),
        (FLAT, "not supported"),
        ([4, 10, 12, 12, 12, 11, 10], "not supported"),
        ([0, 9, 8, 7, 6, 5, 4], "not supported"),  # no ratio to a rank of 0
    ],
)
def test_rank_collapse(short, status):
    assert first_round.judge_rank_collapse(results(short)).status == status


def test_collapse_must_be_clear_of_its_bound():
    profile = [10, 9.5, 9, 8.8, 8.4, 8.2, 7.9]  # C = 0.21
    assert first_round.judge_rank_collapse(results(profile, noise=0.001)).status == "supported"
    assert first_round.judge_rank_collapse(results(profile, noise=0.05)).status == "not supported"


@pytest.mark.parametrize(
    "short, long, status",
    [
        (FALLING, FLAT, "supported"),
        (FALLING, FALLING, "not supported"),
        (FLAT, FLAT, "not supported"),
        (FALLING, [10, 14, 14, 13, 12, 11, 10], "partly supported"),  # collapses from its maximum
        ([10, 10, 10, 10, 9, 9, 8.9], FLAT, "partly supported"),  # only the difference
        (FLAT, FALLING, "not supported"),
    ],
)
def test_selectivity(short, long, status):
    assert first_round.judge_selectivity(results(short, long)).status == status


@pytest.mark.parametrize(
    "drift, status",
    [
        (CONCENTRATED, "supported"),
        ([0.5, 0.4, 0.02, 0.01, 0.01, 0.01], "supported"),  # two transitions
        ([0.3, 0.3, 0.3, 0.01, 0.01, 0.01], "not supported"),
        ([0.01, 0.0, 0.0, 0.0, 0.0, 0.0], "not supported"),  # too little drift in all
    ],
)
def test_kernel_drift(drift, status):
    assert first_round.judge_kernel_drift(results(drift=drift)).status == status


def test_drift_must_beat_the_untrained_network():
    assert first_round.judge_kernel_drift(results(untrained_drift=CONCENTRATED)).status == "not supported"


@pytest.mark.parametrize("outliers, holds", [(1, True), (2, False)])
def test_drift_must_lead_at_the_same_place_in_most_seeds(outliers, holds):
    ds = results(noise=0.0)
    drift = np.tile([0.5, 0.4, 0.01, 0.01, 0.01, 0.01], (SEEDS, 1))
    drift[:outliers] = [0.5, 0.01, 0.4, 0.01, 0.01, 0.01]
    ds.kernel_drift.loc[{"state": "trained"}] = drift[:, None, :]
    condition = first_round.judge_kernel_drift(ds).conditions[3]
    assert f"0 → 1 and 1 → 2 lead in {SEEDS - outliers} of 8 seeds" in condition.text
    assert condition.holds == holds


def test_five_transitions_are_needed():
    assert (
        first_round.judge_kernel_drift(results(), start=1).status == "not supported"
    )  # what is left is spread out
    assert not first_round.judge_kernel_drift(results(), start=2).conditions[1].holds
    assert first_round.judge_kernel_drift(results(), start=1).conditions[1].holds


@pytest.mark.parametrize(
    "finding",
    [first_round.judge_rank_collapse, first_round.judge_selectivity, first_round.judge_kernel_drift],
)
def test_gate(finding):
    good = np.full(SEEDS, 0.049)
    assert finding(results(excess=good)).status == "supported"
    one_bad = good.copy()
    one_bad[3] = 0.051  # of 1 nat that can be learned
    verdict = finding(results(excess=one_bad))
    assert verdict.status == "not trained"
    assert verdict.outcome == "not trained [supported]"
    assert finding(results(excess=good)).outcome == "supported"
    assert "0.0510 nats" in verdict.reason
    assert finding(results(excess=good), step=100).status == "not trained"  # 1 nat more at that step
    assert finding(results(excess=good), step=1000).status == "supported"


def test_gate_where_nothing_can_be_learned():
    ds = results(excess=np.full(SEEDS, 0.0099))
    ds["reachable_loss"] = ds.marginal_entropy
    assert first_round.gate_limit(ds, 1.0) == 0.01
    assert first_round.judge_rank_collapse(ds).status == "supported"


def test_one_seed_decides_nothing():
    ds = results(seeds=1)
    for finding in (
        first_round.judge_rank_collapse,
        first_round.judge_selectivity,
        first_round.judge_kernel_drift,
    ):
        assert finding(ds).status == "not supported"


def test_verdicts_do_not_depend_on_the_order_of_lengths_and_seeds():
    ds = results()
    shuffled = ds.isel(correlation_length=[1, 0], seed=[5, 2, 7, 0, 1, 3, 4, 6])
    for finding in (
        first_round.judge_rank_collapse,
        first_round.judge_selectivity,
        first_round.judge_kernel_drift,
    ):
        assert finding(shuffled).statistics.keys() == finding(ds).statistics.keys()
        for name, interval in finding(ds).statistics.items():
            assert finding(shuffled).statistics[name].low == pytest.approx(interval.low)


def test_reason_names_what_decided():
    verdict = first_round.judge_rank_collapse(results([10, 13, 12, 10, 8, 6, 4]))
    assert "largest rise" in verdict.reason and "collapse C" not in verdict.reason
    assert "partly supported" in str(verdict)
    assert re.search(r"- largest rise .*: \*\*no\*\*", verdict._repr_markdown_())


def test_by_definition_starts_with_the_primary_one():
    verdicts = first_round.by_definition(first_round.judge_selectivity, results())
    assert next(iter(verdicts)) == ("position", "centred", "singular", 0)
    assert len(verdicts) == len(VIEWS) * len(CENTRINGS) * len(SPECTRA) * 2


def test_tally_counts_every_definition():
    verdicts = first_round.by_definition(first_round.judge_selectivity, results())
    statuses = [v.status for v in verdicts.values()]
    for part in first_round.tally(verdicts).split(", "):
        status, count = part.rsplit(" ", 1)
        assert statuses.count(status) == int(count) > 0
        statuses = [s for s in statuses if s != status]
    assert not statuses


def test_by_step():
    assert {
        s: v.status for s, v in first_round.by_step(first_round.judge_rank_collapse, results()).items()
    } == {
        100: "not trained",
        1000: "supported",
    }


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda ds: first_round.judge_rank_collapse(
                xr.concat([ds, ds.assign_coords(chain=["x"])], "chain")
            ),
            "choose one",
        ),
        (
            lambda ds: first_round.judge_selectivity(ds.isel(correlation_length=[0])),
            "needs two correlation lengths",
        ),
        (
            lambda ds: first_round.judge_rank_collapse(ds, Definition(view="positoin")),
            "did you mean 'position'",
        ),
        (
            lambda ds: first_round.judge_rank_collapse(ds, Definition(spectrum="eigne")),
            "did you mean 'eigen'",
        ),
        (lambda ds: first_round.judge_rank_collapse(ds, Definition(start=6)), "start must leave two depths"),
        (lambda ds: first_round.judge_rank_collapse(ds, Definition("pooled"), step=100), "position view"),
        (lambda ds: first_round.judge_kernel_drift(ds, correlation_length=3.0), "unknown correlation_length"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call(results())


# --- missing values ---


@pytest.mark.parametrize(
    "finding",
    [first_round.judge_rank_collapse, first_round.judge_selectivity, first_round.judge_kernel_drift],
)
@pytest.mark.parametrize("variable", ["excess_loss", "marginal_entropy", "reachable_loss"])
def test_a_missing_value_does_not_pass_the_gate(finding, variable):
    ds = results().copy(deep=True)
    ds[variable][0, 0, 3] = np.nan
    named = rf"{variable} has no value \(NaN\) at seed 3.*correlation_length 1.0"
    with pytest.raises(ValueError, match=named + r".*ds.sel\(seed=\[0, 1, 2, 4, 5, 6, 7\]\)"):
        finding(ds)
    rest = finding(ds.sel(seed=[0, 1, 2, 4, 5, 6, 7]))
    assert rest.status == "supported" and rest.networks == finding(results()).networks * 7 // 8


@pytest.mark.parametrize("finding", [first_round.judge_rank_collapse, first_round.judge_selectivity])
@pytest.mark.parametrize("step", [None, 1000])
def test_a_missing_rank_is_not_judged(finding, step):
    ds = results().copy(deep=True)
    variable, at = ("step_rank", {"step": 1000}) if step else ("effective_rank", {"state": "trained"})
    one = {"seed": 5, "depth": 4, "correlation_length": 1.0, "spectrum": "singular"}
    ds[variable].loc[one | at] = np.nan
    with pytest.raises(ValueError, match=f"{variable} has no value .*seed 5, depth 4"):
        finding(ds, step=step)


@pytest.mark.parametrize("step", [None, 1000])
def test_a_missing_drift_is_not_a_drift_of_0(step):
    ds = results().copy(deep=True)
    variable, at = ("kernel_drift", {"state": "trained"}) if step is None else ("step_drift", {"step": 1000})
    ds[variable].loc[{"seed": 5, "transition": 0, "correlation_length": 1.0, **at}] = np.nan
    with pytest.raises(ValueError, match=f"{variable} has no value .*seed 5, transition 0"):
        first_round.judge_kernel_drift(ds, step=step)
    undecided = results().drop_vars("effective_rank")  # nothing says that a depth is constant
    with pytest.raises(ValueError, match="kernel_drift has no value"):
        first_round.judge_kernel_drift(undecided.assign(kernel_drift=undecided.kernel_drift * np.nan))


def test_a_network_that_is_missing_is_not_judged():
    ds = results().copy(deep=True)
    there = xr.concat(
        [ds.sel(correlation_length=[7.0]), ds.sel(correlation_length=[1.0], seed=range(7))],
        "correlation_length",
        join="outer",
    )
    for finding in (
        first_round.judge_rank_collapse,
        first_round.judge_selectivity,
        first_round.judge_kernel_drift,
    ):
        with pytest.raises(ValueError, match=r"has no value .*seed 7"):
            finding(there)
    assert first_round.judge_kernel_drift(there, correlation_length=7.0).networks == SEEDS


@pytest.mark.parametrize("step", [None, 1000])
def test_drift_beside_a_constant_depth_counts_as_0(step):
    ds = results(noise=0.0).copy(deep=True)
    at = {"step": 1000} if step else {}
    rank, drift = ("step_rank", "step_drift") if step else ("effective_rank", "kernel_drift")
    ds[rank].loc[{"depth": 0, **at}] = 0.0  # as the embedding of [MASK] alone
    ds[drift].loc[{"transition": 0, **at}] = np.nan
    verdict = first_round.judge_kernel_drift(ds, step=step)
    assert verdict.statistics["total"].mean == pytest.approx(sum(CONCENTRATED[1:]))
    assert verdict.networks == SEEDS
    labels = {"view": "position", "state": "trained"} if step is None else at
    found = measures.defined_drift(ds, correlation_length=1.0, **labels)
    np.testing.assert_allclose(found, [[0, *CONCENTRATED[1:]]] * SEEDS)


def test_only_what_is_judged_has_to_be_there():
    ds = results().copy(deep=True)
    ds.effective_rank.loc[{"correlation_length": 7.0}] = np.nan
    ds.effective_rank.loc[{"view": "pooled"}] = np.nan
    ds.excess_loss.loc[{"step": 100}] = np.nan
    assert first_round.judge_rank_collapse(ds).status == "supported"
    whole, part = (first_round.judge_rank_collapse(x, Definition(start=1)) for x in (results(), ds))
    assert whole == part


def test_verdicts_count_their_networks():
    ds = results().copy(deep=True)
    judged = (first_round.judge_rank_collapse, first_round.judge_selectivity, first_round.judge_kernel_drift)
    assert [finding(ds).networks for finding in judged] == [8, 16, 8]
    verdict = first_round.judge_rank_collapse(ds)
    assert "supported, 8 networks (" in str(verdict)
    assert verdict._repr_markdown_().startswith("**Rank collapse: supported**, 8 networks\n")
    assert ", 1 network (" in str(first_round.judge_rank_collapse(results(seeds=1)))
