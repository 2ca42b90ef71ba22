"""The masked-token task: corruption, the exact Bayes predictor and the loss floor it sets.

Each position is selected independently with probability `rate`. Scheme "mask" shows [MASK] (id
`n_states`) there; scheme "bert" (Devlin et al., arXiv:1810.04805) shows [MASK] in 80 %, a uniform random
state in 10 % and the true state in 10 % of the cases. The task is to predict the true state at selected
positions.
"""

from typing import Any

import torch
from torch import Generator, Tensor

from rgnb import checks
from rgnb.chains import MarkovChain

SCHEMES = ("mask", "bert")


def corrupt(
    tokens: Tensor,
    n_states: int,
    rate: float = 0.15,
    scheme: str = "mask",
    generator: Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Select positions and corrupt them.

    Args:
        tokens: (..., length) int64 states.

    Returns:
        (inputs, selected): corrupted tokens and the boolean selection, both of `tokens`' shape.

    Raises:
        ValueError: tokens that are not integers in 0..n_states-1.
    """
    rate, scheme = checks.fraction("rate", rate), checks.choice("scheme", scheme, SCHEMES)
    tokens = checks.states("tokens", tokens, checks.integer("n_states", n_states, 2))
    if generator is not None:
        checks.instance("generator", generator, Generator)
    draw = torch.rand(tokens.shape, generator=generator, device=tokens.device)
    selected = draw < rate
    if scheme == "mask":
        return tokens.masked_fill(selected, n_states), selected
    # Given selection, draw / rate is uniform: it also decides which of the three corruptions applies.
    random = torch.randint(n_states, tokens.shape, generator=generator, device=tokens.device)
    inputs = tokens.masked_fill(draw < 0.8 * rate, n_states)
    return torch.where(selected & (draw >= 0.9 * rate), random, inputs), selected


def expected_counts(chain: MarkovChain, scheme: str = "mask") -> Tensor:
    """Shares of (shown, true) tokens among selected positions, in expectation over sequences and corruption.

    Args:
        chain: MarkovChain with V states; scheme: corruption.

    Returns:
        (V + 1, V) float64, summing to 1: rows are shown tokens, the last [MASK]; columns true states.
    """
    pi = checks.instance("chain", chain, MarkovChain, "make one of rgnb.chains").stationary_distribution
    n, masked = len(pi), 1.0 if checks.choice("scheme", scheme, SCHEMES) == "mask" else 0.8
    # Half of the rest is shown as it is, half as a random state.
    seen = (torch.eye(n, dtype=pi.dtype) + 1 / n) * (1 - masked) / 2
    return torch.cat([seen, torch.full((1, n), masked, dtype=pi.dtype)]) * pi


def _likelihoods(observed: Tensor, n: int, scheme: str, rate: float) -> tuple[Tensor, Tensor]:
    # Evidence about the true state x from the shown token o: at a position known to be selected
    # (target) and at any other position (context). Both (..., V), flat where o is [MASK].
    masked = (observed == n)[..., None]
    shown = torch.nn.functional.one_hot(observed.clamp(max=n - 1), n).to(torch.float64)
    if scheme == "mask":
        target = context = shown
    else:
        target = 0.1 * shown + 0.1 / n
        context = (1 - rate) * shown + rate * target
    return torch.where(masked, 1.0, target), torch.where(masked, 1.0, context)


def bayes_posterior(chain: MarkovChain, observed: Tensor, scheme: str = "mask", rate: float = 0.15) -> Tensor:
    """Exact law of the true token at each position, were that position selected, given all that is shown.

    Forward-backward with normalised messages; under "mask" this is the posterior of a
    hidden Markov model that emits its state or [MASK].

    Args:
        chain: MarkovChain with V states.
        observed: (batch, length) int64 tokens in 0..V, where V is [MASK].
        scheme, rate: how the tokens were corrupted; `rate` matters under "bert" only.

    Returns:
        (batch, length, V) float64 on `observed`'s device; rows sum to 1.

    Raises:
        ValueError: tokens out of range, or a sequence that the chain cannot produce.
    """
    rate, scheme = checks.fraction("rate", rate), checks.choice("scheme", scheme, SCHEMES)
    n = checks.instance("chain", chain, MarkovChain, "make one of rgnb.chains").n_states
    observed = checks.states("observed", observed, n, mask=True)
    if observed.ndim != 2 or observed.numel() == 0:
        shape = tuple(observed.shape)
        raise checks.BadValue(f"observed must be (batch, length), neither of them 0, got shape {shape}")
    P = chain.transition_matrix.to(observed.device)
    target, context = _likelihoods(observed, n, scheme, rate)
    length = observed.shape[1]
    # forward[t] = Pr(x_t | shown before t), backward[t] ~ Pr(shown after t | x_t).
    forward = torch.empty_like(context)
    forward[:, 0] = chain.stationary_distribution.to(observed.device)
    for t in range(1, length):
        message = forward[:, t - 1] * context[:, t - 1]
        forward[:, t] = message / message.sum(-1, keepdim=True) @ P
    backward = torch.ones_like(context)
    for t in range(length - 2, -1, -1):
        message = (context[:, t + 1] * backward[:, t + 1]) @ P.T
        backward[:, t] = message / message.amax(-1, keepdim=True)
    posterior = forward * target * backward
    total = posterior.sum(-1, keepdim=True)
    impossible = ~(total > 0).squeeze(-1)
    if impossible.any():
        i = impossible.nonzero()[0, 0].item()
        raise checks.BadValue(
            f"observed[{i}] has probability zero under the chain; check the chain and the token ids"
        )
    return posterior / total


def entropy(p: Any) -> Tensor:
    """Shannon entropy in nats over the last axis, with 0 ln 0 = 0: (..., V) -> (...)."""
    p = checks.tensor("p", p).double()
    if p.ndim < 1 or not ((p >= 0) & (p <= 1 + 1e-6)).all():
        raise checks.BadValue(f"p must be (..., V) probabilities, got shape {tuple(p.shape)}")
    return torch.special.entr(p).sum(-1)


def loss_floor(posterior: Tensor, selected: Tensor) -> float:
    """Smallest reachable mean cross-entropy (nats): the posterior's mean entropy at selected positions.

    Args:
        posterior: (batch, length, V) from `bayes_posterior`; selected: (batch, length) bool, not all False.
    """
    posterior, selected = checks.tensor("posterior", posterior), checks.tensor("selected", selected)
    if selected.dtype != torch.bool or posterior.shape[:-1] != selected.shape or not selected.any():
        wanted, found = tuple(posterior.shape[:-1]), f"{selected.dtype} {tuple(selected.shape)}"
        raise checks.BadValue(
            f"selected must be booleans of shape {wanted}, one of them True at least, got {found}"
        )
    return entropy(posterior[selected]).mean().item()
