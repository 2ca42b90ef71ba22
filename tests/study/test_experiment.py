"""Stored experiments, at sizes that train in a second or two."""

import importlib
import json
import os
import subprocess
import sys
import warnings
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from rgnb import chains, checks, metrics, training
from rgnb.masking import bayes_posterior
from rgnb.model import ModelConfig, ResidualMLP
from rgnb.study import Experiment, measurement, runner, settings, store
from rgnb.study.probes import mode_retention
from rgnb.study.sweep import sweep
from rgnb.training import TrainConfig, train
from rgnb.verdicts import first_round

SMALL = {
    "n_states": 4,
    "length": 8,
    "width": 12,
    "depth": 5,
    "batch": 16,
    "steps": 100,
    "snapshots": (50,),
    "sequences": 256,
}


# Its correlation length comes out differently in the last digits where its states are renamed.
DRAWN = chains.reversible(4, 7.0, seed=1)
RENAMED = chains.MarkovChain(DRAWN.transition_matrix[[2, 0, 3, 1]][:, [2, 0, 3, 1]])


def small(**changes):
    return Experiment.profile("quick", **(SMALL | {"seeds": 2, "device": "cpu"} | changes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def dataset(folder):
    return small().run(folder, progress=False)


def test_paper_profile_is_the_sequels_size():
    e = Experiment.profile("paper")
    m, t = e.model, e.training
    assert (m.n_states, m.length, m.width, m.depth, m.mixing) == (16, 64, 64, 6, "tokens")
    assert (t.batch, t.steps, t.learning_rate, t.rate, t.scheme) == (32, 10_000, 3e-4, 0.15, "mask")


def test_dataset_is_labelled_and_complete(dataset):
    assert dict(dataset.sizes) | {"mode": 12, "depth": 6, "seed": 2, "step": 3} == dict(dataset.sizes)
    assert list(dataset.correlation_length.values) == [1.0, 7.0]
    assert list(dataset.step.values) == [0, 50, 100]
    for name, variable in dataset.data_vars.items():
        assert variable.attrs["long_name"] and variable.attrs["units"], name
        if name not in (
            "cka",
            "kernel_drift",
            "singular_value",
            "rows_rank",
        ):  # no CKA of a constant, few modes or rows
            assert np.isfinite(variable).all(), name
    record = json.loads(dataset.provenance.values.ravel()[0])
    assert {"device", "torch", "commit", "date", "seconds_training"} <= set(record)


def test_stored_numbers_agree_with_each_other_and_with_the_metrics(dataset, folder):
    trained = dataset.isel(chain=0).sel(state="trained")
    stored = torch.from_numpy(
        trained.singular_value.sel(view="token", centring="centred").fillna(0).values.astype(float)
    )
    for spectrum in metrics.SPECTRA:
        again = metrics.spectrum_rank(stored, spectrum).numpy()
        np.testing.assert_allclose(
            trained.effective_rank.sel(view="token", centring="centred", spectrum=spectrum), again, rtol=1e-4
        )
    np.testing.assert_allclose(
        dataset.isel(step=-1).step_rank,
        dataset.effective_rank.sel(state="trained", view="position", centring="centred"),
    )
    np.testing.assert_allclose(
        dataset.isel(step=0).step_drift, dataset.kernel_drift.sel(state="init", view="position")
    )
    np.testing.assert_allclose(dataset.isel(rows=-1).rows_rank, dataset.isel(step=-1).step_rank)
    drift = 1 - np.diagonal(dataset.cka.values, 1, -2, -1)
    np.testing.assert_allclose(dataset.kernel_drift.transpose(..., "transition"), drift)


def test_losses(dataset):
    # loss = Bayes floor + KL, up to the scatter of sampled posteriors; KL is large before training.
    floor, loss = dataset.bayes_loss, dataset.loss
    np.testing.assert_allclose(loss - floor, dataset.excess_loss.transpose(*loss.dims), atol=1e-6)
    assert (dataset.excess_loss > 0).all()
    np.testing.assert_allclose(dataset.marginal_entropy, np.log(4))
    assert (dataset.excess_loss.isel(step=-1) < dataset.excess_loss.isel(step=0)).all()


def test_measured_at_depth_0_by_hand(dataset, folder):
    # The embedding of the evaluation tokens, rank computed here from scratch.
    e = small()
    setting = e.settings()[0]
    task = measurement.evaluation(setting)
    weights = train(setting.run("cpu"), [0], setting.weights(folder), progress=False)
    x = weights[0][100]["weight.embedding.weight"].double()[task.inputs]  # (sequences, length, width)
    ranks = []
    for t in range(x.shape[1]):
        s = np.linalg.svd((x[:, t] - x[:, t].mean(0)).numpy(), compute_uv=False)
        p = s[s > 1e-9] / s.sum()
        ranks.append(np.exp(-(p * np.log(p)).sum()))
    stored = dataset.effective_rank.isel(chain=0).sel(
        correlation_length=1.0, seed=0, state="trained", view="position"
    )
    assert float(stored.sel(centring="centred", spectrum="singular", depth=0)) == pytest.approx(
        np.mean(ranks), rel=1e-6
    )
    assert float(dataset.bayes_loss[0, 0, 0]) == pytest.approx(
        -(task.bayes * task.bayes.clamp(min=1e-300).log()).sum(-1).mean().item()
    )
    assert torch.allclose(task.bayes, bayes_posterior(setting.chain, task.inputs)[task.selected])


def test_what_is_stored_is_not_trained_again(dataset, folder, monkeypatch):
    monkeypatch.setattr(runner, "train", lambda *a: pytest.fail("trained again"))
    assert small().missing(folder) == []
    assert small().run(folder, progress=False).identical(dataset)
    alone = small(seeds=[1], correlation_lengths=[7.0]).run(folder, progress=False)
    assert alone.effective_rank.equals(dataset.effective_rank.sel(seed=[1], correlation_length=[7.0]))


def test_only_what_is_missing_is_trained(dataset, folder, monkeypatch):
    trained = []
    train = runner.train

    def spy(run, seeds, *rest):
        trained.append(list(seeds))
        return train(run, seeds, *rest)

    monkeypatch.setattr(runner, "train", spy)
    small(seeds=3, correlation_lengths=[1.0]).run(folder, progress=False)
    assert trained == [[2]]


@pytest.mark.parametrize(
    "change",
    [
        {"n_states": 8},
        {"rate": 0.2},
        {"scheme": "bert"},
        {"mixing": "none"},
        {"sequences": 128},
        {"steps": 150},
        {"learning_rate": 2e-3},
    ],
)
def test_every_part_of_a_setting_is_in_its_key(change, folder):
    changed = small(**change).settings()[0]
    assert changed.path(folder, 0) != small().settings()[0].path(folder, 0)
    assert changed.path(folder, 0) != changed.path(folder, 1)


def test_what_is_measured_anew_is_not_trained_anew(tmp_path, monkeypatch):
    one = small(seeds=1, correlation_lengths=[1.0])
    before = one.run(tmp_path, progress=False)
    setting = one.settings()[0]
    result, probed, weights = (
        setting.path(tmp_path, 0),
        setting.path(tmp_path, 0, mode_retention),
        setting.weights(tmp_path),
    )
    monkeypatch.setattr(settings, "MEASURED_VERSION", 2)
    assert setting.path(tmp_path, 0) != result and len(one.missing(tmp_path)) == 1
    assert (setting.path(tmp_path, 0, mode_retention), setting.weights(tmp_path)) == (probed, weights)
    monkeypatch.setattr(training, "_train_group", lambda *a: pytest.fail("trained again"))
    after = one.run(tmp_path, progress=False)
    assert np.array_equal(after.effective_rank, before.effective_rank)  # their provenance names other seconds
    versions = [store.load(path).attrs["version"] for path in (result, setting.path(tmp_path, 0))]
    assert versions == [1, 2]


MINE = """
import xarray as xr
from rgnb.study import analysis

@analysis("own.mine", {version})
def mine(task, setting, seed, snapshots, device):
    return xr.Dataset({{"x": {x}}})

def bare(task, setting, seed, snapshots, device):
    return xr.Dataset({{"x": {x}}})
"""


def test_a_changed_analysis_with_its_old_version_is_warned_of(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    one = small(seeds=1, correlation_lengths=[1.0])

    def measured(name, x, version=1):
        (tmp_path / "own_module.py").write_text(MINE.format(x=x, version=version))
        monkeypatch.delitem(sys.modules, "own_module", raising=False)
        importlib.invalidate_caches()
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        function = getattr(importlib.import_module("own_module"), name)
        swept = sweep("mine", [one], ["x"], tmp_path, progress=False, analysis=function)
        return one.run(tmp_path / "entries", progress=False, analysis=function).x.item(), swept.x.item()

    warnings.simplefilter("error")
    assert measured("mine", 1.0) == measured("mine", 1.0) == measured("bare", 1.0) == (1, 1)
    for name, id in (("mine", "own.mine"), ("bare", "own_module.bare")):
        advice = rf'function {id} has changed .* give it @analysis\("{id}", version=2\)'
        with pytest.warns(UserWarning, match=advice) as warned:
            assert measured(name, 2.5) == (1, 1)
        assert len(warned) == 2  # of the sweep, and of the entry
    assert measured("mine", 2.5, version=2) == (2.5, 2.5)


def test_an_analysis_without_a_source_is_taken_as_it_is(tmp_path):
    one = small(seeds=1, correlation_lengths=[1.0])
    for x in (1.0, 2.0):
        names = {"__name__": "nowhere"}
        exec(MINE.format(x=x, version=1), names)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert one.run(tmp_path, progress=False, analysis=names["mine"]).x.item() == 1


def test_key_is_of_content_not_of_spelling(folder):
    plain = small(correlation_lengths=[1, 7]).settings()[0].path(folder, 0)
    assert plain == small(correlation_lengths=(1.0, 7.0), device="auto").settings()[0].path(folder, 0)


def test_own_chains(folder):
    own = [chains.block(4, 0.8, n_blocks=2), chains.ring(4, 3.0)]
    ds = small(own=own).run(folder, progress=False)
    assert list(ds.chain.values) == ["own"]
    np.testing.assert_allclose(ds.correlation_length, [0.8, 3.0])
    assert first_round.judge_selectivity(ds).status == "not trained"
    twin = small(families=["block"], correlation_lengths=[0.8], seeds=1)
    assert own[0].transition_matrix.shape == twin.settings()[0].chain.transition_matrix.shape


def test_no_mixing_equals_the_dense_forward_pass(folder):
    setting = small(mixing="none").settings()[0]
    task = measurement.evaluation(setting)
    model = ResidualMLP(setting.model, 3)
    stream, log_p = measurement.forward(model, task.inputs, torch.device("cpu"))
    for mine, dense in zip(stream, model.stream(task.inputs), strict=True):
        torch.testing.assert_close(mine, dense)
    torch.testing.assert_close(log_p, model(task.inputs).log_softmax(-1))
    # What it can reach at a [MASK] is the stationary law.
    torch.testing.assert_close(task.reachable, torch.full_like(task.reachable, 0.25))


@pytest.mark.parametrize("mixing, reach", [("none", 0), ("window", 2), ("embedding", 2)])
@pytest.mark.parametrize("scheme", ["mask", "bert"])
def test_what_is_reachable_is_the_posterior_of_what_a_position_sees(mixing, reach, scheme):
    setting = small(mixing=mixing, scheme=scheme, rate=0.4, sequences=64).settings()[0]
    task = measurement.evaluation(setting)
    expected = []
    for i, t in task.selected.nonzero().tolist():
        first = max(t - reach, 0)
        seen = task.inputs[i : i + 1, first : t + reach + 1]
        expected.append(bayes_posterior(setting.chain, seen, scheme, 0.4)[0, t - first])
    torch.testing.assert_close(task.reachable, torch.stack(expected), atol=1e-12, rtol=0)
    everything = small(scheme=scheme, rate=0.4, sequences=64).settings()[0]
    for sees_all in (
        everything,
        small(mixing="attention", scheme=scheme, rate=0.4, sequences=64).settings()[0],
    ):
        whole = measurement.evaluation(sees_all)
        assert torch.equal(whole.reachable, task.bayes)
    assert not torch.allclose(task.reachable, task.bayes, atol=1e-3)


WORKER = """
import sys, time
from rgnb.study import runner
from tests.study.test_experiment import small

folder, log, *lengths = sys.argv[1:]
train = runner.train

def spy(run, *rest):
    with open(log, "a") as file:
        file.write(f"{run.chain.correlation_length:.3g}\\n")
    time.sleep(0.5)  # so that the others come while this one is at work
    return train(run, *rest)

runner.train = spy
small(seeds=1, correlation_lengths=[float(x) for x in lengths]).run(folder, progress=False)
"""


@pytest.mark.slow
def test_processes_share_the_settings_out(tmp_path):
    lengths = ["1", "2", "3", "4"]
    command = [sys.executable, "-c", WORKER, tmp_path / "results", tmp_path / "log"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen([*command, *order], cwd=Path(__file__).parents[2], env=environment)
        for order in (lengths, lengths, lengths[::-1])
    ]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0, 0]
    assert sorted((tmp_path / "log").read_text().split()) == lengths  # each was trained once
    assert small(seeds=1, correlation_lengths=[1.0, 2.0, 3.0, 4.0]).missing(tmp_path / "results") == []


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"families": ["hierarchcal"]}, ValueError, "did you mean 'hierarchical'"),
        ({"families": []}, ValueError, "families must hold at least one"),
        ({"correlation_lengths": [0]}, ValueError, "correlation_length must be finite and greater than 0"),
        ({"correlation_lengths": [float("inf")]}, ValueError, "correlation_length must be finite"),
        ({"correlation_lengths": ["7"]}, TypeError, "correlation_length must be a number"),
        ({"correlation_lengths": [1, 1.0]}, ValueError, "none twice"),
        ({"seeds": 0}, ValueError, "seeds must be at least 1"),
        ({"seeds": 2.0}, TypeError, "seeds must be an integer"),
        ({"seeds": [1, 1]}, ValueError, "none twice"),
        ({"n_states": 6}, ValueError, "power of two"),
        ({"rate": 1.0}, ValueError, "rate must lie strictly between 0 and 1"),
        ({"mixing": "token"}, ValueError, "did you mean 'tokens'"),
        ({"device": "gpu"}, ValueError, "unknown device"),
        ({"stpes": 100}, ValueError, "did you mean 'steps'"),
        ({"sequences": 10}, ValueError, "sequences must be at least 64"),
        ({"own": [chains.ring(5, 1.0)]}, ValueError, "the chain has 5 states, the model 4"),
        (
            {"own": [chains.ring(4, 1.0), chains.ring(4, 1.0)]},
            ValueError,
            "must differ in correlation length",
        ),
        ({"own": [DRAWN, RENAMED]}, ValueError, "must differ in correlation length"),
        ({"own": [[[0.5, 0.5], [0.5, 0.5]]]}, TypeError, "own must be a rgnb MarkovChain"),
    ],
)
def test_bad_input_fails_before_any_work(changes, error, message):
    with pytest.raises(error, match=message):
        small(**changes)


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"correlation_lengths": 7.0},
            "correlation_lengths must be a sequence, got 7.0; pass a list such as [7.0]",
        ),
        ({"families": "ring"}, "families must be a sequence, got 'ring'; pass a list such as ['ring']"),
        (
            {"own": chains.sticky(4, 2.0)},
            "own must be a sequence, got MarkovChain(n_states=4, correlation_length=2)",
        ),
        ({"snapshots": 50}, "snapshots must be a sequence, got 50; pass a list such as [50]"),
        ({"seeds": "3"}, "seeds must be an integer, got '3'; pass a whole number"),
    ],
)
def test_one_value_in_the_place_of_a_list(changes, message):
    with pytest.raises(TypeError) as raised:
        small(**changes)
    assert message in str(raised.value)


FIELDS = [
    f.name
    for kind in (Experiment, ModelConfig, TrainConfig)
    for f in fields(kind)
    if f.name not in ("model", "training")
]
WRONG = [
    None,
    "x",
    -1.5,
    {"a": 1},
    [None],
    object(),
    np.array([1.5, -2.0]),
    np.array(["a", "b"]),
    torch.tensor(-1.5),
]


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", WRONG, ids=lambda v: type(v).__name__)
def test_every_field_names_itself_and_what_it_got(name, value):
    with pytest.raises(checks.BadInput) as raised:
        small(**{name: value})
    said = str(raised.value)
    assert (
        name in said
        or {"families": "family", "correlation_lengths": "correlation_length"}.get(name, name) in said
    )
    assert " got " in said or "choose from" in said


@pytest.mark.parametrize("name", ["model", "training"])
def test_parts_of_another_kind(name):
    with pytest.raises(TypeError, match=f"{name} must be a rgnb .*, got str; Experiment.profile makes one"):
        Experiment(**{name: "quick"})


def test_valid_values_of_every_kind_are_the_same_setting(folder):
    plain = small(families=["ring"], correlation_lengths=[1, 7], seeds=2, rate=0.5, snapshots=[50], width=12)
    kinds = {
        "families": np.array(["ring"]),
        "correlation_lengths": np.array([1, 7]),
        "seeds": range(2),
        "rate": np.float32(0.5),
    }
    others = small(
        **kinds, snapshots=np.array([50]), width=np.int64(12), batch=np.int32(16), device=torch.device("cpu")
    )
    assert (others.settings(), others.seeds) == (plain.settings(), (0, 1))
    assert others.settings()[0].path(folder, 0) == plain.settings()[0].path(folder, 0)


def test_unknown_profile():
    with pytest.raises(ValueError, match="did you mean 'quick'"):
        Experiment.profile("quik")


def test_stored_makes_once_and_says_where_it_was_made(tmp_path):
    made = []

    def make():
        made.append(1)
        return xr.Dataset({"x": ("row", [1.0, 2.0])})

    first = store.stored("mine", {"rows": 2}, make, tmp_path)
    again = store.stored("mine", {"rows": 2}, make, tmp_path)
    assert again.identical(first) and len(made) == 1
    assert json.loads(first.attrs["config"]) == {"rows": 2} and "torch" in json.loads(
        first.attrs["provenance"]
    )
    store.stored("mine", {"rows": 3}, make, tmp_path)
    assert len(made) == 2 and len(list(tmp_path.iterdir())) == 2
    with pytest.raises(ValueError, match="name must be made of"):
        store.stored("../mine", {}, make, tmp_path)
