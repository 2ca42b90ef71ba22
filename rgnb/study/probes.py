"""Follow each mode of the chain through depth: linear probes, removal of directions, perturbations.

Two analyses for `Experiment.run(analysis=...)`: `mode_retention` and `perturbations`. A *mode* is a right
eigenvector of the transition matrix; the modulus of its eigenvalue says how relevant it is for prediction at
a distance.
"""

from collections.abc import Iterator
from typing import Any

import torch
import xarray as xr
from torch.nn import functional as F

from rgnb import checks, metrics
from rgnb.chains import MarkovChain
from rgnb.masking import entropy
from rgnb.model import ResidualMLP
from rgnb.randomness import generator
from rgnb.study.measurement import Evaluation, Snapshots, forward, networks, variable
from rgnb.study.settings import Setting, analysis

REMOVED = (1, 3, 7)  # how many directions are taken out: the level boundaries of the hierarchical chains
DIRECTIONS = ("relevant", "irrelevant", "random", "random, by variance")
SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)  # factors by which the stream is rescaled
INTERVENTIONS = 1024  # sequences, of the held-out half, for interventions and perturbations
PERTURBED = 128  # sequences of which perturbations are followed


def eigenmodes(chain: MarkovChain) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Right eigenvectors of a chain as real functions on its states, by decreasing modulus of the eigenvalue.

    Within a group of equal modulus (a degenerate eigenvalue, a complex pair) the functions are an orthonormal
    basis of the group's span under the stationary law; which one is arbitrary, so report sums over a group.

    Args:
        chain: MarkovChain with V states.

    Returns:
        (modulus, group, functions): (V-1,) float64, (V-1,) int64 group numbers, (V, V-1) float64 whose
        columns have mean 0 and variance 1 under the stationary law.
    """
    checks.instance("chain", chain, MarkovChain, "make one of rgnb.chains")
    root = chain.stationary_distribution.sqrt()
    similar = root[:, None] * chain.transition_matrix / root
    if torch.allclose(similar, similar.T, rtol=0, atol=1e-12):  # detailed balance
        values, vectors = torch.linalg.eigh((similar + similar.T) / 2)
    else:
        values, vectors = torch.linalg.eig(similar)
    order = values.abs().argsort(descending=True, stable=True)[1:]  # the first belongs to the stationary law
    modulus, vectors = values.abs()[order], vectors[:, order]
    group = torch.cat([torch.zeros(1), (modulus.diff().abs() > 1e-6).cumsum(0)]).long()
    columns = []
    for g in range(int(group[-1]) + 1):
        members = vectors[:, group == g]
        parts = torch.cat([members.real, members.imag], 1) if members.is_complex() else members
        columns.append(torch.linalg.svd(parts, full_matrices=False).U[:, : members.shape[1]])
    return modulus, group, torch.cat(columns, 1) / root[:, None]


def nearest_visible(inputs: Any, n_states: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Nearest tokens that are not [MASK] strictly left and right of each position; -1 where there is none.

    Args:
        inputs: (batch, length) tokens, [MASK] = n_states.

    Returns:
        (left, right): two (batch, length) int64 tensors.
    """
    inputs = checks.states("inputs", inputs, checks.integer("n_states", n_states, 2), mask=True)
    if inputs.ndim != 2 or not inputs.shape[1]:
        raise checks.BadValue(f"inputs must be (batch, length), length >= 1, got shape {tuple(inputs.shape)}")

    def before(tokens):
        visible = tokens != n_states
        places = torch.arange(tokens.shape[1]).expand_as(tokens)
        last = torch.where(visible, places, -1).cummax(1).values.roll(1, 1)
        last[:, 0] = -1
        return torch.where(last >= 0, tokens.gather(1, last.clamp(min=0)), -1)

    return before(inputs), before(inputs.flip(1)).flip(1)


def linear_fit(x: Any, y: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Least squares with intercept, kept stable by a ridge of 1e-9 of the mean variance.

    Args:
        x: (n, d) activations; y: (n, k) targets.

    Returns:
        (d, k) weights, (k,) intercepts.
    """
    x, y = checks.paired(checks.matrix, x=x, y=y)
    x_mean, y_mean = x.mean(0), y.mean(0)
    x, y = x - x_mean, y - y_mean
    gram = x.T @ x
    ridge = 1e-9 * gram.trace() / len(gram) + torch.finfo(x.dtype).tiny
    weights = torch.linalg.solve(gram + ridge * torch.eye(len(gram), dtype=x.dtype), x.T @ y)
    return weights, y_mean - x_mean @ weights


def held_out_r2(x: Any, y: Any, fit: Any, group: Any) -> torch.Tensor:
    """Share of variance that a linear readout fitted on some rows explains on others, by group of targets.

    Args:
        x: (n, d) activations; y: (n, k) targets.
        fit: (n,) bool, rows to fit on.
        group: (k,) group number of each target.

    Returns:
        (k,) float64: R^2 of each target's group: at most 1, near 0 or slightly below it where nothing can be
        read, NaN where the targets of a group do not vary.
    """
    x, y = checks.paired(checks.matrix, x=x, y=y)
    fit, group = checks.tensor("fit", fit), checks.states("group", group, y.shape[1])
    if fit.dtype != torch.bool or fit.shape != x.shape[:1] or fit.all() or not fit.any():
        raise checks.BadValue(f"fit must be {len(x)} booleans, some of them True and some False")
    if group.shape != y.shape[1:]:
        raise checks.BadValue(
            f"group must be one number for each of {y.shape[1]} targets, got shape {tuple(group.shape)}"
        )
    weights, intercept = linear_fit(x[fit], y[fit])
    error = ((y[~fit] - x[~fit] @ weights - intercept) ** 2).sum(0)
    total = ((y[~fit] - y[fit].mean(0)) ** 2).sum(0)
    error, total = group.bincount(error), group.bincount(total)
    return torch.where(total > 1e-12 * len(y), 1 - error / total, torch.nan)[group]


def erasing_directions(x: Any, y: Any) -> torch.Tensor:
    """Orthonormal directions whose removal leaves no linear trace of y in x: the span of their covariance.

    Args:
        x: (n, d) activations; y: (n, k) targets, k <= d.

    Returns:
        (d, k) float64. After `x - (x - mean) Q Q^T` the covariance with y is 0 on these rows, and with it the
        R^2 of every linear readout.
    """
    x, y = checks.paired(checks.matrix, x=x, y=y)
    if y.shape[1] > x.shape[1]:
        raise checks.BadValue(f"y must have at most as many columns as x, got {y.shape[1]} and {x.shape[1]}")
    return torch.linalg.qr((x - x.mean(0)).T @ (y - y.mean(0))).Q


def pooled(values: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
    """Each mode's value replaced by the root mean square over its group, which no choice of basis changes.

    Args:
        values: (states, modes, depths); group: (modes,) group numbers.
    """
    total = torch.zeros(len(values), int(group.max()) + 1, values.shape[2], dtype=values.dtype)
    total = total.index_add(1, group, values**2)
    return (total / group.bincount()[:, None]).sqrt()[:, group]


def _ends(setting: Setting, seed: int, snapshots: Snapshots) -> list[ResidualMLP]:
    # The untrained network and the trained one.
    last = max(snapshots)
    return list(networks(setting, seed, {last: snapshots[last]}).values())


def _targets(
    chain: MarkovChain, task: Evaluation, functions: torch.Tensor
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    # Masked positions with a visible neighbour on both sides, and what may be read there.
    masked = task.inputs == chain.n_states
    left, right = nearest_visible(task.inputs, chain.n_states)
    rows = masked & (left >= 0) & (right >= 0)
    posterior = task.bayes[rows[task.selected]] @ functions
    return rows, {"left": functions[left[rows]], "right": functions[right[rows]], "posterior": posterior}


@analysis(id="rgnb.probes.mode_retention", version=1)
def mode_retention(
    task: Evaluation, setting: Setting, seed: int, snapshots: Snapshots, device: torch.device
) -> xr.Dataset:
    """What the stream at masked positions holds of each mode, by depth, and what the network does without it.

    A held-out linear readout (fitted on one half of the sequences) of the mode's value at the nearest visible
    neighbours and of the Bayes posterior's projection on it; then the loss at masked positions when
    directions are removed from their stream at one depth: those of the posterior's projections on the most
    relevant or the least relevant modes (`erasing_directions`), or random ones, isotropic or drawn with the
    stream's own covariance.

    Returns:
        Dataset with dims (state, target, eigenmode, depth) and (direction, removed, depth).

    Raises:
        ValueError: hardly any masked position has a visible one on either side.
    """
    chain, (modulus, group, functions) = setting.chain, eigenmodes(setting.chain)
    rows, targets = _targets(chain, task, functions)
    half = len(rows) // 2
    fit = (torch.arange(len(rows)) < half)[:, None].expand_as(rows)[rows]
    test = slice(half, half + INTERVENTIONS)
    if fit.sum() < 2 or not rows[test].any():
        raise checks.BadValue(
            f"{rows.sum()} masked positions have a visible one on either side, too few to read from; use "
            f"more sequences, a length greater than {setting.model.length} or a rate other than "
            f"{setting.training.rate:g}"
        )
    depths = setting.model.depth + 1
    r2 = torch.zeros(2, len(targets), len(group), depths, dtype=torch.float64)
    for state, model in enumerate(_ends(setting, seed, snapshots)):
        stream, _ = forward(model, task.inputs, device)
        for depth, x in enumerate(stream):
            for k, y in enumerate(targets.values()):
                r2[state, k, :, depth] = held_out_r2(x[rows].double(), y, fit, group)

    # `model` and `stream` are the trained network's from here on.
    q = torch.zeros(*rows.shape, chain.n_states, dtype=torch.float64)
    q[task.selected] = task.bayes
    removed = [k for k in REMOVED if k < len(group) and k <= setting.model.width]
    increase = torch.zeros(len(DIRECTIONS), len(removed), depths, dtype=torch.float64)
    g = generator(seed, 3)
    for depth, x in enumerate(stream):
        known, posterior = x[rows][fit].double(), targets["posterior"][fit]
        mean = known.mean(0)
        spread = (known - mean).T @ (known - mean)
        before = _masked_loss(model, x[test], depth, rows[test], q[test])
        for j, k in enumerate(removed):
            isotropic = torch.randn(len(mean), k, generator=g, dtype=torch.float64)
            for i, y in enumerate((posterior[:, :k], posterior[:, -k:], isotropic, spread @ isotropic)):
                Q = erasing_directions(known, y) if i < 2 else torch.linalg.qr(y).Q
                changed = x[test].clone()
                here = changed[rows[test]].double()
                changed[rows[test]] = (here - (here - mean) @ Q @ Q.T).float()
                after = _masked_loss(model, changed, depth, rows[test], q[test])
                increase[i, j, depth] = after - before
    learnable = (entropy(chain.stationary_distribution) - entropy(task.bayes).mean()).item()
    variables = {
        "r2": variable(
            "state target eigenmode depth",
            r2,
            "held-out R^2 of a linear readout, pooled over modes of equal modulus",
        ),
        "modulus": variable("eigenmode", modulus, "modulus of the eigenvalue"),
        "loss_increase": variable(
            "direction removed depth",
            increase,
            "increase of the loss at masked positions when directions are removed",
            "nat",
        ),
        "learnable": variable("", learnable, "entropy of the stationary law minus the Bayes loss", "nat"),
    }
    coords = {
        "state": ["init", "trained"],
        "target": list(targets),
        "eigenmode": range(1, len(group) + 1),
        "depth": range(depths),
        "direction": list(DIRECTIONS),
        "removed": removed,
    }
    return xr.Dataset(variables, coords)


@torch.no_grad()
def _masked_loss(
    model: ResidualMLP, stream: torch.Tensor, depth: int, rows: torch.Tensor, q: torch.Tensor
) -> float:
    # Expected cross-entropy (nats) at `rows`, the network continued from its stream at `depth`.
    total, device = 0.0, next(model.parameters()).device
    for x, r, p in zip(stream.split(64), rows.split(64), q.split(64), strict=True):
        log_p = model.readout(model.continue_stream(x.to(device), depth)[-1]).log_softmax(-1)
        total -= (p[r] * log_p.cpu()[r]).sum().item()
    return total / rows.sum().item()


def tilts(chain: MarkovChain, functions: torch.Tensor) -> torch.Tensor:
    """Modes (V, k), from `eigenmodes`, as directions in the space of one-hot tokens: (k, V)."""
    return (functions * chain.stationary_distribution[:, None]).T * chain.n_states


def responses(
    model: ResidualMLP, tilts: torch.Tensor, inputs: torch.Tensor
) -> Iterator[tuple[torch.Tensor, ...]]:
    """The change of the stream, to first order, when what the embedding reads at visible positions is tilted.

    Args:
        model: single network; tilts: (k, V); inputs: (batch, length) tokens.

    Yields:
        For each tilt, depth + 1 tensors (batch, length, width).
    """
    visible, embedded = inputs != model.config.n_states, model.stream(inputs)[0]
    for tilt in F.pad(tilts, (0, 1)).to(embedded):  # [MASK] is not tilted
        field = model.embedding(torch.where(visible[..., None], tilt, 0.0)[None])[0]
        yield torch.func.jvp(lambda x: tuple(model.continue_stream(x, 0)), (embedded,), (field,))[1]


def absolute_growth(model: ResidualMLP, inputs: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    """Factor by which each block changes the size of a small perturbation of its input, to first order.

    Args:
        model: single network; inputs: (n, length) tokens; g: generator of the random perturbation.

    Returns:
        (2, blocks): of an isotropic random perturbation, and of one along the difference of two sequences'
        streams.
    """
    stream = model.stream(inputs)
    found = torch.zeros(2, len(stream) - 1)
    for depth, x in enumerate(stream[:-1]):
        noise = torch.randn(x.shape, generator=g).to(x.device)
        for k, v in enumerate((noise, x.roll(1, 0) - x)):
            moved = torch.func.jvp(model.blocks[depth], (x[None],), (v[None],))[1]
            found[k, depth] = moved.norm() / v.norm()
    return found


@analysis(id="rgnb.probes.perturbations", version=1)
def perturbations(
    task: Evaluation, setting: Setting, seed: int, snapshots: Snapshots, device: torch.device
) -> xr.Dataset:
    """Whether small changes of the stream grow or fade through depth, and how drift depends on its size.

    Changes are followed exactly to first order (Jacobian-vector products) and measured relative to the
    stream's own spread (root mean square over sequences about each position's mean): `growth` is the factor
    by which one block changes a random perturbation, isotropic or along a difference of two sequences'
    streams; `mode_response` follows a mode's field, the change of the embedding when every visible token's
    law is tilted along the mode, to the masked positions. `scaled_drift` is the kernel drift (position view)
    of a block applied to the stream times a factor: at a fixed point of the block it is 0 at every factor,
    while the same update added to a larger stream just turns it less.

    Returns:
        Dataset with dims (state, perturbation, transition), (state, eigenmode, depth), (scale, transition).
    """
    modulus, group, functions = eigenmodes(setting.chain)
    inputs = task.inputs[-INTERVENTIONS:].to(device)
    masked = inputs == setting.model.n_states
    depths = setting.model.depth
    growth = torch.zeros(2, 2, depths, dtype=torch.float64)
    response = torch.zeros(2, len(group), depths + 1, dtype=torch.float64)
    drift = torch.zeros(len(SCALES), depths, dtype=torch.float64)
    update = torch.zeros(2, depths, dtype=torch.float64)
    few = slice(PERTURBED)
    g = generator(seed, 4)
    for state, model in enumerate(_ends(setting, seed, snapshots)):
        model = model.to(device).requires_grad_(False)
        stream = model.stream(inputs)
        spread = torch.stack([(x - x.mean(0)).square().mean().sqrt() for x in stream]).cpu()
        growth[state] = absolute_growth(model, inputs[few], g) * spread[:-1] / spread[1:]
        for depth, x in enumerate(stream[:-1]):
            update[state, depth] = (stream[depth + 1] - x).norm() / x.norm()
            if state:
                for k, scale in enumerate(SCALES):
                    ends = model.continue_stream(scale * x, depth)[:2]
                    layers = [y.transpose(0, 1).cpu() for y in ends]
                    drift[k, depth] = metrics.kernel_drift(layers).mean()
        for k, moved in enumerate(responses(model, tilts(setting.chain, functions), inputs[few])):
            for depth, v in enumerate(moved):
                response[state, k, depth] = v[masked[few]].square().mean().sqrt() / spread[depth]
    variables = {
        "growth": variable(
            "state perturbation transition",
            growth,
            "factor by which a block changes a perturbation, relative to the stream's spread",
        ),
        "mode_response": variable(
            "state eigenmode depth",
            pooled(response, group),
            "response at masked positions to a mode's field, relative to the stream's spread",
        ),
        "scaled_drift": variable(
            "scale transition", drift, "kernel drift of a block applied to the rescaled stream, trained"
        ),
        "update": variable("state transition", update, "size of a block's update relative to the stream"),
        "modulus": variable("eigenmode", modulus, "modulus of the eigenvalue"),
    }
    coords = {
        "state": ["init", "trained"],
        "perturbation": ["random", "between sequences"],
        "eigenmode": range(1, len(group) + 1),
        "depth": range(depths + 1),
        "transition": range(depths),
        "scale": list(SCALES),
    }
    return xr.Dataset(variables, coords)
