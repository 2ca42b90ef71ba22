"""Final weights, committed or of a training here: loaded as the network that was measured."""

import pytest
import torch
from small import small

from rgnb.model import ResidualMLP
from rgnb.study import models, questions
from rgnb.study.measurement import evaluation, forward


@pytest.mark.parametrize("kept", [True, False])
def test_the_weights_are_those_that_were_measured(tmp_path, kept):
    e = small(seeds=1, correlation_lengths=[1.0])
    ds, setting = e.run(tmp_path, progress=False), e.settings()[0]
    if kept:
        assert [path.parent for path in models.keep(e, tmp_path)] == [tmp_path / "models"]
        setting.last_weights(tmp_path, e.seeds[0]).unlink()
    network, task = models.network(setting, e.seeds[0], tmp_path), evaluation(setting)
    _, log_p = forward(network, task.inputs, torch.device("cpu"))
    excess = torch.special.xlogy(task.bayes, task.bayes) - task.bayes * log_p[task.selected]
    assert excess.sum(-1).mean().item() == pytest.approx(ds.excess_loss.isel(step=-1).item(), abs=1e-6)


def test_damaged_weights_are_refused_and_left(tmp_path):
    e = small(seeds=1, correlation_lengths=[1.0])
    e.run(tmp_path, progress=False)
    (kept,) = models.keep(e, tmp_path)
    whole = kept.read_bytes()
    for damaged in (whole[:-1] + bytes([whole[-1] ^ 1]), whole[:-1]):
        kept.write_bytes(damaged)
        with pytest.raises(RuntimeError, match=r"is damaged .*; restore it"):
            models.network(e.settings()[0], e.seeds[0], tmp_path)
        assert kept.read_bytes() == damaged


def test_weights_that_are_not_there_are_named(tmp_path):
    setting = questions.findings().settings()[0]
    with pytest.raises(ValueError, match=r"no final weights of hierarchical-1-tokens-mask-seed7.*: none"):
        models.network(setting, 7, tmp_path)


def test_a_rehearsal_goes_on_with_untrained_networks(tmp_path, monkeypatch):
    e = small(seeds=1, correlation_lengths=[1.0])
    monkeypatch.setenv("RGNB_REHEARSAL", str(tmp_path))
    network, untrained = models.network(e.settings()[0], 1, tmp_path), ResidualMLP(e.model, 1)
    assert all(map(torch.equal, network.parameters(), untrained.parameters()))


def test_every_committed_network_loads():
    found = [
        models.network(setting, seed)
        for setting in questions.findings().settings()
        for seed in questions.findings().seeds
        if models.path(setting, seed).exists()
    ]
    assert len(found) >= 4 and all(torch.isfinite(p).all() for model in found for p in model.parameters())
