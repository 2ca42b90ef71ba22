"""Train the members (seeds) of one setting together: fresh sequences every step, Adam, checkpoints.

What a member sees depends on its own seed and the step alone: the tokens of block k of seed s come from
a generator seeded with (s, k). So a run resumes from its weights and the step number, and the members
beside it change a result only through the rounding of batched matrix products.
"""

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn import functional as F
from tqdm import tqdm

from rgnb import checks
from rgnb.masking import SCHEMES, corrupt
from rgnb.model import ModelConfig, ResidualMLP

BLOCK = 50  # steps whose sequences are drawn together, and how often the loss is checked and recorded
SAVE_SECONDS = 60  # how often a running training writes its checkpoint


@dataclass(frozen=True)
class TrainConfig:
    """How a network is trained. Defaults: the optimiser of arXiv:2607.15449's MLP baseline."""

    scheme: str = "mask"  # corruption, see rgnb.masking
    rate: float = 0.15  # probability that a position is selected
    batch: int = 32  # sequences a step
    steps: int = 10_000
    learning_rate: float = 3e-4  # Adam, other settings at PyTorch's defaults
    snapshots: tuple = (100, 300, 1000, 3000)  # steps (multiples of 50) whose weights are kept, beside the last

    def __post_init__(self):
        checks.choice("scheme", self.scheme, SCHEMES)
        checks.fraction("rate", self.rate)
        checks.positive("learning_rate", self.learning_rate)
        for name, value in {"batch": self.batch, "steps": self.steps}.items():
            checks.integer(name, value, 1)
        object.__setattr__(self, "snapshots", checks.sequence("snapshots", self.snapshots, 0))
        for step in (*self.snapshots, self.steps):
            if checks.integer("snapshots", step, 1) % BLOCK:
                raise ValueError(f"steps and snapshots must be multiples of {BLOCK}, got {step}")


def generator(*entropy, device="cpu"):
    """A torch.Generator on `device` seeded from several integers, such as (seed, stream, block).

    Trailing zeros do not count (numpy's SeedSequence): give uses of one seed different leading streams.
    """
    state = np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state >> np.uint64(1)))


def resolve_device(device="auto"):
    """`torch.device` for "auto" (CUDA, then MPS, then CPU) or for a named device that is there.

    Raises:
        ValueError: the device is unknown or not on this machine.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return torch.device(next(name for name, there in available.items() if there))
    kind = checks.choice("device", str(device).split(":")[0], available)
    try:
        found = torch.device(device)
    except RuntimeError:
        found = None
    if not available[kind] or found is None or kind == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {device!r} is not on this machine; use device='auto' or 'cpu'")
    return found


def masked_loss(logits, tokens, selected):
    """Cross-entropy (nats) averaged over each member's selected positions; 0 where none is selected.

    Args:
        logits: (members, batch, length, V); tokens, selected: (members, batch, length).

    Returns:
        (members,) tensor.
    """
    losses = F.cross_entropy(logits.flatten(0, -2), tokens.flatten(), reduction="none").view(tokens.shape)
    return (losses * selected).sum((-1, -2)) / selected.sum((-1, -2)).clamp(min=1)


def mixed_loss(model, inputs, tokens, selected):
    """`masked_loss` of a stack with `mixing="tokens"`, its last channel MLP run at selected positions alone.

    Args:
        model: stack; inputs, tokens, selected: (members, batch, length).
    """
    flat = selected.flatten(1)
    # The members differ in how many they selected: the shorter lists are filled up with positions that do not count.
    keep = flat.byte().sort(dim=1, descending=True, stable=True).indices[:, : flat.sum(1).max().clamp(min=1)]
    kept = (x.flatten(1).gather(1, keep).unsqueeze(1) for x in (tokens, selected))
    return masked_loss(model(inputs, keep), *kept)


def count_loss(model, inputs, tokens, selected):
    """`masked_loss` of a network without mixing, from counts: it has V + 1 distinct inputs.

    The loss is `sum_{o,x} N(o, x) * nll(x | o) / sum N`, with N the (V+1, V) counts of (shown, true)
    pairs at selected positions; value and gradient equal the dense form's.

    Args:
        model: stack with `mixing="none"`; inputs, tokens, selected: (members, batch, length).
    """
    members, n = len(tokens), model.config.n_states
    pair = inputs * n + tokens + (n + 1) * n * torch.arange(members, device=tokens.device)[:, None, None]
    counts = torch.bincount(pair[selected], minlength=members * (n + 1) * n).view(members, n + 1, n)
    alphabet = torch.arange(n + 1, device=tokens.device)[None]
    nll = -model(alphabet).squeeze(1).log_softmax(-1)
    return (counts * nll).sum((-1, -2)) / counts.sum((-1, -2)).clamp(min=1)


def _batches(chain, config, length, seeds, block, device):
    # The sequences of one block of steps: tokens, inputs, selected, each (BLOCK, members, batch, length).
    drawn = []
    source = "cpu" if device.type == "mps" else device  # MPS has no float64, which sampling needs
    for seed in seeds:
        g = generator(seed, 1, block, device=source)
        tokens = chain.sample(BLOCK * config.batch, length, g)
        drawn.append((tokens, *corrupt(tokens, chain.n_states, config.rate, config.scheme, g)))
    return [torch.stack(x).unflatten(1, (BLOCK, config.batch)).transpose(0, 1).to(device) for x in zip(*drawn)]


class _Store:
    """Weights of one member on disk: a checkpoint to resume from and the snapshots, never half written."""

    def __init__(self, folder, setting):
        self.folder, self.setting = Path(folder), json.dumps(setting, sort_keys=True)

    def path(self, step):
        return self.folder / f"step-{step:06d}.safetensors"

    def save(self, path, tensors):
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, partial, {"setting": self.setting})
        os.replace(partial, path)

    def load(self, path):
        """The tensors in `path`, or None where there is no whole file of this setting."""
        try:
            with safe_open(path, "pt") as file:
                if file.metadata().get("setting") != self.setting:
                    return None
                return {name: file.get_tensor(name).clone() for name in file.keys()}  # not a view of the file
        except Exception:  # absent, truncated, foreign: safetensors raises its own and OS errors alike
            return None


def _weights(model, history, seconds, i):
    record = {"history": history[:, i], "seconds": torch.tensor(seconds)}
    return {f"weight.{name}": p[i] for name, p in model.named_parameters()} | record


def _resume_state(model, optimizer, history, seconds, i):
    state = _weights(model, history, seconds, i)
    for name, p in model.named_parameters():
        for key in ("exp_avg", "exp_avg_sq"):
            if p in optimizer.state:
                state[f"{key}.{name}"] = optimizer.state[p][key][i]
    return state


def train(model_config, train_config, chain, seeds, folder, device="auto", progress=True):
    """Train one network a seed, together, and keep each member's weights in `folder/seed-<seed>/`.

    Goes on from each member's last checkpoint. Snapshots are safetensors files `step-<step>.safetensors`
    that hold `weight.<parameter>`, `history` (the training loss in nats, averaged over each block of
    50 steps) and `seconds` (wall time so far, shared out among the members trained together).

    Args:
        model_config: ModelConfig; train_config: TrainConfig; chain: MarkovChain with config.n_states states.
        seeds: sequence of ints; folder: path for weights; device: see `resolve_device`.
        progress: show a bar.

    Returns:
        {seed: {step: tensors of the snapshot, by name}}.

    Raises:
        ValueError: chain and model disagree on the number of states.
        FloatingPointError: a loss is not finite; earlier snapshots stay.
    """
    if chain.n_states != model_config.n_states:
        raise ValueError(f"the chain has {chain.n_states} states, the model {model_config.n_states}; make them equal")
    device = resolve_device(device)
    setting = {
        "chain": chain.transition_matrix.tolist(),
        "model": asdict(model_config),
        "train": {k: v for k, v in asdict(train_config).items() if k not in ("steps", "snapshots")},
    }
    seeds = [checks.integer("seeds", seed, 0) for seed in checks.sequence("seeds", seeds)]
    steps = sorted({*(s for s in train_config.snapshots if s < train_config.steps), train_config.steps})
    stores = {seed: _Store(Path(folder) / f"seed-{seed}", setting | {"seed": seed}) for seed in seeds}

    groups = {}  # members at the same step go on together
    for seed, store in stores.items():
        if all(store.load(store.path(step)) for step in steps):
            continue
        state = store.load(store.folder / "resume.safetensors")
        done = 0 if state is None else len(state["history"]) * BLOCK
        # A checkpoint past a snapshot that is missing cannot give it back.
        if any(step <= done and store.load(store.path(step)) is None for step in steps):
            done, state = 0, None
        groups.setdefault(done, {})[seed] = state
    for done, states in sorted(groups.items()):
        _train_group(model_config, train_config, chain, states, stores, done, steps, device, progress)
    return {seed: {step: store.load(store.path(step)) for step in steps} for seed, store in stores.items()}


def _train_group(model_config, config, chain, states, stores, done, steps, device, progress):
    seeds = list(states)
    model = ResidualMLP(model_config, seeds).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate, fused=device.type != "mps")
    history, seconds = torch.zeros(done // BLOCK, len(seeds)), 0.0
    if done:
        stacked = {name: torch.stack([s[name] for s in states.values()]) for name in next(iter(states.values()))}
        history, seconds = stacked["history"].T, stacked["seconds"].mean().item()
        for name, p in model.named_parameters():
            p.data.copy_(stacked[f"weight.{name}"])
            moments = {key: stacked[f"{key}.{name}"].to(device) for key in ("exp_avg", "exp_avg_sq")}
            optimizer.state[p] = {"step": torch.tensor(float(done), device=device), **moments}
    saved = now = time.monotonic()
    loss_of = count_loss if model_config.mixing == "none" else mixed_loss

    label = f"training {len(seeds)} seed{'s' * (len(seeds) > 1)}"
    bar = tqdm(total=config.steps, initial=done, desc=label, unit="step", disable=not progress)
    with bar:
        for block in range(done // BLOCK, config.steps // BLOCK):
            tokens, inputs, selected = _batches(chain, config, model_config.length, seeds, block, device)
            losses = torch.zeros(len(seeds), device=device)
            for t, x, s in zip(tokens, inputs, selected):
                optimizer.zero_grad()
                loss = loss_of(model, x, t, s)
                loss.sum().backward()
                optimizer.step()
                losses += loss.detach()
            losses = (losses / BLOCK).cpu()
            if not torch.isfinite(losses).all():
                seed = seeds[(~torch.isfinite(losses)).nonzero()[0].item()]
                raise FloatingPointError(
                    f"the loss of seed {seed} is not finite between steps {block * BLOCK} and {(block + 1) * BLOCK}; "
                    f"use a learning_rate below {config.learning_rate}"
                )
            history = torch.cat([history, losses[None]])
            started, now = now, time.monotonic()
            seconds += (now - started) / len(seeds)
            step = (block + 1) * BLOCK
            bar.update(BLOCK)
            bar.set_postfix(loss=f"{losses.mean():.4f}", refresh=False)
            if step in steps:
                for i, seed in enumerate(seeds):
                    stores[seed].save(stores[seed].path(step), _weights(model, history, seconds, i))
            if now - saved > SAVE_SECONDS and step < config.steps:
                for i, seed in enumerate(seeds):
                    state = _resume_state(model, optimizer, history, seconds, i)
                    stores[seed].save(stores[seed].folder / "resume.safetensors", state)
                saved = now
    for seed in seeds:
        (stores[seed].folder / "resume.safetensors").unlink(missing_ok=True)


def load_model(config, snapshot):
    """A single network with the weights of one snapshot, as `train` returns it."""
    model = ResidualMLP(config)
    prefix = "weight."
    model.load_state_dict({k.removeprefix(prefix): v[None] for k, v in snapshot.items() if k.startswith(prefix)})
    return model
