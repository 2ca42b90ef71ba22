"""The runs of the second round: what is asked for, and training that shares, resumes and skips."""

import shutil

import numpy as np
import pytest
import torch
from small import small

from rgnb.model import ModelConfig
from rgnb.press import notebooks
from rgnb.press.cli import main
from rgnb.study import Experiment, law, questions, runner
from rgnb.study.anatomy import anatomy
from rgnb.study.sweep import sweep
from rgnb.training import Diverged

TINY = {
    "n_states": 4,
    "length": 8,
    "width": 12,
    "depth": 2,
    "batch": 16,
    "steps": 250,
    "snapshots": (50,),
    "sequences": 128,
}


@pytest.fixture
def asked(monkeypatch):
    changes = {"seeds": (2, 3), "device": "cpu", **TINY}
    kinds = {
        "apart": questions.Question("?", lambda: [Experiment.profile("quick", recipe="cosine", **changes)]),
        "together": questions.Question(
            "?", lambda: [Experiment.profile("quick", correlation_lengths=(1.0,), **changes)], swept=True
        ),
    }
    monkeypatch.setattr(questions, "QUESTIONS", kinds)
    return [(e, kind.swept) for kind in kinds.values() for e in kind.experiments()]


@pytest.mark.slow
def test_everything_asked_for_is_trained_measured_and_dissected_once(asked, tmp_path, monkeypatch):
    questions.train((), tmp_path, progress=False)
    for e, together in asked:
        folder = tmp_path / "entries" if together else tmp_path
        assert not e.missing(folder) and not e.missing(folder, anatomy)
    with monkeypatch.context() as patch:
        patch.setattr(runner, "train", lambda *a: pytest.fail("trained again"))
        questions.train((), tmp_path, progress=False)
    # What was measured but not dissected is dissected with the weights that are kept.
    for path in tmp_path.glob("*anatomy*"):
        path.unlink()
    questions.train((), tmp_path, progress=False)
    assert not asked[0][0].missing(tmp_path, anatomy)


@pytest.mark.slow
def test_what_a_sweep_holds_is_not_trained_again(asked, tmp_path, monkeypatch):
    assert questions.coverage(tmp_path) == {"apart": (4, 0), "together": (2, 0)}
    together = [e for e, swept in asked if swept]
    sweep("all", together, results=tmp_path, progress=False)
    shutil.rmtree(tmp_path / "entries")
    assert questions.coverage(tmp_path) == {"apart": (4, 0), "together": (2, 0)}  # it is not dissected
    sweep("dissected", together, ("unread",), tmp_path, progress=False, analysis=anatomy)
    shutil.rmtree(tmp_path / "entries")
    assert questions.coverage(tmp_path) == {"apart": (4, 0), "together": (2, 2)}
    monkeypatch.setattr(runner, "train", lambda *a: pytest.fail("trained again"))
    questions.train(["together"], tmp_path, progress=False)
    assert not (tmp_path / "entries").exists()


def test_the_runs_are_those_that_the_rules_name():
    findings = questions.findings()
    assert findings.training.learning_rate_at(199) == 1e-3 and findings.training.steps == 10_000
    assert (findings.seeds, findings.correlation_lengths) == (tuple(range(2, 14)), (1.0, 7.0))
    assert findings.model == ModelConfig()
    assert questions.findings(seeds=np.int64(3)).seeds == (2, 3, 4)
    rates = {(e.training.learning_rate, e.training.schedule): e for e in questions.optimisers()}
    assert len(rates) == 8 and {e.seeds for e in rates.values()} == {(2, 3, 4, 5)}
    # The two recipes are not trained a second time under other names.
    assert set(rates[1e-3, "cosine"].settings()) == set(findings.settings())
    assert rates[3e-4, "constant"].settings()[0] in questions.findings("sequel").settings()
    small = {
        (e.training.learning_rate, e.training.batch, e.training.weight_decay)
        for e in questions.small_optimisers()
    }
    assert len(small) == 24
    tokens, window = (questions.QUESTIONS[name].experiments() for name in ("law", "law-window"))
    for e, mixing in ((e, mixing) for mixing, es in (("tokens", tokens), ("window", window)) for e in es):
        assert e.model == ModelConfig(n_states=16, length=24, width=64, depth=6, mixing=mixing)
        assert (e.training.schedule, e.training.learning_rate, e.training.steps) == ("cosine", 1e-3, 5000)
        assert (e.correlation_lengths, e.seeds) == ((1.0, 2.5, 7.0, 16.0), (2, 3, 4, 5))
    assert len(tokens) == len(window) == 8
    base = questions.smallest()
    assert (base.model.length, base.model.width, base.model.depth) == (16, 32, 6)
    assert (base.training.batch, base.training.steps, base.training.schedule) == (128, 4000, "cosine")
    assert (base.correlation_lengths, base.seeds, base.model.n_states) == ((1.0, 7.0), (2, 3, 4, 5), 16)
    kinds = [questions.smallest(choice) for choice in questions.CHOICES]
    assert len({e.settings()[0].path("", 2) for e in kinds}) == len(kinds) == 11
    drawn = [chain.correlation_length for chain in questions.smallest("Dirichlet rows").own]
    assert drawn == pytest.approx([1, 7], rel=0.05)
    decays = questions.QUESTIONS["unread"].experiments()
    assert [e.training.weight_decay for e in decays] == [0, 0.1, 1] and decays[0] == base
    assert {(e.model, e.seeds, e.training.learning_rate) for e in decays} == {(base.model, base.seeds, 1e-3)}
    swapped = questions.QUESTIONS["transplants"].experiments()
    assert len({(e.seeds, e.training.donors) for e in swapped}) == len(swapped) == 4 + 11 * 8
    assert all(donor not in e.seeds for e in swapped for _, donor in e.training.donors)
    noise = questions.QUESTIONS["gradient-noise"].experiments()
    assert len({(e.training.batch, e.training.gradient, e.training.schedule) for e in noise}) == 6
    assert {(e.model.mixing, e.seeds, e.training.scheme) for e in noise} == {
        ("none", tuple(range(3, 11)), "mask")
    }


def test_pages_ask_for_the_networks_of_the_rules():
    # Their parameters are literals, which a reader can change, and so stand twice.
    def default(page, name):
        return notebooks.parameters(page)[name].default

    assert default("law", "families") == list(law.FAMILIES)
    assert {tuple(default("law", "correlation_lengths"))} == {
        e.correlation_lengths for e in law.experiments()
    }
    assert default("groups", "pairs") == [list(pair) for pair in questions.OPPOSITES]
    assert default("smallest", "choices") == list(questions.CHOICES)
    assert default("coarse-graining", "weight_decays") == list(questions.DECAYS)
    judged = questions.JUDGED["cosine", "hierarchical"]
    assert tuple(default("coarse-graining", "network_seeds")) == judged


def test_first_steps_of_the_first_round_are_the_same_steps(tmp_path):
    # A constant rate does not depend on the end: 1500 steps are the first of 10 000.
    short, long = questions.marker("hierarchical").training, questions.findings("sequel").training
    assert {step: short.learning_rate_at(step) for step in (0, 700, 1499)} == {
        s: long.learning_rate_at(s) for s in (0, 700, 1499)
    }
    assert (short.batch, short.rate, short.scheme) == (long.batch, long.rate, long.scheme)


def test_the_command_lists_and_refuses(capsys):
    assert main(["train", "--list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in questions.QUESTIONS)
    asked, stored = questions.coverage()["smallest"]
    assert asked == stored == 88
    assert main(["train", "--list", "smallest"]) == 0
    assert capsys.readouterr().out.startswith("smallest") and "optimiser" in listed
    for arguments in (["optimizer"], ["--list", "optimizer"]):
        assert main(["train", *arguments]) == 2
        assert "did you mean 'optimiser'" in capsys.readouterr().err


def test_a_network_that_diverges_does_not_keep_the_others_from_training(tmp_path, monkeypatch):
    rates = [
        questions.Question("?", lambda rate=rate: [small(learning_rate=rate)], swept=True, analyses=(None,))
        for rate in (1e30, 1e-3)
    ]
    monkeypatch.setattr(questions, "QUESTIONS", dict(zip(("wild", "tame"), rates, strict=True)))
    with pytest.raises(RuntimeError, match=r"training failed:\n.*learning_rate=1e\+30.*seeds \(0, 1\)"):
        questions.train((), tmp_path, progress=False)
    assert len(list((tmp_path / "entries").glob("*.nc"))) == 4


def test_what_diverges_keeps_no_analysis_of_the_others_from_running(tmp_path, monkeypatch):
    tried = []

    def settle(setting, seeds, store, device, wait):
        tried.append(store.analysis)
        raise Diverged("of seed 1", [1])

    monkeypatch.setattr(questions, "settle", settle)
    kind = questions.Question("?", lambda: [small(correlation_lengths=[1.0])], swept=True)
    monkeypatch.setattr(questions, "QUESTIONS", {"one": kind})
    with pytest.raises(RuntimeError, match="of seed 1"):
        questions.train((), tmp_path, progress=False)
    assert tried == [None, anatomy]


def test_recipes_change_how_a_profile_is_trained():
    quick, cosine = Experiment.profile("quick"), Experiment.profile("quick", recipe="cosine", batch=8)
    assert cosine.model == quick.model and cosine.training.steps == quick.training.steps
    assert (cosine.training.schedule, cosine.training.batch) == ("cosine", 8)
    with pytest.raises(ValueError, match="did you mean 'cosine'"):
        Experiment.profile("quick", recipe="cosin")
    assert torch.equal(torch.tensor(cosine.training.learning_rate), torch.tensor(1e-3))
