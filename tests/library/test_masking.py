import itertools
import math

import numpy as np
import pytest
import torch

from rgnb import chains
from rgnb.chains import MarkovChain
from rgnb.masking import SCHEMES, bayes_posterior, corrupt, entropy, loss_floor

GAPS = MarkovChain([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.7, 0.0, 0.3]])
TWO = MarkovChain([[0.9, 0.1], [0.3, 0.7]])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def enumerate_posteriors(chain, length, scheme, rate):
    """Every history (states, selections, corruptions) with its probability, by what it shows.

    Returns {shown: (length, V) array}: row t sums the probability of histories that select t, by state.
    """
    n, P, pi = chain.n_states, chain.transition_matrix.tolist(), chain.stationary_distribution.tolist()

    def events(x):  # (what is shown, was it selected, probability)
        if scheme == "mask":
            return [(x, False, 1 - rate), (n, True, rate)]
        random = [(v, True, 0.1 * rate / n) for v in range(n)]
        return [(x, False, 1 - rate), (n, True, 0.8 * rate), (x, True, 0.1 * rate), *random]

    weights = {}
    for states in itertools.product(range(n), repeat=length):
        prior = pi[states[0]] * math.prod(P[i][j] for i, j in itertools.pairwise(states))
        if prior == 0:
            continue
        for history in itertools.product(*map(events, states)):
            table = weights.setdefault(tuple(shown for shown, _, _ in history), np.zeros((length, n)))
            probability = prior * math.prod(p for _, _, p in history)
            for t, (_, selected, _) in enumerate(history):
                if selected:
                    table[t, states[t]] += probability
    return weights


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    "chain, length, rate",
    [
        (TWO, 4, 0.15),
        (TWO, 4, 0.6),
        (GAPS, 3, 0.15),
        (GAPS, 3, 0.4),
        (chains.dirichlet(3, 1.0, seed=1), 3, 0.3),
        (TWO, 1, 0.15),
    ],
)
def test_posterior_against_enumeration(chain, length, rate, scheme):
    weights = enumerate_posteriors(chain, length, scheme, rate)
    posterior = bayes_posterior(chain, list(weights), scheme, rate).numpy()
    assert posterior.shape == (len(weights), length, chain.n_states)
    compared = 0
    for row, table in zip(posterior, weights.values(), strict=True):
        selectable = table.sum(1) > 0
        np.testing.assert_allclose(
            row[selectable], table[selectable] / table[selectable].sum(1, keepdims=True), atol=1e-12
        )
        compared += selectable.sum()
    total = (chain.n_states + 1) ** length
    if scheme == "bert":  # anything may be shown, and any position be selected
        assert compared == total * length
    else:
        assert compared == sum(shown.count(chain.n_states) for shown in weights)

    impossible = set(itertools.product(range(chain.n_states + 1), repeat=length)) - set(weights)
    assert (len(impossible) > 0) == (scheme == "mask" and chain is GAPS)
    for shown in impossible:
        with pytest.raises(ValueError, match=r"observed\[1\] has probability zero under the chain"):
            bayes_posterior(chain, [[0] * length, shown], scheme, rate)


def test_visible_token_is_certain_under_mask():
    observed = torch.tensor([[0, 2, 1, 1, 2]])
    posterior = bayes_posterior(TWO, observed, "mask")
    assert posterior[0, [0, 2, 3]].tolist() == [[1, 0], [0, 1], [0, 1]]
    assert posterior.dtype == torch.float64 and (posterior[0, [1, 4]] > 0.01).all()


def test_nothing_shown_gives_the_stationary_law():
    posterior = bayes_posterior(GAPS, torch.full((2, 9), 3))
    torch.testing.assert_close(posterior, GAPS.stationary_distribution.expand(2, 9, 3))


@pytest.mark.parametrize(
    "chain", [chains.hierarchical(16, 7.0), chains.cycle(16, 3.0), chains.dirichlet(16, 0.3, seed=5)]
)
def test_posterior_against_hmmlearn(chain):
    rate, g = 0.3, seeded()
    observed, selected = corrupt(chain.sample(20, 64, g), 16, rate, "mask", g)
    assert selected.any()
    hmmlearn = pytest.importorskip("hmmlearn.hmm", reason="hmmlearn has no wheel for this Python")
    hmm = hmmlearn.CategoricalHMM(n_components=16, n_features=17)
    hmm.startprob_, hmm.transmat_ = chain.stationary_distribution.numpy(), chain.transition_matrix.numpy()
    hmm.emissionprob_ = np.hstack([(1 - rate) * np.eye(16), np.full((16, 1), rate)])
    expected = hmm.predict_proba(observed.reshape(-1, 1).numpy(), lengths=[64] * 20).reshape(20, 64, 16)
    np.testing.assert_allclose(bayes_posterior(chain, observed, "mask", rate), expected, atol=1e-9)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("chain", [chains.sticky(4, 1e4), chains.dirichlet(5, 0.3, seed=2), GAPS])
def test_long_sequence(chain, scheme):
    g = seeded(1)
    observed, _ = corrupt(chain.sample(1, 5000, g), chain.n_states, 0.15, scheme, g)
    posterior = bayes_posterior(chain, observed, scheme)
    torch.testing.assert_close(
        posterior.sum(-1), torch.ones(1, 5000, dtype=torch.float64), atol=1e-12, rtol=0
    )
    assert (posterior >= 0).all()
    # Far from its ends a long sequence and a cut-out piece of it agree.
    if chain.correlation_length < 10:
        piece = bayes_posterior(chain, observed[:, 2000:2400], scheme)
        torch.testing.assert_close(posterior[:, 2150:2250], piece[:, 150:250], atol=1e-9, rtol=0)


def test_corrupt_mask():
    tokens = torch.randint(4, (2000, 100), generator=seeded())
    before = tokens.clone()
    inputs, selected = corrupt(tokens, 4, 0.2, "mask", seeded(1))
    assert (
        torch.equal(tokens, before)
        and selected.dtype == torch.bool
        and inputs.shape == selected.shape == tokens.shape
    )
    assert torch.equal(inputs, torch.where(selected, 4, tokens))
    n = tokens.numel()
    assert abs(selected.sum().item() - 0.2 * n) < 4 * math.sqrt(n * 0.2 * 0.8)
    both = (selected[:, 1:] & selected[:, :-1]).double()  # neighbours are selected independently
    assert abs(both.mean().item() - 0.04) < 5 * math.sqrt(0.04 / both.numel())


@pytest.mark.parametrize("rate", [0.15, 0.5])
def test_corrupt_bert(rate):
    tokens = torch.randint(4, (4000, 100), generator=seeded())
    inputs, selected = corrupt(tokens, 4, rate, "bert", seeded(1))
    assert torch.equal(inputs[~selected], tokens[~selected])
    n = tokens.numel()
    assert abs(selected.sum().item() - rate * n) < 4 * math.sqrt(n * rate * (1 - rate))
    shown, true = inputs[selected], tokens[selected]
    same = shown == true  # kept, or drawn at random and the same
    others = [(0.025, shown == (true + k) % 4) for k in (1, 2, 3)]
    for p, event in [(0.8, shown == 4), (0.125, same), *others]:
        assert abs(event.sum().item() - p * len(shown)) < 4 * math.sqrt(len(shown) * p * (1 - p))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_generator_decides_the_corruption(scheme):
    tokens = torch.randint(4, (50, 20), generator=seeded())
    first, again, other = (corrupt(tokens, 4, 0.3, scheme, seeded(s)) for s in (1, 1, 2))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_loss_floor_is_the_expected_loss_of_the_bayes_predictor(scheme):
    chain, rate, g = chains.dirichlet(4, 0.5, seed=3), 0.3, seeded(4)
    tokens = chain.sample(4000, 12, g)
    observed, selected = corrupt(tokens, 4, rate, scheme, g)
    posterior = bayes_posterior(chain, observed, scheme, rate)
    nll = -posterior.gather(-1, tokens[..., None])[..., 0].log()
    excess = torch.where(selected, nll - entropy(posterior), 0.0).sum(
        1
    )  # one independent number per sequence
    error = excess.std() / math.sqrt(len(excess))
    assert abs(excess.mean()) < 4 * error
    floor = loss_floor(posterior, selected)
    assert floor == pytest.approx(
        nll[selected].mean().item(), abs=4 * error.item() * len(excess) / selected.sum().item()
    )
    assert (
        floor < entropy(chain.stationary_distribution).item() - 0.1
    )  # context helps, so the floor is not trivial


def test_loss_floor_and_entropy_by_hand():
    posterior = torch.tensor([[[0.5, 0.5], [1.0, 0.0], [0.25, 0.75]]], dtype=torch.float64)
    quarter = math.log(4) - 0.75 * math.log(3)
    assert entropy(posterior)[0].tolist() == pytest.approx([math.log(2), 0, quarter])
    assert loss_floor(posterior, torch.tensor([[True, False, True]])) == pytest.approx(
        (math.log(2) + quarter) / 2
    )


@pytest.mark.parametrize("rate", [0, 1, -0.1, math.nan, "a", None])
def test_bad_rate(rate):
    error = ValueError if isinstance(rate, (int, float)) else TypeError
    with pytest.raises(error, match=r"^rate must"):
        bayes_posterior(TWO, [[0, 2]], "mask", rate)
    with pytest.raises(error, match=r"^rate must"):
        corrupt(torch.tensor([[0, 1]]), 2, rate)


def test_bad_scheme():
    for bad in ([[0, 5]], [[-1, 0]], [[0.5, 1.0]]):
        with pytest.raises(ValueError, match=r"tokens must be integers in 0\.\.4"):
            corrupt(bad, 5)
    with pytest.raises(ValueError, match=r"tokens must be integers .*float64 \[0.5, 1.0\]"):
        corrupt([[0.5, 1.0]], 5)
    with pytest.raises(TypeError, match="generator must be a torch Generator, got int"):
        corrupt([[0, 1]], 5, generator=5)
    with pytest.raises(ValueError, match="unknown scheme 'brt': did you mean 'bert'"):
        bayes_posterior(TWO, [[0, 2]], "brt")
    with pytest.raises(ValueError, match="unknown scheme 'Mask': did you mean 'mask'"):
        corrupt(torch.tensor([[0, 1]]), 2, 0.15, "Mask")


@pytest.mark.parametrize(
    "observed, message",
    [
        ([0, 1], r"observed must be \(batch, length\), neither of them 0, got shape \(2,\)"),
        ([[0.0, 1.0]], "observed must be integers in .*, got torch.float"),
        (torch.zeros(1, 0, dtype=torch.int64), "observed must be"),
        ([[0, 3]], r"observed must be integers in 0..2 \(\[MASK\] is 2\), got torch.int64 \[0, 3\]"),
        ([[-1, 0]], "observed must be integers in"),
    ],
)
def test_bad_observed(observed, message):
    with pytest.raises(ValueError, match=message):
        bayes_posterior(TWO, observed)
