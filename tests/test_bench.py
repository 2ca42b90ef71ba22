"""The benchmarks at tiny sizes: that every side still runs and computes the same thing, which each checks."""

import importlib.util
import json
import sys

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from rgnb import chains
from rgnb.press import notebooks

spec = importlib.util.spec_from_file_location("bench", notebooks.ROOT / "benchmarks" / "bench.py")
bench = importlib.util.module_from_spec(spec)

sys.modules["bench"] = bench  # processes that a benchmark starts find its functions there
spec.loader.exec_module(bench)


@pytest.mark.slow
@pytest.mark.parametrize("name", bench.BENCHMARKS)
def test_every_benchmark_runs(name, monkeypatch):
    monkeypatch.syspath_prepend(notebooks.ROOT / "benchmarks")
    rows = bench.BENCHMARKS[name](tiny=True)
    assert rows
    for row in rows:
        if name == "gpu" and not torch.cuda.is_available():
            assert row.seconds is None and "not measured" in row.note
        else:
            assert 0 < row.seconds < 600 and all(0 < seconds <= 8 * 3600 for seconds in row.others.values())
    assert bench.table(rows).count("\n") >= len(rows) - 1


def test_a_sampler_with_another_law_is_found():
    chain = chains.hierarchical(8, 3.0)
    tokens = chain.sample(500, 40, torch.Generator().manual_seed(0)).numpy()
    assert bench.law_p_value(tokens, chain.transition_matrix.numpy()) > 1e-4
    assert bench.law_p_value(tokens, chains.hierarchical(8, 2.0).transition_matrix.numpy()) < 1e-9


def test_flops_agree_with_a_count_of_matrix_products():
    config = bench.ModelConfig(n_states=5, length=8, width=6, depth=3)
    plain, batch = bench.Plain(config), 4
    counter = FlopCounterMode(display=False)
    with counter:
        plain(torch.zeros(batch, 8, dtype=torch.long)).sum().backward()
    # The count leaves out the gradient with respect to the one-hot input, which nobody needs.
    unneeded = 2 * batch * 8 * 6 * 6
    assert bench.flops(config, batch, 1.0) - unneeded == pytest.approx(counter.get_total_flops())


def test_runs_are_kept_beside_those_of_other_processors(tmp_path, monkeypatch):
    runs = [[bench.Row("work", 2.0, {"other": 4.0}, note="slow")], [bench.Row("work", 1.0, {"other": 3.0})]]
    runs.append([bench.Row("work", 1.5, {"other": 3.5}, note="middle")])
    runs[0].append(bench.Row("once", 1.0))
    path = tmp_path / "results.json"
    monkeypatch.setattr(bench, "version", lambda name: "1.0")  # the peers need not be installed
    for name in ("one", "two", "one"):
        monkeypatch.setattr(bench, "processor", lambda name=name: name)
        bench.store(runs, path)
    stored = json.loads(path.read_text())
    row, once = stored["one"]["rows"]
    assert once["seconds"] == [1]
    assert list(stored) == ["one", "two"]
    assert row["seconds"] == [1, 1.5, 2] and row["others"] == {"other": [3, 3.5, 4]}
    assert row["note"] == "middle"


def test_growth():
    sizes = [2, 4, 8, 16]
    assert bench.exponent([(n, 3e-3 * n**1.5) for n in sizes]) == pytest.approx(1.5)
    assert np.isfinite(bench.exponent([(1, 1.0), (2, 1.0)]))


def test_the_processor_is_named_with_its_vectors(tmp_path, monkeypatch):
    where = tmp_path / "cpuinfo"
    where.write_text("processor\t: 0\nvendor_id\t: Vendor\nmodel name\t: Some Name\n\nprocessor\t: 1\n")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(bench, "PROCESSOR", where)
    assert bench.processor() == "Some Name, AVX2"
    where.unlink()
    assert bench.processor().endswith(", AVX2") and len(bench.processor()) > len(", AVX2")
