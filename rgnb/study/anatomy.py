"""The anatomy of a network: what each depth carries of each mode, and how much of it the prediction sees.

An analysis for `Experiment.run(analysis=anatomy)`, measured right after training, at every snapshot. *Masked
rows* are the positions that show [MASK], *visible rows* those that show a state.
"""

from collections.abc import Iterable

import torch
import xarray as xr

from rgnb import checks, metrics
from rgnb.chains import MarkovChain
from rgnb.masking import entropy
from rgnb.model import ResidualMLP
from rgnb.randomness import generator
from rgnb.study.measurement import MATRICES, Evaluation, Snapshots, forward, networks, variable
from rgnb.study.probes import INTERVENTIONS, PERTURBED, absolute_growth, eigenmodes
from rgnb.study.settings import Setting, analysis

FLOOR = 1e-6  # of the Bayes posterior, before its logarithm is taken
OFFSETS = 8  # how far from the diagonal couplings between positions are kept
ROUNDING = 1e-12  # share of a sum of squares below which it is rounding error


def log_posterior(posterior: torch.Tensor) -> torch.Tensor:
    """Bayes log-posterior with floor `FLOOR`, centred over the vocabulary: (n, V) -> (n, V)."""
    log_q = checks.matrix("posterior", posterior).clamp(min=FLOOR).log()
    return log_q - log_q.mean(-1, keepdim=True)


def level_shares(chain: MarkovChain, logits: torch.Tensor) -> torch.Tensor:
    """Share of the variance of log-probabilities that lies in each level of a chain's modes.

    A *level* is the modes whose eigenvalues share one modulus; the coordinate of a log-probability z on a
    mode phi is `sum_s pi(s) phi(s) z(s)`. The shares add up to 1 where the modes are orthogonal under the
    stationary law pi, as those of reversible chains and of cycles are.

    Args:
        chain: MarkovChain with V states; logits: (n, V), rows up to a constant each.

    Returns:
        (levels,) float64, by decreasing modulus; NaN where nothing varies.
    """
    _, group, functions = eigenmodes(chain)
    logits = checks.matrix("logits", logits)
    if logits.shape[1] != chain.n_states:
        raise checks.BadValue(f"logits must be (n, {chain.n_states}), got shape {tuple(logits.shape)}")
    variance = (logits @ (functions * chain.stationary_distribution[:, None])).var(0, correction=0)
    total = variance.sum() if variance.sum() > ROUNDING * logits.square().mean() else torch.nan
    return group.bincount(variance) / total


def explained_shares(x: torch.Tensor, y: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
    """Share of the variance of x, all its columns, that linear functions of each group of targets explain.

    Args:
        x: (n, d) activations; y: (n, k) targets; group: (k,) group number of each target.

    Returns:
        (groups,) float64; NaN where x is constant.
    """
    x, y = checks.paired(checks.matrix, x=x, y=y)
    group = checks.states("group", group, y.shape[1])
    if group.shape != y.shape[1:]:
        raise checks.BadValue(f"group must be ({y.shape[1]},), one per target, got {tuple(group.shape)}")
    size, x, y = x.square().sum(), x - x.mean(0), y - y.mean(0)
    total = x.square().sum()
    gram, cross = y.T @ y, y.T @ x
    found = torch.full((int(group.max()) + 1,), torch.nan, dtype=torch.float64)
    for g in range(len(found) if total > ROUNDING * size else 0):
        values, vectors = torch.linalg.eigh(gram[group == g][:, group == g])
        # Targets may depend on each other, or not vary at all.
        kept = values > ROUNDING * gram.diagonal().max()
        found[g] = ((vectors[:, kept] / values[kept].sqrt()).T @ cross[group == g]).square().sum() / total
    return found


def alignment(features: torch.Tensor, weights: torch.Tensor) -> float:
    """Cosine between the Gram matrices of features and of the weights that read them, 1 where balanced.

    Args:
        features: (n, d), centred here over rows.
        weights: (V, d), centred here over the vocabulary, to which softmax is blind.

    Returns:
        `<H^T H, W^T W> / (|H^T H| |W^T W|)`, Frobenius products, a float.
    """
    h, w = checks.matrix("features", features), checks.matrix("weights", weights)
    if h.shape[1] != w.shape[1]:
        raise checks.BadValue(f"features and weights must be of one width, got {h.shape[1]} and {w.shape[1]}")
    h, w = (z - z.mean(0) for z in (h, w))
    a, b = h.T @ h, w.T @ w
    return ((a * b).sum() / (a.norm() * b.norm())).item()


def couplings(model: ResidualMLP) -> tuple[torch.Tensor, torch.Tensor]:
    """How the token MLP of each block couples positions: up- times down-projection, by its diagonals.

    This is the MLP linearised at 0, without the slope of its GELU there; entry (i, j) is what position i adds
    to position j.

    Returns:
        (mean, elsewhere): (blocks, 2 OFFSETS + 1) means over entries with j - i = -OFFSETS ... OFFSETS,
        (blocks,) root mean square of all others. NaN without token mixing, and where sequences are too short
        to have such entries.
    """
    blocks = len(model.blocks)
    mean, elsewhere = torch.full((blocks, 2 * OFFSETS + 1), torch.nan), torch.full((blocks,), torch.nan)
    for b, block in enumerate(model.blocks if model.config.mixing == "tokens" else ()):
        product = block.token_mlp.up.weight[0] @ block.token_mlp.down.weight[0]
        for k in range(-OFFSETS, OFFSETS + 1):
            mean[b, k + OFFSETS] = product.diagonal(k).mean() if abs(k) < len(product) else torch.nan
        places = torch.arange(len(product))
        elsewhere[b] = product[(places[:, None] - places).abs() > OFFSETS].square().mean().sqrt()
    return mean, elsewhere


@torch.no_grad()
def _readout(model: ResidualMLP, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    # Centred logits and final LayerNorm of rows (n, width); in float64, so that equal rows stay equal.
    gain, shift = (p[0, 0, 0].double() for p in (model.final_norm.weight, model.final_norm.bias))
    normed = torch.nn.functional.layer_norm(x.double(), x.shape[-1:]) * gain + shift
    logits = normed @ model.head.weight[0].double() + model.head.bias[0].double()
    return logits - logits.mean(-1, keepdim=True), normed


def _couplings(models: Iterable[ResidualMLP]) -> dict[str, tuple]:
    # `couplings` of the networks of all snapshots, as variables.
    mean, elsewhere = (torch.stack(x).detach() for x in zip(*map(couplings, models), strict=True))
    return {
        "coupling": variable(
            "step block offset", mean, "mean coupling of positions in the token MLP, by offset"
        ),
        "coupling_elsewhere": variable(
            "step block", elsewhere, "root mean square of the couplings further apart"
        ),
    }


def ranks(values: xr.DataArray, dim: str, spectrum: str) -> xr.DataArray:
    """Effective rank of stored singular values, see `metrics.spectrum_rank`; NaN counts as 0.

    Args:
        values: such as `lens_singular_value`; dim: the one along which they lie, "mode" or "symbol".
        spectrum: "singular" or "eigen".

    Returns:
        DataArray without that dim.
    """
    checks.choice("dim", dim, checks.instance("values", values, xr.DataArray).dims)
    found = values.fillna(0).transpose(..., dim)
    return found.isel({dim: 0}, drop=True).copy(
        data=metrics.spectrum_rank(checks.tensor("values", found.values), spectrum)
    )


@analysis(id="rgnb.anatomy.coupling", version=1)
def coupling(
    task: Evaluation, setting: Setting, seed: int, snapshots: Snapshots, device: torch.device
) -> xr.Dataset:
    """`couplings` alone, at every snapshot: the marker of a network's group, without measuring anything else.

    Returns:
        Dataset with dims among (step, block, offset).
    """
    models = networks(setting, seed, snapshots)
    coords = {"step": list(models), "block": range(1, setting.model.depth + 1)}
    return xr.Dataset(_couplings(models.values()), coords | {"offset": range(-OFFSETS, OFFSETS + 1)})


@analysis(id="rgnb.probes.anatomy", version=1)
def anatomy(
    task: Evaluation, setting: Setting, seed: int, snapshots: Snapshots, device: torch.device
) -> xr.Dataset:
    """Uncentred ranks, lens, shares of modes, couplings, balance at every snapshot; growth at both ends.

    The *lens* at a depth is what the final LayerNorm and the head make of the stream there. Everything that
    names the Bayes posterior uses its logarithm with floor `FLOOR`, centred over the vocabulary.

    Returns:
        Dataset with dims among (step, state, centring, spectrum, depth, mode, symbol, level, rows_shown,
        block, offset, perturbation, transition).
    """
    chain, (modulus, group, functions) = setting.chain, eigenmodes(setting.chain)
    levels = range(int(group.max()) + 1)
    models = networks(setting, seed, snapshots)
    masked = task.inputs == chain.n_states
    posterior = torch.zeros(*masked.shape, chain.n_states, dtype=torch.float64)
    posterior[task.selected] = task.bayes
    q = posterior[masked]
    bayes = log_posterior(q)
    coordinates = bayes @ (functions * chain.stationary_distribution[:, None])
    few = slice(MATRICES)
    visible = ~masked[few]
    shown = functions[task.inputs[few][visible]]
    depths, width, n = setting.model.depth + 1, setting.model.width, len(models)
    rank = torch.zeros(n, 2, depths)
    masked_values = torch.zeros(n, 2, depths, width)
    lens_values = torch.zeros(n, depths, chain.n_states)
    lens_excess, unread = torch.zeros(n, depths), torch.zeros(n, depths)
    stream_share, lens_share = torch.zeros(n, 2, len(levels), depths), torch.zeros(n, len(levels), depths)
    aligned, features, heads = torch.zeros(n), torch.zeros(n, width), torch.zeros(n, chain.n_states)
    for k, model in enumerate(models.values()):
        stream, _ = forward(model, task.inputs, device)
        model = model.cpu()
        head = model.head.weight[0].detach().double().T
        head = head - head.mean(0)
        read = torch.linalg.svd(head, full_matrices=False).Vh[: chain.n_states - 1]
        for depth, x in enumerate(stream):
            rows = x[masked]
            s = metrics.singular_values(metrics.view(x, "position"), center=False)
            for i, kind in enumerate(metrics.SPECTRA):
                rank[k, i, depth] = metrics.spectrum_rank(s, kind).mean()
            for c, center in enumerate((True, False)):
                s = metrics.singular_values(rows, center)
                masked_values[k, c, depth, : len(s)] = s.float()
            logits, normed = _readout(model, rows)
            s = metrics.singular_values(logits)
            lens_values[k, depth, : len(s)] = s.float()
            lens_excess[k, depth] = (-entropy(q) - (q * logits.log_softmax(-1)).sum(-1)).mean()
            centred = normed - normed.mean(0)
            variance, seen = centred.square().sum(), (centred @ read.T).square().sum()
            varies = variance > ROUNDING * normed.square().sum()
            unread[k, depth] = 1 - seen / variance if varies else torch.nan
            lens_share[k, :, depth] = level_shares(chain, logits)
            stream_share[k, 0, :, depth] = explained_shares(rows, coordinates, group)
            stream_share[k, 1, :, depth] = explained_shares(x[few][visible], shown, group)
        aligned[k] = alignment(normed, head)
        s = metrics.singular_values(normed)
        features[k, : len(s)], heads[k] = s.float(), torch.linalg.svdvals(head)
    inputs = task.inputs[-INTERVENTIONS:][:PERTURBED].to(device)
    ends = (models[step].to(device).requires_grad_(False) for step in (0, max(snapshots)))
    growth = torch.stack([absolute_growth(model, inputs, generator(seed, 5)) for model in ends])
    bayes_values = metrics.singular_values(bayes)[: chain.n_states]
    variables = {
        "uncentred_rank": variable("step spectrum depth", rank, "effective rank, position view, uncentred"),
        "masked_singular_value": variable(
            "step centring depth mode", masked_values, "singular values of the stream at masked rows"
        ),
        "lens_singular_value": variable(
            "step depth symbol", lens_values, "singular values of the lens's log-probabilities at masked rows"
        ),
        "lens_excess": variable(
            "step depth", lens_excess, "mean KL from the Bayes predictor to the lens at masked rows", "nat"
        ),
        "unread": variable(
            "step depth",
            unread,
            "share of the normalised stream's variance at masked rows that the head does not read",
        ),
        "stream_share": variable(
            "step rows_shown level depth",
            stream_share,
            "share of the stream's variance explained by a level of modes",
        ),
        "lens_share": variable(
            "step level depth", lens_share, "share of the lens's variance in a level of modes, masked rows"
        ),
        "bayes_share": variable(
            "level",
            level_shares(chain, bayes),
            "share of the Bayes log-posterior's variance in a level of modes",
        ),
        "alignment": variable(
            "step", aligned, "cosine of H^T H and W^T W, features and head at the last depth, masked rows"
        ),
        "feature_singular_value": variable(
            "step mode", features, "singular values of the normalised stream at the last depth, masked rows"
        ),
        "head_singular_value": variable(
            "step symbol", heads, "singular values of the head, centred over the vocabulary"
        ),
        **_couplings(models.values()),
        "growth": variable(
            "state perturbation transition", growth, "factor by which a block changes a perturbation's size"
        ),
        "modulus": variable(
            "level", [modulus[group == g][0].item() for g in levels], "modulus of a level's eigenvalues"
        ),
        "multiplicity": variable(
            "level", [int((group == g).sum()) for g in levels], "number of a level's modes"
        ),
        "bayes_singular_value": variable(
            "symbol", bayes_values, "singular values of the Bayes log-posterior"
        ),
    }
    coords = {
        "step": list(models),
        "state": ["init", "trained"],
        "centring": ["centred", "uncentred"],
        "spectrum": list(metrics.SPECTRA),
        "depth": range(depths),
        "transition": range(depths - 1),
        "rows_shown": ["masked", "visible"],
        "level": range(1, len(levels) + 1),
        "block": range(1, depths),
        "offset": range(-OFFSETS, OFFSETS + 1),
        "perturbation": ["random", "between sequences"],
    }
    return xr.Dataset(variables, coords)
