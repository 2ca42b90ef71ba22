import itertools
import math
import pickle
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from rgnb import _checkpoints as checkpoints
from rgnb import chains, training
from rgnb.masking import SCHEMES, bayes_posterior, corrupt, entropy, expected_counts
from rgnb.model import MIXINGS, ModelConfig, ResidualMLP
from rgnb.randomness import resolve_device
from rgnb.training import Run, TrainConfig, count_loss, load_model, masked_loss, mixed_loss, train

CHAIN = chains.sticky(4, 3.0, [1, 2, 3, 4])
TRAIN = TrainConfig(batch=4, steps=150, learning_rate=1e-3, snapshots=(100,))
every = pytest.mark.parametrize("mixing", MIXINGS)
both = pytest.mark.parametrize("mixing", ["tokens", "none"])  # two forms of the loss, for what takes longer


def config(mixing):
    return ModelConfig(n_states=4, length=6, width=8, depth=1, mixing=mixing)


def fit(folder, mixing="tokens", seeds=(0,), train_config=TRAIN):
    return train(Run(config(mixing), train_config, CHAIN, "cpu"), seeds, folder, progress=False)


def assert_same(first, second, atol=0.0):
    """Two results of `train`, but for the wall time. Without `atol`, bit for bit."""
    assert first.keys() == second.keys()
    for seed, snapshots in first.items():
        assert snapshots.keys() == second[seed].keys()
        for step, tensors in snapshots.items():
            assert tensors.keys() == second[seed][step].keys() and "history" in tensors
            for name, x in tensors.items():
                if name != "seconds":
                    torch.testing.assert_close(
                        x, second[seed][step][name], atol=atol, rtol=0, msg=f"{seed} {step} {name}"
                    )


def batch(members=3, rate=0.3, scheme="mask"):
    g = torch.Generator().manual_seed(1)
    tokens = CHAIN.sample(members * 5, 6, g).view(members, 5, 6)
    return tokens, *corrupt(tokens, 4, rate, scheme, g)


def gradients(model, loss):
    model.zero_grad()
    loss.sum().backward()
    return [p.grad.clone() for p in model.parameters()]


# --- the loss ---


def test_masked_loss_is_the_mean_over_selected_positions():
    tokens, _, selected = batch()
    logits = torch.randn(3, 5, 6, 4, generator=torch.Generator().manual_seed(2))
    expected = [F.cross_entropy(y[s], t[s]) for y, t, s in zip(logits, tokens, selected, strict=True)]
    torch.testing.assert_close(masked_loss(logits, tokens, selected), torch.stack(expected))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_count_loss_equals_masked_loss(scheme):
    model = ResidualMLP(config("none"), seeds=[0, 1, 2]).double()
    tokens, inputs, selected = batch(scheme=scheme)
    counted, dense = count_loss(model, inputs, tokens, selected), masked_loss(model(inputs), tokens, selected)
    torch.testing.assert_close(counted, dense, atol=1e-10, rtol=0)
    for a, b in zip(gradients(model, counted), gradients(model, dense), strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=0)
    assert max(g.abs().max() for g in gradients(model, count_loss(model, inputs, tokens, selected))) > 0.01


@every
@pytest.mark.parametrize("scheme", ["mask", "bert"])
def test_mixed_loss_equals_masked_loss(mixing, scheme):
    model = ResidualMLP(replace(config(mixing), depth=2), seeds=[0, 1, 2]).double()
    tokens, inputs, selected = batch(scheme=scheme)
    assert len(set(selected.flatten(1).sum(1).tolist())) > 1, "members must differ in how many they selected"
    kept, dense = mixed_loss(model, inputs, tokens, selected), masked_loss(model(inputs), tokens, selected)
    torch.testing.assert_close(kept, dense, atol=1e-10, rtol=0)
    for a, b in zip(gradients(model, kept), gradients(model, dense), strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=0)
    assert max(g.abs().max() for g in gradients(model, mixed_loss(model, inputs, tokens, selected))) > 0.01


@every
def test_the_loss_over_all_positions(mixing):
    model = ResidualMLP(config(mixing), seeds=[0, 1, 2]).double()
    tokens, inputs, selected = batch()
    found = training._loss(model, TrainConfig(loss_over="all"), tokens, inputs, selected)
    by_hand = -model(inputs).log_softmax(-1).gather(-1, tokens[..., None]).mean((1, 2, 3))
    torch.testing.assert_close(found, by_hand, atol=1e-12, rtol=0)
    for a, b in zip(gradients(model, found), gradients(model, by_hand), strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)
    alone = training._loss(model, TrainConfig(), tokens, inputs, selected)
    torch.testing.assert_close(alone, masked_loss(model(inputs), tokens, selected), atol=1e-12, rtol=0)
    assert ((alone - found).abs() > 1e-3).all()


def test_the_loss_over_all_positions_is_what_is_trained(tmp_path):
    # Visible tokens cost less the better they are copied: the loss falls below what masked ones can reach.
    copied = TrainConfig(batch=64, steps=300, learning_rate=1e-2, snapshots=(), loss_over="all")
    tensors = fit(tmp_path, "none", train_config=copied)[0][300]
    floor = 0.15 * entropy(CHAIN.stationary_distribution).item()
    assert tensors["history"][-1].item() == pytest.approx(floor, abs=0.05)
    visible = load_model(config("none"), tensors)(torch.arange(4)[None])[0]
    assert visible.argmax(-1).tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match='gradient "expected" is that of loss_over "selected" alone'):
        TrainConfig(gradient="expected", loss_over="all")
    with pytest.raises(ValueError, match="unknown loss_over 'masked'"):
        TrainConfig(loss_over="masked")


@every
def test_nothing_selected_costs_nothing(mixing):
    model = ResidualMLP(config(mixing), seeds=[0, 1, 2])
    tokens, inputs, selected = batch()
    selected[1] = False  # one member; the others go on learning
    losses = [masked_loss(model(inputs), tokens, selected)]
    losses += [(count_loss if mixing == "none" else mixed_loss)(model, inputs, tokens, selected)]
    for loss in losses:
        assert loss[1] == 0 and (loss[[0, 2]] > 0).all()
        for g in gradients(model, loss):
            assert g.isfinite().all() and (g[1] == 0).all()
    selected[:] = False
    assert masked_loss(model(inputs), tokens, selected).tolist() == [0, 0, 0]
    if mixing != "none":
        assert mixed_loss(model, inputs, tokens, selected).tolist() == [0, 0, 0]


@both
def test_training_survives_batches_with_nothing_selected(tmp_path, mixing):
    rare = TrainConfig(batch=1, steps=50, rate=1e-9, snapshots=())
    tensors = fit(tmp_path, mixing, train_config=rare)[0][50]
    assert tensors["history"].tolist() == [0]
    start = ResidualMLP(config(mixing), seeds=0)
    for name, p in start.named_parameters():
        assert torch.equal(tensors[f"weight.{name}"], p[0])


# --- what is learned ---


def excess_over_bayes(model, chain, scheme, rate):
    """Mean KL(Bayes || model) at selected positions of fresh sequences, and H(pi) - H(Bayes) there."""
    g = torch.Generator().manual_seed(99)
    inputs, selected = corrupt(chain.sample(1024, model.config.length, g), chain.n_states, rate, scheme, g)
    bayes = bayes_posterior(chain, inputs, scheme, rate)[selected]
    cross = -(bayes * model(inputs)[selected].double().log_softmax(-1)).sum(-1)
    learnable = entropy(chain.stationary_distribution) - entropy(bayes).mean()
    return (cross - entropy(bayes)).mean().item(), learnable.item()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_mixing_nears_the_bayes_floor(tmp_path, scheme):
    chain = chains.sticky(4, 2.0)
    sizes = ModelConfig(n_states=4, length=16, width=32, depth=2)
    fast = TrainConfig(scheme=scheme, batch=128, steps=500, learning_rate=5e-3, snapshots=(50,))
    snapshots = train(Run(sizes, fast, chain, "cpu"), [0], tmp_path, progress=False)[0]
    early, late = (
        excess_over_bayes(load_model(sizes, snapshots[step]), chain, scheme, 0.15) for step in (50, 500)
    )
    assert late[1] > 0.5  # there is something to learn
    assert 0 < late[0] < 0.08 * late[1]
    assert late[0] < early[0] / 2
    # The recorded loss is the cross-entropy: the floor plus the excess.
    floor = entropy(chain.stationary_distribution).item() - late[1]
    assert snapshots[500]["history"][-1].item() == pytest.approx(floor + late[0], abs=0.03)


def test_without_mixing_the_stationary_law_is_all_there_is_to_learn(tmp_path):
    weights = TrainConfig(batch=256, steps=500, learning_rate=3e-3, snapshots=())
    tensors = fit(tmp_path, "none", train_config=weights)[0][500]
    pi, model = CHAIN.stationary_distribution, load_model(config("none"), tensors)
    masked = model(torch.full((1, 1), 4))[0, 0].double().log_softmax(-1)
    kl = (pi * (pi.log() - masked)).sum().item()
    assert kl < 5e-3 < 0.1 * (math.log(4) - entropy(pi).item())
    assert tensors["history"][-1].item() == pytest.approx(entropy(pi).item(), abs=0.02)


# --- what decides a result ---


@both
def test_a_seed_decides_the_result(tmp_path, mixing):
    first = fit(tmp_path / "a", mixing, [0, 1])
    assert_same(first, fit(tmp_path / "b", mixing, [0, 1]))
    assert first.keys() == {0, 1} and first[0].keys() == {100, 150}
    assert len(first[0][100]["history"]) == 2 and len(first[0][150]["history"]) == 3
    assert not torch.allclose(first[0][150]["weight.head.weight"], first[1][150]["weight.head.weight"])


@pytest.mark.parametrize(
    "mixing, scheme", [*((m, "mask") for m in MIXINGS), ("tokens", "bert"), ("none", "bert")]
)
def test_a_seed_alone_and_among_others(tmp_path, mixing, scheme):
    short = TrainConfig(scheme=scheme, batch=4, steps=100, learning_rate=1e-3, snapshots=(50,))
    together, alone = (
        fit(tmp_path / "together", mixing, [7, 3, 5], short),
        fit(tmp_path / "alone", mixing, [3], short),
    )
    assert_same({3: together[3]}, alone, atol=1e-5)


def test_on_one_thread_a_large_network_is_the_same_bit_by_bit_beside_any_members(tmp_path, blocks):
    large, threads = ModelConfig(n_states=4, length=16, width=48, depth=1), torch.get_num_threads()
    short = TrainConfig(batch=16, steps=100, learning_rate=1e-3, snapshots=(50,))
    run, found = Run(large, short, CHAIN, "cpu"), {}
    try:
        for cores, seeds in ((1, [7, 3, 5]), (2, [3, 5]), (2, [5, 3, 7])):
            torch.set_num_threads(cores)
            found[cores, len(seeds)] = train(run, seeds, tmp_path / f"{cores}-{len(seeds)}", progress=False)
            assert torch.get_num_threads() == cores
        blocks.stop = 1
        with pytest.raises(KeyboardInterrupt):
            train(run, [3, 7], tmp_path / "cut", progress=False)
        assert torch.get_num_threads() == 2
        blocks.stop = None
        found["cut"] = train(run, [3, 7], tmp_path / "cut", progress=False)
    finally:
        torch.set_num_threads(threads)
    whole = found.pop((1, 3))
    for part in found.values():
        assert_same({seed: whole[seed] for seed in part}, part)


def test_members_see_their_own_sequences():
    def drawn(seeds, block):
        run = Run(config("tokens"), TRAIN, CHAIN, "cpu")
        steps = training._batches(run, ResidualMLP(run.model, seeds), block)
        return [torch.stack(x) for x in zip(*steps, strict=True)]

    for x, y, z in zip(drawn([0, 1], 2), drawn([1], 2), drawn([1], 3), strict=True):
        assert x.shape == (training.BLOCK, 2, 4, 6)
        assert torch.equal(x[:, 1], y[:, 0])
        assert not torch.equal(x[:, 0], x[:, 1]) and not torch.equal(y, z) and not torch.equal(y[0], y[1])


def test_load_model_restores_the_network(tmp_path):
    tensors = fit(tmp_path, seeds=[2])[2][150]
    model = load_model(config("tokens"), tensors)
    assert model.single
    for name, p in model.named_parameters():
        assert torch.equal(p[0], tensors[f"weight.{name}"])


# --- schedule, decay, exact gradient ---


def test_cosine_rises_then_falls_to_zero():
    constant, cosine = TrainConfig(steps=1000), TrainConfig(steps=1000, schedule="cosine")
    rates = [cosine.learning_rate_at(step) / cosine.learning_rate for step in range(1000)]
    assert {constant.learning_rate_at(step) for step in range(1000)} == {constant.learning_rate}
    torch.testing.assert_close(rates[:200], [(step + 1) / 200 for step in range(200)])
    torch.testing.assert_close(
        [rates[200], rates[400], rates[600]], [1.0, 0.5 + 0.5**1.5, 0.5]
    )  # cos(0), cos(pi/4), cos(pi/2)
    assert all(a > b for a, b in itertools.pairwise(rates[200:])) and 0 < rates[-1] < 1e-4
    with pytest.raises(ValueError, match="steps must exceed"):
        TrainConfig(steps=200, schedule="cosine")


def test_a_step_is_taken_at_the_scheduled_rate():
    stack, plain = (ResidualMLP(config("tokens"), [0]) for _ in range(2))
    cosine = TrainConfig(batch=4, steps=1000, schedule="cosine", learning_rate=1e-2)
    optimizer = training._optimizer(stack, cosine)
    run = Run(stack.config, cosine, CHAIN, "cpu")
    reference = torch.optim.Adam(plain.parameters(), lr=1.0)
    for step, values in enumerate(training._batches(run, stack, 0)[:3]):
        training._step(stack, optimizer, cosine, step, values)
        reference.param_groups[0]["lr"] = 1e-2 * (step + 1) / 200
        reference.zero_grad()
        tokens, inputs, selected = values
        masked_loss(plain(inputs), tokens, selected).sum().backward()
        reference.step()
    for a, b in zip(stack.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_weights_decay_and_biases_do_not():
    stack = ResidualMLP(config("tokens"), [0])
    before = {name: p.detach().clone() for name, p in stack.named_parameters()}
    decayed = TrainConfig(weight_decay=0.5, learning_rate=0.1)
    optimizer = training._optimizer(stack, decayed)
    for p in stack.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in stack.named_parameters():
        shrunk = name.endswith("weight") and "norm" not in name
        torch.testing.assert_close(p.detach(), before[name] * (0.95 if shrunk else 1.0))
    with pytest.raises(ValueError, match="weight_decay"):
        TrainConfig(weight_decay=-0.1)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_expected_counts_are_the_mean_of_drawn_ones(scheme):
    chain, n = chains.dirichlet(3, 1.0), 3
    counts, g = expected_counts(chain, scheme), torch.Generator().manual_seed(0)
    tokens = chain.sample(20_000, 5, g)
    inputs, selected = corrupt(tokens, n, 0.3, scheme, g)
    pairs = (inputs * n + tokens)[selected]
    drawn = torch.bincount(pairs, minlength=(n + 1) * n).view(n + 1, n) / len(pairs)
    assert counts.sum().item() == pytest.approx(1)
    torch.testing.assert_close(counts, drawn.double(), atol=0.01, rtol=0)


def test_the_exact_gradient_is_that_of_the_expected_loss():
    stack = ResidualMLP(config("none"), [0, 1]).double()
    counts = expected_counts(CHAIN, "bert")
    log_p = stack(torch.arange(5)[None]).log_softmax(-1)[:, 0]
    by_hand = -(counts * log_p).sum((-1, -2))
    exact = TrainConfig(gradient="expected", scheme="bert")
    (values,) = training._batches(Run(stack.config, exact, CHAIN, "cpu"), stack, 0)[0]
    loss = training._count_loss(stack, values.double())
    torch.testing.assert_close(loss, by_hand, atol=1e-6, rtol=0)
    for a, b in zip(gradients(stack, loss), gradients(stack, by_hand), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="exact without mixing"):
        Run(config("tokens"), exact, CHAIN)


def test_fields_that_came_later_leave_keys_as_they_are():
    assert set(training.plain(TrainConfig())) == {
        "scheme",
        "rate",
        "batch",
        "steps",
        "learning_rate",
        "snapshots",
    }
    assert training.plain(TrainConfig(schedule="cosine"))["schedule"] == "cosine"
    assert training.plain(TrainConfig(loss_over="all"))["loss_over"] == "all"


# --- checkpoints ---


@pytest.fixture
def blocks(monkeypatch):
    """The blocks of steps that are trained, in order; set `blocks.stop` to interrupt before that block."""

    class Blocks(list):
        stop = None

    seen, draw = Blocks(), training._batches

    def watched(*arguments):
        block = arguments[-1]
        if block == seen.stop:
            raise KeyboardInterrupt
        seen.append(block)
        return draw(*arguments)

    monkeypatch.setattr(training, "_batches", watched)
    monkeypatch.setattr(training, "SAVE_SECONDS", -1)  # after every block
    return seen


def interrupted(folder, blocks, stop, mixing="tokens", seeds=(0,)):
    blocks.stop = stop
    with pytest.raises(KeyboardInterrupt):
        fit(folder, mixing, seeds)
    blocks.stop = None
    blocks.clear()


@both
@pytest.mark.parametrize("stop", [1, 2])  # before and after the snapshot
def test_resume_is_bit_identical(tmp_path, blocks, mixing, stop):
    whole = fit(tmp_path / "whole", mixing, [0, 1])
    interrupted(tmp_path / "cut", blocks, stop, mixing, [0, 1])
    assert_same(whole, fit(tmp_path / "cut", mixing, [0, 1]))
    assert blocks == list(range(stop, 3))
    assert {path.name for path in (tmp_path / "cut" / "seed-0").iterdir()} == {
        "step-000100.safetensors",
        "step-000150.safetensors",
    }
    assert not list((tmp_path / "cut").glob("*.safetensors"))  # no checkpoint is left behind


def test_cosine_goes_on_where_it_was_and_starts_anew_for_other_steps(tmp_path, blocks):
    cosine = TrainConfig(
        batch=4, steps=250, learning_rate=1e-2, snapshots=(100,), schedule="cosine", weight_decay=0.1
    )
    whole = fit(tmp_path / "whole", train_config=cosine)
    blocks.stop = 3
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "cut", train_config=cosine)
    blocks.stop = None
    blocks.clear()
    assert_same(whole, fit(tmp_path / "cut", train_config=cosine))
    assert blocks == [3, 4]
    blocks.clear()
    fit(tmp_path / "cut", train_config=replace(cosine, steps=300))
    assert blocks == list(range(6))


@pytest.mark.slow
@pytest.mark.parametrize("step", [100, 150])
def test_stopped_between_the_snapshots_of_two_members(tmp_path, blocks, monkeypatch, step):
    whole = fit(tmp_path / "whole", seeds=[0, 1])
    save = checkpoints.TensorFiles.save

    def stopping(store, path, tensors):
        if path.name == f"step-{step:06d}.safetensors" and path.parent.name == "seed-1":
            raise KeyboardInterrupt
        save(store, path, tensors)

    monkeypatch.setattr(checkpoints.TensorFiles, "save", stopping)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "cut", seeds=[0, 1])
    monkeypatch.undo()
    assert_same(
        whole, fit(tmp_path / "cut", seeds=[0, 1])
    )  # as one batch: alone, seed 1 would be rounded differently


def test_fewer_members_go_on_from_the_checkpoint_of_more(tmp_path, blocks):
    interrupted(tmp_path, blocks, 2, seeds=[0, 1])
    fit(tmp_path, seeds=[1])
    assert blocks == [2]
    blocks.clear()
    fit(tmp_path, seeds=[0, 1])  # seed 1, which is stored, is trained again with it
    assert blocks == [2] and not list(tmp_path.glob("*.safetensors"))


@pytest.mark.slow
def test_members_at_different_steps_go_on(tmp_path, blocks):
    whole = {seed: fit(tmp_path / "whole", seeds=[seed])[seed] for seed in (0, 1)}
    interrupted(tmp_path / "cut", blocks, 2, seeds=[0])
    assert_same(whole, fit(tmp_path / "cut", seeds=[0, 1]))
    assert blocks == [2, 0, 1, 2]


def test_what_is_there_is_not_trained_again(tmp_path, blocks):
    first = fit(tmp_path, seeds=[0, 1])
    blocks.stop = 0
    assert_same(first, fit(tmp_path, seeds=[0, 1]))
    fewer = TrainConfig(batch=4, steps=100, learning_rate=1e-3, snapshots=())
    assert_same({1: {100: first[1][100]}}, fit(tmp_path, seeds=[1], train_config=fewer))
    blocks.stop = None
    more = fit(tmp_path, seeds=[0, 1, 2])
    assert_same(first, {seed: more[seed] for seed in (0, 1)})
    assert_same({2: more[2]}, fit(tmp_path / "alone", seeds=[2]))


def test_another_setting_is_not_mistaken_for_this_one(tmp_path):
    fit(tmp_path)
    other = TrainConfig(batch=4, steps=150, learning_rate=2e-3, snapshots=(100,))
    assert_same(fit(tmp_path, train_config=other), fit(tmp_path / "fresh", train_config=other))


DAMAGES = {
    "garbage": lambda content: b"garbage" * 100,
    "truncated": lambda content: content[:-100],
    "empty": lambda content: b"",
    "flipped": lambda content: (
        content[:-50] + bytes([content[-50] ^ 1]) + content[-49:]
    ),  # one bit of a weight
    "missing": None,
}
damages = pytest.mark.parametrize("how", DAMAGES)


def damage(path, how):
    content = path.read_bytes()
    path.unlink()  # tensors that were read from the file still map it
    if how != "missing":
        path.write_bytes(DAMAGES[how](content))


@pytest.mark.slow
@damages
@pytest.mark.parametrize("step", [100, 150])
def test_damaged_snapshot_is_trained_again(tmp_path, how, step):
    first = fit(tmp_path)
    damage(tmp_path / "seed-0" / f"step-{step:06d}.safetensors", how)
    assert_same(first, fit(tmp_path))


@pytest.mark.slow
@damages
def test_damaged_checkpoint_is_ignored(tmp_path, blocks, how):
    whole = fit(tmp_path / "whole")
    interrupted(tmp_path / "cut", blocks, 2)
    damage(next((tmp_path / "cut").glob("resume-*.safetensors")), how)
    assert_same(whole, fit(tmp_path / "cut"))
    assert blocks == [0, 1, 2]


@damages
def test_snapshot_damaged_before_going_on(tmp_path, blocks, how):
    whole = fit(tmp_path / "whole")
    interrupted(tmp_path / "cut", blocks, 2)
    damage(tmp_path / "cut" / "seed-0" / "step-000100.safetensors", how)
    again = fit(tmp_path / "cut")
    assert again[0][100] is not None
    assert_same(whole, again)


# --- errors ---


@both
def test_divergence_names_the_seed_and_the_learning_rate(tmp_path, mixing):
    huge = TrainConfig(batch=4, steps=100, learning_rate=1e20, snapshots=())
    with pytest.raises(
        FloatingPointError, match=r"of seed 5 between steps 0 and 50 is not finite; .* below 1e\+20"
    ) as raised:
        fit(tmp_path, mixing, [5], huge)
    assert pickle.loads(pickle.dumps(raised.value)).seeds == (5,)  # as from a process pool
    assert not list(tmp_path.rglob("*.safetensors"))


def test_divergence_of_one_member_leaves_the_others(tmp_path, monkeypatch, blocks):
    real = training.masked_loss

    def failing(*arguments):
        loss = real(*arguments)
        return loss * torch.tensor([1.0, math.nan]) if len(blocks) > 2 else loss

    monkeypatch.setattr(training, "masked_loss", failing)
    with pytest.raises(FloatingPointError, match="of seed 8 between steps 100 and 150 is not finite"):
        fit(tmp_path, seeds=[3, 8])
    assert len(list(tmp_path.rglob("step-000100.safetensors"))) == 2
    assert [path.parent.name for path in tmp_path.rglob("step-000150.safetensors")] == ["seed-3"]
    monkeypatch.undo()
    assert_same({3: fit(tmp_path, seeds=[3])[3]}, {3: fit(tmp_path / "whole", seeds=[3, 8])[3]})


def test_a_member_that_diverged_is_not_stored_after_a_resume(tmp_path, monkeypatch, blocks):
    # Stopped after the last checkpoint, which holds the member that diverged, before any snapshot.
    real, save = training.masked_loss, checkpoints.TensorFiles.save

    def failing(*arguments):
        return real(*arguments) * (torch.tensor([1.0, math.nan]) if len(blocks) > 2 else 1)

    def stopping(store, path, tensors):
        if path.name == "step-000150.safetensors":
            raise KeyboardInterrupt
        save(store, path, tensors)

    monkeypatch.setattr(training, "masked_loss", failing)
    with monkeypatch.context() as stopped:
        stopped.setattr(checkpoints.TensorFiles, "save", stopping)
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path, seeds=[3, 8])
    with pytest.raises(FloatingPointError, match="of seed 8 between steps 100 and 150 is not finite"):
        fit(tmp_path, seeds=[3, 8])
    assert [path.parent.name for path in tmp_path.rglob("step-000150.safetensors")] == ["seed-3"]


def test_chain_and_model_must_agree():
    with pytest.raises(ValueError, match="the chain has 5 states, the model 4"):
        Run(config("none"), TRAIN, chains.sticky(5, 1.0))


@pytest.mark.parametrize(
    "seeds, error",
    [
        (0, TypeError),
        ([], ValueError),
        ([-1], ValueError),
        (["a"], TypeError),
        ([1.5], TypeError),
        ([2**32], ValueError),
    ],
)
def test_bad_seeds(tmp_path, seeds, error):
    with pytest.raises(error, match="seeds must"):
        fit(tmp_path, seeds=seeds)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"scheme": "masks"}, ValueError, "unknown scheme 'masks': did you mean 'mask'"),
        ({"rate": 0}, ValueError, "rate must be finite and greater than 0"),
        ({"rate": 1.0}, ValueError, "rate must lie strictly between 0 and 1"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate must be finite and greater than 0"),
        ({"learning_rate": math.nan}, ValueError, "learning_rate must be finite"),
        ({"learning_rate": "fast"}, TypeError, "learning_rate must be a number"),
        ({"batch": 0}, ValueError, "batch must be at least 1"),
        ({"batch": 2.5}, TypeError, "batch must be an integer"),
        ({"steps": 0}, ValueError, "steps must be at least 1"),
        ({"steps": 120}, ValueError, "multiples of 50, got 120"),
        ({"snapshots": (75,)}, ValueError, "multiples of 50, got 75"),
        ({"snapshots": (0,)}, ValueError, "snapshots must be at least 1"),
        ({"snapshots": ("a",)}, TypeError, "snapshots must be an integer"),
        ({"snapshots": 50}, TypeError, r"snapshots must be a sequence, got 50; pass a list such as \[50\]"),
    ],
)
def test_bad_config(arguments, error, message):
    with pytest.raises(error, match=message):
        TrainConfig(**arguments)


def test_resolve_device(monkeypatch):
    assert resolve_device("cpu") == resolve_device(torch.device("cpu")) == torch.device("cpu")
    for cuda, mps, expected in [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]:
        monkeypatch.setattr(torch.cuda, "is_available", lambda found=cuda: found)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda found=mps: found)
        assert resolve_device("auto") == resolve_device() == torch.device(expected)
    for device in ("cuda", "cuda:0", "mps", torch.device("cuda", 1)):
        with pytest.raises(ValueError, match="is not on this machine; use device='auto' or 'cpu'"):
            resolve_device(device)


@pytest.mark.parametrize("device", ["gpu", "CPU", "", None, 0, "auto:0", "cpu:x"])
def test_unknown_device(device):
    with pytest.raises(ValueError, match="device"):
        resolve_device(device)


@pytest.mark.parametrize("mixing", ["tokens", "none"])
def test_transplanted_parts_and_sequences_are_those_of_the_donor(tmp_path, mixing):
    def trained(seed, *donors):
        config = TrainConfig(batch=4, steps=50, snapshots=(), donors=donors)
        return fit(tmp_path / f"{seed}{len(donors)}", mixing, [seed], config)[seed][50]

    own, other = trained(0), trained(1)
    # A network all of whose parts and sequences come from another seed is that seed's network.
    everything = (*((part, 1) for part in ("embedding", "blocks", "final_norm", "head")), ("data", 1))
    assert_same({0: {50: trained(0, *everything)}}, {0: {50: other}})
    sequences = trained(0, ("data", 1))
    assert not torch.equal(sequences["history"], own["history"])
    assert not torch.equal(sequences["history"], other["history"])
    with pytest.raises(ValueError, match=r"unknown donors 'block.0'"):
        fit(tmp_path / "wrong", mixing, [0], TrainConfig(batch=4, steps=50, donors=[("block.0", 1)]))
    for bad in (["head"], [("head", -1)], [(1, 2)], [("head",)], ["ab"]):
        with pytest.raises((ValueError, TypeError), match="donors"):
            TrainConfig(donors=bad)


def test_a_donor_gives_the_block_that_is_named_and_no_other():
    deep = replace(config("none"), depth=11)
    run = Run(deep, TrainConfig(batch=4, steps=50, donors=[("blocks.1", 5)]), CHAIN, "cpu")
    mixed, own, donor = training._initial(run, [0]), ResidualMLP(deep, [0]), ResidualMLP(deep, [5])
    for name, p in mixed.state_dict().items():
        source = donor if name.startswith("blocks.1.") else own
        assert torch.equal(p, source.state_dict()[name]), name
