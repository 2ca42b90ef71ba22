"""What the law compares, against the measures taken directly from a trained network."""

import pytest
import torch

from rgnb import metrics
from rgnb.study import law
from rgnb.study.measurement import evaluation, forward
from rgnb.study.sweep import sweep
from rgnb.training import load_model, train
from rgnb.verdicts import measures, rules

TINY = {"n_states": 8, "length": 8, "width": 12, "depth": 2, "batch": 16, "sequences": 128, "steps": 250}
ASKED = {"profile": "quick", "families": ("hierarchical", "cycle"), "correlation_lengths": (1.0, 7.0)}


@pytest.fixture
def experiments(tmp_path, monkeypatch):
    monkeypatch.setenv("RGNB_RESULTS", str(tmp_path))
    return law.experiments("window", n=2, device="cpu", **ASKED, **TINY)


@pytest.mark.slow
def test_what_is_compared_is_what_the_rules_name(experiments, tmp_path, monkeypatch):
    monkeypatch.setattr(rules, "LAW_EXCESS", 10.0)
    found = law.compared(experiments, progress=False).sel(family="cycle", correlation_length=7.0, seed=3)
    setting = experiments[1].settings()[1]
    task, device = evaluation(setting), torch.device("cpu")
    weights = train(setting.run("cpu"), [3], tmp_path / "alone", False)[3]
    model = load_model(setting.model, weights[250])
    stream, log_p = forward(model, task.inputs, device)
    rows = stream[-1][task.selected]
    assert found.measured == pytest.approx(metrics.effective_rank(rows, spectrum="eigen").item(), rel=1e-3)
    assert found.predicted == pytest.approx(metrics.relevant_modes(task.bayes, 1e-6, "singular"), rel=1e-4)
    assert found.logits == pytest.approx(
        metrics.effective_rank(
            log_p[task.selected].double() - log_p[task.selected].double().mean(-1, True)
        ).item(),
        rel=1e-3,
    )
    assert found.steps == 250 and 0 < found.excess < 10


@pytest.mark.slow
def test_settings_far_from_trained_are_trained_anew(experiments, monkeypatch):
    losses = sweep("law", experiments, law.LOSSES, progress=False)
    share = measures.excess_share(losses)
    by_setting = share.groupby(["family", "correlation_length"]).mean()
    monkeypatch.setattr(rules, "LAW_EXCESS", float(by_setting.median()))
    found = law.compared(experiments, progress=False)
    above = by_setting > rules.LAW_EXCESS
    assert above.sum() == 2
    for f in ASKED["families"]:
        for xi in ASKED["correlation_lengths"]:
            steps = 500 if above.sel(family=f, correlation_length=xi) else 250
            assert (found.steps.sel(family=f, correlation_length=xi) == steps).all()
    assert not found.isnull().any().to_array().any()
