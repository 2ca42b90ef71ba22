import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
RANGES = [Requirement(line) for line in [*PROJECT["dependencies"], *EXTRAS["book"], *EXTRAS["test"], *EXTRAS["bench"]]]
PINS = {
    canonicalize_name(name): Version(version)
    for name, version in re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
}


def test_every_line_of_the_constraints_is_one_exact_pin():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert len(lines) == len(PINS)
    assert PINS["torch"] == Version("2.13.0")


@pytest.mark.parametrize("requirement", RANGES, ids=lambda r: r.name)
def test_pins_lie_in_the_ranges_of_the_package(requirement):
    assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])


def test_everything_that_gets_installed_is_pinned():
    waiting, seen = list(RANGES), set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (name, frozenset(requirement.extras)) in seen:
            continue
        seen.add((name, frozenset(requirement.extras)))
        if name.startswith(("nvidia", "cuda", "triton")):  # torch pins its own
            continue
        assert name in PINS, f"{requirement} is required but not pinned in constraints.txt"
        try:
            further = [Requirement(line) for line in requires(name) or []]
        except PackageNotFoundError:  # of another platform
            continue
        extras = requirement.extras or {""}
        waiting += [r for r in further if not r.marker or any(r.marker.evaluate({"extra": e}) for e in extras)]


def test_conda_and_make_install_the_same():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (python,) = [line for line in environment["dependencies"] if str(line).startswith("python")]
    assert SpecifierSet(PROJECT["requires-python"]).contains(python.removeprefix("python="))
    (through_pip,) = [line["pip"] for line in environment["dependencies"] if isinstance(line, dict)]
    assert through_pip == ["--constraint constraints.txt", "--editable .[book,test]"]
    assert "--constraint constraints.txt --editable '.[book,test]'" in (ROOT / "Makefile").read_text()


def test_the_workflow_runs_what_the_readme_says_with_pinned_actions():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "book.yml").read_text())
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"]) for step in steps if "uses" in step)
    commands = " ".join(step["run"] for step in steps if "run" in step)
    assert re.search(r"pip-audit==[\d.]+ .*--requirement constraints.txt", commands)
    readme = (ROOT / "README.md").read_text()
    assert all(command in commands and command in readme for command in ("make book", "make test"))
    assert workflow["permissions"] == {"contents": "read"}
