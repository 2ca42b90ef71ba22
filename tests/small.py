"""The smallest experiments, which train in a second: for tests that need stored results of any kind."""

from rgnb.study import Experiment

SMALL = {
    "n_states": 4,
    "length": 6,
    "width": 8,
    "depth": 2,
    "batch": 8,
    "snapshots": (),
    "sequences": 64,
    "device": "cpu",
}


def small(**changes):
    return Experiment.profile("quick", **(SMALL | {"seeds": 2, "steps": 50} | changes))
