"""Unreadable files are left alone; read-only folders are named before the work; the commit is rgnb's own."""

import errno
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import netCDF4
import pytest
import torch
import xarray as xr

from rgnb import _checkpoints as checkpoints
from rgnb import checks, files
from rgnb.study import Experiment, runner, store

ROOT = Path(__file__).parents[2]
UNREADABLE = {  # what is raised, by what its advice says
    "get the right to read it": [(OSError, errno.EACCES, "x"), (OSError, errno.EPERM, "x")],
    "the disk, the file server": [
        (OSError, number, "x") for number in (errno.EIO, errno.ENOLCK, errno.ESTALE)
    ],
    "ulimit -n": [(OSError, errno.EMFILE, "x"), (OSError, errno.ENFILE, "x")],
    "free some memory": [(MemoryError,)],
    "install what rgnb needs": [(ImportError, "no library"), (ModuleNotFoundError, "no library")],
}
CPU = torch.device("cpu")


@pytest.fixture
def stored(tmp_path):
    """A result and a checkpoint: {suffix: (path, what reads it)}, and the tensors of the second."""
    result = tmp_path / "x.nc"
    store.store(xr.Dataset({"x": ("row", [1.0, 2.0])}, attrs={"version": 1}), result)
    path, weights = tmp_path / "step-50.safetensors", checkpoints.TensorFiles({"width": 2})
    tensors = {"weight": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "seconds": torch.tensor(0.5)}
    weights.save(path, tensors)
    return {".nc": (result, store.load), ".safetensors": (path, weights.load)}, tensors


def raising(error):
    def call(*args, **kwargs):
        raise error

    return call


@pytest.mark.promise("damaged files")
@pytest.mark.parametrize(
    "advice, kind", [(advice, kind) for advice, kinds in UNREADABLE.items() for kind in kinds]
)
@pytest.mark.parametrize("suffix", [".nc", ".safetensors"])
@pytest.mark.parametrize("where", ["reading", "parsing"])
def test_what_cannot_be_read_is_left_as_it_is(stored, monkeypatch, suffix, where, advice, kind, capsys):
    path, read = stored[0][suffix]
    before, error = path.read_bytes(), kind[0](*kind[1:])
    with monkeypatch.context() as patched:
        if where == "reading":
            patched.setattr(Path, "read_bytes", raising(error))
        else:
            patched.setattr(netCDF4, "Dataset", raising(error))
            patched.setattr("safetensors.torch.load", raising(error))
        with pytest.raises(type(error)) as raised:
            read(path)
    (note,) = raised.value.__notes__
    assert str(path) in note and "was left as it is" in note and advice in note and "run again" in note
    assert path.read_bytes() == before and len(list(path.parent.iterdir())) == 2
    assert read(path) is not None and "damaged" not in capsys.readouterr().err


@pytest.mark.promise("damaged files")
@pytest.mark.parametrize("suffix", [".nc", ".safetensors"])
def test_too_many_open_files(stored, suffix):
    path, read = stored[0][suffix]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # none can be opened now
    try:
        with pytest.raises(OSError, match="Too many open files") as raised:
            read(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert raised.value.errno == errno.EMFILE and path.exists() and read(path) is not None


def test_a_file_without_the_right_to_read_it(stored):
    if not os.geteuid():
        pytest.skip("root can read everything")
    for path, read in stored[0].values():
        path.chmod(0)
        with pytest.raises(PermissionError):
            read(path)
        assert path.exists()


@pytest.mark.promise("damaged files")
@pytest.mark.parametrize("suffix", [".nc", ".safetensors"])
@pytest.mark.parametrize(
    "damage", [lambda c: b"", lambda c: c[:-1], lambda c: b"junk" * 99, lambda c: c[:300] + b"?" + c[301:]]
)
def test_what_was_read_and_is_not_what_was_written_is_set_aside(stored, suffix, damage, capsys):
    path, read = stored[0][suffix]
    path.write_bytes(damage(path.read_bytes()))
    assert read(path) is None and not path.exists() and path.with_name(path.name + ".damaged-0").exists()
    assert f"{path} is not used" in capsys.readouterr().err
    assert read(path) is None  # it has been set aside


def test_what_is_read_is_what_was_written(stored):
    (result, _), (snapshot, read) = stored[0].values()
    assert store.load(result).x.values.tolist() == [1.0, 2.0]
    found = read(snapshot)
    assert found.keys() == stored[1].keys() and all(torch.equal(found[k], v) for k, v in stored[1].items())
    found["weight"] += 1  # not a view of anything that must not change
    assert torch.equal(read(snapshot)["weight"], stored[1]["weight"])


def test_a_fault_in_writing_keeps_its_kind_and_leaves_nothing(tmp_path):
    with pytest.raises(TypeError, match="our own"), files.replacing(tmp_path / "x") as partial:
        partial.write_text("half")
        raise TypeError("a fault of our own")
    with pytest.raises(OSError, match=r"cannot write .*make space"), files.replacing(tmp_path / "x"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not list(tmp_path.iterdir())


# --- before the work ---


def test_folders_that_cannot_be_written_are_named(tmp_path, monkeypatch):
    files.make_writable(tmp_path / "a" / "b", "folder", "choose another")
    assert (tmp_path / "a" / "b").is_dir() and not list((tmp_path / "a" / "b").iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=f"folder {tmp_path / 'file'} cannot be written .*; choose another"):
        files.make_writable(tmp_path / "file", "folder", "choose another")
    monkeypatch.setattr("tempfile.TemporaryFile", raising(OSError(errno.EROFS, "Read-only file system")))
    with pytest.raises(checks.BadInput, match=f"folder {tmp_path} is read-only; choose another"):
        files.make_writable(tmp_path, "folder", "choose another")


SMALL = {
    "n_states": 4,
    "length": 6,
    "width": 8,
    "depth": 1,
    "batch": 4,
    "steps": 50,
    "snapshots": (),
    "sequences": 64,
}
SMALL |= {"seeds": 1, "device": "cpu", "correlation_lengths": [1.0]}


def test_where_it_was_made_is_found_out_before_anything_is_computed(tmp_path, monkeypatch):
    for room in (runner, store):
        monkeypatch.setattr(room, "provenance", raising(RuntimeError("nowhere")))
    monkeypatch.setattr(runner, "train", lambda *a: pytest.fail("trained before"))
    with pytest.raises(RuntimeError, match="nowhere"):
        Experiment.profile("quick", **SMALL).run(tmp_path, progress=False)
    with pytest.raises(RuntimeError, match="nowhere"):
        store.stored("mine", {}, lambda: pytest.fail("made before"), tmp_path)


def test_without_git_the_commit_is_unknown_and_results_are_stored(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    ds = Experiment.profile("quick", **SMALL).run(tmp_path, progress=False)
    assert '"commit": "unknown"' in ds.provenance.values.item() and len(list(tmp_path.glob("*.nc"))) == 1


# --- whose commit ---


def git(folder, *arguments):
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    return subprocess.run(
        ["git", "-C", folder, *who, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Puts the package, as far as files.py knows, into a folder of a new repository; returns its commit."""

    def put(at, top, project=None):
        (at / "rgnb").mkdir(parents=True)
        (at / "rgnb" / "files.py").touch()
        if project:
            (at / "pyproject.toml").write_text(f'[project]\nname = "{project}"\n')
        git(top, "init", "-q")
        git(top, "add", "-A")
        git(top, "commit", "-q", "-m", "first")
        monkeypatch.setattr(files, "__file__", str(at / "rgnb" / "files.py"))
        return git(top, "rev-parse", "HEAD")[:12]

    return put


def test_the_commit_of_its_own_checkout(package, tmp_path):
    assert store.provenance(CPU)["commit"] in (
        "unknown",
        git(ROOT, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"),
    )
    commit = package(tmp_path, tmp_path, "rgnb")
    assert store.provenance(CPU)["commit"] == commit
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "rgnb"\nversion = "2"\n')
    assert store.provenance(CPU)["commit"] == f"{commit}-dirty"


@pytest.mark.parametrize(
    "at, project",
    [
        (".", "another"),  # copied to the top of another project
        (".", None),
        ("lib/site-packages", None),  # installed in an environment inside a repository
        ("vendor", "rgnb"),  # an unpacked archive inside a repository
    ],
)
def test_the_commit_of_another_repository_is_not_taken(package, tmp_path, at, project):
    package(tmp_path / at, tmp_path, project)
    assert store.provenance(CPU)["commit"] == "unknown"


def test_another_repository_is_not_taken_from_the_environment(package, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    git(other, "commit", "-q", "--allow-empty", "-m", "other")
    commit = package(tmp_path / "own", tmp_path / "own", "rgnb")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))  # as in a hook
    assert store.provenance(CPU)["commit"] == commit


@pytest.mark.slow
def test_an_installed_package_in_a_process_of_its_own(tmp_path):
    site = tmp_path / "venv" / "lib" / "site-packages"
    shutil.copytree(ROOT / "rgnb", site / "rgnb", ignore=shutil.ignore_patterns("__pycache__"))
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "outer")
    code = (
        "import torch; from rgnb.study import store as s; "
        "print(s.__file__, s.provenance(torch.device('cpu'))['commit'], s.results_folder())"
    )
    environment = {k: v for k, v in os.environ.items() if k != "RGNB_RESULTS"} | {"PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [
        str(site / "rgnb" / "study" / "store.py"),
        "unknown",
        str(tmp_path / "results"),
    ]
    assert f"results are kept in {tmp_path / 'results'}" in done.stderr


# --- where results go ---


def test_results_go_to_the_checkout_or_to_the_working_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("RGNB_RESULTS", raising=False)
    store._said.cache_clear()
    assert store.results_folder() == ROOT / "results" and not capsys.readouterr().err
    monkeypatch.setattr(files, "__file__", str(tmp_path / "site-packages" / "rgnb" / "files.py"))
    monkeypatch.chdir(tmp_path)
    assert store.results_folder() == store.results_folder() == tmp_path / "results"
    assert capsys.readouterr().err.count(f"results are kept in {tmp_path / 'results'}") == 1
    for named, meant in {"mine": tmp_path / "mine", "~/mine": Path.home() / "mine"}.items():
        monkeypatch.setenv("RGNB_RESULTS", named)
        assert store.results_folder() == meant
    monkeypatch.setenv("RGNB_RESULTS", "/somewhere")
    assert store.results_folder() == Path("/somewhere") and store.results_folder("/else") == Path("/else")
