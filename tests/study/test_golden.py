"""The names of all committed results against the keys of their settings: no change of code may orphan one."""

import json
import os
from dataclasses import fields

import pytest
from netCDF4 import Dataset

from rgnb.model import ModelConfig
from rgnb.study import Experiment, anatomy, probes
from rgnb.study.settings import Setting, content_key
from rgnb.study.store import results_folder
from rgnb.training import TrainConfig

RESULTS = sorted(results_folder().glob("*.nc"))


def of_a_sweep(path):
    return path.name.startswith("sweep-")


def attributes(path):
    with Dataset(path) as file:
        return {name: file.getncattr(name) for name in file.ncattrs()}


def built(kind, values):
    return kind(**{f.name: values[f.name] for f in fields(kind) if f.name in values})


def setting_of(config):
    """The Setting whose `config()` was stored."""
    parts = {"model": built(ModelConfig, config["model"]), "training": built(TrainConfig, config["training"])}
    matrix = tuple(map(tuple, config["matrix"]))
    return Setting(
        config["family"], config["correlation_length"], matrix, sequences=config["sequences"], **parts
    )


def analysis_of(path):
    known = (probes.mode_retention, probes.perturbations, anatomy.anatomy, anatomy.coupling)
    return next((a for a in known if f"-{a.id.rpartition('.')[2]}-seed" in path.name), None)


@pytest.mark.parametrize("path", [p for p in RESULTS if "-seed" in p.name], ids=lambda p: p.name)
def test_an_entry_is_found_by_its_setting_and_seed(path):
    found = attributes(path)
    setting = setting_of(json.loads(found["setting"]))
    assert json.dumps(setting.config(), sort_keys=True) == found["setting"]
    assert setting.path(path.parent, int(found["seed"]), analysis_of(path)) == path
    assert setting_of(setting.config()) == setting


# These two were stored before a sweep kept what it was asked for: the page "blind" asks for them so.
BLIND = {"families": ["sticky"], "mixing": "none"}
WITHOUT_CONFIG = {
    "sweep-blind": [
        Experiment.profile(
            "quick", correlation_lengths=[0.5, 1, 2, 4, 8, 12], scheme=scheme, seeds=16, **BLIND
        )
        for scheme in ("mask", "bert")
    ],
    "sweep-blind-second": [Experiment.profile("paper", seeds=8, **BLIND)],
}


@pytest.mark.parametrize("path", [p for p in RESULTS if "-seed" not in p.name], ids=lambda p: p.name)
def test_a_file_of_many_settings_is_found_by_all_of_them(path):
    name, key = path.stem.rsplit("-", 1)
    found = attributes(path)
    if "config" in found:
        config = json.loads(found["config"])
    else:
        asked = [
            [s.config() | {"seed": seed} for s in e.settings() for seed in e.seeds]
            for e in WITHOUT_CONFIG[name]
        ]
        variables = ["effective_rank", "excess_loss", "marginal_entropy", "reachable_loss"]
        config = {"experiments": asked, "variables": variables, "analysis": None}
    if of_a_sweep(path):
        for row in (row for rows in config["experiments"] for row in rows):
            assert setting_of(row).config() | {"seed": row["seed"]} == row
    assert content_key(config) == key


@pytest.mark.skipif("RGNB_RESULTS" in os.environ, reason="another folder of results was chosen")
def test_there_are_results():
    assert len(RESULTS) > 150
