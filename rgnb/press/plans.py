"""What a page has to train before it can be made, found by a rehearsal; and how far that has come."""

import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from rgnb import checks
from rgnb.press import notebooks
from rgnb.study.rehearsal import Missing, duration, missing

PAGE = 120  # seconds, roughly, in which a page is drawn from its results and built, on 2 cores


@dataclass(frozen=True)
class Plan:
    """What is missing for a page: see `rehearse`."""

    missing: tuple[Missing, ...]
    stopped: str | None = None  # why the rehearsal ended before the page did

    def seconds(self) -> dict[str, float]:
        """Seconds for each missing result, by where it will be stored; a network is trained only once."""
        networks, found = set(), {}
        for m in self.missing:
            found[m.result] = m.measuring + (0 if m.network in networks else m.training)
            networks.add(m.network)
        return found

    def __str__(self) -> str:
        networks = {m.network: m.training > 0 for m in self.missing}
        train, device = sum(networks.values()), self.missing[0].device
        measure = len(networks) - train
        text = f"It trains {train} network{'s' * (train != 1)}"
        if measure:
            text += f" and measures {measure} that {'is' if measure == 1 else 'are'} trained"
        text += f" on {device}, about {duration(sum(self.seconds().values()) + PAGE)} in all."
        if self.stopped:
            text += (
                " There may be more: the plan ends at a cell that failed on the numbers of untrained "
                f"networks ({self.stopped})."
            )
        return text


def rehearse(name: str, output: Path, values: dict[str, Any]) -> Plan | None:
    """Execute a notebook without training anything, to see what it would train.

    Args:
        name, output, values: as in `notebooks.execute`.

    Returns:
        Plan, or None if all results were there: `output` is written then, as by `notebooks.execute`.

    Raises:
        As `notebooks.execute`, if nothing was missing before the cell that failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        stopped = None
        try:
            notebooks.execute(name, output, values, stderr=_Lines(sys.stderr.write), rehearsal=Path(folder))
        except checks.Failed as error:
            if not missing(folder):
                raise
            stopped = str(error).partition("\n")[0]
        found = missing(folder)
        return Plan(tuple(found), stopped) if found else None


class _Lines:
    """Passes whole lines of a cell's stderr on, but no bars, which go back over their line."""

    def __init__(self, show: Callable[[str], Any]) -> None:
        self.show, self.rest = show, ""

    def write(self, text: str) -> None:
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            if "\r" not in line:
                self.show(line + "\n")

    def flush(self) -> None:
        sys.stderr.flush()


class Progress:
    """One line on stderr for the whole of a run: the networks that are trained, of all, and the time left.

    On a terminal it is redrawn every second; elsewhere a new one is written when there are more networks, at
    most once a minute. `stderr` takes what cells write, and shows it above the line.
    """

    def __init__(self, plan: Plan) -> None:
        self.stderr = _Lines(self._above)
        self._network = {Path(m.result): m.network for m in plan.missing}
        self._seconds = {Path(result): s for result, s in plan.seconds().items()}
        self._started = self._changed = time.monotonic()
        self._done, self._pace = 0.0, 1.0
        self._line, self._written = "", self._started
        self._end, self._lock = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def trained(self) -> str:
        """How many of the networks have a result."""
        networks = set(self._network.values())
        there = {network for result, network in self._network.items() if result.exists()}
        return f"{len(there)} of {len(networks)} networks done"

    def left(self) -> float:
        """Seconds until the page is built, the estimate corrected by how long it took so far."""
        now, done = time.monotonic(), sum(s for result, s in self._seconds.items() if result.exists())
        if done > self._done:
            self._done, self._changed, self._pace = done, now, (now - self._started) / done
        left = self._pace * (sum(self._seconds.values()) - done) - (now - self._changed)
        return max(left, 0) + PAGE

    def build(self) -> None:
        """Say that the page is executed and its build, the last step, has begun."""
        self._stop()
        print(f"{self.trained()}, building the page ...", file=sys.stderr, flush=True)

    def _watch(self) -> None:
        while not self._end.wait(1):
            if sys.stderr.isatty():
                with self._lock:
                    sys.stderr.write(f"\r\x1b[K{self.trained()}, about {duration(self.left())} left")
                    sys.stderr.flush()
            elif time.monotonic() - self._written > 60 and self.trained() != self._line:
                self._line, self._written = self.trained(), time.monotonic()
                print(f"{self._line}, about {duration(self.left())} left", file=sys.stderr, flush=True)

    def _above(self, line: str) -> None:
        with self._lock:
            sys.stderr.write(f"\r\x1b[K{line}" if sys.stderr.isatty() else line)

    def _stop(self) -> None:
        self._end.set()
        self._thread.join()
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stop()
