"""The residual MLP stack: pre-LayerNorm blocks, GELU, no attention, and the stream at every depth.

Depth 0 is the embedding, depth l the stream after block l. With `mixing="tokens"` each block is an MLP
across positions, then one across channels (Tolstikhin et al., MLP-Mixer, arXiv:2105.01601); with
`mixing="none"` each position is processed alone. One `ResidualMLP` holds one network or a stack of members
(one a seed) that share every batched operation and nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from rgnb import checks

MIXINGS = ("tokens", "none")


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the stack. Defaults: the size of arXiv:2607.15449's MLP baseline, with PyTorch's usual choices."""

    n_states: int = 16  # V; the input has one more symbol, [MASK] = V
    length: int = 64  # T, tokens in a sequence
    width: int = 64  # d, channels of the residual stream
    depth: int = 6  # number of blocks
    mixing: str = "tokens"  # how positions talk: an MLP across positions, or not at all ("none")

    def __post_init__(self):
        for name, minimum in {"n_states": 2, "length": 1, "width": 2, "depth": 1}.items():
            object.__setattr__(self, name, checks.integer(name, getattr(self, name), minimum))
        checks.choice("mixing", self.mixing, MIXINGS)


def _uniform(generators, rows, columns, n_in):
    # torch.nn.Linear's default for weight and bias: uniform in +-1/sqrt(n_in). One generator a member.
    bound = n_in**-0.5
    return torch.stack([torch.rand(rows, columns, generator=g) for g in generators]) * 2 * bound - bound


class _Embedding(nn.Module):
    def __init__(self, generators, symbols, width):
        super().__init__()
        self.weight = nn.Parameter(_uniform(generators, symbols, width, symbols))

    def forward(self, one_hot):  # (members, batch, length, symbols) -> (members, batch, length, width)
        return (one_hot.flatten(1, -2) @ self.weight).unflatten(1, one_hot.shape[1:-1])


def _one_network(x, weight):
    # Whether x (members, batch, length, channels) and weight are such that `_convolved` is faster than a batched product.
    large = x.ndim == 4 and len(x) == 1 and x.shape[1] >= 16 and weight.numel() >= 4096
    return large and x.is_cpu and x.dtype == torch.float32 and torch.backends.mkldnn.is_available()


def _convolved(x, weight, bias, axis):
    # x times weight along one of its last two axes, as a convolution of size 1: oneDNN computes it with the widest instructions of
    # any processor, where the library behind a product takes half as wide ones on some, and along positions nothing is transposed.
    flat = None if bias is None else bias.flatten()
    out = F.conv2d(x.squeeze(0).movedim(axis, 1).unsqueeze(2), weight.squeeze(0).T[..., None, None], flat)
    return out.squeeze(2).movedim(1, axis)[None]


class _Linear(nn.Module):
    def __init__(self, generators, n_in, n_out, bias=True):
        super().__init__()
        drawn = _uniform(
            generators, n_in + 1, n_out, n_in
        )  # the last row is the bias, drawn whether used or not
        self.weight = nn.Parameter(drawn[:, :n_in].contiguous())
        self.bias = nn.Parameter(drawn[:, n_in:].contiguous()) if bias else None

    def forward(self, x, norm=None, axis=-1):
        # (members, batch, length, n_in) -> (members, batch, length, n_out), of norm(x) where one is given; with axis -2
        # positions are what is mixed, the channels stay.
        weight, bias = self.weight, self.bias
        if norm is not None and x.ndim == 4 and x.numel() < weight.numel():
            x = norm(x)
        elif (
            norm is not None
        ):  # its gain and shift act on the weights, which are smaller than the activations
            x = F.layer_norm(x, x.shape[-1:])
            bias = torch.baddbmm(bias, norm.bias.flatten(1, 2), weight)
            weight = norm.weight.flatten(1, 2).mT * weight
        if _one_network(x, weight):
            return _convolved(x, weight, bias, axis)
        x = x.mT if axis == -2 else x
        flat = x.flatten(1, -2)
        out = flat @ weight if bias is None else torch.baddbmm(bias, flat, weight)
        out = out.unflatten(1, x.shape[1:-1])
        return out.mT if axis == -2 else out


class _LayerNorm(nn.Module):
    def __init__(self, generators, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(len(generators), 1, 1, width))
        self.bias = nn.Parameter(torch.zeros(len(generators), 1, 1, width))

    def forward(self, x):  # (members, batch, length, width)
        return torch.addcmul(self.bias, F.layer_norm(x, x.shape[-1:]), self.weight)


class _MLP(nn.Module):
    def __init__(self, generators, size, hidden, bias=True):
        super().__init__()
        self.up = _Linear(generators, size, hidden)
        self.down = _Linear(generators, hidden, size, bias)

    def forward(self, x, norm=None, axis=-1):
        return self.down(F.gelu(self.up(x, norm, axis)), axis=axis)


class _Block(nn.Module):
    def __init__(self, generators, config):
        super().__init__()
        if config.mixing == "tokens":
            self.token_norm = _LayerNorm(generators, config.width)
            # No output bias: it would add one number to all channels of a position, which every LayerNorm
            # removes. Without a gradient, Adam would let it wander with rounding noise, and the raw stream with it.
            self.token_mlp = _MLP(generators, config.length, 2 * config.length, bias=False)
        else:
            self.token_mlp = None
        self.channel_norm = _LayerNorm(generators, config.width)
        self.channel_mlp = _MLP(generators, config.width, 4 * config.width)

    def forward(self, x, keep=None):
        if self.token_mlp is not None:
            x = x + self.token_mlp(self.token_norm(x), axis=-2)
        if keep is not None:  # from here on each position is processed alone
            x = x.flatten(1, 2).gather(1, keep[..., None].expand(-1, -1, x.shape[-1])).unsqueeze(1)
        return x + self.channel_mlp(x, self.channel_norm)


class ResidualMLP(nn.Module):
    """A residual MLP stack that predicts the true token at every position.

    Args:
        config: ModelConfig.
        seeds: an int for one network, or a sequence of ints for a stack of members. Member i's initial
            weights depend on seeds[i] alone.

    Shapes: one network takes tokens (batch, length); a stack takes (members, batch, length), or
    (batch, length) to show every member the same tokens.
    """

    def __init__(self, config, seeds=0):
        super().__init__()
        self.config = checks.instance("config", config, ModelConfig)
        self.single = not isinstance(seeds, Sequence)
        self.seeds = tuple(checks.integer("seeds", seed, 0) for seed in ([seeds] if self.single else seeds))
        if not self.seeds:
            raise checks.BadValue("seeds must name at least one member, got none")
        generators = [torch.Generator().manual_seed(seed) for seed in self.seeds]
        self.embedding = _Embedding(generators, config.n_states + 1, config.width)
        self.blocks = nn.ModuleList(_Block(generators, config) for _ in range(config.depth))
        self.final_norm = _LayerNorm(generators, config.width)
        self.head = _Linear(generators, config.width, config.n_states)

    def _depths(self, tokens, keep=None):
        n, config, tokens = len(self.seeds), self.config, checks.tensor("tokens", tokens)
        if (
            tokens.dtype.is_floating_point
            or tokens.ndim not in (2, 3)
            or (tokens.ndim == 3 and len(tokens) != n)
        ):
            raise checks.BadValue(
                f"tokens must be (batch, length) or ({n}, batch, length) integers, got {tokens.dtype} {tuple(tokens.shape)}"
            )
        if config.mixing == "tokens" and tokens.shape[-1] != config.length:
            raise checks.BadValue(
                f"tokens must have length {config.length} for this network, got {tokens.shape[-1]}"
            )
        try:
            one_hot = F.one_hot(tokens.long(), config.n_states + 1).to(self.embedding.weight.dtype)
        except RuntimeError:
            held = tokens.unique().tolist()[:20]
            raise checks.BadValue(
                f"tokens must be states 0..{config.n_states - 1} or [MASK] = {config.n_states}, got {held}"
            ) from None
        x = self.embedding(one_hot.expand(n, *one_hot.shape[-3:]))
        yield x
        yield from self._after(x, 0, keep)

    def _after(self, x, depth, keep=None):
        for block in self.blocks[depth:-1]:
            x = block(x)
            yield x
        if depth < len(self.blocks):
            yield self.blocks[-1](x, keep)

    def stream(self, tokens):
        """The raw residual stream (before the final LayerNorm): list of depth + 1 tensors.

        Each is (batch, length, width) for one network, (members, batch, length, width) for a stack.
        """
        return [x.squeeze(0) if self.single else x for x in self._depths(tokens)]

    def continue_stream(self, x, depth):
        """The stream from `depth` on, given the stream there (changed as you like): list of depths `depth` to the last."""
        after = self._after(x.unsqueeze(0) if self.single else x, depth)
        return [x, *(y.squeeze(0) if self.single else y for y in after)]

    def readout(self, x):
        """Logits from the stream at the last depth: (..., width) -> (..., V), shaped as `stream`'s tensors."""
        logits = self.head(x.unsqueeze(0) if self.single else x, self.final_norm)
        return logits.squeeze(0) if self.single else logits

    def forward(self, tokens, keep=None):
        """Logits of the true token: (batch, length, V), or (members, batch, length, V) for a stack.

        Args:
            keep: for a stack, the positions whose logits are wanted, (members, k) indices into each member's
                batch * length; the last channel MLP runs there alone -> (members, 1, k, V).
        """
        for x in self._depths(tokens, keep):
            pass
        return self.readout(x.squeeze(0) if self.single else x)
