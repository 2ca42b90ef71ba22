import json
import os
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

from rgnb.press import notebooks
from rgnb.randomness import resolve_device
from rgnb.study.store import provenance

COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True}
settings.register_profile("rgnb", max_examples=100, database=None, **COMMON)
settings.register_profile("more", settings.get_profile("rgnb"), max_examples=3000, derandomize=False)
settings.load_profile("rgnb")


@pytest.fixture(scope="session")
def html(tmp_path_factory):
    """The book's HTML, built from the committed executed notebooks, once for all workers."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "book"
    with FileLock(f"{folder}.lock"):
        front = folder / "_build" / "html" / "intro.html"
        return (front if front.exists() else notebooks.build_html(output=folder)).parent


class Counts:
    """How many tests and cases keep each promise of the page "Reliability", written to JSON at the end."""

    def __init__(self, path):
        self.path, self.found = Path(path), {}

    def pytest_runtest_logreport(self, report):  # called where the reports of all workers arrive
        properties = dict(report.user_properties)
        if "promise" not in properties:
            return
        counted = self.found.setdefault(
            properties["promise"], {"tests": 0, "passed": 0, "skipped": 0, "cases": 0}
        )
        if report.when == "teardown":
            counted["tests"] += 1
            counted["cases"] += properties.get("cases", 1)
        elif report.when == "call" or report.skipped:
            counted["passed"] += report.passed
            counted["skipped"] += report.skipped

    def pytest_sessionfinish(self):
        where = provenance(resolve_device("cpu"))
        self.path.write_text(
            json.dumps({"promises": dict(sorted(self.found.items())), "provenance": where}, indent=1) + "\n"
        )


def pytest_addoption(parser):
    parser.addoption(
        "--counts", metavar="FILE", help="write how many tests and cases keep each promise to this JSON file"
    )


def pytest_configure(config):
    config.addinivalue_line("markers", "promise(name): the promise of the page Reliability that a test keeps")
    config.addinivalue_line(
        "markers", "slow: needs the book, a browser or long training; `make check` leaves it out"
    )
    config.addinivalue_line("markers", "long: up to minutes; begun first, so that it does not end alone")
    if config.getoption("counts") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Counts(config.getoption("counts")))


def pytest_itemcollected(item):
    item.user_properties += [("promise", mark.args[0]) for mark in item.iter_markers("promise")]


def pytest_collection_modifyitems(items):
    # Workers of pytest-xdist begin at different places and take from each other at the end: two of them begin
    # with long tests, so that none is left when the others are done.
    long = [item for item in items if item.get_closest_marker("long")]
    rest = [item for item in items if not item.get_closest_marker("long")]
    first, half = long[::2], len(items) // 2
    items[:] = first + rest[: half - len(first)] + long[1::2] + rest[half - len(first) :]
