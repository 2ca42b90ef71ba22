"""Rehearsals: nothing is trained, and nothing is stored where results are."""

from pathlib import Path

import pytest
import xarray as xr
from small import small

from rgnb.randomness import resolve_device
from rgnb.study import measurement, rehearsal, runner
from rgnb.study.anatomy import anatomy
from rgnb.study.store import stored
from rgnb.study.sweep import sweep

E = small(mixing="none")  # two settings, two seeds


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """A folder of results with one network in it, and a rehearsal that has begun: (results, its folder)."""
    results, folder = tmp_path / "results", tmp_path / "rehearsal"
    folder.mkdir()
    small(mixing="none", seeds=[0], correlation_lengths=[1.0]).run(results, progress=False)
    monkeypatch.setenv("RGNB_REHEARSAL", str(folder))
    monkeypatch.setattr(runner, "train", lambda *a: pytest.fail("trained"))
    return results, folder


def files(folder):
    return {path for path in folder.rglob("*") if path.is_file()}


def test_what_is_missing_is_noted_with_its_time_and_stands_in_beside_what_is_stored(begun):
    results, folder = begun
    before = files(results)
    ds = E.run(results, progress=False)
    assert files(results) == before
    found = rehearsal.missing(folder)
    store = runner.Store(results)
    wanted = {str(store.path(s, seed)) for s in E.settings() for seed in E.seeds}
    assert len(wanted) == 4
    missing = {m.result for m in found}
    assert {str(folder / Path(m).name) for m in missing} < {str(p) for p in files(folder)}
    assert len(missing) == 3 and all(Path(m).parent == results for m in missing)
    assert all(m.training > 0 and m.measuring > 0 and m.device.startswith("cpu") for m in found)
    # The one that is stored is the trained one; the others were measured untrained.
    loss = ds.training_loss.isel(chain=0, block=0)
    assert (loss > 0).sum() == 1 and loss.sel(correlation_length=1.0, seed=0) > 0


def test_a_network_is_named_once_for_all_that_is_measured_on_it(begun):
    results, folder = begun
    E.run(results, progress=False)
    E.run(results, progress=False)
    assert len(rehearsal.missing(folder)) == 3  # what stands in is found again
    E.run(results, progress=False, analysis=anatomy)
    found = rehearsal.missing(folder)
    assert len({m.result for m in found}) == 7 and len({m.network for m in found}) == 4
    # The weights of the one that is trained are there: it is only to be measured.
    assert sum(m.training == 0 for m in found) == 1


def test_a_sweep_stands_in_whole_and_has_no_file_among_the_results(begun):
    results, folder = begun
    before = files(results)
    ds = sweep("mine", [E], ["effective_rank"], results, progress=False)
    assert ds.sizes["run"] == 4 and files(results) == before
    assert {Path(m.result).parent for m in rehearsal.missing(folder)} == {results / "entries"}
    assert ds.identical(sweep("mine", [E], ["effective_rank"], results, progress=False))


def test_a_result_of_any_kind_is_stored_until_something_stands_in(begun):
    results, folder = begun

    def made():
        return xr.Dataset({"x": 1.0})

    stored("first", {}, made, results)
    E.run(results, progress=False)
    stored("second", {}, made, results)
    assert [p.name[:5] for p in results.glob("*.nc") if p.name[0] in "fs"] == ["first"]
    assert len(list(folder.glob("second-*.nc"))) == 1


def test_a_stand_in_has_the_shape_of_the_real_result(tmp_path):
    e = small(steps=150, snapshots=(50, 100, 700), sequences=256, seeds=1, correlation_lengths=[1.0])
    real = e.run(tmp_path, progress=False).isel(chain=0, correlation_length=0, seed=0, drop=True)
    stand_in = measurement.stand_in(e.settings()[0], 0, resolve_device("cpu"))
    assert stand_in.sizes == real.sizes
    for name in stand_in.coords:
        assert stand_in[name].equals(real[name].drop_vars("provenance", errors="ignore"))


@pytest.mark.parametrize("seconds, words", [(0, "1 s"), (90, "90 s"), (5000, "83 min"), (11_000, "3.1 h")])
def test_durations_in_words(seconds, words):
    assert rehearsal.duration(seconds) == words
