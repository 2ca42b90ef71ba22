"""Rehearsals: code is run with stand-ins for results that are not stored, to see what it would train.

In a process whose environment variable RGNB_REHEARSAL names a folder, no experiment is trained. A result that
is not stored is replaced by the measurement of an untrained network on a few sequences, which is kept in that
folder, and is noted there with the seconds that the real one takes. Until the first is missing, a rehearsal
is a run like any other.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch

from rgnb.study.measurement import seconds_measuring, stand_in
from rgnb.study.settings import Analysis, Setting
from rgnb.study.store import MISSING, Store, provenance, rehearsal_folder
from rgnb.training import seconds_a_step


def duration(seconds: float) -> str:
    """A time in words that promise no more than an estimate can keep, such as "3.1 h", "12 min" or "40 s"."""
    if seconds > 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds > 90 else f"{max(seconds, 1):.0f} s"


@dataclass
class Clock:
    """How long training and measuring take here, timed once for each size, on the threads that torch has now.

    Args:
        most: sequences that a measurement is timed with, see `measurement.seconds_measuring`.
    """

    most: int | None = None
    _timed: dict[tuple, float] = field(default_factory=dict)

    def training(self, setting: Setting, seeds: Sequence[int], device: torch.device) -> float:
        """Seconds for networks of one setting that are trained together."""
        how = setting.training.batch, setting.training.gradient, setting.training.loss_over
        key = setting.model, how, len(seeds), torch.get_num_threads()
        if key not in self._timed:
            self._timed[key] = seconds_a_step(setting.run(device), seeds)
        return self._timed[key] * setting.training.steps

    def measuring(self, setting: Setting, device: torch.device, analysis: Analysis | None) -> float:
        """Seconds for one network."""
        sizes = setting.sequences, len(setting.training.snapshots), torch.get_num_threads()
        key = setting.model, analysis, *sizes
        if key not in self._timed:
            self._timed[key] = seconds_measuring(setting, device, analysis, self.most)
        return self._timed[key]


class Missing(NamedTuple):
    """A result that a rehearsal did not find."""

    result: str  # where it will be stored
    network: str  # where its weights are kept: results of one network share its training
    training: float  # seconds, as its share of what runs side by side; 0 where it is trained already
    measuring: float
    device: str


def missing(folder: str | Path) -> list[Missing]:
    """What a rehearsal noted in its folder."""
    path = Path(folder) / MISSING
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [Missing(*json.loads(line)) for line in lines]


_CLOCK = Clock(most=256)  # of this process; the full estimate of a measurement at paper size takes a minute


def fill(
    waiting: Mapping[Setting, Sequence[int]], store: Store, device: torch.device, workers: int = 1
) -> None:
    """Note results that are missing, and store stand-ins for them in the rehearsal's folder.

    Args:
        waiting: {setting: seeds}; store: that misses them.
        workers: how many settings would be computed at once.
    """
    folder, threads, made = rehearsal_folder(), torch.get_num_threads(), provenance(device)
    assert folder is not None
    torch.set_num_threads(1 if workers > 1 else threads)
    try:
        for setting, seeds in waiting.items():
            training = _CLOCK.training(setting, seeds, device) / len(seeds) / workers
            measuring = _CLOCK.measuring(setting, device, store.analysis) / workers
            lines = []
            for seed in seeds:
                weights = setting.last_weights(store.results, seed).absolute()
                row = Missing(
                    os.path.abspath(setting.path(store.folder, seed, store.analysis)),
                    str(weights.parent),
                    0.0 if weights.exists() else training,
                    measuring,
                    made["device"],
                )
                lines.append(json.dumps(row) + "\n")
            with open(folder / MISSING, "a", encoding="utf-8") as file:
                file.writelines(lines)
            result = stand_in(setting, seeds[0], device, store.analysis)
            took = {"seconds_training": training, "seconds_measuring": measuring}
            for seed in seeds:  # one for all: what matters is how long it takes
                store.put(result, setting, seed, made | took)
    finally:
        torch.set_num_threads(threads)
