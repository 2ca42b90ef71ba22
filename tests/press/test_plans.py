import time
from pathlib import Path

from rgnb.press import plans
from rgnb.press.plans import PAGE, Plan, Progress
from rgnb.study.rehearsal import Missing


def plan(folder, **changes):
    """Two networks of 100 s; on the second, two things are measured, 10 s each."""
    rows = [("a.nc", "one"), ("b.nc", "two"), ("c.nc", "two")]
    return Plan(tuple(Missing(str(folder / r), n, 100.0, 10.0, "cpu (test)") for r, n in rows), **changes)


def test_a_network_is_trained_once_for_all_that_is_measured_on_it(tmp_path):
    assert sum(plan(tmp_path).seconds().values()) == 2 * 100 + 3 * 10
    assert f"trains 2 networks on cpu (test), about {(230 + PAGE) / 60:.0f} min" in str(plan(tmp_path))
    trained = Plan((Missing("d.nc", "three", 0.0, 10.0, "cpu"), *plan(tmp_path).missing))
    assert "trains 2 networks and measures 1 that is trained" in str(trained)
    assert "There may be more" in str(plan(tmp_path, stopped="a page stopped in cell 3"))


def test_progress_counts_networks_and_corrects_the_time_left(tmp_path, monkeypatch):
    now = time.monotonic()
    monkeypatch.setattr(plans.time, "monotonic", lambda: now)
    line = Progress(plan(tmp_path))
    assert line.trained() == "0 of 2 networks done" and line.left() == 230 + PAGE
    now += 30
    assert line.left() == 200 + PAGE
    now += 190  # twice the 110 s that were expected
    Path(tmp_path / "a.nc").touch()
    assert line.trained() == "1 of 2 networks done" and line.left() == 2 * 120 + PAGE
    now += 1000
    assert line.left() == PAGE  # never less than what is left for certain


def test_bars_of_cells_are_left_out_and_lines_are_not():
    shown = []
    lines = plans._Lines(shown.append)
    for text in ["\r 10 %", "\r100 %\n", "set ", "aside\n", "two\nlines\n"]:
        lines.write(text)
    assert shown == ["set aside\n", "two\n", "lines\n"]
