"""Snapshots and checkpoints of a training on disk: safetensors files with a digest, checked when read.

A *part* is a stack of members with its optimiser, a *group* the members that train together, in one part or
several. A snapshot holds one member after some step, a checkpoint all that a group needs to resume.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rgnb import files
from rgnb.model import ResidualMLP

Tensors = dict[str, Tensor]
MOMENTS = ("exp_avg", "exp_avg_sq")  # what Adam keeps of each parameter


def weights_file(folder: Path, seed: int, step: int) -> Path:
    """Where the weights of one network are kept."""
    return folder / f"seed-{seed}" / f"step-{step:06d}.safetensors"


class TensorFiles:
    """Files with tensors of one setting, checked when read and never half written."""

    def __init__(self, setting: dict):
        self.setting = json.dumps(setting, sort_keys=True)

    def save(self, path: Path, tensors: Tensors) -> None:
        from safetensors.torch import save  # needed only for training

        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        content = save(tensors, {"setting": self.setting, "digest": files.digest(tensors)})
        with files.replacing(path) as partial:
            partial.write_bytes(content)

    def load(self, path: Path) -> Tensors | None:
        """The tensors in `path`, or None where there is no such file.

        A file that is damaged or of another setting is set aside.

        Raises:
            OSError, MemoryError, ImportError: the file could not be read, and is left as it is.
        """
        if (content := files.content(path)) is None:
            return None
        with files.reading(path):
            try:
                metadata, tensors = parsed(content)
            except (OSError, MemoryError, ImportError):
                raise
            except Exception as error:  # safetensors, json and torch raise many kinds for damaged content
                why = f"{type(error).__name__}: {error}"
            else:
                if metadata.get("setting") == self.setting:
                    return tensors
                why = "it is of another setting"
        files.set_aside(path, why)
        return None


def parsed(content: bytes) -> tuple[dict, Tensors]:
    """Metadata and tensors of a safetensors file that `TensorFiles` wrote; ValueError if it was changed."""
    from safetensors.torch import load

    # 8 bytes with the length of the header, the header in JSON, tensors.
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    metadata, tensors = header.get("__metadata__", {}), load(content)
    if metadata.get("digest") != files.digest(tensors):
        raise ValueError("its content was changed")
    return metadata, tensors


class Part(NamedTuple):
    """A stack of members and its optimiser."""

    stack: ResidualMLP
    optimizer: torch.optim.Optimizer


@dataclass
class Progress:
    """How far the members of a group have come."""

    parts: list[Part]
    seeds: Sequence[int]
    history: Tensor  # (blocks, members) mean loss of each block of steps
    seconds: float = 0.0  # wall time, divided among the members

    def snapshot(self, i: int) -> Tensors:
        """The i-th member alone."""
        record = {"history": self.history[:, i], "seconds": torch.tensor(self.seconds)}
        stack, k = [(part.stack, k) for part in self.parts for k in range(len(part.stack.seeds))][i]
        return {f"weight.{name}": p[k] for name, p in stack.named_parameters()} | record

    def checkpoint(self) -> Tensors:
        """All members, for one file: a run killed between two files could not resume with the same group."""
        found: dict[str, list[Tensor]] = {}
        for stack, optimizer in self.parts:
            for name, p in stack.named_parameters():
                for key, x in {"weight": p.data, **{k: optimizer.state[p][k] for k in MOMENTS}}.items():
                    found.setdefault(f"{key}.{name}", []).append(x)
        record = {"seeds": torch.tensor(self.seeds), "history": self.history}
        record["seconds"] = torch.tensor(self.seconds)
        return record | {name: torch.cat(parts) for name, parts in found.items()}

    def resume(self, state: Tensors, done: int) -> None:
        """Restore what `checkpoint` returned after `done` steps."""
        self.history, self.seconds = state["history"], state["seconds"].item()
        start = 0
        for stack, optimizer in self.parts:
            members = slice(start, start + len(stack.seeds))
            for name, p in stack.named_parameters():
                p.data.copy_(state[f"weight.{name}"][members])
                moments = {key: state[f"{key}.{name}"][members].to(p.device, copy=True) for key in MOMENTS}
                optimizer.state[p] = {"step": torch.tensor(float(done), device=p.device), **moments}
            start = members.stop


class Group(NamedTuple):
    """Members that train together, from the start or from a checkpoint."""

    seeds: list[int]
    done: int = 0  # steps
    state: Tensors | None = None  # what `Progress.checkpoint` returned


class Checkpoints:
    """What one training keeps on disk: snapshots in `folder/seed-<seed>/`, checkpoints beside them.

    Args:
        setting: what decides a member, as plain data; seeds: the members; steps: of the snapshots, ascending.
    """

    def __init__(self, folder: Path, setting: dict, seeds: Sequence[int], steps: Sequence[int]):
        self.steps, self._folder, self._group = steps, folder, TensorFiles(setting)
        self._members = {seed: TensorFiles(setting | {"seed": seed}) for seed in seeds}

    def save(self, progress: Progress) -> None:
        """Write the checkpoint of a group."""
        name = files.digest({"seeds": progress.seeds})[:12]
        self._group.save(self._folder / f"resume-{name}.safetensors", progress.checkpoint())

    def keep(self, progress: Progress, i: int, step: int) -> None:
        """Write the snapshot of the i-th member of a group."""
        seed = progress.seeds[i]
        self._members[seed].save(weights_file(self._folder, seed, step), progress.snapshot(i))

    def snapshots(self) -> dict[int, Mapping[int, Any]]:
        """{seed: {step: tensors of the snapshot}}."""
        return {
            seed: {step: store.load(weights_file(self._folder, seed, step)) for step in self.steps}
            for seed, store in self._members.items()
        }

    def groups(self, block: int) -> list[Group]:
        """The groups still to be trained. `block`: steps per entry of a history."""
        waiting = [seed for seed in self._members if not self._whole(seed, self.steps)]
        found = []
        for _, state in self._saved():
            done, seeds = len(state["history"]) * block, state["seeds"].tolist()
            # A checkpoint later than a missing snapshot cannot recover it.
            before = [step for step in self.steps if step < done]
            usable = [s for s in seeds if s in self._members and self._whole(s, before)]
            if done > self.steps[-1] or not set(usable) & set(waiting):
                continue
            # Members that are stored already are trained again: in another batch, rounding would differ.
            at = torch.tensor([seeds.index(s) for s in usable])
            axis = {"history": 1}  # that of the members, elsewhere 0
            of_them = {k: v.index_select(axis.get(k, 0), at) if v.ndim else v for k, v in state.items()}
            found.append(Group(usable, done, of_them))
            waiting = [s for s in waiting if s not in usable]
        return found + ([Group(waiting)] if waiting else [])

    def clear(self) -> None:
        """Remove the checkpoints that hold no other members."""
        for path, state in self._saved():
            if set(state["seeds"].tolist()) <= set(self._members):
                path.unlink(missing_ok=True)

    def _whole(self, seed: int, steps: Sequence[int]) -> bool:
        store = self._members[seed]
        return all(store.load(weights_file(self._folder, seed, step)) for step in steps)

    def _saved(self) -> Iterator[tuple[Path, Tensors]]:
        for path in sorted(self._folder.glob("resume-*.safetensors")):
            if state := self._group.load(path):
                yield path, state
