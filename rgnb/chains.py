"""Markov chains whose spectrum is known: the chain, its exact statistics, sampling, and families of chains.

Matrices are row-stochastic, `P[i, j] = Pr(next = j | now = i)`, float64 on the CPU. The correlation
length is `xi = -1 / ln|lambda_2|` in steps, so that the slowest correlation decays as `exp(-t / xi)`.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.sparse import csgraph, csr_array
from torch import Tensor

from rgnb import _sampling, checks


class MarkovChain:
    """A stationary, irreducible, aperiodic Markov chain. It cannot be changed: its tensors are copies.

    Args:
        transition_matrix: (V, V) nested lists, numpy array or tensor; V >= 2, entries >= 0, rows sum to 1
            (within 1e-6; they are then normalised in float64).

    Attributes:
        transition_matrix: (V, V) float64 tensor.
        stationary_distribution: (V,) float64 tensor, `pi P = pi`.
        eigenvalues: (V,) complex128 tensor, by decreasing modulus; the first is 1.
        correlation_length: `-1 / ln|lambda_2|` in steps; 0.0 if lambda_2 is 0. Where 0 has fewer eigenvectors
            than its multiplicity, as in a de Bruijn walk, rounding makes that 0.1 or more.
        n_states: V.

    Raises:
        TypeError: the matrix does not hold numbers.
        ValueError: not square, not finite, negative entries, row sums off, reducible or periodic; the
            message says where.
    """

    def __init__(self, transition_matrix: Tensor | ArrayLike):
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

    @property
    def transition_matrix(self) -> Tensor:
        return self._matrix.clone()

    @property
    def stationary_distribution(self) -> Tensor:
        return self._stationary.clone()

    @property
    def eigenvalues(self) -> Tensor:
        return self._eigenvalues.clone()

    @property
    def correlation_length(self) -> float:
        return self._correlation_length

    @property
    def n_states(self) -> int:
        return len(self._matrix)

    def __repr__(self) -> str:
        return f"MarkovChain(n_states={self.n_states}, correlation_length={self.correlation_length:.4g})"

    def autocorrelation(self, observable: Tensor | ArrayLike, lags: Iterable[int]) -> Tensor:
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
            raise checks.BadValue("observable must be finite and not constant, or it has no autocorrelation")
        powers = (torch.linalg.matrix_power(self._matrix, lag) for lag in lags)
        return torch.stack([(pi * f) @ (power @ f) / variance for power in powers])

    def sample(self, batch: int, length: int, generator: torch.Generator | None = None) -> Tensor:
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
        if generator is not None:
            checks.instance("generator", generator, torch.Generator)
        device = generator.device if generator is not None else torch.device("cpu")
        uniform = torch.rand(length, batch, generator=generator, device=device, dtype=torch.float64)
        law = self._stationary.cumsum(0).to(device)
        first = torch.searchsorted(law / law[-1], uniform[0], right=True).clamp_(max=self.n_states - 1)
        sums = self._sums.to(device)
        if self.n_states > _sampling.TABLE_STATES:
            return _sampling.inversion(sums, first, uniform)
        return _sampling.lookup(self._table.to(device), sums, first, uniform)

    @cached_property
    def _sums(self) -> Tensor:
        return _sampling.cumulative(self._matrix)

    @cached_property
    def _table(self) -> Tensor:
        return _sampling.table(self._sums)


def _states(n_states: int, minimum: int = 2) -> int:
    # Stationary law and spectrum take dense linear algebra: minutes at this many states.
    return checks.integer("n_states", n_states, minimum, 4096)


def _tensor(name: str, values: Tensor | ArrayLike) -> Tensor:
    # Numbers in any form as a fresh float64 CPU tensor.
    return checks.tensor(name, values).detach().to("cpu", torch.float64, copy=True)


def _validated(matrix: Tensor | ArrayLike) -> Tensor:
    P = _tensor("transition_matrix", matrix)
    if P.ndim != 2 or P.shape[0] != P.shape[1] or not 2 <= len(P) <= 4096:
        shape = tuple(P.shape)
        raise checks.BadValue(f"transition_matrix must be square with 2 to 4096 states, got shape {shape}")
    bad = ~torch.isfinite(P) | (P < 0)
    if bad.any():
        i, j = bad.nonzero()[0].tolist()
        entry = P[i, j].item()
        raise checks.BadValue(f"transition_matrix[{i}, {j}] is {entry}; every entry must be finite and >= 0")
    sums = P.sum(1)
    off = (sums - 1).abs()
    if off.max() > 1e-6:
        i = int(off.argmax())
        total = f"{sums[i].item():.9g}"
        raise checks.BadValue(f"row {i} of transition_matrix sums to {total}; divide each row by its sum")
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
    sources, targets = graph.nonzero()
    period = int(np.gcd.reduce(level[sources] + 1 - level[targets]))
    if period > 1:
        raise checks.BadValue(
            f"transition_matrix is periodic with period {period}; make a state able to stay where it is"
        )
    return P / sums[:, None]


def _stationary(P: Tensor) -> Tensor:
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


def _eigenvalues(P: Tensor, pi: Tensor) -> Tensor:
    flow = pi[:, None] * P
    if torch.allclose(flow, flow.T, rtol=1e-12, atol=1e-15):
        # Detailed balance: D^(1/2) P D^(-1/2) is symmetric, so the spectrum is real and well conditioned.
        root = pi.sqrt()
        similar = root[:, None] * P / root
        values = torch.linalg.eigvalsh((similar + similar.T) / 2).to(torch.complex128)
    else:
        values = torch.linalg.eigvals(P)
    return values[torch.argsort(values.abs(), descending=True, stable=True)]


def _second_eigenvalue(correlation_length: float) -> float:
    xi = checks.positive("correlation_length", correlation_length)
    if xi > 1e12:
        raise checks.BadValue(
            f"correlation_length must be at most 1e12 (its eigenvalue rounds to 1 beyond), got {xi}"
        )
    return math.exp(-1 / xi)


def _reach(R: Tensor, top: float, target: float) -> MarkovChain:
    # Mix R, whose non-trivial spectrum lies in [0, top], with the uniform chain (lowers it) or with
    # the identity (raises it), so that the second eigenvalue is exactly `target`.
    n = len(R)
    if target <= top:
        a = target / top
        return MarkovChain(a * R + (1 - a) / n)
    s = (target - top) / (1 - top)
    return MarkovChain(s * torch.eye(n, dtype=torch.float64) + (1 - s) * R)


def sticky(
    n_states: int, correlation_length: float, stationary_distribution: Tensor | ArrayLike | None = None
) -> MarkovChain:
    """`lam I + (1 - lam) 1 pi^T`: every non-trivial eigenvalue is `lam = exp(-1 / xi)`.

    Args:
        stationary_distribution: (V,) positive weights, normalised here; None is uniform.
    """
    n, lam = _states(n_states), _second_eigenvalue(correlation_length)
    weights = [1] * n if stationary_distribution is None else stationary_distribution
    pi = _tensor("stationary_distribution", weights)
    if pi.shape != (n,) or not (torch.isfinite(pi) & (pi > 0)).all():
        raise checks.BadValue(f"stationary_distribution must hold {n} finite weights > 0, got {pi.tolist()}")
    return MarkovChain(lam * torch.eye(n, dtype=torch.float64) + (1 - lam) * (pi / pi.sum()))


def ring(n_states: int, correlation_length: float) -> MarkovChain:
    """Lazy walk on a ring, mixed with the uniform chain or made lazier: eigenvalues are cosines."""
    n = _states(n_states, 3)
    lam = _second_eigenvalue(correlation_length)
    eye = torch.eye(n, dtype=torch.float64)
    step = (eye.roll(1, 1) + eye.roll(-1, 1)) / 2
    return _reach((eye + step) / 2, (1 + math.cos(2 * math.pi / n)) / 2, lam)


def cycle(n_states: int, correlation_length: float) -> MarkovChain:
    """`lam * (cyclic shift) + (1 - lam) / V`: complex eigenvalues of modulus `lam`; not reversible."""
    n = _states(n_states, 3)
    lam = _second_eigenvalue(correlation_length)
    return MarkovChain(lam * torch.eye(n, dtype=torch.float64).roll(1, 1) + (1 - lam) / n)


def _block_average(n: int, blocks: int) -> Tensor:
    return torch.block_diag(*[torch.full((n // blocks,) * 2, blocks / n, dtype=torch.float64)] * blocks)


def block(n_states: int, correlation_length: float, n_blocks: int = 4) -> MarkovChain:
    """`lam * (average within blocks) + (1 - lam) / V`: `n_blocks - 1` slow modes at `lam`, the rest 0."""
    n = _states(n_states)
    m = checks.integer("n_blocks", n_blocks, 2)
    if n % m:
        raise checks.BadValue(f"n_blocks must divide n_states, got n_blocks={m} and n_states={n}")
    lam = _second_eigenvalue(correlation_length)
    return MarkovChain(lam * _block_average(n, m) + (1 - lam) / n)


def hierarchical(
    n_states: int, correlation_length: float, ratio: float = 2.0, branching: Sequence[int] | None = None
) -> MarkovChain:
    """A correlation length at every scale, as in Dyson's hierarchical model.

    `P = Pi_0 + sum_j lam_j (Pi_j - Pi_{j-1})` with `Pi_j` the average within the `m_j` equal blocks of level
    j, `lam_j = exp(-1 / xi_j)` and `xi_j = correlation_length / ratio^(j-1)`: `lam_j` has multiplicity
    `m_j - m_{j-1}`. Where blocks fall into halves, `m_j = 2^j`.

    Args:
        n_states: a power of two, or the product of `branching`.
        ratio: how much shorter the correlation length is at each finer scale, >= 1.
        branching: into how many blocks each block falls, from the coarsest level on, such as (4, 2, 2) for 16
            states; None: into two at every level.
    """
    n = _states(n_states)
    if branching is None:
        branching = (2,) * _levels(n)
    branching = [checks.integer("branching", b, 2) for b in checks.sequence("branching", branching)]
    if math.prod(branching) != n:
        raise checks.BadValue(f"branching must multiply to n_states = {n}, got {branching}")
    if not 1 <= checks.positive("ratio", ratio) <= 1e6:
        raise checks.BadValue(
            f"ratio must be at least 1 (below it probabilities turn negative) and at most 1e6, got {ratio}"
        )
    xi = checks.positive("correlation_length", correlation_length)
    P, blocks = _block_average(n, 1), 1
    for j, b in enumerate(branching):
        lam = _second_eigenvalue(xi / ratio**j)
        P = P + lam * (_block_average(n, blocks * b) - _block_average(n, blocks))
        blocks *= b
    return MarkovChain(P.clamp(min=0))  # rounding leaves about -1e-18 where a difference is zero


def _levels(n: int) -> int:
    levels = n.bit_length() - 1
    if n != 2**levels:
        raise checks.BadValue(
            f"n_states must be a power of two for the hierarchical family, got {n}; try {2**levels}"
        )
    return levels


def nested_blocks(n_states: int, correlation_length: float, n_blocks: int = 4) -> MarkovChain:
    """Blocks of blocks: `hierarchical` with two levels, `n_blocks` and single states, and ratio 4.

    `n_blocks - 1` slow modes at `exp(-1 / xi)`, the other `V - n_blocks` at `exp(-4 / xi)`.
    """
    n, m = _states(n_states), checks.integer("n_blocks", n_blocks, 2)
    if n % m or n == m:
        raise checks.BadValue(
            f"n_blocks must divide n_states into blocks of two or more, got n_blocks={m} and n_states={n}"
        )
    return hierarchical(n, correlation_length, ratio=4.0, branching=(m, n // m))


def product(first: MarkovChain, second: MarkovChain) -> MarkovChain:
    """Two independent chains side by side: state `i V_2 + j` stands for i of the first and j of the second.

    The matrix is the Kronecker product. Eigenvalues are all products of one of each chain, the stationary law
    is the product of theirs, and the correlation length the larger of the two.

    Args:
        first, second: MarkovChains of V_1 and V_2 states, V_1 V_2 <= 4096.
    """
    P, Q = (
        checks.instance(name, chain, MarkovChain, "make one of rgnb.chains").transition_matrix
        for name, chain in {"first": first, "second": second}.items()
    )
    if len(P) * len(Q) > 4096:
        raise checks.BadValue(
            f"first and second must have at most 4096 states together, got {len(P)} * {len(Q)}"
        )
    return MarkovChain(torch.kron(P, Q))


def hierarchical_pair(n_states: int, correlation_length: float) -> MarkovChain:
    """The scales of `hierarchical`, shared out among two chains side by side: see `product`.

    The first has the coarser half of the scales, `xi, xi / 2, ...`, the second goes on from there: for 16
    states `hierarchical(4, xi)` and `hierarchical(4, xi / 4)`.

    Args:
        n_states: a power of two, 4 or more.
    """
    levels = _levels(_states(n_states, 4))
    xi, coarse = checks.positive("correlation_length", correlation_length), (levels + 1) // 2
    fine = hierarchical(2 ** (levels - coarse), xi / 2**coarse)
    return product(hierarchical(2**coarse, xi), fine)


def reversible(n_states: int, correlation_length: float, seed: int = 0) -> MarkovChain:
    """A random symmetric chain, one draw per seed, with uniform stationary law and lambda_2 as asked.

    The average of three random permutation matrices and their transposes, made lazy, then mixed with
    the uniform chain or with the identity until the second eigenvalue is `exp(-1 / xi)`.
    """
    n = _states(n_states, 3)
    rng = np.random.default_rng(checks.integer("seed", seed, 0))
    lam = _second_eigenvalue(correlation_length)
    eye = torch.eye(n, dtype=torch.float64)
    mean = torch.stack([eye[torch.from_numpy(rng.permutation(n))] for _ in range(3)]).sum(0) / 3
    R = (eye + (mean + mean.T) / 2) / 2
    return _reach(R, torch.linalg.eigvalsh(R)[-2].item(), lam)


def dirichlet(n_states: int, alpha: float, seed: int = 0) -> MarkovChain:
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


def lazy(n_states: int, correlation_length: float, seed: int = 0) -> MarkovChain:
    """`a I + (1 - a) R`, the lazy form of a random chain R, one draw per seed; not reversible.

    The rows of R are drawn evenly from all laws (Dirichlet, alpha 1). Its eigenvalues mu become
    `a + (1 - a) mu`; a is where the largest modulus of them is `exp(-1 / xi)`. Where R itself remembers
    longer, it is mixed with its stationary law instead: `b R + (1 - b) 1 pi^T`.
    """
    lam, R = _second_eigenvalue(correlation_length), dirichlet(n_states, 1.0, seed)
    P, mu = R.transition_matrix, R.eigenvalues[1:]
    top = mu[0].abs().item()
    if lam <= top:
        b = lam / top
        return MarkovChain(b * P + (1 - b) * R.stationary_distribution)
    # |a + (1 - a) mu|^2 = lam^2 is quadratic in a; the first modulus to get there decides.
    size, shift = (1 - mu).abs() ** 2, mu.real - mu.abs() ** 2
    a = ((shift**2 + size * (lam**2 - mu.abs() ** 2)).sqrt() - shift).div(size).min()
    return MarkovChain(a * torch.eye(len(P), dtype=torch.float64) + (1 - a) * P)


def estimate(
    sequences: Tensor | ArrayLike | Iterable, n_states: int | None = None, pseudocount: float = 0.0
) -> MarkovChain:
    """The maximum-likelihood chain of sequences of tokens, from how often each state follows each other one.

    The stationary law is that of the estimated matrix; where sequences begin is not used.

    Args:
        sequences: (batch, length) integers, or a list of sequences of any lengths; states are
            0, 1, ..., n_states - 1.
        n_states: number of states; None: one more than the largest token, and each of them must occur.
        pseudocount: added to every transition's count; above 0 also states that were never left get a row,
            and with n_states those that never occur.

    Raises:
        TypeError: tokens are not integers.
        ValueError: masked (missing) tokens, out of range or with gaps, no transition, or counts that give no
            usable chain.
    """
    pseudocount = checks.number("pseudocount", pseudocount)
    if pseudocount < 0:
        raise checks.BadValue(f"pseudocount must be at least 0, got {pseudocount}")
    several = checks.sequence("sequences", sequences)
    given = [checks.tensor(f"sequences[{i}]", s) for i, s in enumerate(several)]
    for i, x in enumerate(given):
        if x.ndim != 1 or (len(x) and (x.is_floating_point() or x.dtype == torch.bool)):
            kind = f"{x.dtype} of shape {tuple(x.shape)}"
            raise checks.BadType(f"sequences[{i}] must be one sequence of integers, got {kind}")
    tokens = [x.cpu().numpy().astype(int) for x in given if len(x)]
    found = sorted({int(state) for s in tokens for state in np.unique(s)})
    n = max([*found, 1]) + 1 if n_states is None else _states(n_states)
    if not any(len(s) > 1 for s in tokens):
        raise checks.BadValue("sequences hold no transition; pass one of two tokens or more")
    if not 0 <= found[0] <= found[-1] < n:
        raise checks.BadValue(
            f"tokens must lie in 0, ..., {n - 1}; raise n_states or leave out what is no state"
        )
    if len(found) == 1:
        raise checks.BadValue(f"sequences hold the state {found[0]} alone; a chain needs two states or more")
    if len(found) < n and (n_states is None or not pseudocount):
        # A pseudocount would make states of the gaps, with a weight in the stationary law.
        gap = next((i for i, state in enumerate(found) if i != state), len(found))
        raise checks.BadValue(
            f"state {gap} of 0, ..., {n - 1} never occurs in the sequences; relabel the {len(found)} that do "
            f"0, ..., {len(found) - 1}, as numpy.unique(sequences, return_inverse=True)[1] does; if the "
            "others are states too, give n_states and a pseudocount"
        )
    counts = np.zeros((_states(n), n))
    for s in tokens:
        np.add.at(counts, (s[:-1], s[1:]), 1.0)
    counts += pseudocount
    total = counts.sum(1, keepdims=True)
    advice = "set pseudocount, such as 0.5"
    if not total.all():
        never = int(np.flatnonzero(total == 0)[0])
        raise checks.BadValue(f"state {never} is never left in the sequences; {advice}")
    try:
        return MarkovChain(counts / total)
    except ValueError as error:
        raise checks.BadValue(
            f"these sequences give no usable chain ({error}); {advice}, or use more of them"
        ) from None


FAMILIES: dict[str, Callable[..., MarkovChain]] = {
    f.__name__: f
    for f in (sticky, ring, cycle, block, hierarchical, reversible, nested_blocks, hierarchical_pair, lazy)
} | {
    "nested_halves": partial(nested_blocks, n_blocks=2),
    "hierarchical_flat": partial(hierarchical, ratio=1.5),
    "hierarchical_steep": partial(hierarchical, ratio=4.0),
}
"""The families that are built from `(n_states, correlation_length)`, by name.

Three are others with an argument changed: `nested_halves` is `nested_blocks` with 2 blocks,
`hierarchical_flat` and `hierarchical_steep` are `hierarchical` with ratio 1.5 and 4.
"""
