import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
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
LINES = [*PROJECT["dependencies"], *(line for extra in EXTRAS.values() for line in extra)]
RANGES = [
    Requirement(line) for line in LINES if not line.startswith("rgnb[")
]  # its own extras are among them
PINS = {
    canonicalize_name(name): Version(version)
    for name, version in re.findall(
        r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE
    )
}


def test_every_line_of_the_constraints_is_one_exact_pin():
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
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
        waiting += [
            r for r in further if not r.marker or any(r.marker.evaluate({"extra": e}) for e in extras)
        ]


def test_conda_and_make_install_the_same():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (python,) = [line for line in environment["dependencies"] if str(line).startswith("python")]
    assert SpecifierSet(PROJECT["requires-python"]).contains(python.removeprefix("python="))
    (through_pip,) = [line["pip"] for line in environment["dependencies"] if isinstance(line, dict)]
    assert through_pip == ["--constraint constraints.txt", "--editable .[book,test]"]
    assert "--constraint constraints.txt --editable '.[book,test]'" in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize(
    "command, extras",
    [("book", ["book"]), ("notebooks", ["book"]), ("reproduce", ["book"]), ("pdf", ["book", "book,pdf"]),
     ("test", ["book", "book,test"]), ("check", ["book", "book,test"]),
     ("reliability", ["book", "book,test"]), ("bench", ["book", "book,bench"])],
)  # fmt: skip
def test_make_installs_what_a_command_needs_and_no_more(command, extras):
    done = subprocess.run(
        ["make", "--dry-run", "--always-make", command], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert re.findall(r"--constraint constraints.txt --editable '\.\[(.*?)\]'", done.stdout) == extras


def installed_with(*extras):
    """The distributions that the package and some extras name."""
    wanted = [
        Requirement(line)
        for line in [*PROJECT["dependencies"], *(line for e in extras for line in EXTRAS[e])]
    ]
    inner = [e for requirement in wanted if requirement.name == "rgnb" for e in requirement.extras]
    return {canonicalize_name(r.name) for r in wanted if r.name != "rgnb"} | (
        installed_with(*inner) if inner else set()
    )


@pytest.mark.parametrize("path", sorted((ROOT / "rgnb").rglob("*.py")), ids=lambda path: path.stem)
def test_every_room_imports_what_its_extras_install(path):
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {a.name for node in nodes if isinstance(node, ast.Import) for a in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    tops = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) - {"rgnb"}
    through = {
        "dask": "distributed",
        "docutils": "jupyter-book",
        "sphinx": "jupyter-book",
        "pandas": "xarray",
        "matplotlib_inline": "ipykernel",
        "nbclient": "papermill",
    }  # which require them
    found = packages_distributions()
    wanted = {canonicalize_name(through.get(top) or found[top][0]) for top in tops}
    own = {"pdf": ["pdf"], "cluster": ["cluster"]}.get(path.stem, [])
    wing = {"study": ["study"], "press": ["book"], "verdicts": []}.get(
        path.parent.name, ["study"]
    )  # training is lazy
    assert wanted <= installed_with(*wing, *own)


def test_the_workflow_runs_what_the_readme_says_with_pinned_actions():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "book.yml").read_text())
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"]) for step in steps if "uses" in step)
    commands = " ".join(step["run"] for step in steps if "run" in step)
    assert re.search(r"pip-audit==[\d.]+ .*--requirement constraints.txt", commands)
    readme = (ROOT / "README.md").read_text()
    assert all(command in commands and command in readme for command in ("make book", "make test"))
    assert workflow["permissions"] == {"contents": "read"}
