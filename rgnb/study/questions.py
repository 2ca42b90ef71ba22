"""The runs of the second round, by the question they answer: what the pages load, and what `rgnb train` trains ahead of them.

Seeds 0 and 1 are left out where a pilot used them (0 to 2 without mixing); see `rgnb.verdicts.rules`.
"""

import itertools
import sys
from dataclasses import replace

from tqdm import tqdm

from rgnb import checks
from rgnb.randomness import resolve_device
from rgnb.study.anatomy import anatomy
from rgnb.study.experiment import Experiment
from rgnb.study.runner import settle
from rgnb.study.settings import RECIPES
from rgnb.study.store import results_folder

RATES = (3e-4, 6e-4, 1e-3, 2e-3)
SCHEDULES = ("constant", "cosine")
BATCHES = (8, 32, 128, 512)
DECAYS = (0.0, 0.1, 1.0)
FEW = (2, 3, 4, 5)
SNAPSHOTS = RECIPES["cosine"]["snapshots"]


def findings(recipe="cosine", family="hierarchical", seeds=None, profile="paper", **changes):
    """The networks that the three claims are judged on: paper size, token mixing, correlation lengths 1 and 7.

    Args:
        recipe: "sequel" or "cosine"; family: of chains; seeds: None: those that are judged; profile, changes: as in
            `Experiment.profile`, for other sizes.
    """
    judged = {("cosine", "hierarchical"): range(2, 14), ("cosine", "sticky"): range(2, 10)}
    seeds = tuple(judged.get((recipe, family), range(2, 8))) if seeds is None else seeds
    # The recipe of the first round is the profile's own: its results are found by the snapshots they were made with.
    recipe = None if recipe == "sequel" else recipe
    return Experiment.profile(profile, recipe=recipe, families=(family,), seeds=seeds, **changes)


def optimiser(rate, schedule, correlation_lengths=(1.0,), seeds=FEW):
    """Paper size at one learning rate and schedule; the two recipes of `findings` are among them."""
    for recipe in ("sequel", "cosine"):
        if (rate, schedule) == (RECIPES[recipe]["learning_rate"], RECIPES[recipe]["schedule"]):
            return replace(findings(recipe, seeds=seeds), correlation_lengths=correlation_lengths)
    changes = {"learning_rate": rate, "schedule": schedule, "snapshots": SNAPSHOTS}
    return Experiment.profile("paper", correlation_lengths=correlation_lengths, seeds=seeds, **changes)


def optimisers():
    """Every rate and schedule at correlation length 1, the cosine ones also at 7: list of Experiments."""
    return [
        optimiser(rate, schedule, (1.0, 7.0) if schedule == "cosine" else (1.0,))
        for rate, schedule in itertools.product(RATES, SCHEDULES)
    ]


def small_optimisers():
    """Two rates, four batch sizes and three decays at the small size, cosine: list of Experiments."""
    return [
        Experiment.profile(
            "small", recipe="cosine", correlation_lengths=(1.0,), seeds=tuple(range(2, 10)),
            learning_rate=rate, batch=batch, weight_decay=decay,
        )
        for rate, batch, decay in itertools.product((3e-4, 1e-3), BATCHES, DECAYS)
    ]  # fmt: skip


def longer():
    """The recipe "cosine" over 30 000 steps."""
    return Experiment.profile(
        "paper", recipe="cosine", seeds=FEW, steps=30_000, snapshots=(*SNAPSHOTS, 10_000, 17_000)
    )


def decayed():
    """The recipe "cosine" with a weight decay of 0.1."""
    return Experiment.profile("paper", recipe="cosine", seeds=FEW, weight_decay=0.1)


def gradient_noise():
    """Without mixing: batch 32, batch 512 and the exact gradient, under both recipes: list of Experiments.

    Measured at the end alone, on fewer sequences: a position has V + 1 different rows at most.
    """
    forms = ({"batch": 32}, {"batch": 512}, {"gradient": "expected"})
    measured = {"sequences": 1024, "snapshots": ()}
    asked = {"mixing": "none", "correlation_lengths": (1.0,), "seeds": tuple(range(3, 11)), **measured}
    return [
        Experiment.profile("paper", **({"recipe": recipe} | asked | form))
        for recipe in RECIPES
        for form in forms
    ]


def markers():
    """The first 1500 steps of the first round's networks, whose weights were not kept: by then their groups show."""
    return [
        Experiment.profile("paper", families=(family,), seeds=8, steps=1500, snapshots=SNAPSHOTS[:8])
        for family in ("hierarchical", "sticky")
    ]


QUESTIONS = {  # name: (what it asks, its Experiments, whether they are kept in one sweep file), in the order of their training
    "findings": ("Do the three claims hold?", lambda: [findings(seeds=FEW)], False),
    "gradient-noise": ("Is collapse without mixing gradient noise?", gradient_noise, True),
    "control": ("Do they hold on sticky chains?", lambda: [findings(family="sticky", seeds=FEW)], False),
    "optimiser": ("Data or optimiser?", optimisers, False),
    "first-round": (
        "What do the first round's networks look like inside?",
        lambda: [findings("sequel", seeds=FEW)],
        False,
    ),
    "groups": ("What marks the two groups?", markers, False),
    "more-seeds": (
        "The first two with all their seeds",
        lambda: [findings(), findings(family="sticky")],
        False,
    ),
    "decay": ("Does weight decay change the outcome?", lambda: [decayed()], False),
    "optimiser-small": ("Rate, batch and decay at the small size", small_optimisers, True),
    "longer": ("What lasts when training goes on?", lambda: [longer()], False),
}


def train(names=(), results=None, progress=True):
    """Train, measure and dissect (`anatomy`) the networks of some questions, one at a time, seed by seed, skipping what is stored.

    Several processes share the work: each takes a network whose setting no other is at. Stopped, it goes on where it was.

    Args:
        names: in `QUESTIONS`; none: all. results, progress: as in `Experiment.run`.
    """
    asked = [checks.choice("question", name, QUESTIONS) for name in names] or list(QUESTIONS)
    folder, rows = results_folder(results), []
    for name in asked:
        _, experiments, together = QUESTIONS[name]
        experiments = experiments()
        device, place = resolve_device(experiments[0].device), folder / "entries" if together else folder
        rows += _rows(experiments, together, place, device)
    waiting = [row for row in dict.fromkeys(rows) if not _stored(*row)]
    with tqdm(
        total=sum(_cost(row) for row in waiting),
        desc="training",
        unit="step",
        unit_scale=True,
        disable=not progress,
    ) as bar:
        seen = set()
        while waiting:
            row = next((row for row in waiting if row not in seen), waiting[0])
            setting, seeds, place, device = row
            for analysis in (None, anatomy):
                done = settle(setting, list(seeds), place, device, analysis=analysis, wait=row in seen)
                if done is None:
                    break
            seen.add(row)
            if done is not None:
                waiting.remove(row)
                bar.update(_cost(row))
                bar.write(
                    f"{setting.family}, correlation length {setting.correlation_length:g}, seeds {seeds}",
                    sys.stderr,
                )


def _rows(experiments, together, folder, device):
    # (setting, seeds, folder, device): small networks train beside each other, of large ones every setting's first seed comes first.
    if together:
        return [(s, e.seeds, folder, device) for e in experiments for s in e.settings()]
    seeds = sorted({seed for e in experiments for seed in e.seeds})
    return [
        (s, (seed,), folder, device)
        for seed in seeds
        for e in experiments
        if seed in e.seeds
        for s in e.settings()
    ]


def _stored(setting, seeds, folder, device):
    return all(setting.path(folder, seed, a).exists() for seed in seeds for a in (None, anatomy))


def _cost(row):
    return row[0].training.steps * len(row[1])
