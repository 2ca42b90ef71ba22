"""The task on which networks are measured, and what is measured on it."""

import time
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr

from rgnb import checks, metrics
from rgnb.masking import bayes_posterior, corrupt, entropy
from rgnb.model import ResidualMLP
from rgnb.randomness import generator
from rgnb.training import BLOCK, load_model

MATRICES = 256  # sequences that the token, masked and sequence views use: rows enough, a fraction of the time

FLOORS = (1e-6, 1e-3)  # of the log-posteriors whose effective rank counts the relevant modes


def rehearse(setting, sequences, device, analysis=None):
    """What is measured of a setting, on an untrained network and a number of sequences: before long work, its variables and its time."""
    weights = {
        f"weight.{name}": value[0] for name, value in ResidualMLP(setting.model).state_dict().items()
    } | {"history": torch.zeros(1)}
    # At a very low rate few sequences may have no position to measure.
    training = replace(setting.training, rate=max(setting.training.rate, 0.1))
    part, steps = (
        replace(setting, sequences=sequences, training=training),
        (*training.snapshots, training.steps),
    )
    return (analysis or measure)(
        evaluation(setting.chain, part), part, 0, dict.fromkeys(steps, weights), device
    )


def seconds_measuring(setting, device, analysis=None):
    """Wall time of measuring one network of a setting (seconds): a line through that of a sixteenth and a quarter of the sequences, timed now."""
    took = []
    for sequences in (max(64, setting.sequences // 16), max(64, setting.sequences // 4)):
        started = time.monotonic()
        rehearse(setting, sequences, device, analysis)
        took.append(time.monotonic() - started)
    return took[1] + 4 * max(took[1] - took[0], 0)


@dataclass
class Evaluation:
    """The fixed task on which networks of one setting are measured."""

    inputs: torch.Tensor  # (sequences, length)
    selected: torch.Tensor  # (sequences, length) bool
    bayes: torch.Tensor  # (selected positions, V) posterior given the whole sequence
    reachable: torch.Tensor  # the same, given only what the architecture can see


def evaluation(chain, setting):
    """Draw the evaluation sequences of a setting (fixed seed) with their exact posteriors."""
    config, n = setting.training, chain.n_states
    g = generator(0, 2)
    tokens = chain.sample(setting.sequences, setting.model.length, g)
    inputs, selected = corrupt(tokens, n, config.rate, config.scheme, g)
    if not selected.any():
        raise checks.BadValue(
            f"no position was selected at rate {config.rate}; use more sequences or a higher rate"
        )
    bayes = bayes_posterior(chain, inputs, config.scheme, config.rate)[selected]
    alone = bayes_posterior(chain, torch.arange(n + 1)[:, None], config.scheme, config.rate)[:, 0]
    return Evaluation(
        inputs, selected, bayes, bayes if setting.model.mixing == "tokens" else alone[inputs[selected]]
    )


@torch.no_grad()
def forward(model, inputs, device):
    """Stream (depth + 1 tensors) and log-probabilities of all sequences of a single network, on the CPU."""
    model = model.to(device)
    if model.config.mixing == "none":  # what a position carries depends on its own token alone
        stream = model.stream(torch.arange(model.config.n_states + 1, device=device)[None])
        log_p = model.readout(stream[-1]).log_softmax(-1)
        return [x[0].cpu()[inputs] for x in stream], log_p[0].cpu()[inputs]
    streams = [torch.empty(*inputs.shape, model.config.width) for _ in range(model.config.depth + 1)]
    log_p = torch.empty(*inputs.shape, model.config.n_states)
    for part in torch.arange(len(inputs)).split(64):  # small enough for the caches
        here = slice(part[0], part[-1] + 1)
        stream = model.stream(inputs[here].to(device))
        log_p[here] = model.readout(stream[-1]).log_softmax(-1).cpu()
        for whole, x in zip(streams, stream):
            whole[here] = x.cpu()
    return streams, log_p


def _ranks(x):
    # Every rank of one activation array (..., n, d), averaged over its leading dimensions.
    out = {}
    for centring in ("centred", "uncentred"):
        s = metrics.singular_values(x, center=centring == "centred")
        ranks = [metrics.spectrum_rank(s, spectrum) for spectrum in metrics.SPECTRA]
        ranks += [metrics.spectrum_participation(s), metrics.spectrum_stable(s)]
        out[centring] = (
            [r.mean().item() for r in ranks],
            (s**2).flatten(0, -2).mean(0).sqrt() if s.ndim > 1 else s,
        )
    return out


def _view_layers(stream, view, selected):
    part = slice(None) if view in ("position", "pooled") else slice(MATRICES)
    return [metrics.view(x[part], view, selected[part]) for x in stream]


def _position_cka(layers, function):
    # A few positions at a time keeps the float64 copies of all depths small.
    return torch.cat([function([x[i : i + 8] for x in layers]) for i in range(0, len(layers[0]), 8)])


def measure(task, setting, seed, snapshots, device):
    """Ranks, drift and losses of one trained network; see `Experiment.run` for the dims.

    Args:
        task: Evaluation; setting: Setting; seed: int; snapshots: {step: weights}, as `train` returns them;
        device: torch.device.
    """
    steps = sorted(snapshots)
    models = {0: ResidualMLP(setting.model, seed)} | {
        s: load_model(setting.model, snapshots[s]) for s in steps
    }
    depths, width, views = setting.model.depth + 1, setting.model.width, metrics.VIEWS
    definitions = [*metrics.SPECTRA, "participation", "stable"]
    rank = np.full((2, len(views), 2, len(definitions), depths), np.nan)
    spectra = np.full((2, len(views), 2, depths, width), np.nan, dtype=np.float32)
    cka = np.full((2, len(views), depths, depths), np.nan)
    step_rank = np.full((len(models), 2, depths), np.nan)
    step_drift = np.full((len(models), depths - 1), np.nan)
    excess, loss = np.zeros(len(models)), np.zeros(len(models))
    rows = [
        r
        for r in (setting.sequences // 64, setting.sequences // 16, setting.sequences // 4, setting.sequences)
        if r > 1
    ]
    by_rows = np.full((len(rows), 2, depths), np.nan)

    for k, (step, model) in enumerate(models.items()):
        stream, log_p = forward(model, task.inputs, device)
        log_p = log_p[task.selected].double()
        excess[k] = (-entropy(task.reachable) - (task.reachable * log_p).sum(-1)).mean()
        loss[k] = -(task.bayes * log_p).sum(-1).mean()
        position = _view_layers(stream, "position", task.selected)
        if step not in (0, steps[-1]):
            s = [metrics.singular_values(x) for x in position]
            step_rank[k] = [
                [metrics.spectrum_rank(x, spectrum).mean() for x in s] for spectrum in metrics.SPECTRA
            ]
            step_drift[k] = _position_cka(position, metrics.kernel_drift).mean(0)
            continue
        state = int(step > 0)
        for v, name in enumerate(views):
            layers = position if name == "position" else _view_layers(stream, name, task.selected)
            for depth, x in enumerate(layers):
                for c, (ranks, s) in enumerate(_ranks(x).values()):
                    rank[state, v, c, :, depth] = ranks
                    spectra[state, v, c, depth, : len(s)] = s
            if min(x.shape[-2] for x in layers) >= 4:
                matrices = (
                    _position_cka(layers, metrics.cka_matrix)
                    if name == "position"
                    else metrics.cka_matrix(layers)
                )
                cka[state, v] = matrices.reshape(-1, depths, depths).nanmean(
                    0
                )  # a constant matrix has no CKA
        step_rank[k] = rank[state, 0, 0, :2]
        step_drift[k] = 1 - cka[state, 0].diagonal(1)
        if state:
            by_rows[:-1] = [
                [
                    [metrics.effective_rank(x[:, :r], spectrum=s).mean() for x in position]
                    for s in metrics.SPECTRA
                ]
                for r in rows[:-1]
            ]
            by_rows[-1] = rank[1, 0, 0, :2]

    last = snapshots[steps[-1]]
    pi = setting.chain.stationary_distribution
    modes = [metrics.relevant_modes(task.bayes, floor) for floor in FLOORS]
    dims = ("state", "view", "centring")
    long = {  # name: (dims, values, long name, units)
        "effective_rank": ((*dims, "spectrum", "depth"), rank[:, :, :, :2], "effective rank, mean over the view's matrices", "1"),
        "participation_ratio": ((*dims, "depth"), rank[:, :, :, 2], "participation ratio", "1"),
        "stable_rank": ((*dims, "depth"), rank[:, :, :, 3], "stable rank", "1"),
        "singular_value": ((*dims, "depth", "mode"), spectra, "root mean square over matrices of each singular value", "1"),
        "cka": (("state", "view", "depth", "other_depth"), cka, "debiased linear CKA between depths, mean over matrices", "1"),
        "kernel_drift": (("state", "view", "transition"), 1 - np.diagonal(cka, 1, -2, -1), "1 - CKA of consecutive depths", "1"),
        "step_rank": (("step", "spectrum", "depth"), step_rank, "effective rank, position view, centred", "1"),
        "step_drift": (("step", "transition"), step_drift, "kernel drift, position view", "1"),
        "rows_rank": (("rows", "spectrum", "depth"), by_rows, "effective rank, position view, centred, by sequences used", "1"),
        "excess_loss": (("step",), excess, "mean KL from the best reachable predictor at selected positions", "nat"),
        "loss": (("step",), loss, "expected cross-entropy at selected positions", "nat"),
        "training_loss": (("block",), last["history"].numpy(), f"training loss, mean over {BLOCK} steps", "nat"),
        "bayes_loss": ((), entropy(task.bayes).mean().item(), "Bayes loss floor", "nat"),
        "reachable_loss": ((), entropy(task.reachable).mean().item(), "loss floor of the architecture", "nat"),
        "marginal_entropy": ((), entropy(pi).item(), "entropy of the stationary law", "nat"),
        "relevant_modes": (("floor",), modes, "effective rank (eigenvalues) of the Bayes log-posterior", "1"),
    }  # fmt: skip
    dataset = xr.Dataset(
        {k: (d, v, {"long_name": name, "units": unit}) for k, (d, v, name, unit) in long.items()},
        coords={
            "state": ["init", "trained"],
            "view": list(views),
            "centring": ["centred", "uncentred"],
            "spectrum": list(metrics.SPECTRA),
            "depth": range(depths),
            "other_depth": range(depths),
            "transition": range(depths - 1),
            "step": list(models),
            "rows": rows,
            "floor": list(FLOORS),
            "block": BLOCK * np.arange(1, len(last["history"]) + 1),
        },
    )
    return dataset
