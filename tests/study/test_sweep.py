import json
import shutil
from functools import partial

import numpy as np
import pytest
import xarray as xr
from small import small

from rgnb import chains
from rgnb.randomness import resolve_device
from rgnb.study import measurement, models, runner
from rgnb.study import sweep as module
from rgnb.study.probes import mode_retention
from rgnb.study.sweep import pivot, sweep

small = partial(small, mixing="none")
KEPT = ["effective_rank", "excess_loss", "relevant_modes"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def grid():
    own = [chains.sticky(4, 2.0, [4, 2, 1, 1])]
    return [
        small(),
        small(families=["hierarchical", "ring"], depth=3),
        small(seeds=3, correlation_lengths=[7.0]),
        small(own=own),
    ]


@pytest.fixture(scope="module")
def dataset(folder, grid):
    return sweep("grid", grid, KEPT, folder, progress=False)


def test_one_row_for_each_setting_and_seed(dataset):
    assert dataset.sizes["run"] == 4 + 8 + 1 + 2  # the third experiment shares all but one with the first
    assert list(dataset.experiment.values) == [0] * 4 + [1] * 8 + [2] + [3] * 2
    assert set(dataset.family.values) == {"hierarchical", "ring", "own"}
    assert list(dataset.data_vars) == KEPT and "step" not in dataset.dims


def test_rows_are_the_experiments_own_numbers(dataset, grid, folder):
    for i, e in enumerate(grid):
        ds = e.run(folder / "entries", progress=False)
        for row in range(dataset.sizes["run"]):
            mine = dataset.isel(run=row)
            if mine.experiment != i:
                continue
            one = ds.sel(
                chain=mine.family, correlation_length=float(mine.correlation_length), seed=int(mine.seed)
            )
            assert (int(mine.blocks), mine.mixing.item()) == (e.model.depth, "none")
            np.testing.assert_allclose(
                mine.effective_rank.dropna("depth"),
                one.effective_rank.transpose(*mine.effective_rank.dims),
                rtol=1e-6,
            )
            np.testing.assert_allclose(mine.excess_loss, one.excess_loss.isel(step=-1), rtol=1e-6)


def test_what_a_sweep_trained_is_not_trained_again(dataset, grid, folder, tmp_path, monkeypatch):
    results = shutil.copytree(folder, tmp_path / "results")
    monkeypatch.setattr("rgnb.training._train_group", lambda *a: pytest.fail("trained again"))
    ds = grid[3].run(results, progress=False)  # measures it, since a sweep keeps what it measured apart
    mine = dataset.isel(run=(dataset.experiment == 3).values)
    np.testing.assert_allclose(ds.excess_loss.isel(step=-1).values.ravel(), mine.excess_loss, rtol=1e-6)
    (setting,) = grid[3].settings()
    assert models.network(setting, 1, results).config == setting.model


def test_what_is_stored_is_only_read(dataset, grid, folder, monkeypatch):
    monkeypatch.setattr("rgnb.study.store.Store.get", lambda *a: pytest.fail("read the entries again"))
    assert sweep("grid", grid, KEPT, folder, progress=False).identical(dataset)


def test_entries_are_kept_apart_and_reused(dataset, folder, monkeypatch):
    assert [p.suffix for p in folder.iterdir() if p.is_file()] == [".nc"]
    monkeypatch.setattr(runner, "train", lambda *a: pytest.fail("trained again"))
    assert sweep("other", [small()], ["loss"], folder, progress=False).sizes["run"] == 4


def test_a_sweep_that_grows_trains_only_what_is_new(dataset, grid, folder, tmp_path, monkeypatch):
    # A checkout has the files of sweeps, without the entries that they were made from.
    for path in folder.glob("sweep-*.nc"):
        shutil.copy(path, tmp_path)
    asked, trained = [grid[1], small(families=["hierarchical"], depth=3, seeds=4)], []
    train = runner.train
    monkeypatch.setattr(
        runner, "train", lambda run, seeds, *a: trained.append(seeds) or train(run, seeds, *a)
    )
    new = [seed for seed in asked[1].seeds if seed not in grid[1].seeds]
    found = sweep("more", asked, KEPT[:2], tmp_path, progress=False)
    assert trained and {tuple(seeds) for seeds in trained} == {tuple(new)}
    old = dataset.isel(run=(dataset.experiment == 1).values)
    again = found.isel(run=slice(old.sizes["run"]))
    for name in KEPT[:2]:
        np.testing.assert_array_equal(
            again[name].dropna("depth") if "depth" in again[name].dims else again[name],
            old[name].dropna("depth") if "depth" in old[name].dims else old[name],
        )
    assert (again.provenance == old.provenance).all() and (again.seed == old.seed).all()
    assert "relevant_modes" not in found
    monkeypatch.setattr(runner, "train", lambda *a: pytest.fail("trained again"))
    with monkeypatch.context() as patch:
        patch.setattr(module, "VARIABLES", KEPT[:2])
        assert module.plan(asked, tmp_path).stored == found.sizes["run"]
    # The files hold no kernel_drift, of `VARIABLES`; the entries of what was trained here do.
    assert module.plan(asked, tmp_path).stored == found.sizes["run"] - old.sizes["run"]


def test_a_damaged_file_of_another_sweep_is_set_aside(tmp_path, capsys):
    other = tmp_path / "sweep-other-0123456789ab.nc"
    other.write_bytes(b"not a result")
    found = sweep("mine", [small(correlation_lengths=[2.0])], KEPT, tmp_path, progress=False)
    assert found.sizes["run"] == 2 and not other.exists()
    assert "sweep-other" in capsys.readouterr().err
    other.write_bytes(b"not a result")
    assert module.plan([small(correlation_lengths=[2.0])], tmp_path).stored == 2


def test_what_is_stored_as_a_result_is_not_trained_for_a_sweep(tmp_path, monkeypatch):
    e = small()
    ds = e.run(tmp_path, progress=False)
    monkeypatch.setattr(runner, "train", lambda *a: pytest.fail("trained again"))
    found = sweep("y", [e], ["excess_loss"], tmp_path, progress=False)
    np.testing.assert_allclose(found.excess_loss, ds.excess_loss.isel(step=-1).values.ravel(), rtol=1e-6)


def test_bad_input_is_refused_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "train", lambda *a: pytest.fail("trained"))
    with pytest.raises(ValueError, match="did you mean 'effective_rank'"):
        sweep("x", [small()], ["effective_ranks"], tmp_path, progress=False)
    with pytest.raises(TypeError, match="analysis must be a function made with def"):
        sweep("x", [small()], analysis=lambda *a: None, results=tmp_path, progress=False)
    with pytest.raises(ValueError, match="too few to read from; use more sequences, a length greater than 2"):
        measurement.rehearse(small(length=2).settings()[0], 64, resolve_device("cpu"), mode_retention)


def test_a_fault_is_listed_with_its_traceback_and_bad_input_in_one_line(tmp_path, monkeypatch):
    train = runner.train

    def faulty(run, seeds, *rest):
        if run.chain.correlation_length > 3:
            return len(7)
        return train(run, seeds, *rest)

    monkeypatch.setattr(runner, "train", faulty)
    monkeypatch.setattr(module, "_workers", lambda *a: 1)  # in this process
    experiments = [
        small(correlation_lengths=[1.0, 7.0], seeds=1),
        small(correlation_lengths=[1.0], learning_rate=1e30, seeds=1),
    ]
    experiments.append(small(correlation_lengths=[2.0], rate=1e-9, seeds=1))
    ds = sweep("faults", experiments, KEPT, tmp_path, progress=False, partial=True)
    fault, diverged, refused = (row["error"] for row in json.loads(ds.attrs["failed"]))
    assert (
        fault.startswith("Traceback")
        and "in faulty" in fault
        and fault.endswith("TypeError: object of type 'int' has no len()")
    )
    assert diverged.startswith("Diverged: the loss of seed 0") and "\n" not in diverged
    assert refused.startswith("BadValue: no position was selected at rate 1e-09") and "\n" not in refused


def test_workers_are_at_most_the_cores_that_there_are(monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: 64)  # of the machine that a container is on
    monkeypatch.setattr("joblib.cpu_count", lambda: 3)
    assert module._workers(resolve_device("cpu"), 10) == 3
    assert module._workers(resolve_device("cpu"), 2) == 2


def test_bad_input(folder, tmp_path):
    with pytest.raises(ValueError, match="name must be made of"):
        sweep("../x", [small()], KEPT, folder)
    with pytest.raises(ValueError, match="at least one Experiment"):
        sweep("x", [], KEPT, folder)
    with pytest.raises(ValueError, match="did you mean 'effective_rank'"):
        sweep("x", [small()], ["effective_ranks"], folder, progress=False)


@pytest.mark.parametrize("damage", [b"x" * 100, b"", None], ids=["foreign", "empty", "flipped"])
def test_a_damaged_sweep_is_set_aside_and_made_again(tmp_path, capsys, damage):
    first = sweep("x", [small()], KEPT, tmp_path, progress=False)
    (path,) = tmp_path.glob("*.nc")
    content = path.read_bytes()
    at = content.index(b"hierarchical")
    path.write_bytes(content[:at] + b"H" + content[at + 1 :] if damage is None else damage)
    assert sweep("x", [small()], KEPT, tmp_path, progress=False).identical(first)
    assert f"{path.name} is not used" in capsys.readouterr().err
    assert (tmp_path / f"{path.name}.damaged-0").exists() and path.exists()


def test_rows_are_arranged_by_their_labels(dataset):
    ds = dataset.isel(run=(dataset.experiment == 1).values)
    values = np.arange(ds.sizes["run"], dtype=float)
    found = pivot(ds, values, "family", "correlation_length", "seed")
    for row in range(ds.sizes["run"]):
        one = ds.isel(run=row)
        assert found.sel(family=one.family, correlation_length=one.correlation_length, seed=one.seed) == row
    lost = ds.isel(run=slice(1, None))
    named = "no row for 1 combinations .* family hierarchical, correlation_length 1.0, seed 0; "
    with pytest.raises(ValueError, match=named + ".*partial=True"):
        pivot(lost, values[1:], "family", "correlation_length", "seed")
    found = pivot(lost, values[1:], "family", "correlation_length", "seed", partial=True)
    assert np.isnan(found).sum() == 1
    assert np.isnan(found.sel(family="hierarchical", correlation_length=1.0, seed=0))
    by_word = pivot(ds, values, "schedule", "family", "correlation_length", "seed")
    assert by_word.schedule.values.tolist() == ["constant"]


def test_only_padding_is_taken_from_a_row():
    row = xr.Dataset({"drift": ("transition", [np.nan, 0.5, np.nan]), "rank": ("depth", [1.0, 2.0, np.nan])})
    offset = xr.DataArray([np.nan, 1.0, 2.0, 1.0, np.nan], {"offset": range(-2, 3)}, "offset")
    found = module._unpadded(row.assign(loss=1.0, coupling=offset))
    assert dict(found.sizes) == {"transition": 2, "depth": 2, "offset": 3}
    assert found.offset.values.tolist() == [-1, 0, 1]
    assert np.isnan(found.drift[0]) and found.drift[1] == 0.5 and found.loss == 1


def test_measuring_at_a_low_rate_can_be_timed():
    setting = small(rate=1e-4, sequences=256, snapshots=(50,), steps=100).settings()[0]
    assert 0 < measurement.seconds_measuring(setting, resolve_device("cpu")) < 60
