"""Trained networks by their setting and seed, from weights that are committed or that were trained here."""

import shutil
from pathlib import Path

from rgnb import checks, files
from rgnb._checkpoints import parsed
from rgnb.model import ResidualMLP
from rgnb.study.experiment import Experiment
from rgnb.study.settings import Setting
from rgnb.study.store import rehearsal_folder, results_folder
from rgnb.training import load_model


def path(setting: Setting, seed: int, results: str | Path | None = None) -> Path:
    """Where the final weights of a network are committed, a safetensors file in `<results>/models`.

    Args:
        results: None: those of the checkout, wherever $RGNB_RESULTS keeps new results.
    """
    root = files.checkout()
    folder = root / "results" if root and results is None else results_folder(results)
    return setting.path(folder / "models", seed).with_suffix(".safetensors")


def network(setting: Setting, seed: int, results: str | Path | None = None) -> ResidualMLP:
    """A trained network by its setting and seed, such as 2 and one of `questions.findings().settings()`.

    Its weights are those that are committed or, where they are not, those of a training on this machine.

    Args:
        setting: one of `Experiment.settings()`.
        seed: of the network.
        results: folder of both kinds of weights, as in `path` and in `Experiment.run`.

    Returns:
        ResidualMLP; in a rehearsal, where it is not trained, an untrained one.

    Raises:
        ValueError: it is not trained; names the networks whose weights are committed.
        RuntimeError: the file is damaged.
    """
    kept = path(checks.instance("setting", setting, Setting), checks.integer("seed", seed, 0), results)
    where = kept if kept.exists() else setting.last_weights(results_folder(results), seed)
    if (content := files.content(where)) is None:
        if rehearsal_folder():
            return ResidualMLP(setting.model, seed)
        there = ", ".join(sorted(p.stem for p in kept.parent.glob("*.safetensors"))) or "none"
        raise checks.BadValue(f"no final weights of {kept.stem}; train it, or take one of: {there}")
    try:
        with files.reading(where):
            _, weights = parsed(content)
    except (OSError, MemoryError, ImportError):
        raise
    except Exception as error:  # safetensors, json and torch raise many kinds for damaged content
        advice = "restore it with git checkout, or delete it and train the network again"
        raise checks.Failed(f"{where} is damaged ({error}); {advice}") from None
    return load_model(setting.model, weights)


def keep(experiment: Experiment, results: str | Path | None = None) -> list[Path]:
    """Copy the last snapshots of an experiment's trained networks into `<results>/models`; their paths.

    Args:
        results: folder that holds their weights, as in `Experiment.run`.
    """
    copies = []
    folder = results_folder(results)
    for setting in experiment.settings():
        for seed in experiment.seeds:
            kept = path(setting, seed, folder)
            kept.parent.mkdir(exist_ok=True)
            shutil.copyfile(setting.last_weights(folder, seed), kept)
            copies.append(kept)
    return copies
