import shutil
import subprocess
import sys
from pathlib import Path

import jupytext
import matplotlib.pyplot as plt
import nbformat
import pytest

from rgnb.press import notebooks
from rgnb.study.rehearsal import Clock

pytestmark = pytest.mark.slow  # they execute the book

BIN = Path(sys.executable).parent
# Small values for every parameter that decides how long a notebook takes.
TINY = {
    "profile": "quick", "steps": 50, "seeds": 2, "control_seeds": 2, "sequences": 64, "device": "cpu",
    "sizes": ["quick"],
    "second_profile": "quick", "second_seeds": 2, "noise_profile": "quick", "noise_seeds": 2,
    "sequel_seeds": 2, "transformer_seeds": 2,
    "families": ["hierarchical", "ring"], "correlation_lengths": [0.5, 1.0, 4.0], "rates": [0.4],
    "network_seeds": [2], "weight_decays": [0.0, 1.0], "decay_seeds": 2,
    "depths": [2, 3], "depth_seeds": 2, "pairs": [[0, 1]], "layers": 2,
    "own_seeds": 2, "own_steps": 50, "judged_steps": 50,
}  # fmt: skip
AXES = ("rates", "schemes", "widths", "depths", "learning_rates", "longer", "states")
ONE_SIZE: dict[str, list] = {name: [] for name in AXES}
COSINE = {"steps": 250, "control": "hierarchical"}  # beyond the warm-up of the recipe cosine; one family
TINY_OF = {
    "robustness": {"families": ["ring"], "correlation_lengths": [4.0]} | ONE_SIZE,
    "optimiser": {"batches": [8], "decays": [0.0, 1.0]} | COSINE,
    **dict.fromkeys(("rank-collapse", "selectivity", "kernel-drift", "groups"), COSINE),
    **dict.fromkeys(("mode-retention", "fixed-point", "coarse-graining"), COSINE),
    "blind": {"steps": 250},
    "own": {"correlation_lengths": [1.0, 4.0]},
    "explorer": {"families": ["hierarchical"], "correlation_lengths": [1.0, 7.0]} | COSINE,
    "law": {"families": ["hierarchical", "nested_blocks"], "correlation_lengths": [1.0, 4.0]} | COSINE,
    "smallest": {"choices": ["base", "no mixing"]} | COSINE,
    "published": {"network_seeds": [2, 3], "train": True} | COSINE,
}


def tiny(name):
    values = TINY | TINY_OF.get(name, {})
    return {key: value for key, value in values.items() if key in notebooks.parameters(name)}


def images(path):
    cells = nbformat.read(path, as_version=4).cells
    return [o for cell in cells for o in cell.get("outputs", []) if "image/svg+xml" in o.get("data", {})]


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """An empty folder of results; one thread, as more only wait for each other in networks this small."""
    monkeypatch.setenv("RGNB_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.long
@pytest.mark.parametrize("name", notebooks.names())
def test_every_notebook_runs_with_other_parameters(name, alone, tmp_path, monkeypatch):
    # Nothing is trained: networks are stood in for, as when `rgnb run` plans a run. In this process, as the
    # imports of a kernel would take as long as the cells. How long training takes is not asked either.
    monkeypatch.setenv("RGNB_REHEARSAL", str(tmp_path))
    for what in ("training", "measuring"):
        monkeypatch.setattr(Clock, what, lambda *setting: 1.0)
    monkeypatch.chdir(notebooks.source(name).parent)
    page = {"__name__": "__main__"}
    for cell in jupytext.read(notebooks.source(name)).cells:
        if cell.cell_type == "code":
            exec(cell.source, page)
        if "parameters" in cell.metadata.get("tags", []):
            page |= tiny(name)
    plt.close("all")
    assert not list(tmp_path.glob("results/weights/*/*/*.safetensors"))


@pytest.mark.long
def test_a_notebook_trains_the_sweep_that_is_missing(alone, tmp_path):
    # Single experiments: `test_a_run_says_what_it_trains_and_then_trains_it`.
    output = tmp_path / "robustness.ipynb"
    notebooks.execute("robustness", output, tiny("robustness"))
    assert list(tmp_path.glob("results/*.nc")) and images(output)


def test_a_pair_is_written_and_runs_under_papermill(tmp_path):
    sources = tmp_path / "book" / "notebooks"
    shutil.copy(notebooks.ROOT / "jupytext.toml", tmp_path)
    shutil.copytree(notebooks.ROOT / "book" / "notebooks", sources)
    before = (sources / "chains.md").read_bytes()
    pair = tmp_path / "book" / "ipynb" / "chains.ipynb"
    pair.parent.mkdir()
    subprocess.run(
        [BIN / "jupytext", "--to", "ipynb", "--output", pair, sources / "chains.md"], cwd=tmp_path, check=True
    )
    assert (sources / "chains.md").read_bytes() == before

    command = [BIN / "papermill", pair, "out.ipynb", "-p", "correlation_length_long", "5"]
    for key, value in tiny("chains").items():
        command += ["-p", key, str(value)]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert images(tmp_path / "out.ipynb")
