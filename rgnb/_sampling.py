"""Sequences drawn from a chain: plain inversion, and a table that draws the same tokens faster."""

from collections.abc import Iterator

import torch
from torch import Tensor

TABLE_STATES = 64  # up to here a table of cells decides nearly every draw


def cumulative(P: Tensor) -> Tensor:
    """Row i of P (V, V) as i + its cumulative distribution, flattened: (V * V,), ascending.

    One search for `state + uniform` in it finds the next state.
    """
    sums = P.cumsum(1)
    return (torch.arange(len(P))[:, None] + sums / sums[:, -1:]).flatten()


def inversion(sums: Tensor, first: Tensor, uniform: Tensor) -> Tensor:
    """States of every step by inversion of the conditional distributions.

    Args:
        sums: (V * V,) from `cumulative`; first: (batch,) states; uniform: (length, batch) in [0, 1), of
            which row t decides the step to t. The first row is not used. Overwritten, here and in `lookup`:
            fresh memory would cost as much as the work on it.

    Returns:
        (batch, length) int64.
    """
    n = round(len(sums) ** 0.5)
    states = torch.empty_like(uniform)
    states[0] = first
    uniform.clamp_(max=1 - 2**-40)  # so that state + uniform does not round up to state + 1
    for u, before, after in _rows(uniform[1:], states[:-1], states[1:]):
        torch.remainder(torch.searchsorted(sums, before + u, right=True), n, out=after)
    return states.long().T.contiguous()


def table(sums: Tensor) -> Tensor:
    """The next state by state and leading bits of the uniform: (V + 1, cells) uint8, about 2**20 entries.

    Where those bits do not decide, it leads to state V, which is absorbing.
    """
    n = round(len(sums) ** 0.5)
    cells = 2 ** (20 - (n - 1).bit_length())
    states = torch.arange(n)
    bounds = (sums.view(n, n) - states[:, None])[:, :-1] * cells
    # A cell that holds a bound, or has one so near that rounding could move it in, decides nothing.
    below, above = ((bounds + margin).long().clamp(0, cells - 1) for margin in (-1e-6, 1e-6))
    ends = torch.cat([above + 1, torch.full((n, 1), cells)], 1)
    counts = ends.diff(dim=1, prepend=torch.zeros(n, 1, dtype=torch.int64))
    rows = states.to(torch.uint8).repeat(n).repeat_interleave(counts.flatten()).view(n, cells)
    rows.scatter_(1, torch.cat([below, above], 1), n)
    return torch.cat([rows, rows.new_full((1, cells), n)])


def lookup(table: Tensor, sums: Tensor, first: Tensor, uniform: Tensor) -> Tensor:
    """What `inversion` returns, by one look into `table(sums)` per step, several times faster."""
    n, cells = len(table) - 1, table.shape[1]
    leading = uniform.mul_(cells).to(torch.int32)
    states = torch.empty(uniform.shape, dtype=torch.uint8, device=uniform.device)
    states[0] = first
    cell = torch.empty_like(leading[0])
    for bits, before, after in _rows(leading[1:], states[:-1], states[1:]):
        torch.index_select(table.view(-1), 0, torch.add(bits, before, alpha=cells, out=cell), out=after)
    undecided = (states[-1] == n).nonzero().squeeze(1)
    found = states.T.contiguous().long()
    if len(undecided):  # few: drawn again from the same uniforms
        found[undecided] = inversion(sums, first[undecided], uniform[:, undecided] / cells)  # exact: 2**k
    return found


def _rows(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    # The rows of tensors side by side. Taking many apart at once is faster than one after the other; all at
    # once would take memory in long sequences.
    for parts in zip(*(x.split(4096) for x in tensors), strict=True):
        yield from zip(*(part.unbind() for part in parts), strict=True)
