"""Train, measure and store what is missing of one setting."""

import json
import sys
import time

from filelock import FileLock, Timeout
from tqdm import tqdm

from rgnb import files
from rgnb.study.measurement import evaluation, measure
from rgnb.study.settings import RESULTS_VERSION
from rgnb.study.store import _make_writable, entries, provenance, store
from rgnb.training import Diverged, train


def settle(setting, seeds, folder, device, progress=False, analysis=None, wait=True):
    """Load what is stored of one setting and compute the rest.

    Args:
        setting: Setting; seeds: ints; folder: of results; device: torch.device; progress, analysis: as in `Experiment.run`.
        wait: for another process that is at this setting; else None is returned where there is one.

    Returns:
        {seed: Dataset}, or None.

    Raises:
        As `Experiment.run`.
    """
    found = entries(setting, seeds, folder, analysis)
    if len(found) == len(seeds):
        return found
    _make_writable(folder)
    weights = setting.weights(folder)
    weights.parent.mkdir(exist_ok=True)
    lock = FileLock(weights.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            return None
        if progress:
            print(
                f"waiting for another process that is at {setting.family} chains, {setting.correlation_length:.3g}",
                file=sys.stderr,
            )
        lock.acquire()
    try:
        for part in (weights, *weights.glob("seed-*")):
            files.remove_partial(part)
        found |= entries(setting, [seed for seed in seeds if seed not in found], folder, analysis)
        missing = [seed for seed in seeds if seed not in found]
        if missing:
            _compute(setting, missing, folder, device, progress, analysis)
            found |= entries(setting, missing, folder, analysis)
    finally:
        lock.release()
    return {seed: found[seed] for seed in seeds}


def _compute(setting, seeds, folder, device, progress, analysis):
    chain, diverged, made = setting.chain, None, provenance(device)
    task = evaluation(chain, setting)  # a setting that cannot be measured is not trained
    try:
        trained = train(
            setting.model, setting.training, chain, seeds, setting.weights(folder), device, progress
        )
    except Diverged as error:  # the other seeds are measured and stored first
        diverged, seeds = error, [seed for seed in seeds if seed not in error.seeds]
        trained = (
            train(setting.model, setting.training, chain, seeds, setting.weights(folder), device, progress)
            if seeds
            else {}
        )
    label = f"measuring {setting.family} at {setting.correlation_length:.3g}"
    for seed in tqdm(seeds, desc=label, unit="seed", disable=not progress):
        started = time.monotonic()
        result = (analysis or measure)(task, setting, seed, trained[seed], device)
        result = result.assign_coords(
            chain=setting.family, correlation_length=setting.correlation_length, seed=seed
        )
        seconds = {
            "seconds_training": round(trained[seed][setting.training.steps]["seconds"].item(), 1),
            "seconds_measuring": round(time.monotonic() - started, 1),
        }
        result.attrs = {
            "setting": json.dumps(setting.config(), sort_keys=True),
            "seed": seed,
            "version": RESULTS_VERSION,
            "provenance": json.dumps(made | seconds),
        }
        path = setting.path(folder, seed, analysis)
        files.remove_partial(folder, path.name)
        store(result, path)
    if diverged:
        raise diverged
