"""What the page "Reliability" promises, tried with real processes, real signals and real files."""

import json
import os
import pickle
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small import SMALL, small

from rgnb import _checkpoints as checkpoints
from rgnb.press import notebooks
from rgnb.randomness import resolve_device
from rgnb.study import cluster as cluster_module
from rgnb.study import store
from rgnb.study.sweep import grid, plan, sweep

pytestmark = pytest.mark.slow  # processes are killed in training, disks filled

ROOT = Path(__file__).parents[2]
small = partial(small, correlation_lengths=[1.0], steps=100)
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}

# Runs one setting; saves a checkpoint after every 50 steps and says on stdout what it trains.
RUN = """
import json, sys
from rgnb import training
from rgnb.study import Experiment

folder, settings = sys.argv[1], json.loads(sys.argv[2])
training.SAVE_SECONDS = -1
train = training._train_group

def spy(*arguments):
    print("from step", arguments[1].done, flush=True)
    return train(*arguments)

training._train_group = spy
try:
    Experiment.profile("quick", **settings).run(folder, progress=False)
except OSError as error:
    sys.exit(str(error))
"""


def start(folder, settings, **kwargs):
    values = SMALL | {"correlation_lengths": [1.0], "seeds": 2} | settings
    command = [sys.executable, "-c", RUN, str(folder), json.dumps(values)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        **kwargs,
    )


def wait_for(found, seconds=120):
    limit = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < limit, "it did not happen in time"
        time.sleep(0.005)


def assert_same(one, other):
    assert set(one.data_vars) == set(other.data_vars)
    for name in one.data_vars:
        np.testing.assert_array_equal(one[name].values, other[name].values, err_msg=name)


# --- stopped and killed ---


@pytest.mark.promise("stopped or killed in training")
@pytest.mark.parametrize(
    "mixing, sent", [("tokens", signal.SIGKILL), ("none", signal.SIGINT)], ids=["SIGKILL", "SIGINT"]
)
def test_goes_on_from_the_checkpoint_to_the_same_bits(tmp_path, mixing, sent):
    settings = {"steps": 1000, "mixing": mixing}
    assert start(tmp_path / "uncut", settings).wait(300) == 0
    expected = small(**settings).run(tmp_path / "uncut", progress=False)
    cut = start(tmp_path / "cut", settings)
    wait_for(lambda: list(tmp_path.rglob("cut/weights/*/resume-*.safetensors")))
    cut.send_signal(sent)
    assert cut.wait(60) != 0
    again = start(tmp_path / "cut", settings)
    said, error = again.communicate(timeout=300)
    assert again.returncode == 0, error
    assert int(said.split()[-1]) > 0  # not from the beginning
    assert_same(small(**settings).run(tmp_path / "cut", progress=False), expected)
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]  # nothing half written is left


# --- a cluster ---


@pytest.fixture
def cluster():
    """A Dask scheduler and workers as processes on loopback: (address, start a worker)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, processes = f"tcp://127.0.0.1:{port}", []

    def launch(*arguments):
        process = subprocess.Popen(
            [sys.executable, "-m", "distributed.cli." + arguments[0], *arguments[1:]], cwd=ROOT,
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        processes.append(process)
        return process

    launch("dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
    yield address, lambda: launch("dask_worker", address, "--nthreads", "1", "--no-dashboard", "--no-nanny")
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.promise("a cluster's worker killed")
def test_the_sweep_completes_when_a_worker_is_killed(tmp_path, cluster):
    address, worker = cluster
    workers, killed = [worker(), worker()], {}
    entries = tmp_path / "entries"

    def kill():  # one of them, as soon as something is stored and something is at work
        wait_for(lambda: list(entries.glob("*.nc")) and list(tmp_path.rglob("resume-*.safetensors")))
        killed["stored"] = {path: path.stat().st_mtime_ns for path in entries.glob("*.nc")}
        os.killpg(workers[0].pid, signal.SIGKILL)
        killed["at"] = time.monotonic()

    killer = threading.Thread(target=kill)
    killer.start()
    often = {"snapshots": tuple(range(50, 1000, 50))}  # a checkpoint is written with every snapshot
    experiments = grid(
        "quick",
        **SMALL | often,
        steps=[1000, 1050, 1100, 1150, 1200, 1250],
        correlation_lengths=[1.0],
        seeds=1,
    )
    ds = sweep("killed", experiments, results=tmp_path, progress=False, scheduler=address)
    killer.join()
    assert workers[0].wait(10) == -signal.SIGKILL and "at" in killed
    assert ds.sizes["run"] == len(experiments) and "failed" not in ds.attrs
    assert killed["stored"] == {
        path: path.stat().st_mtime_ns for path in killed["stored"]
    }  # none was made a second time
    assert not list(entries.glob(".*"))


@pytest.mark.promise("a cluster's worker killed")
def test_results_come_back_from_workers_that_see_another_disk(tmp_path, monkeypatch):
    setting = small().settings()[0]
    monkeypatch.setenv("RGNB_RESULTS", str(tmp_path / "theirs"))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # as on a worker, unless its environment says otherwise
    try:
        there = store.Store(tmp_path / "mine", swept=True), tmp_path / "mine" / ".shared-x"
        error, sent = cluster_module._settled_there(setting, [0, 1], *there, resolve_device("cpu"))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
    assert error is None and set(sent) == {setting.path("", seed).name for seed in (0, 1)}
    mine = tmp_path / "mine"
    mine.mkdir()
    for name, content in sent.items():
        (mine / name).write_bytes(content)
    assert small().missing(mine) == []
    assert_same(
        small().run(mine, progress=False), small().run(tmp_path / "theirs" / "entries", progress=False)
    )


def test_workers_with_several_threads_are_refused(tmp_path, cluster):
    address, _ = cluster
    other = subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "2", "--no-dashboard",
            "--no-nanny"],
        cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        from dask.distributed import Client

        with Client(address, timeout=60) as client:
            client.wait_for_workers(1, timeout=60)
        with pytest.raises(ValueError, match="start each with --nthreads 1"):
            sweep("threads", [small()], results=tmp_path, progress=False, scheduler=address)
    finally:
        other.kill()
        other.wait()


# --- several at once ---


@pytest.mark.promise("several processes at the same setting")
def test_processes_at_the_same_setting(tmp_path):
    settings = {"steps": 500, "seeds": 3}
    running = [start(tmp_path, settings) for _ in range(4)]
    paths = [small(**settings).settings()[0].path(tmp_path, seed) for seed in range(3)]
    reads = 0
    while any(process.poll() is None for process in running):
        for path in paths:
            reads += store.load(path) is not None  # sets aside what is not whole
    outputs = [process.communicate(timeout=60) for process in running]
    assert all(process.returncode == 0 for process in running), outputs
    assert sum(said.count("from step") for said, _ in outputs) == 1  # one of them trained
    assert reads and not list(tmp_path.rglob("*damaged*"))
    assert small(**settings).run(tmp_path, progress=False).sizes["seed"] == 3


# --- damaged files ---


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, small().run(folder, progress=False)


def flipped(content, at):
    return content[: at // 8] + bytes([content[at // 8] ^ (1 << at % 8)]) + content[at // 8 + 1 :]


@pytest.mark.promise("damaged files")
def test_any_flipped_bit_of_a_result_is_noticed_or_changes_nothing(whole, tmp_path, request):
    folder, _ = whole
    source = small().settings()[0].path(folder, 0)
    content, flips, noticed = source.read_bytes(), 300, 0
    choose = random.Random(0)
    before = store.load(source)
    for _ in range(flips):
        path = tmp_path / source.name
        path.write_bytes(flipped(content, choose.randrange(8 * len(content))))
        found = store.load(path)
        noticed += found is None
        assert found is None or found.identical(before)
    request.node.user_properties.append(("cases", flips))
    assert noticed > flips / 4 and len(list(tmp_path.glob("*.damaged-*"))) == noticed


DAMAGES = {
    "emptied": lambda content: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "last byte gone": lambda content: content[:-1],
    "foreign": lambda content: b"something else" * 500,
    "a pickle": lambda content: pickle.dumps({"x": np.ones(3)}),
}


@pytest.mark.promise("damaged files")
@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("kind", ["result", "snapshot"])
def test_damaged_files_are_named_set_aside_and_made_again(whole, tmp_path, capsys, how, kind):
    folder, ds = whole
    shutil.copytree(folder, tmp_path / "r")
    setting = small().settings()[0]
    result = setting.path(tmp_path / "r", 0)
    path = (
        result if kind == "result" else setting.weights(tmp_path / "r") / "seed-0" / "step-000100.safetensors"
    )
    path.write_bytes(DAMAGES[how](path.read_bytes()))
    result.unlink() if kind == "snapshot" else None
    again = small().run(tmp_path / "r", progress=False)
    if kind == "result":
        assert_same(again, ds)
    else:  # trained alone now: the sums of batched products are rounded differently
        np.testing.assert_allclose(again.effective_rank, ds.effective_rank, rtol=1e-3)
    assert f"{path} is not used" in capsys.readouterr().err
    assert path.exists() and path.with_name(path.name + ".damaged-0").exists()


@pytest.mark.promise("damaged files")
def test_results_of_another_version_or_setting_are_not_mistaken(whole, tmp_path, capsys):
    folder, ds = whole
    setting = small().settings()[0]
    for seed in (0, 1):  # the files of the two seeds, exchanged
        shutil.copy(setting.path(folder, 1 - seed), setting.path(tmp_path, seed))
    assert_same(small().run(tmp_path, progress=False), ds)
    assert capsys.readouterr().err.count("its seed is another") == 2
    path = setting.path(tmp_path, 0)
    with netCDF4.Dataset(path, "a") as file:
        file.setncattr("version", 0)
    store.seal(path)
    assert_same(small().run(tmp_path, progress=False), ds)
    assert "its version is another" in capsys.readouterr().err


# --- nobody let in ---


@pytest.mark.promise("no pickle, no code from files")
@given(st.binary(max_size=3000), st.sampled_from([".nc", ".safetensors"]), st.booleans())
def test_random_bytes_are_read_as_nothing(bytes_counted, content, suffix, header):
    path = bytes_counted / f"x{suffix}"
    start = {".nc": b"\x89HDF\r\n\x1a\n", ".safetensors": len(content).to_bytes(8, "little") + b'{"'}[suffix]
    path.write_bytes(start + content if header else content)
    read = store.load if suffix == ".nc" else checkpoints.TensorFiles({}).load
    assert read(path) is None and not path.exists()


@pytest.fixture
def bytes_counted(tmp_path, request):
    yield tmp_path
    request.node.user_properties.append(("cases", len(list(tmp_path.glob("*.damaged-*")))))


class Payload:
    def __reduce__(self):
        return os.mkdir, (str(Path(os.environ["RGNB_PAYLOAD"])),)


@pytest.mark.promise("no pickle, no code from files")
@pytest.mark.parametrize("suffix", [".nc", ".safetensors"])
def test_a_pickle_is_not_executed(tmp_path, monkeypatch, suffix):
    import torch

    monkeypatch.setenv("RGNB_PAYLOAD", str(tmp_path / "made"))
    read = store.load if suffix == ".nc" else checkpoints.TensorFiles({}).load
    for k, content in enumerate((pickle.dumps(Payload()), None)):
        path = tmp_path / f"x{k}{suffix}"
        torch.save(Payload(), path) if content is None else path.write_bytes(content)
        assert read(path) is None
    assert not (tmp_path / "made").exists()


@pytest.mark.promise("no pickle, no code from files")
def test_the_package_reads_no_pickle():
    forbidden = r"pickle|torch\.load|joblib\.(?:load|dump)|yaml\.load\(|(?<![\w.])(?:eval|exec)\("
    for path in (ROOT / "rgnb").rglob("*.py"):
        assert not re.findall(forbidden, path.read_text()), path
    library = "".join(path.read_text() for path in (ROOT / "rgnb").glob("*.py"))
    assert "joblib" not in library


@pytest.mark.promise("no pickle, no code from files")
def test_the_command_writes_only_into_the_results_folder(tmp_path):
    def files():
        skipped = (".git", ".venv", "__pycache__", ".pytest_cache", "build", "_build", "entries", "weights")
        return {
            path: path.stat().st_mtime_ns
            for path in ROOT.rglob("*")
            if path.is_file() and not set(path.parts) & set(skipped)
        }

    before = files()
    command = [
        sys.executable,
        "-m",
        "rgnb.press.cli",
        "sweep",
        "mine",
        *(x for k, v in SMALL.items() for x in ("-p", k, str(v))),
    ]
    command += [
        "-p",
        "rate",
        "[0.2, 0.4]",
        "-p",
        "steps",
        "50",
        "-p",
        "seeds",
        "1",
        "-p",
        "correlation_lengths",
        "[1.0]",
    ]
    environment = ENVIRONMENT | {
        "RGNB_RESULTS": str(tmp_path / "results"),
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path / "tmp"),
    }
    (tmp_path / "tmp").mkdir()
    for wanted in (
        "2 networks asked for, 0 stored, 2 to train or measure in 2 settings",
        "2 networks asked for, 2 stored, 0 to train",
    ):
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0 and wanted in done.stdout and "2 networks, " in done.stdout, (
            done.stdout + done.stderr
        )
    assert files() == before
    assert {path.name for path in tmp_path.iterdir()} <= {"results", "tmp", ".cache", ".config"}


# --- disks ---


@pytest.mark.promise("a full disk")
def test_a_file_that_cannot_be_written_whole(tmp_path):
    first = small(steps=50, seeds=1).run(tmp_path, progress=False)
    limited = start(
        tmp_path, {"steps": 50}, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
    )
    _, error = limited.communicate(timeout=120)
    assert (
        limited.returncode == 1
        and "cannot write" in error
        and "make space" in error
        and "Traceback" not in error
    ), error
    assert not [path for path in tmp_path.rglob(".*") if path.is_file() and "lock" not in path.name]
    assert_same(small(steps=50, seeds=1).run(tmp_path, progress=False), first)
    again = start(tmp_path, {"steps": 50})
    assert again.wait(120) == 0 and small(steps=50).missing(tmp_path) == []


@pytest.mark.promise("a full disk")
def test_a_disk_that_is_full(tmp_path):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", tmp_path], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        settings = {"steps": 50, "seeds": 20}
        full = start(tmp_path, settings)
        _, error = full.communicate(timeout=120)
        assert (
            full.returncode == 1
            and "cannot write" in error
            and "make space" in error
            and "Traceback" not in error
        ), error
        subprocess.run(["mount", "-o", "remount,size=50m", tmp_path], check=True)
        assert start(tmp_path, settings).wait(120) == 0
        assert small(**settings).run(tmp_path, progress=False).sizes["seed"] == 20
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.promise("a results folder that is read-only")
def test_read_only_results(tmp_path, monkeypatch):
    results = tmp_path / "results"
    shutil.copytree(ROOT / "results", results, ignore=shutil.ignore_patterns("entries", "weights"))
    small().run(results, progress=False)
    read_only = (
        subprocess.run(["mount", "--bind", results, results], capture_output=True, check=False).returncode
        == 0
    )
    if read_only:
        subprocess.run(["mount", "-o", "remount,ro,bind", results], check=True)
    elif os.geteuid():
        results.chmod(0o555)
    else:
        pytest.skip("root can write everywhere here")
    try:
        assert small().run(results, progress=False).sizes["seed"] == 2  # what is stored is read
        with pytest.raises(
            ValueError, match=f"{results} is read-only; set RGNB_RESULTS to a folder that can be written"
        ):
            small(seeds=3).run(results, progress=False)
        with pytest.raises(ValueError, match="is read-only"):
            sweep("new", [small(seeds=3)], results=results, progress=False)
        monkeypatch.setenv("RGNB_RESULTS", str(results))
        notebooks.execute("rank-collapse", tmp_path / "page.ipynb", {}, progress=False)  # the book's own page
        assert (tmp_path / "page.ipynb").exists()
    finally:
        subprocess.run(["umount", results], check=True) if read_only else results.chmod(0o755)


# --- the kernel ---


@pytest.mark.promise("a notebook's kernel dies")
def test_a_kernel_that_dies_leaves_no_page(tmp_path):
    sources = tmp_path / "book" / "notebooks"
    shutil.copytree(ROOT / "book" / "notebooks", sources)
    (tmp_path / "_toc.yml").write_text((ROOT / "_toc.yml").read_text())
    page = sources / "chains.md"
    page.write_text(page.read_text() + "\n```{code-cell} ipython3\nimport os\n\nos._exit(1)\n```\n")
    output = notebooks.executed("chains", tmp_path)
    output.parent.mkdir()
    output.write_text("the page as it was")
    with pytest.raises(RuntimeError, match="kernel of chains died"):
        notebooks.execute("chains", output, {}, tmp_path, progress=False)
    assert [path.name for path in output.parent.iterdir()] == [
        "chains.ipynb"
    ] and output.read_text() == "the page as it was"


# --- failures and many settings ---


@pytest.mark.promise("settings that fail")
def test_failed_settings_are_listed_and_the_rest_is_there(tmp_path):
    good, bad = small(mixing="none"), small(mixing="none", learning_rate=1e30, correlation_lengths=[2.0])
    listed = r"1 settings failed; .*partial=True it returns the 2 other networks:\n.*correlation_length 2.0"
    with pytest.raises(RuntimeError, match=listed + r".*seeds \[0, 1\]\n.*use a learning_rate below"):
        sweep("some", [bad, good], results=tmp_path, progress=False)
    assert good.missing(tmp_path / "entries") == []  # computed first
    ds = sweep("some", [bad, good], results=tmp_path, progress=False, partial=True)
    (failed,) = json.loads(ds.attrs["failed"])
    assert (
        failed["learning_rate"] == 1e30
        and failed["seeds"] == [0, 1]
        and "use a learning_rate below" in failed["error"]
    )
    assert ds.sizes["run"] == 2 and set(ds.learning_rate.values) == {1e-3}
    assert not list(tmp_path.glob("sweep-*"))  # asked again, it tries again
    assert plan([good, bad], tmp_path).stored == 2
    with pytest.raises(RuntimeError, match="every setting failed, the first with: Diverged"):
        sweep("none", [bad], results=tmp_path, progress=False)


MANY = """
import sys, torch
from rgnb.study.sweep import grid, sweep
import psutil

folder, count = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(int(sys.argv[3]))
rates = [(1 + k) / (2 * count) for k in range(count)]
small = dict(n_states=4, length=6, width=8, depth=1, batch=4, snapshots=(), sequences=64)
small |= dict(device="cpu", mixing="none", steps=50, seeds=1)
experiments = grid("quick", rate=rates, correlation_lengths=[1.0], **small)
ds = sweep("many", experiments, ["excess_loss"], folder, progress=False)
assert ds.sizes["run"] == count and "failed" not in ds.attrs
"""


def resident(process):
    import psutil

    try:
        family = [process, *process.children(recursive=True)]
        return sum(p.memory_info().rss for p in family)
    except psutil.NoSuchProcess:
        return 0


@pytest.mark.long
@pytest.mark.promise("many settings")
def test_memory_stays_flat_over_many_settings(tmp_path):
    import psutil

    running = psutil.Popen([sys.executable, "-c", MANY, tmp_path, "120", "1"], cwd=ROOT, env=ENVIRONMENT)
    entries, seen = tmp_path / "entries", {}
    try:
        while running.poll() is None:
            done = len(list(entries.glob("*.nc"))) if entries.exists() else 0
            seen.setdefault(done, resident(running))
            time.sleep(0.2)
    finally:
        if running.poll() is None:
            running.kill()
    assert running.returncode == 0
    early = np.median([size for done, size in seen.items() if 30 <= done < 50])
    late = np.median([size for done, size in seen.items() if 100 <= done < 120])
    megabytes = f"{early / 2**20:.0f} MB around the 40th, {late / 2**20:.0f} MB around the 110th"
    assert late < 1.007 * early, megabytes  # a tenth more at the thousandth


def test_a_sweep_in_several_processes_from_a_plain_script(tmp_path):
    # Two workers, and no main guard in the script: what a reader writes.
    done = subprocess.run(
        [sys.executable, "-c", MANY, tmp_path, "6", "2"],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (
        len(list((tmp_path / "entries").glob("*.nc"))) == 6
        and len(list(tmp_path.glob("sweep-many-*.nc"))) == 1
    )
