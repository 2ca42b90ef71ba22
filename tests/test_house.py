"""One direction: a module imports only from its own wing or one below it; the library needs four packages."""

import ast
import subprocess
import sys

import pytest

from rgnb.press.notebooks import ROOT

WINGS = ("library", "verdicts", "study", "press")  # from the ground up
MODULES = sorted((ROOT / "rgnb").rglob("*.py"))
ALLOWED = {"numpy", "scipy", "torch", "xarray"}


def wing(dotted):
    part = dotted.split(".")[1] if "." in dotted else ""
    return WINGS.index(part) if part in WINGS else 0


def imported(path, top_level_only=False):
    nodes = ast.parse(path.read_text(encoding="utf-8"))
    for node in nodes.body if top_level_only else ast.walk(nodes):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path):
    own = wing(".".join(path.relative_to(ROOT).with_suffix("").parts))
    for name in imported(path):
        assert not name.startswith("rgnb") or wing(name) <= own, f"{name} is in a wing above"


@pytest.mark.parametrize(
    "path", [p for p in MODULES if p.parent.name in ("rgnb", "metrics")], ids=lambda p: p.name
)
def test_the_library_is_imported_with_four_packages(path):
    for name in imported(path, top_level_only=True):
        top = name.split(".")[0]
        assert top in sys.stdlib_module_names | ALLOWED | {"rgnb"}, f"{name} is needed to import the library"


def test_the_public_names_are_there_and_wait_for_nothing():
    code = (
        "import sys, rgnb; assert 'torch' not in sys.modules; "
        "assert all(hasattr(rgnb, name) for name in dir(rgnb)); print(rgnb.__version__)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def defined(*paths):
    """The public functions at the top of some modules."""
    bodies = (ast.parse((ROOT / "rgnb" / path).read_text(encoding="utf-8")).body for path in paths)
    return {n.name for body in bodies for n in body if isinstance(n, ast.FunctionDef) and n.name[0] != "_"}


def test_measures_and_verdicts_share_no_names():
    rooms = ("findings", "first_round", "hypotheses", "robustness")
    verdicts = [defined(f"verdicts/{room}.py") for room in rooms]
    metrics = (path.relative_to(ROOT / "rgnb") for path in (ROOT / "rgnb" / "metrics").glob("*.py"))
    measures = defined("verdicts/measures.py", *metrics)
    assert {"collapse", "kernel_drift", "relevant_modes"} < measures
    for found in verdicts:
        assert not found & measures
    # Two rounds of rules may judge the same claim; nothing else has two homes.
    shared = [one & other for i, one in enumerate(verdicts) for other in verdicts[:i]]
    assert all(name.startswith("judge_") for names in shared for name in names)
