from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import rgnb.model
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


class Reference(nn.Module):
    """The same network written with torch.nn's own layers, for one member."""

    def __init__(self, c):
        super().__init__()
        self.embedding = nn.Linear(c.n_states + 1, c.width, bias=False)
        mixes = c.mixing == "tokens"
        self.token = nn.ModuleList(
            self.mlp(c.width, c.length, 2 * c.length, bias=False) for _ in range(c.depth * mixes)
        )
        self.channel = nn.ModuleList(self.mlp(c.width, c.width, 4 * c.width) for _ in range(c.depth))
        self.final_norm = nn.LayerNorm(c.width)
        self.head = nn.Linear(c.width, c.n_states)

    def mlp(self, width, size, hidden, bias=True):
        return nn.ModuleList(
            [nn.LayerNorm(width), nn.Linear(size, hidden), nn.GELU(), nn.Linear(hidden, size, bias)]
        )

    def forward(self, tokens):
        x = self.embedding(F.one_hot(tokens, self.embedding.in_features).to(self.head.weight.dtype))
        for depth, (norm, up, act, down) in enumerate(self.channel):
            if self.token:
                token_norm, token_up, token_act, token_down = self.token[depth]
                x = x + token_down(token_act(token_up(token_norm(x).mT))).mT
            x = x + down(act(up(norm(x))))
        return self.head(self.final_norm(x))

    def load(self, model, member):
        def copy_linear(mine, theirs):
            mine.weight.data = theirs.weight.data[member].T.clone()
            if mine.bias is not None:
                mine.bias.data = theirs.bias.data[member, 0].clone()

        def copy_norm(mine, theirs):
            mine.weight.data, mine.bias.data = (
                p.data[member, 0, 0].clone() for p in (theirs.weight, theirs.bias)
            )

        copy_linear(self.embedding, model.embedding)
        copy_linear(self.head, model.head)
        copy_norm(self.final_norm, model.final_norm)
        for depth, block in enumerate(model.blocks):
            parts = [(self.channel[depth], block.channel_norm, block.channel_mlp)]
            if self.token:
                parts.append((self.token[depth], block.token_norm, block.token_mlp))
            for (norm, up, _, down), their_norm, mlp in parts:
                copy_norm(norm, their_norm)
                copy_linear(up, mlp.up)
                copy_linear(down, mlp.down)
        return self


def randomised(model):
    """In float64, and with every parameter away from its initial value: LayerNorms too."""
    model = model.double()
    generator = torch.Generator().manual_seed(9)
    for p in model.parameters():
        p.data += 0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return model


@both
@pytest.mark.parametrize("member", [0, 1])
def test_logits_against_torch_layers(config, member):
    model = randomised(ResidualMLP(config, seeds=[4, 7]))
    reference = Reference(config).double().load(model, member)
    x = tokens(2, 3, 6)
    torch.testing.assert_close(model(x)[member], reference(x[member]), atol=1e-12, rtol=0)
    assert sum(p.numel() for p in reference.parameters()) * 2 == sum(p.numel() for p in model.parameters())


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
def test_one_large_network_computes_what_a_stack_does(config, monkeypatch):
    # Alone on a CPU its products are computed as convolutions.
    wide, used, convolved = replace(config, length=64, width=64), [], rgnb.model._convolved
    monkeypatch.setattr(rgnb.model, "_convolved", lambda *a: used.append(a[3]) or convolved(*a))
    alone, stack = ResidualMLP(wide, seeds=5), ResidualMLP(wide, seeds=[5, 7])
    x = tokens(16, 64)
    torch.testing.assert_close(alone(x), stack(x)[0], atol=1e-5, rtol=0)
    assert len(used) == 6 * (2 if wide.mixing == "tokens" else 1) and set(used) == (
        {-1, -2} if wide.mixing == "tokens" else {-1}
    )
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


def test_without_mixing_a_position_sees_only_its_own_token():
    x = tokens(2, 6)
    y = x.clone()
    y[0, 2] = (y[0, 2] + 1) % 6
    assert changed(CONFIGS[1], x, y).nonzero().tolist() == [[0, 2]]
    model, order = randomised(ResidualMLP(CONFIGS[1])), torch.randperm(6)
    torch.testing.assert_close(model(x[:, order]), model(x)[:, order], atol=1e-12, rtol=0)
    assert model(tokens(2, 11)).shape == (2, 11, 5)  # any length


def test_with_mixing_every_position_sees_every_token_of_its_sequence():
    x = tokens(2, 6)
    y = x.clone()
    y[0, 2] = (y[0, 2] + 1) % 6
    assert changed(CONFIGS[0], x, y).tolist() == [[True] * 6, [False] * 6]


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
        ([], ValueError, "seeds must name at least one member"),
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


@pytest.mark.parametrize(
    "x, message",
    [
        (tokens(4, 5), "tokens must have length 6 for this network, got 5"),
        (tokens(4, 6).float(), r"tokens must be .* integers, got torch.float32 \(4, 6\)"),
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
    with pytest.raises(ValueError, match=rf"tokens must be states 0..4 or \[MASK\] = 5, got \[{value}\]"):
        ResidualMLP(CONFIGS[0])(torch.full((2, 6), value))
