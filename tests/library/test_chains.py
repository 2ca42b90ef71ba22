import copy
import itertools
import math
import pickle

import numpy as np
import pytest
import torch
from scipy.linalg import null_space
from scipy.optimize import linear_sum_assignment
from scipy.stats import chi2

from rgnb import _sampling, chains
from rgnb.chains import MarkovChain

XIS = [0.3, 1.0, 7.0, 50.0]
SIZES = [("sticky", 5), ("ring", 3), ("ring", 9), ("cycle", 6), ("block", 12), ("hierarchical", 16)]
SIZES += [("reversible", 3), ("reversible", 16), ("nested_blocks", 12), ("nested_halves", 10)]
SIZES += [("hierarchical_pair", 8), ("hierarchical_pair", 16), ("hierarchical_flat", 8)]
SIZES += [("hierarchical_steep", 8), ("lazy", 3), ("lazy", 16)]
RANDOM, DIRECTED = ("reversible", "lazy"), ("cycle", "lazy")
GAPS = [[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.7, 0.0, 0.3]]  # zeros in every column


def closed_form(family, n, lam, xi):
    """The eigenvalues below the first, by theory."""
    if family == "sticky":
        return np.full(n - 1, lam)
    if family == "cycle":
        return lam * np.exp(2j * np.pi * np.arange(1, n) / n)
    if family == "block":
        return np.repeat([lam, 0.0], [3, n - 4])
    if family in ("hierarchical", "hierarchical_flat", "hierarchical_steep"):
        ratio = {"hierarchical_flat": 1.5, "hierarchical_steep": 4.0}.get(family, 2.0)
        levels = np.arange(math.log2(n)).astype(int)
        return np.repeat(np.exp(-(ratio**levels) / xi), 2**levels)
    if family in ("nested_blocks", "nested_halves"):
        blocks = 4 if family == "nested_blocks" else 2
        return np.repeat([lam, lam**4], [blocks - 1, n - blocks])
    if family == "hierarchical_pair":
        coarse = [1.0, lam, lam**2, lam**2]
        fine = [1.0, lam**4] if n == 8 else [1.0, lam**4, lam**8, lam**8]
        return np.sort(np.outer(coarse, fine).ravel())[::-1][1:]
    cosines, c = np.cos(2 * np.pi * np.arange(1, n) / n), math.cos(2 * np.pi / n)
    if lam <= (1 + c) / 2:
        return lam * (1 + cosines) / (1 + c)
    s = (lam - c) / (1 - c)
    return s + (1 - s) * cosines


def spectrum_distance(a, b):
    """The largest distance between eigenvalues, paired in the best way."""
    cost = abs(np.asarray(a)[:, None] - np.asarray(b))
    return cost[linear_sum_assignment(cost)].max()


@pytest.mark.parametrize("xi", XIS)
@pytest.mark.parametrize("family, n", SIZES)
def test_family(family, n, xi):
    chain = chains.FAMILIES[family](n, xi)
    P, pi = chain.transition_matrix, chain.stationary_distribution
    assert P.shape == (n, n) and P.dtype == pi.dtype == torch.float64
    assert chain.n_states == n and (P >= 0).all()
    torch.testing.assert_close(P.sum(1), torch.ones(n, dtype=torch.float64), atol=1e-14, rtol=0)
    if family != "lazy":
        torch.testing.assert_close(pi, torch.full((n,), 1 / n, dtype=torch.float64), atol=1e-13, rtol=0)
    assert chain.correlation_length == pytest.approx(xi, rel=1e-9)

    modulus = chain.eigenvalues.abs().numpy()
    assert abs(chain.eigenvalues[0] - 1) < 1e-12 and (np.diff(modulus) <= 0).all()
    lam = math.exp(-1 / xi)
    assert modulus[1] == pytest.approx(lam, rel=1e-9)
    if family not in RANDOM:
        assert spectrum_distance(chain.eigenvalues[1:], closed_form(family, n, lam, xi)) < 1e-12
    assert spectrum_distance(chain.eigenvalues, np.linalg.eigvals(P.numpy())) < 1e-7

    flow = pi[:, None] * P
    assert torch.allclose(flow, flow.T, atol=1e-15) == (family not in DIRECTED)


def test_every_family_is_tested():
    assert {family for family, _ in SIZES} == set(chains.FAMILIES)


@pytest.mark.parametrize("weights", [[1, 2, 3, 4], np.array([0.1, 0.2, 0.3, 0.4]), torch.arange(2.0, 10, 2)])
def test_sticky_with_a_stationary_law(weights):
    chain = chains.sticky(4, 3.0, weights)
    pi = torch.arange(1, 5, dtype=torch.float64) / 10
    lam = math.exp(-1 / 3)
    P = lam * torch.eye(4, dtype=torch.float64) + (1 - lam) * pi
    torch.testing.assert_close(chain.stationary_distribution, pi, atol=1e-14, rtol=0)
    torch.testing.assert_close(chain.transition_matrix, P, atol=1e-14, rtol=0)
    assert spectrum_distance(chain.eigenvalues[1:], np.full(3, lam)) < 1e-13


def test_sticky_keeps_the_precision_of_a_list():
    law = [0.1, 0.2, 0.7]
    pi = torch.tensor(law, dtype=torch.float64)
    torch.testing.assert_close(chains.sticky(3, 1.0, law).stationary_distribution, pi, atol=1e-14, rtol=0)


def test_hierarchical_ratio():
    same = chains.hierarchical(8, 5.0, ratio=1.0).transition_matrix
    torch.testing.assert_close(same, chains.sticky(8, 5.0).transition_matrix, atol=1e-15, rtol=0)
    expected = np.repeat(np.exp(-(3.0 ** np.arange(3)) / 5), [1, 2, 4])
    assert spectrum_distance(chains.hierarchical(8, 5.0, ratio=3).eigenvalues[1:], expected) < 1e-13


def test_hierarchical_branching():
    chain = chains.hierarchical(24, 5.0, ratio=1.5, branching=(3, 2, 4))
    expected = np.repeat(np.exp(-np.array([1, 1.5, 2.25]) / 5), [2, 3, 18])
    assert spectrum_distance(chain.eigenvalues[1:], expected) < 1e-13
    P = chain.transition_matrix
    # Entries by hand: states share the blocks of all levels but the last, of the first, of none.
    averages = [1 / 24, 1 / 8, 1 / 4, 1.0]
    lam = [1.0, *np.exp(-np.array([1, 1.5, 2.25]) / 5), 0.0]
    for other, shared in ((0, 4), (1, 3), (5, 2), (9, 1)):
        by_hand = sum((lam[j] - lam[j + 1]) * averages[j] for j in range(shared))
        assert P[0, other].item() == pytest.approx(by_hand, rel=1e-12)
    halves = chains.hierarchical(8, 5.0, branching=[2, 2, 2]).transition_matrix
    assert torch.equal(halves, chains.hierarchical(8, 5.0).transition_matrix)
    block = chains.block(12, 4.0, n_blocks=3).transition_matrix
    far = chains.hierarchical(12, 4.0, ratio=1e6, branching=(3, 4)).transition_matrix
    torch.testing.assert_close(far, block, atol=1e-15, rtol=0)


def test_product_is_two_independent_chains():
    first, second = chains.dirichlet(3, 1.0, seed=4), chains.cycle(4, 4.0)
    both = chains.product(first, second)
    P, Q = first.transition_matrix, second.transition_matrix
    for (i, j), (k, m) in itertools.product(itertools.product(range(3), range(4)), repeat=2):
        assert both.transition_matrix[4 * i + j, 4 * k + m].item() == pytest.approx(
            (P[i, k] * Q[j, m]).item()
        )
    products = np.outer(first.eigenvalues, second.eigenvalues).ravel()
    assert spectrum_distance(both.eigenvalues, products) < 1e-10
    pi = torch.outer(first.stationary_distribution, second.stationary_distribution).flatten()
    torch.testing.assert_close(both.stationary_distribution, pi, atol=1e-14, rtol=0)
    for pair in ((first, second), (second, first)):
        longer = max(first.correlation_length, second.correlation_length)
        assert chains.product(*pair).correlation_length == pytest.approx(longer, rel=1e-9)


@pytest.mark.parametrize("n", [2, 5, 16])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("xi", [0.2, 1.2, 6.7, 50.0])
def test_lazy_chains_share_a_random_one(n, seed, xi):
    R, chain = chains.dirichlet(n, 1.0, seed), chains.lazy(n, xi, seed)
    P, pi = chain.transition_matrix, chain.stationary_distribution
    torch.testing.assert_close(pi, R.stationary_distribution, atol=1e-12, rtol=0)
    # Off the diagonal P is R times one number, or that plus multiples of the stationary law.
    other = torch.eye(n, dtype=torch.float64) if xi > R.correlation_length else pi.expand(n, n)
    basis = torch.stack([other.flatten(), R.transition_matrix.flatten()], 1)
    fitted = torch.linalg.lstsq(basis, P.flatten()[:, None]).solution
    torch.testing.assert_close((basis @ fitted).view(n, n), P, atol=1e-12, rtol=0)
    assert fitted.sum().item() == pytest.approx(1) and (fitted >= 0).all()
    assert chain.correlation_length == pytest.approx(xi, rel=1e-9)


def test_block_number():
    chain = chains.block(6, 4.0, n_blocks=2)
    assert spectrum_distance(chain.eigenvalues[1:], [math.exp(-1 / 4), 0, 0, 0, 0]) < 1e-13


@pytest.mark.parametrize("family, argument", [("reversible", 5.0), ("dirichlet", 0.5), ("lazy", 5.0)])
def test_seed_decides_a_random_chain(family, argument):
    draw = getattr(chains, family)
    P = draw(8, argument, seed=1).transition_matrix
    assert torch.equal(P, draw(8, argument, seed=1).transition_matrix)
    assert not torch.allclose(P, draw(8, argument, seed=2).transition_matrix)


@pytest.mark.parametrize("seed", range(5))
def test_dirichlet_against_independent_solves(seed):
    chain = chains.dirichlet(7, 0.5, seed)
    P = chain.transition_matrix.numpy()
    pi = null_space(P.T - np.eye(7))[:, 0]
    np.testing.assert_allclose(chain.stationary_distribution, pi / pi.sum(), atol=1e-12)
    eigenvalues = np.linalg.eigvals(P)
    assert spectrum_distance(chain.eigenvalues, eigenvalues) < 1e-10
    assert chain.correlation_length == pytest.approx(-1 / math.log(np.sort(abs(eigenvalues))[-2]))


@pytest.mark.parametrize("alpha", [1.0, 0.1, 0.02])
def test_stationary_law_entry_by_entry(alpha):
    chain = chains.dirichlet(16, alpha, seed=3)
    P, pi = chain.transition_matrix, chain.stationary_distribution
    assert (pi > 0).all() and pi.sum().item() == pytest.approx(1)
    torch.testing.assert_close(pi @ P, pi, rtol=1e-12, atol=0)


@pytest.mark.parametrize("a, b", [(0.1, 0.3), (0.9, 0.8), (1e-6, 2e-6), (0.25, 0.75)])
@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_two_states_of_any_array_type(a, b, kind):
    rows = [[1 - a, a], [b, 1 - b]]
    chain = MarkovChain(kind(rows) if kind is not torch.tensor else torch.tensor(rows, dtype=torch.float64))
    lam = 1 - a - b
    np.testing.assert_allclose(chain.stationary_distribution, [b / (a + b), a / (a + b)], rtol=1e-12)
    np.testing.assert_allclose(chain.eigenvalues, [1, lam], atol=1e-12)
    assert chain.correlation_length == pytest.approx(-1 / math.log(abs(lam)) if lam else 0.0)


def test_matrix_is_copied_and_normalised():
    given = np.array([[0.5, 0.5 + 5e-7], [0.25, 0.75]])
    chain = MarkovChain(given)
    given[:] = 0
    torch.testing.assert_close(
        chain.transition_matrix.sum(1), torch.ones(2, dtype=torch.float64), atol=1e-15, rtol=0
    )


LAGS = [0, 1, 2, 5, 40]


@pytest.mark.parametrize(
    "chain, observable, lam",
    [
        (chains.sticky(4, 6.0, [1, 2, 3, 4]), [3.0, -1.0, 0.5, 2.0], math.exp(-1 / 6)),
        (chains.block(8, 6.0), [1, 1, 2, 2, 0, 0, 5, 5], math.exp(-1 / 6)),
        (chains.hierarchical(8, 6.0), [1, 1, 1, 1, 0, 0, 0, 0], math.exp(-1 / 6)),
        (chains.hierarchical(8, 6.0), [1, -1, 0, 0, 0, 0, 0, 0], math.exp(-4 / 6)),
        (chains.ring(8, 6.0), np.cos(2 * np.pi * np.arange(8) / 8), math.exp(-1 / 6)),
        (MarkovChain([[0.1, 0.9], [0.8, 0.2]]), [0, 1], -0.7),
    ],
)
def test_autocorrelation_of_one_mode(chain, observable, lam):
    expected = torch.tensor([lam**t for t in LAGS], dtype=torch.float64)
    torch.testing.assert_close(chain.autocorrelation(observable, LAGS), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("chain", [chains.dirichlet(3, 1.0, seed=4), chains.cycle(3, 4.0), MarkovChain(GAPS)])
def test_autocorrelation_against_all_paths(chain):
    f, lags = [1.0, 4.0, -2.0], [4, 0, 1, 3]
    P, pi = chain.transition_matrix.tolist(), chain.stationary_distribution.tolist()
    mean = sum(p * v for p, v in zip(pi, f, strict=True))
    variance = sum(p * v**2 for p, v in zip(pi, f, strict=True)) - mean**2
    expected = []
    for lag in lags:
        paths = itertools.product(range(3), repeat=lag + 1)
        total = sum(
            f[x[0]] * f[x[-1]] * pi[x[0]] * math.prod(P[i][j] for i, j in itertools.pairwise(x))
            for x in paths
        )
        expected.append((total - mean**2) / variance)
    np.testing.assert_allclose(chain.autocorrelation(f, lags), expected, atol=1e-12)


def sample(chain, seed=0, batch=20_000, length=20):
    return chain.sample(batch=batch, length=length, generator=torch.Generator().manual_seed(seed))


def transition_p_value(tokens, P):
    """Of Pearson's test that every row of the transition counts is multinomial with the rows of P."""
    n = len(P)
    counts = (
        torch.bincount((tokens[:, :-1] * n + tokens[:, 1:]).flatten(), minlength=n * n).view(n, n).double()
    )
    expected, allowed = counts.sum(1, keepdim=True) * P, P > 0
    assert not counts[~allowed].any()
    statistic = ((counts - expected) ** 2 / expected)[allowed].sum().item()
    return chi2.sf(statistic, int(allowed.sum()) - n)


@pytest.mark.parametrize(
    "chain",
    [
        chains.cycle(5, 3.0),
        chains.hierarchical(8, 7.0),
        chains.sticky(4, 20.0, [1, 2, 3, 4]),
        chains.dirichlet(4, 1.0, seed=2),
        MarkovChain(GAPS),
    ],
)
def test_sample_has_the_chain_law(chain):
    tokens = sample(chain)
    assert tokens.shape == (20_000, 20) and tokens.dtype == torch.int64 and tokens.is_contiguous()
    assert transition_p_value(tokens, chain.transition_matrix) > 1e-3
    expected = 20_000 * chain.stationary_distribution
    for t in (0, 10, 19):  # stationary from the first token on
        counts = torch.bincount(tokens[:, t], minlength=chain.n_states)
        assert chi2.sf(((counts - expected) ** 2 / expected).sum().item(), chain.n_states - 1) > 1e-3


def test_the_law_test_sees_a_wrong_matrix():
    chain = chains.cycle(5, 3.0)
    assert transition_p_value(sample(chain), chain.transition_matrix.T) < 1e-6


def test_sample_transitions_within_standard_error():
    chain = chains.sticky(3, 2.0)
    same = sample(chain).diff(dim=1) == 0
    stay = chain.transition_matrix[0, 0].item()
    assert abs(same.double().mean().item() - stay) < 4 * math.sqrt(stay * (1 - stay) / same.numel())


@pytest.mark.parametrize(
    "chain", [chains.hierarchical(16, 7.0), chains.cycle(7, 3.0), chains.sticky(64, 2.0), MarkovChain(GAPS)]
)
def test_the_table_draws_what_a_search_draws(chain, monkeypatch):
    quick = sample(chain)
    monkeypatch.setattr(_sampling, "TABLE_STATES", 0)
    assert torch.equal(quick, sample(chain))


def test_impossible_transitions_are_never_sampled():
    tokens = sample(MarkovChain(GAPS))
    seen = torch.zeros(3, 3, dtype=torch.bool)
    seen[tokens[:, :-1], tokens[:, 1:]] = True
    assert torch.equal(seen, torch.tensor(GAPS) > 0)


def test_a_uniform_draw_of_zero_takes_the_first_possible_state(monkeypatch):
    monkeypatch.setattr(
        torch, "rand", lambda *shape, generator, device, dtype: torch.zeros(shape, dtype=dtype)
    )
    assert MarkovChain([[0.0, 0.0, 1.0], [0.5, 0.5, 0.0], [0.0, 0.7, 0.3]]).sample(1, 5).tolist() == [
        [0, 2, 1, 0, 2]
    ]


def test_generator_decides_the_tokens():
    chain = chains.ring(6, 4.0)
    assert torch.equal(sample(chain, seed=7), sample(chain, seed=7))
    assert not torch.equal(sample(chain, seed=7), sample(chain, seed=8))
    g = torch.Generator().manual_seed(7)
    assert not torch.equal(chain.sample(100, 9, g), chain.sample(100, 9, g))
    torch.manual_seed(3)
    first = chain.sample(10, 9)
    torch.manual_seed(3)
    assert torch.equal(first, chain.sample(10, 9))


@pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan, "7", None, True])
@pytest.mark.parametrize("family", chains.FAMILIES)
def test_bad_correlation_length(family, value):
    number = isinstance(value, (int, float)) and value is not True
    with pytest.raises(ValueError if number else TypeError, match=r"^correlation_length must be"):
        chains.FAMILIES[family](8, value)


@pytest.mark.parametrize("family", chains.FAMILIES)
def test_correlation_length_beyond_double_precision(family):
    with pytest.raises(ValueError, match="correlation_length"):
        chains.FAMILIES[family](8, 1e17)


def test_matrix_beyond_double_precision():
    with pytest.raises(ValueError, match="transition_matrix"):
        MarkovChain([[1.0, 1e-17], [1e-17, 1.0]])


@pytest.mark.parametrize("family", [*chains.FAMILIES, "dirichlet"])
def test_bad_n_states(family):
    build = chains.FAMILIES.get(family, chains.dirichlet)
    smallest = {"ring": 3, "cycle": 3, "reversible": 3, "hierarchical_pair": 4}.get(family, 2)
    with pytest.raises(ValueError, match=f"^n_states must be at least {smallest}, got {smallest - 1}"):
        build(smallest - 1, 1.0)
    with pytest.raises(ValueError, match=r"^n_states must be at most 4096, got 5000"):
        build(5000, 1.0)
    for value in (4.0, "4", None, True):
        with pytest.raises(TypeError, match=r"^n_states must be an integer"):
            build(value, 1.0)


@pytest.mark.parametrize(
    "build, error, message",
    [
        (
            lambda: chains.block(6, 1.0),
            ValueError,
            "n_blocks must divide n_states, got n_blocks=4 and n_states=6",
        ),
        (lambda: chains.block(6, 1.0, n_blocks=1), ValueError, "n_blocks must be at least 2"),
        (lambda: chains.block(6, 1.0, n_blocks=12), ValueError, "n_blocks must divide"),
        (lambda: chains.block(6, 1.0, n_blocks=2.0), TypeError, "n_blocks must be an integer"),
        (lambda: chains.hierarchical(6, 1.0), ValueError, "n_states must be a power of two"),
        (lambda: chains.hierarchical_pair(6, 1.0), ValueError, "n_states must be a power of two"),
        (
            lambda: chains.hierarchical(8, 1.0, branching=(2, 3)),
            ValueError,
            r"branching must multiply to n_states = 8, got \[2, 3\]",
        ),
        (lambda: chains.hierarchical(8, 1.0, branching=(8, 1)), ValueError, "branching must be at least 2"),
        (lambda: chains.hierarchical(8, 1.0, branching=2), TypeError, "branching must be a sequence"),
        (lambda: chains.hierarchical(8, 1.0, branching=(2.0, 4)), TypeError, "branching must be an integer"),
        (
            lambda: chains.nested_blocks(4, 1.0),
            ValueError,
            "n_blocks must divide n_states into blocks of two",
        ),
        (lambda: chains.nested_blocks(6, 1.0), ValueError, "n_blocks=4 and n_states=6"),
        (lambda: chains.nested_blocks(8, 1.0, 1), ValueError, "n_blocks must be at least 2"),
        (
            lambda: chains.product(chains.sticky(64, 1.0), chains.sticky(65, 1.0)),
            ValueError,
            r"first and second must have at most 4096 states together, got 64 \* 65",
        ),
        (
            lambda: chains.product(chains.sticky(4, 1.0), [[1.0]]),
            TypeError,
            "second must be a rgnb MarkovChain",
        ),
        (lambda: chains.lazy(8, 1.0, seed=-1), ValueError, "seed must be at least 0"),
        (lambda: chains.hierarchical(8, 1.0, ratio=0.5), ValueError, "ratio must be at least 1"),
        (lambda: chains.hierarchical(8, 1.0, ratio=1e200), ValueError, "at most 1e6"),
        (lambda: chains.dirichlet(8, 1e-320), ValueError, "use a larger alpha"),
        (lambda: chains.hierarchical(8, 1.0, ratio="2"), TypeError, "ratio must be a number"),
        (lambda: chains.reversible(8, 1.0, seed=-1), ValueError, "seed must be at least 0"),
        (lambda: chains.reversible(8, 1.0, seed="a"), TypeError, "seed must be an integer"),
        (lambda: chains.dirichlet(8, 0.0), ValueError, "alpha must be finite and greater than 0"),
        (lambda: chains.dirichlet(8, "a"), TypeError, "alpha must be a number"),
        (lambda: chains.dirichlet(8, 1.0, seed=1.5), TypeError, "seed must be an integer"),
        (lambda: chains.sticky(3, 1.0, [1, 2]), ValueError, "stationary_distribution must hold 3"),
        (lambda: chains.sticky(3, 1.0, [1, 2, 0]), ValueError, "stationary_distribution must hold 3"),
        (lambda: chains.sticky(3, 1.0, [1, 2, math.nan]), ValueError, "stationary_distribution must hold 3"),
        (lambda: chains.sticky(3, 1.0, "abc"), TypeError, "stationary_distribution"),
    ],
)
def test_bad_family_arguments(build, error, message):
    with pytest.raises(error, match=message):
        build()


@pytest.mark.parametrize(
    "matrix, error, message",
    [
        ([[0.5, 0.5]], ValueError, r"square with 2 to 4096 states, got shape \(1, 2\)"),
        ([[1.0]], ValueError, "2 to 4096 states"),
        (0.5, ValueError, "square"),
        (np.ones((2, 2, 2)) / 2, ValueError, "square"),
        ([[0.5, 0.5], [-0.1, 1.1]], ValueError, r"transition_matrix\[1, 0\] is -0.1"),
        ([[0.5, 0.5], [math.nan, 1]], ValueError, r"transition_matrix\[1, 0\] is nan"),
        ([[math.inf, 0.5], [0.5, 0.5]], ValueError, r"transition_matrix\[0, 0\] is inf"),
        ([[0.5, 0.5], [0.5, 0.6]], ValueError, "row 1 of transition_matrix sums to 1.1"),
        ([[0.5, 0.5], [0.5, 0.50001]], ValueError, "row 1 of transition_matrix sums to"),
        (
            [[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]],
            ValueError,
            "transition_matrix is reducible: states 0 and 2",
        ),
        ([[0.5, 0.5], [0, 1]], ValueError, "transition_matrix is reducible: states 0 and 1"),
        ([[0, 1], [1, 0]], ValueError, "transition_matrix is periodic with period 2"),
        (np.roll(np.eye(5), 1, axis=1), ValueError, "transition_matrix is periodic with period 5"),
        ([[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.5], [0.5, 0.5, 0, 0], [1, 0, 0, 0]], ValueError, "period 2"),
        ("abc", TypeError, "transition_matrix must be a tensor or array of numbers"),
        (None, TypeError, "transition_matrix"),
        ([[1, 2], [3]], TypeError, "transition_matrix"),
        (np.array([["a", "b"], ["c", "d"]]), TypeError, "transition_matrix"),
        (np.full((2, 2), 0.5 + 0.1j), TypeError, "transition_matrix"),
    ],
)
def test_bad_matrix(matrix, error, message):
    with pytest.raises(error, match=message):
        MarkovChain(matrix)


def test_aperiodic_without_self_loops():
    # Cycles of length 2 and 3: irreducible and aperiodic though no state stays.
    chain = MarkovChain([[0, 1, 0], [0.5, 0, 0.5], [1, 0, 0]])
    np.testing.assert_allclose(chain.stationary_distribution, [0.4, 0.4, 0.2], atol=1e-14)


@pytest.mark.parametrize(
    "observable, lags, error, message",
    [
        ([1, 2, 3], [1], ValueError, r"observable must have shape \(4,\), got \(3,\)"),
        ([1, 2, 3, math.nan], [1], ValueError, "observable must be finite"),
        ([1, 2, 3, math.inf], [1], ValueError, "observable must be finite"),
        ([2.0] * 4, [1], ValueError, "not constant"),
        ([1, 2, 3, 4], [-1], ValueError, "lags must be at least 0"),
        ([1, 2, 3, 4], [1.5], TypeError, "lags must be an integer"),
        ([1, 2, 3, 4], 3, TypeError, r"pass a list such as \[3\]"),
        ([1, 2, 3, 4], [], ValueError, "lags must hold at least 1"),
    ],
)
def test_bad_autocorrelation(observable, lags, error, message):
    with pytest.raises(error, match=message):
        chains.sticky(4, 2.0).autocorrelation(observable, lags)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ((0, 3), ValueError, "batch must be at least 1"),
        ((2.0, 3), TypeError, "batch must be an integer"),
        ((2, 0), ValueError, "length must be at least 1"),
        ((2, "3"), TypeError, "length must be an integer"),
        ((2, 3, 5), TypeError, "generator must be a torch Generator, got int"),
        ((2, 3, np.random.default_rng()), TypeError, "generator must be a torch Generator"),
    ],
)
def test_bad_sample(arguments, error, message):
    with pytest.raises(error, match=message):
        chains.sticky(4, 2.0).sample(*arguments)


# --- estimated ---


def test_estimate_counts_transitions():
    chain = chains.estimate([[0, 1, 1, 0, 2], [2, 0], [1]])
    assert torch.equal(
        chain.transition_matrix, torch.tensor([[0, 0.5, 0.5], [0.5, 0.5, 0], [1, 0, 0]], dtype=torch.float64)
    )
    smooth = chains.estimate(np.array([[0, 1, 1, 0]]), n_states=3, pseudocount=1)
    assert torch.allclose(
        smooth.transition_matrix,
        torch.tensor([[1, 2, 1], [2, 2, 1], [1, 1, 1]]).double() / torch.tensor([[4], [5], [3]]),
    )


def test_estimate_recovers_a_chain_within_its_standard_error():
    chain = chains.reversible(5, 3.0)
    tokens = chain.sample(400, 500, torch.Generator().manual_seed(0))
    found = chains.estimate(tokens)
    p, pi = chain.transition_matrix, chain.stationary_distribution
    z = (found.transition_matrix - p) / (p * (1 - p) / (pi[:, None] * 400 * 499)).sqrt()
    assert z.abs().max() < 4.5 and z.square().mean() < 2
    assert found.correlation_length == pytest.approx(3.0, rel=0.05)


TOKENS = np.array([[0, 1, 1, 0, 2], [2, 0, 0, 1, 2]])


FORMS = [
    np.asarray, torch.from_numpy, np.ma.array, list, np.asfortranarray,
    lambda x: x.astype(x.dtype.newbyteorder(">")), lambda x: list(map(torch.from_numpy, x)),
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u8"])
@pytest.mark.parametrize("convert", FORMS)
def test_estimate_takes_integers_of_any_kind(dtype, convert):
    found, expected = chains.estimate(convert(TOKENS.astype(dtype))), chains.estimate(TOKENS.tolist())
    assert torch.equal(found.transition_matrix, expected.transition_matrix)


def test_estimate_refuses_masked_tokens():
    tokens = np.ma.array(TOKENS)
    tokens[1, 3] = np.ma.masked
    for sequences in (tokens, list(tokens), [list(s) for s in tokens]):
        with pytest.raises(ValueError, match=r"^sequences\[1\]\S* has masked \(missing\) entries, 1 of"):
            chains.estimate(sequences)


WITHOUT_VALUES = [
    torch.Tensor.to_sparse,
    lambda x: x.to("meta"),
    lambda x: torch.nested.nested_tensor(list(x)),
]


@pytest.mark.parametrize("convert", WITHOUT_VALUES, ids=["sparse", "meta", "nested"])
def test_estimate_refuses_tensors_without_dense_values(convert):
    x = torch.from_numpy(TOKENS)
    with pytest.raises(TypeError, match=r"^sequences must be a dense tensor"):
        chains.estimate(convert(x))
    with pytest.raises(TypeError, match=r"^sequences\[1\] must be a dense tensor"):
        chains.estimate([x[0], convert(x)])


@pytest.mark.parametrize(
    "sequences, arguments, error, message",
    [
        ([[0.0, 1.0]], {}, TypeError, "integers"),
        ([[True, False]], {}, TypeError, "integers"),
        ([[[0, 1]]], {}, TypeError, "one sequence"),
        ([0, 1, 0], {}, TypeError, "one sequence"),
        ([[0, 3, 0]], {"n_states": 3}, ValueError, "n_states"),
        ([[0, -1, 0]], {}, ValueError, "0, ..., 1"),
        ([[0, 1, 0, 2]], {}, ValueError, "state 2 is never left.*pseudocount"),
        ([[0, 1, 0, 1]], {}, ValueError, "pseudocount"),
        ([[0, 1]], {"pseudocount": -1}, ValueError, "pseudocount"),
        ([[0, 1, 0]], {"pseudocount": None}, TypeError, "pseudocount must be a number"),
        ([[0, 1, 0]], {"pseudocount": np.array([1, 2])}, TypeError, "pseudocount must be a number"),
        ([[]], {}, ValueError, "no transition"),
        ([[0], [1]], {"pseudocount": 1.0}, ValueError, "no transition"),  # no chain of the prior alone
        ("0101", {}, TypeError, "sequence"),
        ([[0, 7, 0, 7, 7]], {}, ValueError, r"state 1 of 0, ..., 7 never occurs .* relabel the 2 that do"),
        ([[0, 7, 0, 7, 7]], {"pseudocount": 0.5}, ValueError, "state 1 .* relabel"),  # not six new states
        ([[5, 50256, 5, 5]], {}, ValueError, "state 0 of 0, ..., 50256 never occurs .* relabel"),
        ([[0, 1, 0, 0]], {"n_states": 3}, ValueError, "state 2 of .* never .*n_states and a pseudocount"),
        ([[3, 3, 3]], {"pseudocount": 0.5}, ValueError, "the state 3 alone"),
    ],
)  # fmt: skip
def test_estimate_rejects_bad_input(sequences, arguments, error, message):
    with pytest.raises(error, match=message):
        chains.estimate(sequences, **arguments)


def test_relabelled_ids_with_gaps_give_the_chain_of_those_ids():
    chain = chains.sticky(3, 2.0, [3, 2, 1])
    tokens = chain.sample(50, 200, torch.Generator().manual_seed(0))
    ids = torch.tensor([4, 17, 900])[tokens].numpy()
    found = chains.estimate(np.unique(ids, return_inverse=True)[1].reshape(ids.shape))
    assert torch.equal(found.transition_matrix, chains.estimate(tokens).transition_matrix)
    assert found.correlation_length == pytest.approx(2.0, rel=0.1)
    declared = chains.estimate(
        [[0, 1, 1, 0]], n_states=3, pseudocount=1
    )  # the caller says that there is a third state
    assert declared.n_states == 3


# --- what a chain gives out ---


def test_a_chain_cannot_be_changed_in_place():
    chain = chains.hierarchical(8, 3.0)
    whole = {
        name: getattr(chain, name) for name in ("transition_matrix", "stationary_distribution", "eigenvalues")
    }
    g = torch.Generator().manual_seed(0)
    before = chain.sample(4, 9, g)
    for name, value in whole.items():
        getattr(chain, name).zero_()
        getattr(chain, name)[0] = 1
        assert torch.equal(getattr(chain, name), value)
        with pytest.raises(AttributeError):
            setattr(chain, name, value)
    for name in ("n_states", "correlation_length"):
        with pytest.raises(AttributeError):
            setattr(chain, name, 2)
    assert torch.equal(chain.sample(4, 9, g.manual_seed(0)), before)
    matrix = whole["transition_matrix"].clone()
    mine = chains.MarkovChain(matrix)
    matrix.zero_()
    assert torch.equal(mine.transition_matrix, whole["transition_matrix"])


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda chain: pickle.loads(pickle.dumps(chain))], ids=["deepcopy", "pickle"]
)
def test_a_copy_of_a_chain_is_the_same_chain(copied):
    chain = chains.ring(5, 3.0)
    twin = copied(chain)
    assert (
        torch.equal(twin.transition_matrix, chain.transition_matrix)
        and twin.correlation_length == chain.correlation_length
    )
    assert torch.equal(
        twin.sample(2, 5, torch.Generator().manual_seed(1)),
        chain.sample(2, 5, torch.Generator().manual_seed(1)),
    )
