"""The anatomy of a trained network: what each depth carries of each mode, and what the prediction sees of it.

An analysis for `Experiment.run(analysis=anatomy)`, measured right after training, at every snapshot. *Masked rows* are
the positions that show [MASK], *visible rows* those that show a state.
"""

import torch
import xarray as xr

from rgnb import metrics
from rgnb.masking import entropy
from rgnb.model import ResidualMLP
from rgnb.randomness import generator
from rgnb.study.measurement import MATRICES, forward
from rgnb.study.probes import INTERVENTIONS, eigenmodes
from rgnb.study.settings import analysis
from rgnb.training import load_model

FLOOR = 1e-6  # of the Bayes posterior, before its logarithm is taken
OFFSETS = 8  # how far from the diagonal couplings between positions are kept
ROUNDING = 1e-12  # share of a sum of squares below which it is rounding error
PERTURBED = 128  # sequences of which perturbations are followed


def log_posterior(posterior, floor=FLOOR):
    """Bayes log-posterior, centred over the vocabulary: (n, V) probabilities -> (n, V), those below `floor` raised to it."""
    log_q = posterior.clamp(min=floor).log()
    return log_q - log_q.mean(-1, keepdim=True)


def level_shares(chain, logits):
    """Share of the variance of log-probabilities that lies in each level of a chain's modes.

    A *level* is the modes whose eigenvalues share one modulus; the coordinate of a log-probability z on a mode phi is
    `sum_s pi(s) phi(s) z(s)`. The shares add up to 1 where the modes are orthogonal under the stationary law pi, as those
    of reversible chains and of cycles are.

    Args:
        chain: MarkovChain with V states; logits: (n, V), rows up to a constant each.

    Returns:
        (levels,) float64, by decreasing modulus; NaN where nothing varies.
    """
    _, group, functions = eigenmodes(chain)
    logits = logits.double()
    variance = (logits @ (functions * chain.stationary_distribution[:, None])).var(0, correction=0)
    total = variance.sum() if variance.sum() > ROUNDING * logits.square().mean() else torch.nan
    return torch.zeros(int(group.max()) + 1, dtype=torch.float64).index_add(0, group, variance) / total


def explained_shares(x, y, group):
    """Share of the variance of all columns of x that a linear function of each group of targets explains, on these rows.

    Args:
        x: (n, d) activations; y: (n, k) targets; group: (k,) group number of each target.

    Returns:
        (groups,) float64; NaN where x is constant.
    """
    x, y = x.double(), y.double()
    size, x, y = x.square().sum(), x - x.mean(0), y - y.mean(0)
    total = x.square().sum()
    gram, cross = y.T @ y, y.T @ x
    found = torch.full((int(group.max()) + 1,), torch.nan, dtype=torch.float64)
    for g in range(len(found) if total > ROUNDING * size else 0):
        values, vectors = torch.linalg.eigh(gram[group == g][:, group == g])
        kept = (
            values > ROUNDING * gram.diagonal().max()
        )  # targets may depend on each other, or not vary at all
        found[g] = ((vectors[:, kept] / values[kept].sqrt()).T @ cross[group == g]).square().sum() / total
    return found


def alignment(features, weights):
    """Cosine between the Gram matrices of features and of the weights that read them, 1 where the two factors are balanced.

    Args:
        features: (n, d), centred here over rows; weights: (V, d), centred here over the vocabulary, to which softmax is blind.

    Returns:
        `<H^T H, W^T W> / (|H^T H| |W^T W|)`, Frobenius products, a float.
    """
    h, w = features.double(), weights.double()
    h, w = (z - z.mean(0) for z in (h, w))
    a, b = h.T @ h, w.T @ w
    return ((a * b).sum() / (a.norm() * b.norm())).item()


def couplings(model):
    """How the token MLP of each block couples positions: up- times down-projection, averaged along its diagonals.

    The MLP linearised at 0, without the slope of its GELU there; entry (i, j) is what position i adds to position j.

    Returns:
        (mean, elsewhere): (blocks, 2 OFFSETS + 1) means over entries with j - i = -OFFSETS ... OFFSETS, (blocks,) root mean square of all
        others. NaN without mixing, and where sequences are too short to have such entries.
    """
    blocks = len(model.blocks)
    mean, elsewhere = torch.full((blocks, 2 * OFFSETS + 1), torch.nan), torch.full((blocks,), torch.nan)
    for b, block in enumerate(model.blocks):
        if block.token_mlp is None:
            continue
        product = block.token_mlp.up.weight[0] @ block.token_mlp.down.weight[0]
        for k in range(-OFFSETS, OFFSETS + 1):
            mean[b, k + OFFSETS] = product.diagonal(k).mean() if abs(k) < len(product) else torch.nan
        places = torch.arange(len(product))
        elsewhere[b] = product[(places[:, None] - places).abs() > OFFSETS].square().mean().sqrt()
    return mean, elsewhere


def absolute_growth(model, inputs, g):
    """Factor by which each block changes the size of a small perturbation of its input, to first order (Jacobian-vector products).

    Args:
        model: single network; inputs: (n, length) tokens; g: torch.Generator of the random perturbation.

    Returns:
        (2, blocks): of an isotropic random perturbation, and of one along the difference of two sequences' streams.
    """
    stream = model.stream(inputs)
    found = torch.zeros(2, len(stream) - 1)
    for depth, x in enumerate(stream[:-1]):
        noise = torch.randn(x.shape, generator=g).to(x.device)
        for k, v in enumerate((noise, x.roll(1, 0) - x)):
            _, moved = torch.func.jvp(model.blocks[depth], (x[None],), (v[None],))
            found[k, depth] = moved.norm() / v.norm()
    return found


@torch.no_grad()
def _readout(model, x):
    # Logits less their mean, and the final LayerNorm's output, of rows (n, width), in float64: equal rows stay equal.
    gain, shift = (p[0, 0, 0].double() for p in (model.final_norm.weight, model.final_norm.bias))
    normed = torch.nn.functional.layer_norm(x.double(), x.shape[-1:]) * gain + shift
    logits = normed @ model.head.weight[0].double() + model.head.bias[0].double()
    return logits - logits.mean(-1, keepdim=True), normed


@analysis(id="rgnb.probes.anatomy", version=1)
def anatomy(task, setting, seed, snapshots, device):
    """Uncentred ranks, lens, shares of the modes, couplings and balance at every snapshot; growth of perturbations at both ends.

    The *lens* at a depth is what the final LayerNorm and the head make of the stream there. Everything that names the Bayes posterior uses
    its logarithm with floor `FLOOR`, centred over the vocabulary.

    Returns:
        Dataset with dims among (step, state, centring, spectrum, depth, mode, symbol, level, rows_shown, block, offset, perturbation, transition).
    """
    chain, (modulus, group, functions) = setting.chain, eigenmodes(setting.chain)
    levels = range(int(group.max()) + 1)
    steps = sorted(snapshots)
    models = {0: ResidualMLP(setting.model, seed)} | {
        s: load_model(setting.model, snapshots[s]) for s in steps
    }
    masked = task.inputs == chain.n_states
    visible = ~masked
    posterior = torch.zeros(*masked.shape, chain.n_states, dtype=torch.float64)
    posterior[task.selected] = task.bayes
    q = posterior[masked]
    bayes = log_posterior(q)
    coordinates = bayes @ (functions * chain.stationary_distribution[:, None])
    few = slice(MATRICES)
    shown = functions[task.inputs[few][visible[few]]]
    depths, width, n = setting.model.depth + 1, setting.model.width, len(models)
    rank = torch.zeros(n, 2, depths)
    masked_values = torch.zeros(n, 2, depths, width)
    lens_values = torch.zeros(n, depths, chain.n_states)
    lens_excess, unread = torch.zeros(n, depths), torch.zeros(n, depths)
    stream_share, lens_share = torch.zeros(n, 2, len(levels), depths), torch.zeros(n, len(levels), depths)
    aligned = torch.zeros(n)
    features, heads = torch.zeros(n, width), torch.zeros(n, chain.n_states)
    coupling, elsewhere = [], []
    for k, model in enumerate(models.values()):
        stream, _ = forward(model, task.inputs, device)
        model = model.cpu()
        head = model.head.weight[0].detach().double().T
        head = head - head.mean(0)
        read = torch.linalg.svd(head, full_matrices=False).Vh[: chain.n_states - 1]
        for depth, x in enumerate(stream):
            position, rows = metrics.view(x, "position"), x[masked]
            s = metrics.singular_values(position, center=False)
            rank[k, :, depth] = torch.stack(
                [metrics.spectrum_rank(s, kind).mean() for kind in metrics.SPECTRA]
            )
            for c, center in enumerate((True, False)):
                s = metrics.singular_values(rows, center)
                masked_values[k, c, depth, : len(s)] = s.float()
            logits, normed = _readout(model, rows)
            s = metrics.singular_values(logits)
            lens_values[k, depth, : len(s)] = s.float()
            lens_excess[k, depth] = (-entropy(q) - (q * logits.log_softmax(-1)).sum(-1)).mean()
            centred = normed - normed.mean(0)
            varies = centred.square().sum() > ROUNDING * normed.square().sum()
            unread[k, depth] = (
                1 - (centred @ read.T).square().sum() / centred.square().sum() if varies else torch.nan
            )
            lens_share[k, :, depth] = level_shares(chain, logits)
            stream_share[k, 0, :, depth] = explained_shares(rows, coordinates, group)
            stream_share[k, 1, :, depth] = explained_shares(x[few][visible[few]], shown, group)
        aligned[k] = alignment(normed, head)
        s = metrics.singular_values(normed)
        features[k, : len(s)], heads[k] = s.float(), torch.linalg.svdvals(head)
        for found, value in zip((coupling, elsewhere), couplings(model)):
            found.append(value.detach())
    ends, inputs = [models[0], models[steps[-1]]], task.inputs[-INTERVENTIONS:][:PERTURBED].to(device)
    growth = [absolute_growth(m.to(device).requires_grad_(False), inputs, generator(seed, 5)) for m in ends]
    long = {  # name: (dims, values, long name, units)
        "uncentred_rank": (("step", "spectrum", "depth"), rank, "effective rank, position view, uncentred", "1"),
        "masked_singular_value": (("step", "centring", "depth", "mode"), masked_values, "singular values of the stream at masked rows", "1"),
        "lens_singular_value": (("step", "depth", "symbol"), lens_values, "singular values of the lens's log-probabilities at masked rows", "1"),
        "lens_excess": (("step", "depth"), lens_excess, "mean KL from the Bayes predictor to the lens at masked rows", "nat"),
        "unread": (("step", "depth"), unread, "share of the normalised stream's variance at masked rows that the head does not read", "1"),
        "stream_share": (("step", "rows_shown", "level", "depth"), stream_share, "share of the stream's variance explained by a level of modes", "1"),
        "lens_share": (("step", "level", "depth"), lens_share, "share of the lens's variance in a level of modes, masked rows", "1"),
        "bayes_share": (("level",), level_shares(chain, bayes), "share of the Bayes log-posterior's variance in a level of modes", "1"),
        "alignment": (("step",), aligned, "cosine of H^T H and W^T W, features and head at the last depth, masked rows", "1"),
        "feature_singular_value": (("step", "mode"), features, "singular values of the normalised stream at the last depth, masked rows", "1"),
        "head_singular_value": (("step", "symbol"), heads, "singular values of the head, centred over the vocabulary", "1"),
        "coupling": (("step", "block", "offset"), torch.stack(coupling), "mean coupling of positions in the token MLP, by offset", "1"),
        "coupling_elsewhere": (("step", "block"), torch.stack(elsewhere), "root mean square of the couplings further apart", "1"),
        "growth": (("state", "perturbation", "transition"), torch.stack(growth), "factor by which a block changes a perturbation's size", "1"),
        "modulus": (("level",), [modulus[group == g][0].item() for g in levels], "modulus of a level's eigenvalues", "1"),
        "multiplicity": (("level",), [int((group == g).sum()) for g in levels], "number of a level's modes", "1"),
        "bayes_singular_value": (("symbol",), metrics.singular_values(bayes)[: chain.n_states], "singular values of the Bayes log-posterior", "1"),
    }  # fmt: skip
    return xr.Dataset(
        {k: (dims, v, {"long_name": name, "units": unit}) for k, (dims, v, name, unit) in long.items()},
        coords={
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
        },
    )
