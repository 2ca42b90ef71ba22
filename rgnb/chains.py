"""Markov chains whose spectrum is known: the chain, its exact statistics, sampling, and seven families.

Matrices are row-stochastic, `P[i, j] = Pr(next = j | now = i)`, float64 on the CPU. The correlation
length is `xi = -1 / ln|lambda_2|` in steps, so that the slowest correlation decays as `exp(-t / xi)`.
"""

import math
from functools import cached_property

import numpy as np
import torch
from scipy.sparse import csgraph, csr_array

from rgnb import checks


class MarkovChain:
    """A stationary, irreducible, aperiodic Markov chain. It cannot be changed: its tensors are copies.

    Args:
        transition_matrix: (V, V) nested lists, numpy array or tensor; V >= 2, entries >= 0, rows sum to 1
            (within 1e-6; they are then normalised in float64).

    Attributes:
        transition_matrix: (V, V) float64 tensor.
        stationary_distribution: (V,) float64 tensor, `pi P = pi`.
        eigenvalues: (V,) complex128 tensor, by decreasing modulus; the first is 1.
        correlation_length: `-1 / ln|lambda_2|` in steps; 0.0 if lambda_2 is 0.
        n_states: V.

    Raises:
        TypeError: the matrix does not hold numbers.
        ValueError: not square, not finite, negative entries, row sums off, reducible or periodic; the
            message says where.
    """

    def __init__(self, transition_matrix):
        self._matrix = _validated(transition_matrix)
        self._stationary = _stationary(self._matrix)
        self._eigenvalues = _eigenvalues(self._matrix, self._stationary)
        modulus = abs(self._eigenvalues[1].item())
        if modulus >= 1 - 1e-15:
            raise checks.BadValue(
                "transition_matrix nearly falls apart: its second eigenvalue rounds to 1; link its parts more"
            )
        # Rounding leaves about 1e-16 where the eigenvalue is exactly zero.
        self._correlation_length = -1 / math.log(modulus) if modulus > 1e-12 else 0.0

    transition_matrix = property(lambda self: self._matrix.clone())
    stationary_distribution = property(lambda self: self._stationary.clone())
    eigenvalues = property(lambda self: self._eigenvalues.clone())
    correlation_length = property(lambda self: self._correlation_length)
    n_states = property(lambda self: len(self._matrix))

    def __repr__(self):
        return f"MarkovChain(n_states={self.n_states}, correlation_length={self.correlation_length:.4g})"

    def autocorrelation(self, observable, lags):
        """Exact autocorrelation of an observable of the state, from powers of the transition matrix.

        Args:
            observable: (V,) value of the observable in each state, not constant.
            lags: sequence of integers >= 0.

        Returns:
            (len(lags),) float64: `(E[f(X_0) f(X_t)] - E[f]^2) / Var f`, so 1 at lag 0.
        """
        f = _tensor("observable", observable)
        if f.shape != (self.n_states,):
            raise checks.BadValue(f"observable must have shape ({self.n_states},), got {tuple(f.shape)}")
        lags = [checks.integer("lags", lag, 0) for lag in checks.sequence("lags", lags)]
        pi = self._stationary
        scale = f.abs().max() ** 2
        f = f - pi @ f
        variance = pi @ f**2
        if not variance > torch.finfo(f.dtype).eps * scale:
            raise checks.BadValue(
                "observable must be finite and not constant; it has no autocorrelation otherwise"
            )
        powers = (torch.linalg.matrix_power(self._matrix, lag) for lag in lags)
        return torch.stack([(pi * f) @ (power @ f) / variance for power in powers])

    def sample(self, batch, length, generator=None):
        """Draw stationary sequences by inversion of the conditional distributions.

        Args:
            batch: number of independent sequences.
            length: number of tokens in each.
            generator: `torch.Generator`; the tokens are drawn on its device. None: torch's global CPU one.

        Returns:
            (batch, length) int64 tensor of states.
        """
        batch, length = checks.integer("batch", batch, 1), checks.integer("length", length, 1)
        if batch * length > 2**28:
            raise checks.BadValue(
                f"batch * length must be at most 2**28 = {2**28}, got {batch} * {length}; draw them in parts"
            )
        if generator is not None and not isinstance(generator, torch.Generator):
            raise checks.BadType(
                f"generator must be a torch.Generator or None, got {type(generator).__name__}"
            )
        device = generator.device if generator is not None else torch.device("cpu")
        n = self.n_states
        uniform = torch.rand(length, batch, generator=generator, device=device, dtype=torch.float64)
        state = torch.searchsorted(self._first.to(device), uniform[0], right=True).clamp_(max=n - 1)
        sums = self._sums.to(device)
        if n > TABLE_STATES:
            return _walk(sums, state, uniform).T.contiguous()
        # A table of the next state by state and leading bits of the uniform. Where those bits do not decide, it leads to
        # an absorbing state n, and the few sequences that end there are drawn again from the same uniforms by search.
        table = self._table.to(device)
        cells = table.numel() // (n + 1)
        leading = (uniform * cells).to(torch.int32)
        tokens, cell = (
            torch.empty(length, batch, dtype=torch.uint8, device=device),
            torch.empty_like(leading[0]),
        )
        tokens[0] = state
        for bits, before, after in _rows(leading[1:], tokens[:-1], tokens[1:]):
            torch.index_select(table, 0, torch.add(bits, before, alpha=cells, out=cell), out=after)
        again = (tokens[-1] == n).nonzero().squeeze(1)
        tokens = tokens.T.contiguous().to(torch.int64)
        if len(again):
            tokens[again] = _walk(sums, state[again], uniform[:, again]).T
        return tokens

    @cached_property
    def _first(self):
        first = self._stationary.cumsum(0)
        return first / first[-1]

    @cached_property
    def _sums(self):
        # Row i is i + its cumulative distribution: one search in the flat, sorted whole for (state + uniform) finds the next state.
        cumulative = self._matrix.cumsum(1)
        return (torch.arange(self.n_states)[:, None] + cumulative / cumulative[:, -1:]).flatten()

    @cached_property
    def _table(self):
        # uint8, (n + 1, cells) flattened, of about 2^20 entries.
        n = self.n_states
        cells = 2 ** (20 - (n - 1).bit_length())
        states = torch.arange(n)
        bounds = (self._sums.view(n, n) - states[:, None])[:, :-1] * cells
        # A cell that holds a bound, or has one so near that rounding could move it in, decides nothing.
        below, above = ((bounds + margin).long().clamp(0, cells - 1) for margin in (-1e-6, 1e-6))
        ends = torch.cat([above + 1, torch.full((n, 1), cells)], 1)
        counts = ends.diff(dim=1, prepend=torch.zeros(n, 1, dtype=torch.int64))
        rows = states.to(torch.uint8).repeat(n).repeat_interleave(counts.flatten()).view(n, cells)
        rows.scatter_(1, torch.cat([below, above], 1), n)
        return torch.cat([rows, rows.new_full((1, cells), n)]).flatten()


TABLE_STATES = 64  # up to here a table of cells decides nearly every draw


def _walk(sums, state, uniform):
    # States of every step, (length, batch), from the first one and (length, batch) uniforms.
    n = math.isqrt(len(sums))
    uniform.clamp_(max=1 - 2**-40)  # so that state + uniform does not round up to state + 1
    states = torch.empty_like(uniform)
    states[0] = state
    for u, before, after in _rows(uniform[1:], states[:-1], states[1:]):
        torch.remainder(torch.searchsorted(sums, before + u, right=True), n, out=after)
    return states.to(torch.int64)


def _rows(*tensors):
    # The rows of tensors side by side. Many at once are faster than one after the other, all at once would take memory in long sequences.
    for parts in zip(*(x.split(4096) for x in tensors)):
        yield from zip(*(part.unbind() for part in parts))


def _states(n_states):
    # Stationary law and spectrum take dense linear algebra: minutes at this many states.
    return checks.integer("n_states", n_states, 2, 4096)


def _tensor(name, values):
    # Numbers in any form as a fresh float64 CPU tensor.
    return checks.tensor(name, values).detach().to("cpu", torch.float64, copy=True)


def _validated(matrix):
    P = _tensor("transition_matrix", matrix)
    if P.ndim != 2 or P.shape[0] != P.shape[1] or not 2 <= len(P) <= 4096:
        raise checks.BadValue(
            f"transition_matrix must be square with 2 to 4096 states, got shape {tuple(P.shape)}"
        )
    bad = ~torch.isfinite(P) | (P < 0)
    if bad.any():
        i, j = bad.nonzero()[0].tolist()
        raise checks.BadValue(
            f"transition_matrix[{i}, {j}] is {P[i, j].item()}; every entry must be finite and >= 0"
        )
    sums = P.sum(1)
    off = (sums - 1).abs()
    if off.max() > 1e-6:
        i = off.argmax().item()
        raise checks.BadValue(
            f"row {i} of transition_matrix sums to {sums[i].item():.9g}; divide each row by its sum"
        )
    graph = csr_array(P.numpy() > 0)
    components, labels = csgraph.connected_components(graph, connection="strong")
    if components > 1:
        other = int(np.argmax(labels != labels[0]))
        raise checks.BadValue(
            f"transition_matrix is reducible: states 0 and {other} cannot both reach each other; "
            "remove the transient states or link the closed classes"
        )
    # Every edge i -> j closes cycles of length level(i) + 1 - level(j); their gcd is the period.
    level = csgraph.shortest_path(graph, unweighted=True, indices=0).astype(int)
    i, j = graph.nonzero()
    period = int(np.gcd.reduce(level[i] + 1 - level[j]))
    if period > 1:
        raise checks.BadValue(
            f"transition_matrix is periodic with period {period}; make a state able to stay where it is"
        )
    return P / sums[:, None]


def _stationary(P):
    # Grassmann, Taksar and Heyman (1985): elimination without subtraction, accurate entry by entry
    # even where the chain nearly falls apart.
    A = P.numpy().copy()
    for k in range(len(A) - 1, 0, -1):
        A[:k, k] /= A[k, :k].sum()
        A[:k, :k] += np.outer(A[:k, k], A[k, :k])
    pi = np.ones(len(A))
    for k in range(1, len(A)):
        pi[k] = pi[:k] @ A[:k, k]
    return torch.from_numpy(pi / pi.sum())


def _eigenvalues(P, pi):
    flow = pi[:, None] * P
    if torch.allclose(flow, flow.T, rtol=1e-12, atol=1e-15):
        # Detailed balance: D^(1/2) P D^(-1/2) is symmetric, so the spectrum is real and well conditioned.
        root = pi.sqrt()
        similar = root[:, None] * P / root
        values = torch.linalg.eigvalsh((similar + similar.T) / 2).to(torch.complex128)
    else:
        values = torch.linalg.eigvals(P)
    return values[torch.argsort(values.abs(), descending=True, stable=True)]


def _second_eigenvalue(correlation_length):
    xi = checks.positive("correlation_length", correlation_length)
    if xi > 1e12:
        raise checks.BadValue(
            f"correlation_length must be at most 1e12 (its eigenvalue rounds to 1 beyond), got {xi}"
        )
    return math.exp(-1 / xi)


def _reach(R, top, target):
    # Mix R, whose non-trivial spectrum lies in [0, top], with the uniform chain (lowers it) or with
    # the identity (raises it), so that the second eigenvalue is exactly `target`.
    n = len(R)
    if target <= top:
        a = target / top
        return MarkovChain(a * R + (1 - a) / n)
    s = (target - top) / (1 - top)
    return MarkovChain(s * torch.eye(n, dtype=torch.float64) + (1 - s) * R)


def sticky(n_states, correlation_length, stationary_distribution=None):
    """`lam I + (1 - lam) 1 pi^T`: every non-trivial eigenvalue is `lam = exp(-1 / xi)`.

    Args:
        stationary_distribution: (V,) positive weights, normalised here; None is uniform.
    """
    n = _states(n_states)
    lam = _second_eigenvalue(correlation_length)
    pi = _tensor(
        "stationary_distribution", [1] * n if stationary_distribution is None else stationary_distribution
    )
    if pi.shape != (n,) or not (torch.isfinite(pi) & (pi > 0)).all():
        raise checks.BadValue(f"stationary_distribution must hold {n} finite weights > 0, got {pi.tolist()}")
    return MarkovChain(lam * torch.eye(n, dtype=torch.float64) + (1 - lam) * (pi / pi.sum()))


def ring(n_states, correlation_length):
    """Lazy walk on a ring, mixed with the uniform chain or made lazier: eigenvalues are cosines."""
    n = checks.integer("n_states", n_states, 3)
    lam = _second_eigenvalue(correlation_length)
    eye = torch.eye(n, dtype=torch.float64)
    step = (eye.roll(1, 1) + eye.roll(-1, 1)) / 2
    return _reach((eye + step) / 2, (1 + math.cos(2 * math.pi / n)) / 2, lam)


def cycle(n_states, correlation_length):
    """`lam * (cyclic shift) + (1 - lam) / V`: complex eigenvalues of modulus `lam`; not reversible."""
    n = checks.integer("n_states", n_states, 3)
    lam = _second_eigenvalue(correlation_length)
    return MarkovChain(lam * torch.eye(n, dtype=torch.float64).roll(1, 1) + (1 - lam) / n)


def _block_average(n, blocks):
    return torch.block_diag(*[torch.full((n // blocks,) * 2, blocks / n, dtype=torch.float64)] * blocks)


def block(n_states, correlation_length, n_blocks=4):
    """`lam * (average within blocks) + (1 - lam) / V`: `n_blocks - 1` slow modes at `lam`, the rest 0."""
    n = _states(n_states)
    m = checks.integer("n_blocks", n_blocks, 2)
    if n % m:
        raise checks.BadValue(f"n_blocks must divide n_states, got n_blocks={m} and n_states={n}")
    lam = _second_eigenvalue(correlation_length)
    return MarkovChain(lam * _block_average(n, m) + (1 - lam) / n)


def hierarchical(n_states, correlation_length, ratio=2.0):
    """A correlation length at every scale, as in Dyson's hierarchical model.

    `P = Pi_0 + sum_j lam_j (Pi_j - Pi_{j-1})` with `Pi_j` the average within the `2^j` blocks of size
    `V / 2^j`, `lam_j = exp(-1 / xi_j)` and `xi_j = correlation_length / ratio^(j-1)`: `lam_j` has
    multiplicity `2^(j-1)`.

    Args:
        n_states: a power of two.
        ratio: how much shorter the correlation length is at each finer scale, >= 1.
    """
    n = _states(n_states)
    levels = n.bit_length() - 1
    if n != 2**levels:
        raise checks.BadValue(
            f"n_states must be a power of two for the hierarchical family, got {n}; try {2**levels}"
        )
    if not 1 <= checks.positive("ratio", ratio) <= 1e6:
        raise checks.BadValue(
            f"ratio must be at least 1 (below it probabilities turn negative) and at most 1e6, got {ratio}"
        )
    xi = checks.positive("correlation_length", correlation_length)
    P = _block_average(n, 1)
    for j in range(1, levels + 1):
        lam = _second_eigenvalue(xi / ratio ** (j - 1))
        P = P + lam * (_block_average(n, 2**j) - _block_average(n, 2 ** (j - 1)))
    return MarkovChain(P.clamp(min=0))  # rounding leaves about -1e-18 where a difference is zero


def reversible(n_states, correlation_length, seed=0):
    """A random symmetric chain (one draw a seed) with uniform stationary law and lambda_2 as asked.

    The average of three random permutation matrices and their transposes, made lazy, then mixed with
    the uniform chain or with the identity until the second eigenvalue is `exp(-1 / xi)`.
    """
    n = checks.integer("n_states", n_states, 3)
    rng = np.random.default_rng(checks.integer("seed", seed, 0))
    lam = _second_eigenvalue(correlation_length)
    eye = torch.eye(n, dtype=torch.float64)
    mean = sum(eye[torch.from_numpy(rng.permutation(n))] for _ in range(3)) / 3
    R = (eye + (mean + mean.T) / 2) / 2
    return _reach(R, torch.linalg.eigvalsh(R)[-2].item(), lam)


def dirichlet(n_states, alpha, seed=0):
    """Rows drawn from a Dirichlet(alpha) law: the spectrum is only measured, pi is far from uniform."""
    n = _states(n_states)
    rng = np.random.default_rng(checks.integer("seed", seed, 0))
    rows = rng.dirichlet(np.full(n, checks.positive("alpha", alpha)), size=n)
    try:
        return MarkovChain(rows)
    except ValueError as error:
        raise checks.BadValue(
            f"alpha {alpha} with seed {seed} gives no usable chain ({error}); use a larger alpha"
        ) from None


def estimate(sequences, n_states=None, pseudocount=0.0):
    """The chain of maximum likelihood for sequences of tokens: how often each state follows each other one.

    The stationary law is that of the estimated matrix; beginnings of sequences are not used.

    Args:
        sequences: (batch, length) integers, or a list of sequences of any lengths; states 0, 1, ..., n_states - 1.
        n_states: number of states; None: one more than the largest token, and each of them must occur.
        pseudocount: added to every transition's count; above 0 also states that were never left get a row,
            and with n_states those that never occur.

    Raises:
        TypeError: tokens are not integers.
        ValueError: masked (missing) tokens, out of range or with gaps, no transition, or counts that give no usable chain.
    """
    sequences = checks.sequence("sequences", sequences)
    tokens = [checks.tensor(f"sequences[{i}]", s) for i, s in enumerate(sequences)]
    for i, s in enumerate(tokens):
        if s.ndim != 1 or (len(s) and (s.is_floating_point() or s.dtype == torch.bool)):
            kind = f"{s.dtype} of shape {tuple(s.shape)}"
            raise checks.BadType(f"sequences[{i}] must be one sequence of integers, got {kind}")
    tokens = [s.cpu().numpy() for s in tokens if len(s)]
    found = sorted({int(state) for s in tokens for state in np.unique(s)})
    n = max([*found, 1]) + 1 if n_states is None else _states(n_states)
    if found and not 0 <= found[0] <= found[-1] < n:
        raise checks.BadValue(
            f"tokens must lie in 0, ..., {n - 1}; raise n_states or leave out what is no state"
        )
    if len(found) == 1:
        raise checks.BadValue(f"sequences hold the state {found[0]} alone; a chain needs two states or more")
    if 0 < len(found) < n and (n_states is None or not pseudocount):
        # A pseudocount would make states of the gaps, with a weight in the stationary law.
        gap = next((i for i, state in enumerate(found) if i != state), len(found))
        raise checks.BadValue(
            f"state {gap} of 0, ..., {n - 1} never occurs in the sequences; relabel the {len(found)} that do "
            f"0, ..., {len(found) - 1}, as numpy.unique(sequences, return_inverse=True)[1] does; if the others "
            "are states too, give n_states and a pseudocount"
        )
    n = _states(n)
    counts = np.zeros((n, n))
    for s in tokens:
        np.add.at(counts, (s[:-1].astype(int), s[1:].astype(int)), 1.0)
    counts += checks.positive("pseudocount", pseudocount) if pseudocount else 0.0
    total = counts.sum(1, keepdims=True)
    if not total.all():
        raise checks.BadValue(
            f"state {int(np.flatnonzero(total == 0)[0])} is never left in the sequences; set pseudocount, "
            "such as 0.5"
        )
    try:
        return MarkovChain(counts / total)
    except ValueError as error:
        raise checks.BadValue(
            f"these sequences give no usable chain ({error}); set pseudocount, such as 0.5, "
            "or use more of them"
        ) from None


FAMILIES = {f.__name__: f for f in (sticky, ring, cycle, block, hierarchical, reversible)}
"""The families that are built from `(n_states, correlation_length)`."""
