"""Train, measure and store what is missing of one setting."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch
import xarray as xr
from filelock import FileLock, Timeout
from tqdm import tqdm

from rgnb import files
from rgnb.study import rehearsal
from rgnb.study.measurement import Snapshots, evaluation, measure
from rgnb.study.settings import Setting
from rgnb.study.store import Store, make_writable, provenance, rehearsal_folder
from rgnb.training import Diverged, train

J = TypeVar("J")


def shared(jobs: Iterable[J], work: Callable[[J, bool], Any]) -> Iterator[tuple[J, Any]]:
    """Share jobs with other processes: each takes one that no other is working on, and waits only at the end.

    Args:
        work: function of a job and of whether to wait where another process has it; its result is falsy if
            it did not wait.

    Yields:
        Each job, once it is done, with the result of `work`.
    """
    waiting, seen = list(jobs), set()
    while waiting:
        job = next((job for job in waiting if job not in seen), waiting[0])
        done = work(job, job in seen)
        seen.add(job)
        if done:
            waiting.remove(job)
            yield job, done


def settle(
    setting: Setting,
    seeds: Sequence[int],
    store: Store,
    device: torch.device,
    progress: bool = False,
    wait: bool = True,
) -> dict[int, xr.Dataset] | None:
    """Load what is stored of one setting and compute the rest: {seed: Dataset}.

    Args:
        progress: show bars on stderr.
        wait: for another process that works on this setting; without, None is returned if there is one.

    Raises:
        As `Experiment.run`.
    """
    found = store.get(setting, seeds)
    if len(found) == len(seeds):
        return found
    make_writable(store.folder)
    if rehearsal_folder():
        rehearsal.fill({setting: [seed for seed in seeds if seed not in found]}, store, device)
        return store.get(setting, seeds)
    weights = setting.weights(store.results)
    weights.parent.mkdir(exist_ok=True)
    lock = FileLock(weights.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            return None
        if progress:
            chain = f"{setting.family} chains, {setting.correlation_length:.3g}"
            print(f"waiting for another process that is at {chain}", file=sys.stderr)
        lock.acquire()
    try:
        for part in (weights, *weights.glob("seed-*")):
            files.remove_partial(part)
        found |= store.get(setting, [seed for seed in seeds if seed not in found])
        if missing := [seed for seed in seeds if seed not in found]:
            _compute(setting, missing, store, device, progress)
            found |= store.get(setting, missing)
    finally:
        lock.release()
    return {seed: found[seed] for seed in seeds}


def _compute(
    setting: Setting, seeds: Sequence[int], store: Store, device: torch.device, progress: bool
) -> None:
    made = provenance(device)
    task = evaluation(setting)  # a setting that cannot be measured is not trained
    trained, diverged = _trained(setting, seeds, store, device, progress)
    label = f"measuring {setting.family} at {setting.correlation_length:.3g}"
    for seed, snapshots in tqdm(trained.items(), desc=label, unit="seed", disable=not progress):
        started = time.monotonic()
        result = (store.analysis or measure)(task, setting, seed, snapshots, device)
        seconds = {
            "seconds_training": round(snapshots[setting.training.steps]["seconds"].item(), 1),
            "seconds_measuring": round(time.monotonic() - started, 1),
        }
        store.put(result, setting, seed, made | seconds)
    if diverged:
        raise diverged


def _trained(
    setting: Setting, seeds: Sequence[int], store: Store, device: torch.device, progress: bool
) -> tuple[dict[int, Snapshots], Diverged | None]:
    # Snapshots by seed, and the error of those that diverged: the others are measured and stored before it
    # is raised.
    try:
        return train(setting.run(device), seeds, setting.weights(store.results), progress), None
    except Diverged as error:
        left = [seed for seed in seeds if seed not in error.seeds]
        return _trained(setting, left, store, device, progress)[0] if left else {}, error
