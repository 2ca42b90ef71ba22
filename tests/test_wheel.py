"""What `pip install .` gives: a library that runs with four packages, and keeps results out of itself."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution

import pytest
from packaging.requirements import Requirement

from rgnb.press.notebooks import ROOT

pytestmark = pytest.mark.slow
SMALL = (
    "n_states=4, length=6, width=8, depth=1, batch=4, steps=50, snapshots=(), sequences=64, seeds=1, "
    "correlation_lengths=[1.0], device='cpu'"
)


def run(code, *arguments, options=(), **settings):
    command = [sys.executable, *options, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **settings)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder that holds rgnb as pip installs it."""
    folder = tmp_path_factory.mktemp("wheel")
    # From a copy: setuptools leaves its own files where it builds.
    shutil.copytree(ROOT / "rgnb", folder / "source" / "rgnb", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", ".", "--no-deps", "--no-build-isolation", "--wheel-dir", folder]
    subprocess.run(build, cwd=folder / "source", check=True)
    (wheel,) = folder.glob("rgnb-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", folder / "site", wheel], check=True)
    return folder / "site"


def linked(names, folder):
    """Links in a folder to the installed distributions of these names and to all that they require."""
    waiting, seen = list(names), set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:  # of another platform
            continue
        for top in {file.parts[0] for file in found.files} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(found.locate_file(top))
        further = [Requirement(line) for line in found.requires or []]
        waiting += [r.name for r in further if not r.marker or r.marker.evaluate({"extra": ""})]


def test_the_library_of_a_wheel_runs_with_four_packages(site, tmp_path):
    linked(["numpy", "scipy", "torch", "xarray"], tmp_path)
    code = """
import sys
from importlib.util import find_spec
sys.path += sys.argv[1:]
import rgnb, torch
assert not any(map(find_spec, ("netCDF4", "safetensors", "joblib", "distributed", "matplotlib", "papermill")))
assert all(hasattr(rgnb, name) for name in dir(rgnb))
print(rgnb.__file__, rgnb.effective_rank(torch.eye(8), center=False).item())
"""
    # Without this environment's own packages.
    done = run(code, site, tmp_path, options=["-I", "-S"], cwd=tmp_path)
    path, rank = done.stdout.split()
    assert path == str(site / "rgnb" / "__init__.py")
    assert float(rank) == pytest.approx(8.0)


def test_results_of_a_wheel_go_to_the_working_folder(site, tmp_path):
    def installed():
        return {path for path in site.rglob("*") if "__pycache__" not in path.parts}

    before = installed()
    environment = {k: v for k, v in os.environ.items() if k != "RGNB_RESULTS"} | {"PYTHONPATH": str(site)}
    code = f"""
import rgnb
from rgnb.study import Experiment
Experiment.profile("quick", {SMALL}).run(progress=False)
print(rgnb.__file__)
"""
    done = run(code, env=environment, cwd=tmp_path)
    assert done.stdout.split() == [str(site / "rgnb" / "__init__.py")]
    assert len(list((tmp_path / "results").glob("*.nc"))) == 1
    assert f"results are kept in {tmp_path / 'results'}" in done.stderr
    assert installed() == before
