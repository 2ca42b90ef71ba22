"""The runs of the second round by the question they answer, which pages load and `rgnb train` trains.

Seeds that a pilot used are left out where networks are judged: 0 and 1, without mixing 0 to 2; see
`rgnb.verdicts.rules`. Only what marks the groups is looked for in those, too.
"""

import itertools
import numbers
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import xarray as xr
from tqdm import tqdm

from rgnb import chains, checks
from rgnb.randomness import resolve_device
from rgnb.study import law
from rgnb.study.anatomy import anatomy, coupling
from rgnb.study.comparison import comparison
from rgnb.study.experiment import Experiment
from rgnb.study.runner import settle, shared
from rgnb.study.settings import RECIPES, Analysis, Setting, judged_seeds
from rgnb.study.store import Store, results_folder
from rgnb.study.sweep import held
from rgnb.training import SCHEDULES, Diverged

RATES = (3e-4, 6e-4, 1e-3, 2e-3)
BATCHES = (8, 32, 128, 512)
DECAYS = (0.0, 0.1, 1.0)
FEW = (2, 3, 4, 5)
SNAPSHOTS = RECIPES["cosine"]["snapshots"]
# Seeds that are judged, by recipe and family; the first round's networks go from 2 to 7.
JUDGED = {("cosine", "hierarchical"): tuple(range(2, 14)), ("cosine", "sticky"): tuple(range(2, 10))}


def findings(
    recipe: str = "cosine",
    family: str = "hierarchical",
    seeds: int | Sequence[int] = 0,
    profile: str = "paper",
    **changes: Any,
) -> Experiment:
    """The networks that judge the three claims: paper size, token mixing, correlation lengths 1 and 7.

    Args:
        recipe: "sequel" or "cosine".
        family: of chains.
        seeds: which, or how many from 2 up; 0: those that are judged.
        profile, changes: as in `Experiment.profile`, for other sizes.
    """
    checks.choice("recipe", recipe, RECIPES)
    checks.choice("family", family, chains.FAMILIES)
    if isinstance(seeds, numbers.Integral):
        seeds = judged_seeds(int(seeds)) if seeds else JUDGED.get((recipe, family), judged_seeds(6))
    return Experiment.profile(profile, recipe=recipe, families=(family,), seeds=seeds, **changes)


def by_recipe(*arguments: Any, **changes: Any) -> dict[str, xr.Dataset]:
    """Results of the networks that judge the three claims, under each recipe: {recipe: Dataset of one chain}.

    Args:
        arguments, changes: those of `findings` after the recipe.
    """
    # Bad arguments are refused before either runs.
    asked = {recipe: findings(recipe, *arguments, **changes) for recipe in RECIPES}
    return {recipe: experiment.run().isel(chain=0) for recipe, experiment in asked.items()}


def optimisers() -> list[Experiment]:
    """Paper size at every rate and schedule, at correlation length 1, the cosine ones also at 7.

    The two recipes of `findings` are among them.
    """
    asked = []
    for rate, schedule in itertools.product(RATES, SCHEDULES):
        trained: dict[str, Any] = {"learning_rate": rate, "schedule": schedule}
        if trained != RECIPES["sequel"]:  # which has snapshots of its own
            trained["snapshots"] = SNAPSHOTS
        lengths = (1.0, 7.0) if schedule == "cosine" else (1.0,)
        asked.append(Experiment.profile("paper", correlation_lengths=lengths, seeds=FEW, **trained))
    return asked


def small_optimiser(
    learning_rate: float, batch: int, decay: float, n: int = 8, profile: str = "small", **changes: Any
) -> Experiment:
    """The base of `smallest` at another rate, batch size and weight decay, at correlation length 1."""
    trained = {"learning_rate": learning_rate, "batch": batch, "weight_decay": decay}
    asked = {"correlation_lengths": (1.0,), "snapshots": SNAPSHOTS} | trained | changes
    return smallest("base", n, profile, **asked)


def small_optimisers() -> list[Experiment]:
    """Four batch sizes, two rates and three decays at the small size, cosine."""
    return [
        small_optimiser(rate, batch, decay)
        for batch, rate, decay in itertools.product(BATCHES, (3e-4, 1e-3), DECAYS)  # the cheap ones first
    ]


def gradient_noise(profile: str = "paper", n: int = 8, **changes: Any) -> dict[str, list[Experiment]]:
    """Without mixing, {recipe: at batch 32, at batch 512, under the exact gradient}.

    Measured only at the end, and on fewer sequences: a position has at most V + 1 different rows.

    Args:
        n: networks, seeds 3, 4, ...
        profile, changes: as in `findings`.
    """
    forms = ({"batch": 32}, {"batch": 512}, {"gradient": "expected"})
    asked: dict[str, Any] = {"mixing": "none", "correlation_lengths": (1.0,), "sequences": 1024}
    asked |= {"snapshots": (), "seeds": judged_seeds(n, first=3)} | changes
    return {
        recipe: [Experiment.profile(profile, **({"recipe": recipe} | asked | form)) for form in forms]
        for recipe in RECIPES
    }


def marker(family: str, profile: str = "paper", seeds: Any = 8, **changes: Any) -> Experiment:
    """The first 1500 steps of the first round's networks, whose weights were not kept: groups show by then.

    Args:
        family, profile, changes: as in `findings`.
        seeds: as in `Experiment`.
    """
    begun = {"recipe": "sequel", "families": (family,), "seeds": seeds}
    begun |= {"steps": 1500, "snapshots": SNAPSHOTS[:8]}
    return Experiment.profile(profile, **begun | changes)


# Parts of a network, or of its training, that are taken from a network of the other sign.
PARTS: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "embedding": ("embedding",),
    "first block": ("blocks.0",),
    "its token MLP": ("blocks.0.token_mlp",),
    "later blocks": tuple(f"blocks.{k}" for k in range(1, 6)),
    **{f"block {k + 1}": (f"blocks.{k}",) for k in range(1, 6)},
    "head": ("final_norm", "head"),
    "data": ("data",),
}
# Seeds of hierarchical networks at correlation length 7 whose coupling has the signs + and -.
OPPOSITES = ((0, 1), (3, 2), (0, 2), (3, 1))


def transplants(part: str, pairs: Sequence[Sequence[int]] = OPPOSITES, **changes: Any) -> list[Experiment]:
    """Networks of `marker` at correlation length 7 with one part from the other network of a pair, both ways.

    Trained for 400 steps: the sign of the coupling is settled by then.

    Args:
        part: in `PARTS`.
        pairs: of seeds.
        changes: as in `findings`.
    """
    starts = PARTS[checks.choice("part", part, PARTS)]
    asked: dict[str, Any] = {"profile": "paper", "correlation_lengths": (7.0,), "steps": 400, "snapshots": ()}
    swapped = (
        Experiment.profile(**asked | changes, seeds=(own,), donors=[(start, donor) for start in starts])
        for a, b in pairs
        for own, donor in ((a, b), (b, a))
    )
    return list(dict.fromkeys(swapped))  # "nothing" is the same for every donor


# The smallest system: its base, and rows that change one choice each; see the rules.
CHOICES: dict[str, dict[str, Any]] = {
    "base": {},
    "window in the first block": {"mixing": "window"},
    "window at the embedding": {"mixing": "embedding"},
    "attention": {"mixing": "attention"},
    "no mixing": {"mixing": "none"},
    "80/10/10": {"scheme": "bert"},
    "loss at all positions": {"loss_over": "all"},
    "sticky": {"families": ("sticky",)},
    "a I + (1-a) R": {"families": ("lazy",)},
    # Of the draws with seeds 0 to 3, those that come closest to both correlation lengths.
    "Dirichlet rows": {"own": (chains.dirichlet(16, 0.3, seed=3), chains.dirichlet(16, 0.05, seed=1))},
    "small constant rate": {"learning_rate": 3e-4, "schedule": "constant"},
}


def smallest(choice: str = "base", n: int = 4, profile: str = "small", **changes: Any) -> Experiment:
    """The small system, cosine, with one choice changed; measured only at the end.

    Args:
        choice: in `CHOICES`.
        n: networks, seeds 2, 3, ...
        profile, changes: as in `findings`.
    """
    asked = {"snapshots": (), "seeds": judged_seeds(n)}
    asked |= CHOICES[checks.choice("choice", choice, CHOICES)]
    return Experiment.profile(profile, **{"recipe": "cosine"} | asked | changes)


def weight_decays(
    decays: Sequence[float] = DECAYS, n: int = 4, profile: str = "small", **changes: Any
) -> list[Experiment]:
    """The base of `smallest` at each weight decay: does the stream then carry less that the head ignores?

    Args:
        decays: one experiment for each.
        n: networks, seeds 2, 3, ...
        profile, changes: as in `findings`.
    """
    decays = checks.sequence("decays", decays)
    return [smallest("base", n, profile, weight_decay=decay, **changes) for decay in decays]


def transformers(n: int = 4, profile: str = "paper", **changes: Any) -> dict[str, Experiment]:
    """Networks with attention beside MLPs without mixing, as arXiv:2607.15449 compares them: {mixing: those}.

    Its recipe and correlation lengths, and two readings of its chains; measured only at the end, on 1024
    sequences.

    Args:
        n: networks, seeds 2, 3, ...
        profile, changes: as in `findings`.
    """
    asked: dict[str, Any] = {"families": ("hierarchical", "lazy"), "correlation_lengths": (1.2, 6.7)}
    asked |= {"seeds": judged_seeds(n), "sequences": 1024, "snapshots": ()} | changes
    return {
        mixing: Experiment.profile(profile, **{"recipe": "sequel", "mixing": mixing} | asked)
        for mixing in ("attention", "none")
    }


class Question(NamedTuple):
    """Networks that answer a question, and what is measured on them."""

    asks: str
    experiments: Callable[[], list[Experiment]]
    swept: bool = False  # kept as entries of a sweep's file: many networks that are small
    analyses: tuple[Analysis | None, ...] = (None, anatomy)


# In order of training.
QUESTIONS = {
    "findings": Question("Do the three claims hold?", lambda: [findings(seeds=FEW)]),
    "gradient-noise": Question(
        "Is collapse without mixing gradient noise?",
        lambda: list(itertools.chain(*gradient_noise().values())),
        swept=True,
        analyses=(None,),
    ),
    "control": Question("Do they hold on sticky chains?", lambda: [findings(family="sticky", seeds=FEW)]),
    "optimiser": Question("Data or optimiser?", optimisers, analyses=(None,)),
    "first-round": Question(
        "What do the first round's networks look like inside?", lambda: [findings("sequel", seeds=FEW)]
    ),
    "groups": Question(
        "What marks the two groups?",
        lambda: [marker(family) for family in ("hierarchical", "sticky")],
        analyses=(coupling,),
    ),
    "transplants": Question(
        "Which part decides the group?",
        lambda: list(itertools.chain(*map(transplants, PARTS))),
        swept=True,
        analyses=(coupling,),
    ),
    "more-seeds": Question(
        "And with all the seeds that are planned?", lambda: [findings(), findings(family="sticky")]
    ),
    "decay": Question(
        "Does weight decay change the outcome?", lambda: [findings(seeds=FEW, weight_decay=0.1)]
    ),
    "law": Question("Does the prediction decide the rank that is left?", law.experiments, swept=True),
    "law-window": Question("And if positions talk once?", lambda: law.experiments("window"), swept=True),
    "smallest": Question(
        "Which choices decide the claims?",
        lambda: [smallest(choice) for choice in CHOICES],
        swept=True,
        analyses=(None,),
    ),
    "unread": Question(
        "Does weight decay remove what the head does not read?",
        weight_decays,
        swept=True,
        analyses=(anatomy,),
    ),
    "transformers": Question(
        "Does attention do what an MLP cannot?",
        lambda: list(transformers().values()),
        swept=True,
        analyses=(None, comparison),
    ),
    "optimiser-small": Question("Rate, batch or decay?", small_optimisers, swept=True, analyses=(None,)),
    "longer": Question(
        "What lasts when training goes on?",
        lambda: [findings(seeds=FEW, steps=30_000, snapshots=(*SNAPSHOTS, 10_000, 17_000))],
    ),
}


class Job(NamedTuple):
    """Networks of one setting that train together."""

    setting: Setting
    seeds: tuple[int, ...]
    results: Path
    device: torch.device
    analyses: tuple[Analysis | None, ...]
    swept: bool

    def left(self, held: Collection[str]) -> dict[Store, list[int]]:
        """Seeds that are not stored, by where; `held`: keys of what the files of sweeps hold."""

        def missing(store: Store, seed: int) -> bool:
            key = self.setting.key(seed, store.analysis)
            return key not in held and not store.holds(self.setting, seed)

        stores = (Store(self.results, analysis, self.swept) for analysis in self.analyses)
        return {store: [seed for seed in self.seeds if missing(store, seed)] for store in stores}

    def settle(self, held: Collection[str], wait: bool) -> bool:
        """Do what is left. False if another process works on the setting and this one does not wait."""
        whole, diverged = True, None
        for store, seeds in self.left(held).items():
            try:
                whole &= not seeds or settle(self.setting, seeds, store, self.device, wait=wait) is not None
            except Diverged as error:  # of some seeds: the others have further analyses
                diverged = error
        if diverged:
            raise diverged
        return whole


def train(names: Sequence[str] = (), results: str | Path | None = None, progress: bool = True) -> None:
    """Train and measure what is not yet stored of the networks of some questions.

    Several processes share the work (`runner.shared`). If stopped, it resumes where it was.

    Args:
        names: in `QUESTIONS`; none: all.
        results, progress: as in `Experiment.run`.

    Raises:
        RuntimeError: networks diverged, listed with their errors; all others were trained first.
    """
    asked = [checks.choice("question", name, QUESTIONS) for name in names] or list(QUESTIONS)
    folder = results_folder(results)
    known = held(folder)
    jobs = dict.fromkeys(job for name in asked for job in _jobs(QUESTIONS[name], folder))
    waiting = [job for job in jobs if any(job.left(known).values())]
    steps, diverged = sum(map(_steps, waiting)), []

    def work(job: Job, wait: bool) -> bool:
        try:
            return job.settle(known, wait)
        except Diverged as error:
            diverged.append(f"{job.setting}, seeds {job.seeds}: {error}")
            return True

    with tqdm(total=steps, desc="training", unit="step", unit_scale=True, disable=not progress) as bar:
        for job, _ in shared(waiting, work):
            bar.update(_steps(job))
            where = f"{job.setting.family}, correlation length {job.setting.correlation_length:g}"
            bar.write(f"{where}, seeds {job.seeds}", sys.stderr)
    if diverged:
        raise checks.Failed("\n".join(["training failed:", *diverged]))


def coverage(results: str | Path | None = None) -> dict[str, tuple[int, int]]:
    """How many networks each question asks for, and how many of them are stored: {name: (asked, stored)}.

    Stored in the folder of results itself, or in the file of a sweep.

    Args:
        results: as in `Experiment.run`.
    """
    folder, found = results_folder(results), {}
    known = held(folder)
    for name, question in QUESTIONS.items():
        jobs = [job._replace(swept=False) for job in _jobs(question, folder)]
        missing = [set().union(*job.left(known).values()) for job in jobs]
        asked = sum(len(job.seeds) for job in jobs)
        found[name] = (asked, asked - sum(map(len, missing)))
    return found


def _jobs(question: Question, folder: Path) -> list[Job]:
    # Small networks train together; for large ones, the first seed of every setting comes first.
    asked = question.experiments()
    device, analyses = resolve_device(asked[0].device), question.analyses
    if question.swept:
        return [Job(s, e.seeds, folder, device, analyses, True) for e in asked for s in e.settings()]
    seeds = sorted({seed for e in asked for seed in e.seeds})
    return [
        Job(s, (seed,), folder, device, analyses, False)
        for seed in seeds
        for e in asked
        if seed in e.seeds
        for s in e.settings()
    ]


def _steps(job: Job) -> int:
    return job.setting.training.steps * len(job.seeds)
