from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from rgnb.model import MIXINGS, ModelConfig, ResidualMLP

CONFIGS = [ModelConfig(n_states=5, length=6, width=8, depth=3, mixing=mixing) for mixing in MIXINGS]
both = pytest.mark.parametrize("config", CONFIGS, ids=MIXINGS)


def tokens(*shape, seed=0):
    return torch.randint(6, shape, generator=torch.Generator().manual_seed(seed))


@both
def test_shapes_of_one_network(config):
    model = ResidualMLP(config, seeds=3)
    x = tokens(4, 6)
    assert model(x).shape == (4, 6, 5)
    assert [h.shape for h in model.stream(x)] == [(4, 6, 8)] * 4


@both
def test_shapes_of_a_stack(config):
    model = ResidualMLP(config, seeds=[3, 1])
    for x in (tokens(4, 6), tokens(2, 4, 6)):
        assert model(x).shape == (2, 4, 6, 5)
        assert [h.shape for h in model.stream(x)] == [(2, 4, 6, 8)] * 4
    shared = tokens(4, 6)
    assert torch.equal(model(shared), model(torch.stack([shared, shared])))


@both
@pytest.mark.parametrize("seeds", [0, [0, 1]])
def test_stream(config, seeds):
    model = ResidualMLP(config, seeds)
    x = tokens(4, 6)
    stream = model.stream(x)
    if config.mixing != "embedding":
        table = model.embedding.weight if model.single is False else model.embedding.weight[0]
        torch.testing.assert_close(stream[0], table[..., x, :], atol=0, rtol=0)
    members = stream[-1] if isinstance(seeds, list) else stream[-1][None]
    logits = model.head(model.final_norm(members))
    assert torch.equal(model(x), logits if isinstance(seeds, list) else logits[0])
    assert torch.equal(model(x), model.readout(stream[-1]))


@both
@pytest.mark.parametrize("shape", [(2,), (3, 4), (40, 6)])
def test_readout_takes_any_leading_dimensions(config, shape):
    model = randomised(ResidualMLP(config))
    x = torch.randn(*shape, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    logits = F.linear(
        F.layer_norm(x, (8,)) * model.final_norm.weight[0, 0, 0] + model.final_norm.bias[0, 0, 0],
        model.head.weight[0].T,
        model.head.bias[0, 0],
    )
    torch.testing.assert_close(model.readout(x), logits, atol=1e-12, rtol=0)


def looped(model, member, tokens):
    """One member's logits of a sequence, position by position, and the names of the parameters it used."""
    c, values, used = model.config, dict(model.named_parameters()), set()
    symbols, mixing = c.n_states + 1, c.mixing

    def value(name):
        used.add(name)
        return values[name][member]

    def linear(name, x):
        bias = value(f"{name}.bias")[0] if f"{name}.bias" in values else None
        return F.linear(x, value(f"{name}.weight").T, bias)

    def mlp(name, x):
        return linear(f"{name}.down", F.gelu(linear(f"{name}.up", x)))

    def norm(name, x):
        return F.layer_norm(
            x, (c.width,), *(value(f"{name}.{part}").flatten() for part in ("weight", "bias"))
        )

    def window(x):
        # (length, k) -> (length, 5 k)
        there = dict(enumerate(x))
        zeros = torch.zeros_like(x[0])
        return torch.stack(
            [torch.cat([there.get(t + k, zeros) for k in (-2, -1, 0, 1, 2)]) for t in range(len(x))]
        )

    table = value("embedding.weight")
    x = F.one_hot(tokens, symbols).to(table.dtype)
    x = torch.stack([row @ table for row in (window(x) if mixing == "embedding" else x)])
    for depth in range(c.depth):
        block = f"blocks.{depth}"
        if mixing == "tokens":
            x = x + mlp(f"{block}.token_mlp", norm(f"{block}.token_norm", x).T).T
        elif mixing == "attention":
            y = norm(f"{block}.attention_norm", x)
            parts = (linear(f"{block}.{part}", y)[None] for part in ("query", "key", "value"))
            x = x + linear(f"{block}.attended", F.scaled_dot_product_attention(*parts)[0])
        elif mixing == "window" and depth == 0:
            x = x + mlp(f"{block}.window_mlp", window(norm(f"{block}.window_norm", x)))
        x = x + mlp(f"{block}.channel_mlp", norm(f"{block}.channel_norm", x))
    return linear("head", norm("final_norm", x)), used


def randomised(model):
    """In float64, and with every parameter away from its initial value: LayerNorms too."""
    model = model.double()
    generator = torch.Generator().manual_seed(9)
    for p in model.parameters():
        p.data += 0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return model


@both
@pytest.mark.parametrize("member", [0, 1])
def test_logits_against_a_loop_over_positions(config, member):
    model = randomised(ResidualMLP(config, seeds=[4, 7]))
    x = tokens(2, 3, 6)
    for found, sequence in zip(model(x)[member], x[member], strict=True):
        expected, used = looped(model, member, sequence)
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
        assert used == set(dict(model.named_parameters()))


@both
def test_logits_of_kept_positions_are_those_of_all(config):
    model = randomised(ResidualMLP(config, seeds=[4, 7]))
    x, keep = tokens(2, 3, 6), torch.tensor([[0, 17, 5, 6], [3, 3, 12, 1]])
    found, every = model(x, keep), model(x).flatten(1, 2)
    assert found.shape == (2, 1, 4, 5)
    for member in range(2):
        torch.testing.assert_close(found[member, 0], every[member, keep[member]], atol=1e-12, rtol=0)


@both
def test_a_member_does_not_depend_on_its_neighbours(config):
    alone, stack = ResidualMLP(config, seeds=5), ResidualMLP(config, seeds=[3, 5, 7])
    for p, q in zip(alone.parameters(), stack.parameters(), strict=True):
        assert torch.equal(p[0], q[1])
    assert not torch.equal(stack.head.weight[0], stack.head.weight[1])
    x = tokens(3, 4, 6)
    torch.testing.assert_close(stack(x)[1], alone(x[1]), atol=1e-5, rtol=0)
    # Nor does its gradient reach the others.
    stack(x)[1].sum().backward()
    gradients = stack.embedding.weight.grad.abs().sum((1, 2))
    assert gradients[1] > 0 and gradients[0] == gradients[2] == 0


@both
def test_one_large_network_computes_what_a_stack_does(config):
    wide = replace(config, length=64, width=64)
    alone, stack = ResidualMLP(wide, seeds=5), ResidualMLP(wide, seeds=[5, 7])
    x = tokens(16, 64)
    torch.testing.assert_close(alone(x), stack(x)[0], atol=1e-5, rtol=0)
    weights = torch.randn(16, 64, 5, generator=torch.Generator().manual_seed(1))
    (alone(x) * weights).sum().backward()
    (stack(x)[0] * weights).sum().backward()
    # Forward derivatives, which perturbations are followed with.
    start, v = (
        alone.stream(x)[0].detach(),
        torch.randn(16, 64, 64, generator=torch.Generator().manual_seed(2)),
    )
    after = torch.func.jvp(lambda s: alone.continue_stream(s, 0)[-1], (start,), (v,))[1]
    beside = torch.func.jvp(
        lambda s: stack.continue_stream(s, 0)[-1][0],
        (start.expand(2, -1, -1, -1),),
        (v.expand(2, -1, -1, -1),),
    )[1]
    torch.testing.assert_close(after, beside, atol=1e-4, rtol=0)
    for (name, p), q in zip(alone.named_parameters(), stack.parameters(), strict=True):
        torch.testing.assert_close(
            p.grad[0], q.grad[0], atol=1e-4 * q.grad[0].abs().max().item(), rtol=0, msg=name
        )


def test_initial_weights_follow_torch_defaults():
    model = ResidualMLP(ModelConfig(n_states=16, length=64, width=64, depth=2), seeds=0)
    # torch.nn.Linear draws weight and bias from U(-b, b) with b = 1 / sqrt(n_in).
    layers = [model.head, model.blocks[0].token_mlp.up, model.blocks[1].channel_mlp.down]
    for layer, n_in in zip(layers, (64, 64, 256), strict=True):
        for p in (layer.weight, layer.bias):
            assert p.abs().max() <= n_in**-0.5
            assert p.std().item() == pytest.approx((3 * n_in) ** -0.5, rel=0.25)
    assert not torch.equal(model.blocks[0].channel_mlp.up.weight, model.blocks[1].channel_mlp.up.weight)
    for norm in (model.final_norm, model.blocks[0].token_norm):
        assert (norm.weight == 1).all() and (norm.bias == 0).all()


def changed(config, x, y):
    """Where the logits of a randomised network differ between two batches: (batch, length)."""
    model = randomised(ResidualMLP(config))
    return (model(x) - model(y)).abs().amax(-1) > 1e-9


@both
def test_which_positions_see_a_token(config):
    x = tokens(2, 6)
    y = x.clone()
    y[0, 1] = (y[0, 1] + 1) % 6
    reach = {"none": 0, "window": 2, "embedding": 2}.get(config.mixing, 6)
    expected = [[abs(t - 1) <= reach for t in range(6)], [False] * 6]
    assert changed(config, x, y).tolist() == expected
    assert config.reach == (reach if reach < 6 else None)


@pytest.mark.parametrize("mixing", ["none", "attention"])
def test_without_positions_order_does_not_matter(mixing):
    config, x = replace(CONFIGS[0], mixing=mixing), tokens(2, 6)
    model, order = randomised(ResidualMLP(config)), torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(model(x[:, order]), model(x)[:, order], atol=1e-12, rtol=0)
    assert model(tokens(2, 11)).shape == (2, 11, 5)  # any length


@pytest.mark.parametrize("mixing", ["window", "embedding"])
def test_a_window_does_the_same_everywhere(mixing):
    model, x = randomised(ResidualMLP(replace(CONFIGS[0], mixing=mixing))), tokens(1, 12)
    here, moved = model(x)[0], model(x[:, 3:])[0]  # of any length
    torch.testing.assert_close(moved[2:], here[5:], atol=1e-12, rtol=0)
    assert ((moved[:2] - here[3:5]).abs().amax(-1) > 1e-9).all()  # their window was cut
    order = torch.tensor([1, 0, *range(2, 12)])
    assert ((model(x[:, order])[0][2] - here[2]).abs() > 1e-9).any()  # it knows left from right


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"n_states": 1}, ValueError, "n_states must be at least 2, got 1"),
        ({"length": 0}, ValueError, "length must be at least 1"),
        ({"width": 1}, ValueError, "width must be at least 2"),
        ({"depth": 0}, ValueError, "depth must be at least 1"),
        ({"depth": 2.0}, TypeError, "depth must be an integer"),
        ({"width": "64"}, TypeError, "width must be an integer"),
        ({"mixing": "token"}, ValueError, "unknown mixing 'token': did you mean 'tokens'"),
    ],
)
def test_bad_config(arguments, error, message):
    with pytest.raises(error, match=message):
        ModelConfig(**arguments)


@pytest.mark.parametrize(
    "seeds, error, message",
    [
        ([], ValueError, "seeds must hold at least 1, got 0"),
        (-1, ValueError, "seeds must be at least 0"),
        ([0, -1], ValueError, "seeds must be at least 0"),
        (1.5, TypeError, "seeds must be an integer"),
        ([0, "a"], TypeError, "seeds must be an integer"),
        (None, TypeError, "seeds must be an integer"),
    ],
)
def test_bad_seeds(seeds, error, message):
    with pytest.raises(error, match=message):
        ResidualMLP(CONFIGS[0], seeds)


def test_seeds_of_any_sequence_are_those_of_a_list():
    for seeds in (np.array([3, 1]), range(3, 0, -2)):
        found, expected = ResidualMLP(CONFIGS[0], seeds), ResidualMLP(CONFIGS[0], [3, 1])
        assert not found.single and torch.equal(found.head.weight, expected.head.weight)


@pytest.mark.parametrize("depth", [-1, 99, 0.5])
def test_the_stream_continues_at_depths_that_there_are(depth):
    model = ResidualMLP(CONFIGS[0])
    x = model.stream(tokens(2, 6))[0]
    with pytest.raises((ValueError, TypeError), match="depth must be"):
        model.continue_stream(x, depth)


@pytest.mark.parametrize(
    "x, message",
    [
        (tokens(4, 5), "tokens must have length 6 for this network, got 5"),
        (tokens(4, 6).float(), r"tokens must be integers in 0\.\.5 \(\[MASK\] is 5\), got torch.float32"),
        (tokens(4, 6) > 2, "tokens must be integers .* got torch.bool"),
        (tokens(3, 4, 6), r"tokens must be \(batch, length\) or \(2, batch, length\)"),
        (tokens(6), "tokens must be"),
        (tokens(1, 2, 4, 6), "tokens must be"),
    ],
)
def test_bad_tokens(x, message):
    with pytest.raises(ValueError, match=message):
        ResidualMLP(CONFIGS[0], seeds=[0, 1])(x)


@pytest.mark.parametrize("value", [-1, 6])
def test_tokens_out_of_range(value):
    with pytest.raises(
        ValueError, match=rf"tokens must be integers in 0\.\.5 \(\[MASK\] is 5\), got .* \[{value}\]"
    ):
        ResidualMLP(CONFIGS[0])(torch.full((2, 6), value))
