"""The residual MLP stack: pre-LayerNorm blocks with GELU, and the stream at every depth.

    x = embedding(tokens)                                   depth 0
    x = x + token_mlp(token_norm(x))   across positions     how positions talk: `ModelConfig.mixing`
    x = x + channel_mlp(channel_norm(x))                    depth l, after block l
    logits = head(final_norm(x))

Every block ends in an MLP across channels; what comes before it is the mixing. "tokens": an MLP across
positions in every block (Tolstikhin et al., MLP-Mixer, arXiv:2105.01601), the line above. "attention": in
its place one head of attention, without positions. "window": in the first block an MLP that reads a position
with its neighbours up to `REACH` steps away, then each position alone. "embedding": the embedding reads that
window, then each position alone. "none": each position alone. A window holds zeros beyond the ends of its
sequence, where a neighbour's embedding or normalised stream would be.

One `ResidualMLP` holds one network or a stack of members (one per seed) that share every batched operation
and nothing else: a parameter's first axis is the member.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rgnb import checks

MIXINGS = ("tokens", "none", "window", "embedding", "attention")
REACH = 2  # neighbours on either side that a window holds


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the stack. Defaults: arXiv:2607.15449's MLP baseline, with PyTorch's usual choices."""

    n_states: int = 16  # V; the input has one more symbol, [MASK] = V
    length: int = 64  # T, tokens in a sequence
    width: int = 64  # d, channels of the residual stream
    depth: int = 6  # number of blocks
    mixing: str = "tokens"  # how positions talk, one of MIXINGS

    def __post_init__(self) -> None:
        for name, minimum in {"n_states": 2, "length": 1, "width": 2, "depth": 1}.items():
            object.__setattr__(self, name, checks.integer(name, getattr(self, name), minimum))
        checks.choice("mixing", self.mixing, MIXINGS)

    @property
    def reach(self) -> int | None:
        """How many neighbours a position sees on either side, all blocks together; None: all there are."""
        return {"none": 0, "window": REACH, "embedding": REACH}.get(self.mixing)


class ResidualMLP(nn.Module):
    """A residual MLP stack that predicts the true token at every position.

    Args:
        config: ModelConfig.
        seeds: an int for one network, or a sequence of ints for a stack of members. Member i's initial
            weights depend on seeds[i] alone.

    Shapes: one network takes tokens (batch, length); a stack takes (members, batch, length), or
    (batch, length) to show every member the same tokens.
    """

    def __init__(self, config: ModelConfig, seeds: int | Sequence[int] = 0):
        super().__init__()
        self.config = checks.instance("config", config, ModelConfig)
        self.single = not hasattr(seeds, "__len__")
        given = [seeds] if self.single else checks.sequence("seeds", seeds)
        self.seeds = tuple(checks.integer("seeds", seed, 0) for seed in given)
        generators = [torch.Generator().manual_seed(seed) for seed in self.seeds]
        window = config.mixing == "embedding"
        self.embedding = _Embedding(generators, config.n_states + 1, config.width, window)
        first, later = {
            "tokens": (_TokenBlock, _TokenBlock),
            "attention": (_AttentionBlock, _AttentionBlock),
            "window": (_WindowBlock, _PositionBlock),
        }.get(config.mixing, (_PositionBlock, _PositionBlock))
        self.blocks: Any = nn.ModuleList(
            (later if depth else first)(generators, config) for depth in range(config.depth)
        )
        self.final_norm = _LayerNorm(generators, config.width)
        self.head = _Linear(generators, config.width, config.n_states)

    def forward(self, tokens: Tensor, keep: Tensor | None = None) -> Tensor:
        """Logits of the true token: (batch, length, V), or (members, batch, length, V) for a stack.

        Args:
            keep: for a stack, the positions whose logits are wanted, (members, k) indices into each member's
                batch * length; after the last mixing only they are computed -> (members, 1, k, V).
        """
        x = self._embedded(tokens)
        last_mixing = len(self.blocks) - 1 if self.config.reach is None else 0
        for depth, block in enumerate(self.blocks):
            x = block(x, keep if depth == last_mixing else None)
        return self._outside(self.head(self.final_norm(x)))

    def stream(self, tokens: Tensor) -> list[Tensor]:
        """The raw residual stream (before the final LayerNorm): list of depth + 1 tensors.

        Each is (batch, length, width) for one network, (members, batch, length, width) for a stack.
        """
        return [self._outside(x) for x in self._after(self._embedded(tokens), 0)]

    def continue_stream(self, x: Tensor, depth: int) -> list[Tensor]:
        """The stream from `depth` to the last, given what it is at `depth` (changed as you like)."""
        depth = checks.integer("depth", depth, 0, len(self.blocks))
        return [self._outside(y) for y in self._after(self._inside(x), depth)]

    def readout(self, x: Tensor) -> Tensor:
        """Logits from the stream at the last depth, of `stream`'s shape: (..., width) -> (..., V)."""
        x = self._inside(x)
        logits = self.head(self.final_norm(x.reshape(len(x), 1, -1, x.shape[-1])))
        return self._outside(logits.reshape(*x.shape[:-1], -1))

    def _embedded(self, tokens: Tensor) -> Tensor:
        n, config = len(self.seeds), self.config
        tokens = checks.states("tokens", tokens, config.n_states, mask=True)
        if tokens.ndim != 2 and not (tokens.ndim == 3 and len(tokens) == n):
            wanted = f"(batch, length) or ({n}, batch, length)"
            raise checks.BadValue(f"tokens must be {wanted}, got shape {tuple(tokens.shape)}")
        if config.mixing == "tokens" and tokens.shape[-1] != config.length:
            raise checks.BadValue(
                f"tokens must have length {config.length} for this network, got {tokens.shape[-1]}"
            )
        one_hot = F.one_hot(tokens, config.n_states + 1).to(self.embedding.weight.dtype)
        return self.embedding(one_hot.expand(n, *one_hot.shape[-3:]))

    def _after(self, x: Tensor, depth: int) -> Iterator[Tensor]:
        # The stream from `depth` on, given x there.
        yield x
        for block in self.blocks[depth:]:
            x = block(x)
            yield x

    # Inside, every network is a stack.
    def _inside(self, x: Tensor) -> Tensor:
        return x.unsqueeze(0) if self.single else x

    def _outside(self, x: Tensor) -> Tensor:
        return x.squeeze(0) if self.single else x


class _TokenBlock(nn.Module):
    def __init__(self, generators: list[torch.Generator], config: ModelConfig):
        super().__init__()
        length, width = config.length, config.width
        self.token_norm = _LayerNorm(generators, width)
        # No output bias: it would add one number to all channels of a position, which every LayerNorm
        # removes. Without a gradient, Adam would let it wander with rounding noise, and the raw stream
        # with it.
        self.token_mlp = _MLP(generators, length, 2 * length, length, bias=False)
        self.channel_norm = _LayerNorm(generators, width)
        self.channel_mlp = _MLP(generators, width, 4 * width, width)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        x = x + self.token_mlp(self.token_norm(x), axis=-2)
        x = _kept(x, keep)
        return x + self.channel_mlp(self.channel_norm(x))


class _AttentionBlock(nn.Module):
    def __init__(self, generators: list[torch.Generator], config: ModelConfig):
        super().__init__()
        width = config.width
        self.attention_norm = _LayerNorm(generators, width)
        # The LayerNorm's shift stands for biases of query and value; softmax would not see one of the key.
        self.query = _Linear(generators, width, width, bias=False)
        self.key = _Linear(generators, width, width, bias=False)
        self.value = _Linear(generators, width, width, bias=False)
        self.attended = _Linear(generators, width, width)
        self.channel_norm = _LayerNorm(generators, width)
        self.channel_mlp = _MLP(generators, width, 4 * width, width)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        y = self.attention_norm(x)
        weights = (self.query(y) @ self.key(y).mT / x.shape[-1] ** 0.5).softmax(-1)  # (..., length, length)
        x = x + self.attended(weights @ self.value(y))
        x = _kept(x, keep)
        return x + self.channel_mlp(self.channel_norm(x))


class _WindowBlock(nn.Module):
    def __init__(self, generators: list[torch.Generator], config: ModelConfig):
        super().__init__()
        width = config.width
        self.window_norm = _LayerNorm(generators, width)
        self.window_mlp = _MLP(generators, (2 * REACH + 1) * width, 4 * width, width)
        self.channel_norm = _LayerNorm(generators, width)
        self.channel_mlp = _MLP(generators, width, 4 * width, width)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        seen = _kept(_window(self.window_norm(x)), keep)
        x = _kept(x, keep) + self.window_mlp(seen)
        return x + self.channel_mlp(self.channel_norm(x))


class _PositionBlock(nn.Module):
    def __init__(self, generators: list[torch.Generator], config: ModelConfig):
        super().__init__()
        self.channel_norm = _LayerNorm(generators, config.width)
        self.channel_mlp = _MLP(generators, config.width, 4 * config.width, config.width)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        x = _kept(x, keep)
        return x + self.channel_mlp(self.channel_norm(x))


def _kept(x: Tensor, keep: Tensor | None) -> Tensor:
    # The positions that are wanted, from where each is processed alone: (members, 1, k, channels).
    if keep is None:
        return x
    return x.flatten(1, 2).gather(1, keep[..., None].expand(-1, -1, x.shape[-1])).unsqueeze(1)


def _window(x: Tensor) -> Tensor:
    # Each position beside its neighbours, from REACH steps before it to REACH after; zeros beyond the ends.
    # (members, batch, length, channels) -> (members, batch, length, (2 REACH + 1) channels)
    padded, length = F.pad(x, (0, 0, REACH, REACH)), x.shape[-2]
    return torch.cat([padded[..., k : k + length, :] for k in range(2 * REACH + 1)], -1)


class _MLP(nn.Module):
    def __init__(
        self, generators: list[torch.Generator], n_in: int, hidden: int, n_out: int, bias: bool = True
    ):
        super().__init__()
        self.up = _Linear(generators, n_in, hidden)
        self.down = _Linear(generators, hidden, n_out, bias)

    def forward(self, x: Tensor, axis: int = -1) -> Tensor:
        return self.down(F.gelu(self.up(x, axis)), axis)


class _LayerNorm(nn.Module):
    def __init__(self, generators: list[torch.Generator], width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(len(generators), 1, 1, width))
        self.bias = nn.Parameter(torch.zeros(len(generators), 1, 1, width))

    def forward(self, x: Tensor) -> Tensor:  # (members, batch, length, width)
        return torch.addcmul(self.bias, F.layer_norm(x, x.shape[-1:]), self.weight)


class _Embedding(nn.Module):
    def __init__(self, generators: list[torch.Generator], symbols: int, width: int, window: bool):
        super().__init__()
        self.window = window
        rows = symbols * (2 * REACH + 1 if window else 1)
        self.weight = nn.Parameter(_uniform(generators, rows, width, rows))

    def forward(self, one_hot: Tensor) -> Tensor:
        # (members, batch, length, symbols) -> (members, batch, length, width)
        one_hot = _window(one_hot) if self.window else one_hot
        return (one_hot.flatten(1, -2) @ self.weight).unflatten(1, one_hot.shape[1:-1])


class _Linear(nn.Module):
    def __init__(self, generators: list[torch.Generator], n_in: int, n_out: int, bias: bool = True):
        super().__init__()
        # The last row is the bias, drawn whether it is used or not.
        drawn = _uniform(generators, n_in + 1, n_out, n_in)
        self.weight = nn.Parameter(drawn[:, :n_in].contiguous())
        self.bias: Any = nn.Parameter(drawn[:, n_in:].contiguous()) if bias else None

    def forward(self, x: Tensor, axis: int = -1) -> Tensor:
        """`x @ weight + bias` along one of the last two axes: -1 mixes channels, -2 positions.

        (members, batch, length, n_in) -> (members, batch, length, n_out), or with axis -2
        (members, batch, n_in, width) -> (members, batch, n_out, width).
        """
        x = x.mT if axis == -2 else x
        flat = x.flatten(1, -2)
        out = flat @ self.weight if self.bias is None else torch.baddbmm(self.bias, flat, self.weight)
        out = out.unflatten(1, x.shape[1:-1])
        return out.mT if axis == -2 else out


def _uniform(generators: list[torch.Generator], rows: int, columns: int, n_in: int) -> Tensor:
    # torch.nn.Linear's default for weight and bias, uniform in +-1/sqrt(n_in); each member by its generator.
    bound = n_in**-0.5
    return torch.stack([torch.rand(rows, columns, generator=g) for g in generators]) * 2 * bound - bound
