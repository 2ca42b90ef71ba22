"""Train the members (seeds) of one setting together: fresh sequences every step, Adam, checkpoints.

What a member sees depends only on its seed and the step: the tokens of block k of seed s come from a
generator seeded with (s, 1, k). So a run resumes from its weights and the step number, and the other members
change a result only through rounding, in batched products or in products split among threads.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rgnb import checks, cores
from rgnb._checkpoints import Checkpoints, Group, Part, Progress
from rgnb.chains import MarkovChain
from rgnb.masking import SCHEMES, corrupt, expected_counts
from rgnb.model import ModelConfig, ResidualMLP
from rgnb.randomness import LAST_SEED, generator, resolve_device

BLOCK = 50  # steps whose sequences are drawn together, and how often the loss is checked and recorded
WARM_UP = 200  # steps over which the schedule "cosine" raises the learning rate from 0
SCHEDULES = ("constant", "cosine")
GRADIENTS = ("sampled", "expected")
LOSSES = ("selected", "all")
SAVE_SECONDS = 60  # how often a running training writes its checkpoint


def added(default: Any) -> Any:
    """A field added later: results stored before it are still found while it has its default."""
    return field(default=default, metadata={"added": True})


def plain(config: Any) -> dict[str, Any]:
    """A configuration as the plain data of a result's key: without `added` fields at their default."""
    found = {}
    for f in fields(config):
        value = getattr(config, f.name)
        if "added" not in f.metadata or value != f.default:
            found[f.name] = value
    return found


@dataclass(frozen=True)
class TrainConfig:
    """How a network is trained. Defaults: the optimiser of arXiv:2607.15449's MLP baseline."""

    scheme: str = "mask"  # corruption, see rgnb.masking
    rate: float = 0.15  # probability that a position is selected
    batch: int = 32  # sequences per step
    steps: int = 10_000
    learning_rate: float = 3e-4  # Adam, other settings at PyTorch's defaults
    # Steps (multiples of 50) whose weights are kept, beside the last.
    snapshots: tuple[int, ...] = (100, 300, 1000, 3000)
    schedule: str = added("constant")  # of the learning rate, see `learning_rate_at`
    weight_decay: float = added(0.0)  # decoupled (AdamW), of weight matrices, not of biases or LayerNorms
    # "expected": the exact expected gradient, possible only without mixing; `batch` then has no effect.
    gradient: str = added("sampled")
    loss_over: str = added("selected")  # positions whose cross-entropy is averaged: those selected, or all
    # Transplants: (part, seed) pairs. A part is a module or parameter, such as "blocks.0", whose initial
    # values are then those of the network of that seed; or "data", the sequences it is trained on.
    donors: tuple[tuple[str, int], ...] = added(())

    def __post_init__(self) -> None:
        snapshots = checks.sequence("snapshots", self.snapshots, 0)
        values: dict[str, Any] = {
            "scheme": checks.choice("scheme", self.scheme, SCHEMES),
            "rate": checks.fraction("rate", self.rate),
            "batch": checks.integer("batch", self.batch, 1),
            "steps": checks.integer("steps", self.steps, 1),
            "learning_rate": checks.positive("learning_rate", self.learning_rate),
            "snapshots": tuple(checks.integer("snapshots", s, 1) for s in snapshots),
            "schedule": checks.choice("schedule", self.schedule, SCHEDULES),
            "weight_decay": checks.number("weight_decay", self.weight_decay),
            "gradient": checks.choice("gradient", self.gradient, GRADIENTS),
            "loss_over": checks.choice("loss_over", self.loss_over, LOSSES),
            "donors": tuple(_donor(pair) for pair in checks.sequence("donors", self.donors, 0)),
        }
        for name, value in values.items():  # plain numbers, by which results are found
            object.__setattr__(self, name, value)
        if self.weight_decay < 0:
            raise checks.BadValue(f"weight_decay must be at least 0, got {self.weight_decay}")
        for step in (*self.snapshots, self.steps):
            if step % BLOCK:
                raise checks.BadValue(f"steps and snapshots must be multiples of {BLOCK}, got {step}")
        if self.gradient == "expected" and self.loss_over == "all":
            raise checks.BadValue('gradient "expected" is that of loss_over "selected" alone, got "all"')
        if self.schedule == "cosine" and self.steps <= WARM_UP:
            warm_up = f"the {WARM_UP} of the cosine schedule's warm-up"
            raise checks.BadValue(f"steps must exceed {warm_up}, got {self.steps}")

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of a step (0, 1, ...).

        Constant, or raised linearly over `WARM_UP` steps, then lowered along a half cosine to 0.
        """
        if self.schedule == "constant":
            return self.learning_rate
        rising, falling = (step + 1) / WARM_UP, (step - WARM_UP) / (self.steps - WARM_UP)
        return self.learning_rate * (rising if step < WARM_UP else (1 + math.cos(math.pi * falling)) / 2)


def _donor(pair: Any) -> tuple[str, int]:
    if not isinstance(pair, list | tuple) or len(pair) != 2 or not isinstance(pair[0], str):
        raise checks.BadType(f'donors must be pairs of a part and a seed, ("blocks.0", 1), got {pair!r}')
    return pair[0], checks.integer("donors", pair[1], 0, LAST_SEED)


def masked_loss(logits: Tensor, tokens: Tensor, selected: Tensor) -> Tensor:
    """Cross-entropy (nats) averaged over each member's selected positions; 0 where none is selected.

    Args:
        logits: (members, batch, length, V); tokens, selected: (members, batch, length).

    Returns:
        (members,) tensor.
    """
    losses = F.cross_entropy(logits.flatten(0, -2), tokens.flatten(), reduction="none").view(tokens.shape)
    return (losses * selected).sum((-1, -2)) / selected.sum((-1, -2)).clamp(min=1)


def mixed_loss(model: ResidualMLP, inputs: Tensor, tokens: Tensor, selected: Tensor) -> Tensor:
    """`masked_loss` of a stack, computed at selected positions alone after the last mixing.

    Args:
        model: stack; inputs, tokens, selected: (members, batch, length).
    """
    flat = selected.flatten(1)
    # Members selected different numbers: shorter lists are padded with positions that do not count.
    keep = flat.byte().sort(dim=1, descending=True, stable=True).indices[:, : flat.sum(1).max().clamp(min=1)]
    kept = (x.flatten(1).gather(1, keep).unsqueeze(1) for x in (tokens, selected))
    return masked_loss(model(inputs, keep), *kept)


def count_loss(model: ResidualMLP, inputs: Tensor, tokens: Tensor, selected: Tensor) -> Tensor:
    """`masked_loss` of a network without mixing, from counts.

    Such a network has V + 1 distinct inputs, under the scheme "mask" a single one. The loss is
    `sum_{o,x} N(o, x) * nll(x | o) / sum N`, with N the (V+1, V) counts of (shown, true) pairs at selected
    positions; value and gradient equal the dense form's.

    Args:
        model: stack with `mixing="none"`; inputs, tokens, selected: (members, batch, length).
    """
    members, n = len(tokens), model.config.n_states
    pair = inputs * n + tokens + (n + 1) * n * torch.arange(members, device=tokens.device)[:, None, None]
    counts = torch.bincount(pair[selected], minlength=members * (n + 1) * n).view(members, n + 1, n)
    return _count_loss(model, counts)


def _count_loss(model: ResidualMLP, counts: Tensor) -> Tensor:
    # The loss of each member from counts (members, V + 1, V) of (shown, true) pairs.
    n = model.config.n_states
    shown = counts.sum((0, 2)) > 0
    shown[n] = True  # one symbol at least
    counts = counts[:, shown]
    nll = -model(shown.nonzero().mT).squeeze(1).log_softmax(-1)
    return (counts * nll).sum((-1, -2)) / counts.sum((-1, -2)).clamp(min=1)


class Diverged(FloatingPointError):
    """The loss of some seeds is not finite; the others were trained to the end and stored."""

    def __init__(self, message: str, seeds: Sequence[int] = ()):  # a process pool has the message alone
        super().__init__(message)
        self.seeds = tuple(seeds)


@dataclass(frozen=True)
class Run:
    """What is trained, apart from the seeds: the network, its training, the chain that it learns; and where.

    Args:
        model: the network, with as many states as the chain.
        training: corruption, optimiser and steps.
        chain: which sequences are drawn from.
        device: see `resolve_device`; results are found whatever it is.

    Raises:
        ValueError: these do not fit together, or the device is not on this machine.
    """

    model: ModelConfig
    training: TrainConfig
    chain: MarkovChain
    device: str | torch.device = "auto"

    def __post_init__(self) -> None:
        sizes = checks.instance("model", self.model, ModelConfig)
        how = checks.instance("training", self.training, TrainConfig)
        n = checks.instance("chain", self.chain, MarkovChain, "make one of rgnb.chains").n_states
        if n != sizes.n_states:
            theirs = f"the model {sizes.n_states}"
            raise checks.BadValue(f"the chain has {n} states, {theirs}; make them equal")
        if how.gradient == "expected" and sizes.mixing != "none":
            raise checks.BadValue(
                f'gradient "expected" is exact without mixing alone, got mixing {sizes.mixing!r}; '
                'use mixing="none" or gradient="sampled"'
            )
        object.__setattr__(self, "device", resolve_device(self.device))


def train(
    run: Run, seeds: Sequence[int], folder: str | Path, progress: bool = True
) -> dict[int, Mapping[int, Mapping[str, Tensor]]]:
    """Train one network per seed, together, and keep each member's weights in `folder/seed-<seed>/`.

    One network of the paper profile: `train(Run(ModelConfig(), TrainConfig(), chain), [0], "weights")` with
    `chain = chains.hierarchical(16, 7.0)`. Training resumes from the last checkpoint, with the same result
    bit for bit on the same CPU. Snapshots are safetensors files `step-<step>.safetensors` that hold
    `weight.<parameter>`, `history` (the training loss in nats, averaged over each block of 50 steps) and
    `seconds` (wall time so far, divided among the members trained together).

    Args:
        run: Run; seeds: sequence of ints; folder: path for weights; progress: show a bar.

    Returns:
        {seed: {step: tensors of the snapshot, by name}}.

    Raises:
        FloatingPointError: the loss of some seeds is not finite (a `Diverged` that names them); the others
            are trained and kept.
        OSError: a checkpoint cannot be written.
    """
    how, folder = checks.instance("run", run, Run).training, checks.path("folder", folder)
    seeds = [checks.integer("seeds", seed, 0, LAST_SEED) for seed in checks.sequence("seeds", seeds)]
    steps = sorted({*(s for s in how.snapshots if s < how.steps), how.steps})
    checkpoints = Checkpoints(folder, _setting(run), seeds, steps)

    diverged: dict[int, int] = {}
    for group in checkpoints.groups(BLOCK):
        diverged |= _train_group(run, group, checkpoints, progress)
    checkpoints.clear()
    if diverged:
        lost = [
            f"of seed {s} between steps {step} and {step + BLOCK}" for s, step in sorted(diverged.items())
        ]
        advice = f"use a learning_rate below {how.learning_rate:g}"
        raise Diverged(f"the loss {' and '.join(lost)} is not finite; {advice}", list(diverged))
    return checkpoints.snapshots()


def _setting(run: Run) -> dict[str, Any]:
    # What decides a member's weights beside its seed.
    # A longer training goes on from a shorter one; with a schedule it is another one from the start.
    left_out = ("steps", "snapshots") if run.training.schedule == "constant" else ("snapshots",)
    return {
        "chain": run.chain.transition_matrix.tolist(),
        "model": plain(run.model),
        "train": {k: v for k, v in plain(run.training).items() if k not in left_out},
    }


def _parts(run: Run, seeds: Sequence[int]) -> list[Part]:
    # A CPU is fastest with single networks, one per core, once their products are large enough; a GPU, or a
    # CPU at small products, with all members in one batched operation.
    on_cpu = torch.device(run.device).type == "cpu"
    apart = on_cpu and run.model.reach is None and run.model.width >= 48
    split = [[seed] for seed in seeds] if apart else [seeds]
    stacks = [_initial(run, part).to(run.device) for part in split]
    return [Part(stack, _optimizer(stack, run.training)) for stack in stacks]


def _initial(run: Run, seeds: Sequence[int]) -> ResidualMLP:
    # Networks of these seeds before training, parts of them from donors.
    stack = ResidualMLP(run.model, seeds)
    weights = stack.state_dict()
    for part, donor in run.training.donors:
        given = ResidualMLP(run.model, [donor]).state_dict()
        given = {k: v for k, v in given.items() if f"{k}.".startswith(f"{part}.")}
        if part != "data" and not given:
            checks.choice("donors", part, ["data", *weights])
        for name, values in given.items():
            weights[name].copy_(values)
    return stack


def _optimizer(stack: ResidualMLP, config: TrainConfig) -> torch.optim.Optimizer:
    # Without weight decay this is Adam.
    named = dict(stack.named_parameters())
    matrices = [name for name in named if name.endswith("weight") and "norm" not in name]
    groups = [
        {"params": [named[name] for name in matrices], "weight_decay": config.weight_decay},
        {"params": [p for name, p in named.items() if name not in matrices], "weight_decay": 0.0},
    ]
    fused = next(stack.parameters()).device.type != "mps"
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=fused)


def _batches(run: Run, stack: ResidualMLP, block: int) -> list[tuple[Tensor, ...]]:
    # What each step of a block computes its loss from: BLOCK tuples of tokens, inputs, selected, each
    # (members, batch, length), or of expected counts.
    config, device = run.training, torch.device(run.device)
    if config.gradient == "expected":
        counts = expected_counts(run.chain, config.scheme).to(device, torch.float32)
        return [(counts.expand(len(stack.seeds), -1, -1),)] * BLOCK
    drawn = []
    source = torch.device("cpu") if device.type == "mps" else device  # MPS has no float64 to sample with
    donors = dict(config.donors)
    for seed in stack.seeds:
        g = generator(donors.get("data", seed), 1, block, device=source)
        tokens = run.chain.sample(BLOCK * config.batch, run.model.length, g)
        drawn.append((tokens, *corrupt(tokens, run.chain.n_states, config.rate, config.scheme, g)))
    members = (torch.stack(x).unflatten(1, (BLOCK, config.batch)) for x in zip(*drawn, strict=True))
    return list(zip(*(x.transpose(0, 1).to(device) for x in members), strict=True))


def _loss(stack: ResidualMLP, config: TrainConfig, *batch: Tensor) -> Tensor:
    # Of a batch of `_batches`, in its fastest form.
    if config.gradient == "expected":
        return _count_loss(stack, *batch)
    tokens, inputs, selected = batch
    counted = torch.ones_like(selected) if config.loss_over == "all" else selected
    if stack.config.mixing == "none":
        return count_loss(stack, inputs, tokens, counted)
    if config.loss_over == "all":
        return masked_loss(stack(inputs), tokens, counted)
    return mixed_loss(stack, inputs, tokens, counted)


def _step(
    stack: ResidualMLP, optimizer: torch.optim.Optimizer, config: TrainConfig, step: int, batch: tuple
) -> Tensor:
    # Takes one step of a stack, numbered from 0; returns its members' losses before it.
    for group in optimizer.param_groups:
        group["lr"] = config.learning_rate_at(step)
    optimizer.zero_grad()
    loss = _loss(stack, config, *batch)
    loss.sum().backward()  # members share no weights: one that diverges leaves the others as they are
    optimizer.step()
    return loss.detach()


def _block(part: Part, run: Run, block: int) -> Tensor:
    # Takes one block of steps of a stack; returns its members' mean losses.
    steps = enumerate(_batches(run, part.stack, block), start=block * BLOCK)
    losses = [_step(*part, run.training, step, batch) for step, batch in steps]
    return (sum(losses[1:], losses[0]) / BLOCK).cpu()


def _train_group(run: Run, group: Group, checkpoints: Checkpoints, show: bool) -> dict[int, int]:
    # Returns {seed: step after which its loss was not finite}; the snapshots of the others are stored.
    from tqdm import tqdm  # needed only for training

    seeds, done, last = group.seeds, group.done, run.training.steps
    progress = Progress(_parts(run, seeds), seeds, torch.zeros(0, len(seeds)))

    def keep(step: int) -> None:
        diverged = _diverged(progress)
        for i, seed in enumerate(seeds):
            if seed not in diverged:
                checkpoints.keep(progress, i, step)

    if group.state:
        progress.resume(group.state, done)
        if done in checkpoints.steps:  # stopped after the checkpoint, before the last of its snapshots
            keep(done)

    saved = now = time.monotonic()
    label = f"training {len(seeds)} seed{'s' * (len(seeds) > 1)}"
    bar = tqdm(total=last, initial=done, desc=label, unit="step", disable=not show)
    with bar, cores.workers(len(progress.parts)) as each:
        for block in range(done // BLOCK, last // BLOCK):
            losses = torch.cat(list(each(partial(_block, run=run, block=block), progress.parts)))
            progress.history = torch.cat([progress.history, losses[None]])
            if not losses.isfinite().any():
                break
            started, now = now, time.monotonic()
            progress.seconds += (now - started) / len(seeds)
            step = (block + 1) * BLOCK
            bar.update(BLOCK)
            bar.set_postfix(loss=f"{losses.nanmean():.4f}", refresh=False)
            if step in checkpoints.steps or now - saved > SAVE_SECONDS:
                checkpoints.save(progress)
                saved = now
            if step in checkpoints.steps:
                keep(step)
    return _diverged(progress)


def _diverged(progress: Progress) -> dict[int, int]:
    # {seed: step after which its loss was not finite}, from the history, which goes with a checkpoint.
    lost = ~progress.history.isfinite().T
    return {s: BLOCK * int(x.nonzero()[0]) for s, x in zip(progress.seeds, lost, strict=True) if x.any()}


def seconds_a_step(run: Run, seeds: Sequence[int]) -> float:
    """Seconds that one training step of these members takes together: the mean of a few, timed now."""
    parts = _parts(run, seeds)
    batches = [_batches(run, part.stack, 0) for part in parts]

    def steps(k: int) -> None:
        for loss in each(lambda i: _step(*parts[i], run.training, k, batches[i][k]), range(len(parts))):
            loss.sum().item()  # waits for the device

    with cores.workers(len(parts)) as each:
        steps(0)
        started, done = time.monotonic(), 0
        while done < BLOCK - 1 and time.monotonic() - started < 0.5:
            done += 1
            steps(done)
    return (time.monotonic() - started) / done


def load_model(config: ModelConfig, snapshot: Mapping[str, Tensor]) -> ResidualMLP:
    """A single network with the weights of a snapshot from `train`; ValueError if they do not fit."""
    checks.mapping("snapshot", snapshot, Tensor)
    model, prefix = ResidualMLP(config), "weight."
    weights = {k.removeprefix(prefix): v[None] for k, v in snapshot.items() if str(k).startswith(prefix)}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise checks.BadValue(f"snapshot holds the weights of another network than config: {error}") from None
    return model
