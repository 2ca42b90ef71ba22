"""Snapshots and checkpoints of a training on disk: safetensors files with a digest, checked when read, never half written.

A *part* is a stack of members with its optimiser; the parts of a training hold all its members in order.
"""

import json

import torch

from rgnb import files


class Store:
    """Tensors of one setting on disk, checked and never half written."""

    def __init__(self, folder, setting):
        self.folder, self.setting = folder, json.dumps(setting, sort_keys=True)

    def path(self, step):
        return self.folder / f"step-{step:06d}.safetensors"

    def save(self, path, tensors):
        self.folder.mkdir(parents=True, exist_ok=True)
        from safetensors.torch import save  # only who trains needs it

        tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        content = save(tensors, {"setting": self.setting, "digest": files.digest(tensors)})
        with files.replacing(path) as partial:
            partial.write_bytes(content)

    def load(self, path):
        """The tensors in `path`, or None where there is no such file.

        A file that is damaged or of another setting is set aside.

        Raises:
            OSError, MemoryError, ImportError: the file could not be read, and is left as it is.
        """
        if (content := files.content(path)) is None:
            return None
        with files.reading(path):
            try:
                metadata, tensors = _parsed(content)
            except (OSError, MemoryError, ImportError):
                raise
            except Exception as error:  # safetensors, json and torch raise many kinds for what is not theirs
                why = f"{type(error).__name__}: {error}"
            else:
                if metadata.get("setting") != self.setting:
                    why = "it is of another setting"
                elif metadata.get("digest") != files.digest(tensors):
                    why = "its content was changed"
                else:
                    return tensors
        files.set_aside(path, why)
        return None


def _parsed(content):
    # Metadata and tensors of a safetensors file: 8 bytes with the length of its header, the header in JSON, tensors.
    from safetensors.torch import load

    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return header.get("__metadata__", {}), load(content)


def weights(parts, history, seconds, i):
    """What a snapshot of the i-th member holds."""
    record = {"history": history[:, i], "seconds": torch.tensor(seconds)}
    stack, k = [(stack, k) for stack, _ in parts for k in range(len(stack.seeds))][i]
    return {f"weight.{name}": p[k] for name, p in stack.named_parameters()} | record


def resume_state(parts, history, seconds, seeds):
    """What all members need to go on, in one file: a run that is killed between two files could not go on with the same batch."""
    states = []
    for stack, optimizer in parts:
        named = dict(stack.named_parameters())
        moments = {
            f"{key}.{name}": optimizer.state[p][key]
            for name, p in named.items()
            for key in ("exp_avg", "exp_avg_sq")
        }
        states.append({f"weight.{name}": p for name, p in named.items()} | moments)
    tensors = {name: torch.cat([state[name] for state in states]) for name in states[0]}
    return {"seeds": torch.tensor(seeds), "history": history, "seconds": torch.tensor(seconds)} | tensors


def resume(parts, state, done):
    """Put back what `resume_state` gave after `done` steps."""
    sizes = [len(stack.seeds) for stack, _ in parts]
    for name, _ in parts[0][0].named_parameters():
        values = [state[f"{key}.{name}"].split(sizes) for key in ("weight", "exp_avg", "exp_avg_sq")]
        for (stack, optimizer), weight, average, square in zip(parts, *values):
            p = stack.get_parameter(name)
            p.data.copy_(weight)
            moments = {
                "exp_avg": average.to(p.device, copy=True),
                "exp_avg_sq": square.to(p.device, copy=True),
            }
            optimizer.state[p] = {"step": torch.tensor(float(done), device=p.device), **moments}


def groups(stores, group_store, steps, block):
    """Which members train together and from where: [(steps done, seeds, state to resume from or None)].

    Args:
        stores: {seed: Store of its snapshots}; group_store: Store of the checkpoints; steps: of the snapshots; block: steps between two checks of the loss.
    """
    stored = {seed: all(store.load(store.path(step)) for step in steps) for seed, store in stores.items()}
    waiting, found = [seed for seed in stores if not stored[seed]], []
    for path in sorted(group_store.folder.glob("resume-*.safetensors")):
        state = group_store.load(path)
        if state is None:
            continue
        done, members = len(state["history"]) * block, state["seeds"].tolist()
        # A checkpoint past a snapshot that is missing cannot give it back.
        whole = [
            s
            for s in members
            if s in stores and all(stores[s].load(stores[s].path(step)) for step in steps if step < done)
        ]
        if done > steps[-1] or not set(whole) & set(waiting):
            continue
        # Members that are stored already train along: beside others, rounding would differ.
        at = torch.tensor([members.index(s) for s in whole])
        kept = {
            k: v.index_select(1 if k == "history" else 0, at) if v.ndim and k != "seeds" else v
            for k, v in state.items()
        }
        found.append((done, whole, kept))
        waiting = [s for s in waiting if s not in whole]
    return found + ([(0, waiting, None)] if waiting else [])
