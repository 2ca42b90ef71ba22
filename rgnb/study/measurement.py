"""The task on which networks are measured, and what is measured on it."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch.nn import functional as F

from rgnb import checks, metrics
from rgnb.masking import bayes_posterior, corrupt, entropy
from rgnb.model import ResidualMLP
from rgnb.randomness import generator
from rgnb.study.settings import Analysis, Setting
from rgnb.training import BLOCK, load_model

MATRICES = 256  # sequences that the token, masked and sequence views use: enough rows, in less time
FLOORS = (1e-6, 1e-3)  # of the log-posteriors whose effective rank counts the relevant modes
CENTRINGS = ("centred", "uncentred")

Snapshots = Mapping[int, Mapping[str, torch.Tensor]]  # {step: weights}, as `train` returns them for one seed


@dataclass
class Evaluation:
    """The fixed task on which networks of one setting are measured."""

    inputs: torch.Tensor  # (sequences, length)
    selected: torch.Tensor  # (sequences, length) bool
    bayes: torch.Tensor  # (selected positions, V) posterior given the whole sequence
    # The same, given only what the architecture can see; attention without positions is allowed the order.
    reachable: torch.Tensor


def evaluation(setting: Setting) -> Evaluation:
    """Draw the evaluation sequences of a setting (fixed seed) with their exact posteriors."""
    chain, config = setting.chain, setting.training
    n, g = chain.n_states, generator(0, 2)
    tokens = chain.sample(setting.sequences, setting.model.length, g)
    inputs, selected = corrupt(tokens, n, config.rate, config.scheme, g)
    if not selected.any():
        raise checks.BadValue(
            f"no position was selected at rate {config.rate}; use more sequences or a higher rate"
        )
    bayes = reachable = bayes_posterior(chain, inputs, config.scheme, config.rate)[selected]
    if (reach := setting.model.reach) is not None:
        # Beyond the ends nothing is shown, as at a [MASK].
        around = F.pad(inputs, (reach, reach), value=n).unfold(1, 2 * reach + 1, 1)[selected]
        reachable = bayes_posterior(chain, around, config.scheme, config.rate)[:, reach]
    return Evaluation(inputs, selected, bayes, reachable)


def rehearse(
    setting: Setting, sequences: int, device: torch.device, analysis: Analysis | None = None
) -> xr.Dataset:
    """Measure an untrained network of a setting on a few sequences, to see variables, errors and time."""
    part = _part(setting, sequences)
    return (analysis or measure)(evaluation(part), part, 0, _untrained(setting, 0), device)


def stand_in(
    setting: Setting, seed: int, device: torch.device, analysis: Analysis | None = None
) -> xr.Dataset:
    """`rehearse` in the shape of the real result, so that the two can be combined."""
    return (analysis or measure)(
        evaluation(_part(setting, 64)), setting, seed, _untrained(setting, seed), device
    )


def _part(setting: Setting, sequences: int) -> Setting:
    # At a very low rate, a few sequences may have no position to measure.
    training = replace(setting.training, rate=max(setting.training.rate, 0.1))
    return replace(setting, sequences=sequences, training=training)


def _untrained(setting: Setting, seed: int) -> Snapshots:
    state, training = ResidualMLP(setting.model, seed).state_dict(), setting.training
    weights = {f"weight.{name}": value[0] for name, value in state.items()}
    weights["history"] = torch.zeros(training.steps // BLOCK)
    steps = {*(s for s in training.snapshots if s < training.steps), training.steps}
    return dict.fromkeys(sorted(steps), weights)


def seconds_measuring(
    setting: Setting, device: torch.device, analysis: Analysis | None = None, most: int | None = None
) -> float:
    """Seconds that measuring one network of a setting takes, extrapolated from parts of the sequences.

    Linear in their number, through the times of a sixteenth and of a quarter of them, taken now.

    Args:
        most: use no more sequences than that and a quarter of it: a rougher estimate in less time.
    """
    many = max(64, min(setting.sequences // 4, most or setting.sequences))
    few, took = max(64, many // 4), []
    for sequences in (few, many):
        started = time.monotonic()
        rehearse(setting, sequences, device, analysis)
        took.append(time.monotonic() - started)
    return took[1] + (setting.sequences - many) * max(took[1] - took[0], 0) / max(many - few, 1)


def networks(setting: Setting, seed: int, snapshots: Snapshots) -> dict[int, ResidualMLP]:
    """The networks of one seed by training step, the untrained one first."""
    trained = {step: load_model(setting.model, snapshots[step]) for step in sorted(snapshots)}
    return {0: ResidualMLP(setting.model, seed)} | trained


@torch.no_grad()
def forward(
    model: ResidualMLP, inputs: torch.Tensor, device: torch.device
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Stream (depth + 1 tensors) and log-probabilities of all sequences of a single network, on the CPU."""
    model = model.to(device)
    if model.config.mixing == "none":  # what a position carries depends only on its own token
        stream = model.stream(torch.arange(model.config.n_states + 1, device=device)[None])
        log_p = model.readout(stream[-1]).log_softmax(-1)
        return [x[0].cpu()[inputs] for x in stream], log_p[0].cpu()[inputs]
    streams = [torch.empty(*inputs.shape, model.config.width) for _ in range(model.config.depth + 1)]
    log_p = torch.empty(*inputs.shape, model.config.n_states)
    for first in range(0, len(inputs), 64):  # small enough for the caches
        here = slice(first, first + 64)
        stream = model.stream(inputs[here].to(device))
        log_p[here] = model.readout(stream[-1]).log_softmax(-1).cpu()
        for whole, x in zip(streams, stream, strict=True):
            whole[here] = x.cpu()
    return streams, log_p


def variable(dims: str, values: Any, long_name: str, units: str = "1") -> tuple:
    """A variable of a Dataset, its dims separated by spaces."""
    return tuple(dims.split()), values, {"long_name": long_name, "units": units}


def _ranks(x: torch.Tensor, center: bool) -> tuple[list[float], torch.Tensor]:
    # Every rank of one activation array (..., n, d), averaged over its leading dims, and its singular values.
    s = metrics.singular_values(x, center)
    ranks = [metrics.spectrum_rank(s, spectrum) for spectrum in metrics.SPECTRA]
    ranks += [metrics.spectrum_participation(s), metrics.spectrum_stable(s)]
    mean = (s**2).flatten(0, -2).mean(0).sqrt() if s.ndim > 1 else s
    return [r.mean().item() for r in ranks], mean


def _view_layers(stream: Sequence[torch.Tensor], view: str, selected: torch.Tensor) -> list[torch.Tensor]:
    part = slice(None) if view in ("position", "pooled") else slice(MATRICES)
    return [metrics.view(x[part], view, selected[part]) for x in stream]


def _position_cka(layers: list[torch.Tensor], function: Callable) -> torch.Tensor:
    # A few positions at a time, so that the float64 copies of all depths stay small.
    return torch.cat([function([x[i : i + 8] for x in layers]) for i in range(0, len(layers[0]), 8)])


def _position_ranks(layers: list[torch.Tensor]) -> list[list[torch.Tensor]]:
    # (spectrum, depth)
    spectra = [metrics.singular_values(x) for x in layers]
    return [[metrics.spectrum_rank(s, kind).mean() for s in spectra] for kind in metrics.SPECTRA]


def measure(
    task: Evaluation, setting: Setting, seed: int, snapshots: Snapshots, device: torch.device
) -> xr.Dataset:
    """Ranks, drift and losses of the networks of one seed; see `Experiment.run` for the dims."""
    models, last = networks(setting, seed, snapshots), max(snapshots)
    depths, width, views = setting.model.depth + 1, setting.model.width, metrics.VIEWS
    rank = np.full((2, len(views), 2, len(metrics.SPECTRA) + 2, depths), np.nan)
    spectra = np.full((2, len(views), 2, depths, width), np.nan, dtype=np.float32)
    cka = np.full((2, len(views), depths, depths), np.nan)
    step_rank = np.full((len(models), 2, depths), np.nan)
    step_drift = np.full((len(models), depths - 1), np.nan)
    excess, loss = np.zeros(len(models)), np.zeros(len(models))
    rows = [setting.sequences // part for part in (64, 16, 4, 1) if setting.sequences // part > 1]
    by_rows = np.full((len(rows), 2, depths), np.nan)

    for k, (step, model) in enumerate(models.items()):
        stream, log_p = forward(model, task.inputs, device)
        log_p = log_p[task.selected].double()
        excess[k] = (-entropy(task.reachable) - (task.reachable * log_p).sum(-1)).mean()
        loss[k] = -(task.bayes * log_p).sum(-1).mean()
        position = _view_layers(stream, "position", task.selected)
        if step not in (0, last):
            step_rank[k] = _position_ranks(position)
            step_drift[k] = _position_cka(position, metrics.kernel_drift).mean(0)
            continue
        state = int(step > 0)
        for v, name in enumerate(views):
            layers = position if name == "position" else _view_layers(stream, name, task.selected)
            for depth, x in enumerate(layers):
                for c in range(2):
                    rank[state, v, c, :, depth], s = _ranks(x, center=c == 0)
                    spectra[state, v, c, depth, : len(s)] = s
            if min(x.shape[-2] for x in layers) >= 4:
                whole = name != "position"
                matrices = metrics.cka_matrix(layers) if whole else _position_cka(layers, metrics.cka_matrix)
                # A constant matrix has no CKA.
                cka[state, v] = matrices.reshape(-1, depths, depths).nanmean(0)
        step_rank[k] = rank[state, 0, 0, :2]
        step_drift[k] = 1 - cka[state, 0].diagonal(1)
        if state:
            by_rows[:-1] = [_position_ranks([x[:, :r] for x in position]) for r in rows[:-1]]
            by_rows[-1] = rank[1, 0, 0, :2]

    by_view, history = "state view centring", snapshots[last]["history"].numpy()
    modes = [metrics.relevant_modes(task.bayes, floor) for floor in FLOORS]
    floors = {"bayes": entropy(task.bayes).mean().item(), "reachable": entropy(task.reachable).mean().item()}
    drift = 1 - np.diagonal(cka, 1, -2, -1)
    variables = {
        "effective_rank": variable(
            f"{by_view} spectrum depth", rank[:, :, :, :2], "effective rank, mean over the view's matrices"
        ),
        "participation_ratio": variable(f"{by_view} depth", rank[:, :, :, 2], "participation ratio"),
        "stable_rank": variable(f"{by_view} depth", rank[:, :, :, 3], "stable rank"),
        "singular_value": variable(
            f"{by_view} depth mode", spectra, "root mean square over matrices of each singular value"
        ),
        "cka": variable(
            "state view depth other_depth", cka, "debiased linear CKA between depths, mean over matrices"
        ),
        "kernel_drift": variable("state view transition", drift, "1 - CKA of consecutive depths"),
        "step_rank": variable("step spectrum depth", step_rank, "effective rank, position view, centred"),
        "step_drift": variable("step transition", step_drift, "kernel drift, position view"),
        "rows_rank": variable(
            "rows spectrum depth", by_rows, "effective rank, position view, centred, by sequences used"
        ),
        "excess_loss": variable(
            "step", excess, "mean KL from the best reachable predictor at selected positions", "nat"
        ),
        "loss": variable("step", loss, "expected cross-entropy at selected positions", "nat"),
        "training_loss": variable("block", history, f"training loss, mean over {BLOCK} steps", "nat"),
        "bayes_loss": variable("", floors["bayes"], "Bayes loss floor", "nat"),
        "reachable_loss": variable("", floors["reachable"], "loss floor of the architecture", "nat"),
        "marginal_entropy": variable(
            "", entropy(setting.chain.stationary_distribution).item(), "entropy of the stationary law", "nat"
        ),
        "relevant_modes": variable("floor", modes, "effective rank (eigenvalues) of the Bayes log-posterior"),
    }
    coords = {
        "state": ["init", "trained"],
        "view": list(views),
        "centring": list(CENTRINGS),
        "spectrum": list(metrics.SPECTRA),
        "depth": range(depths),
        "other_depth": range(depths),
        "transition": range(depths - 1),
        "step": list(models),
        "rows": rows,
        "floor": list(FLOORS),
        "block": BLOCK * np.arange(1, len(history) + 1),
    }
    return xr.Dataset(variables, coords)
