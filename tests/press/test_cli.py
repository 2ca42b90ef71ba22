import errno
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import time
from importlib.metadata import version

import pytest
import small
from small import SMALL

from rgnb import files
from rgnb.press import cli, notebooks
from rgnb.press.cli import main
from rgnb.press.notebooks import Parameter

TINY = """---
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# A tiny notebook

```{code-cell} ipython3
:tags: [parameters]

count = 3  # how many
rate = 0.5  # a share
label = "plain"  # any text
loud = False  # yes or no
sizes = [1.0, 2.0]  # several numbers
profile = "paper"  # paper or quick
```

```{code-cell} ipython3
import os, sys, uuid

print("half", "way", file=sys.stderr)
print(repr((count, rate, label, loud, sizes, profile)))
print("kernel", sys.prefix, os.getcwd())
```

```{code-cell} ipython3
assert count < 100, "too many to count"
object()
```

```{code-cell} ipython3
from IPython.display import HTML
from myst_nb import glue

glue("twice-0", 2 * count, display=False)
glue("third-short", (count + 1) / 3, display=False)
glue("label", label, display=False)
HTML(f'<p id="{uuid.uuid4()}"><b id="T_{uuid.uuid4().hex[:5]}_row0"></b></p>')
```
"""


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A checkout with one tiny notebook."""
    for folder in ("notebooks", "executed"):
        (tmp_path / "book" / folder).mkdir(parents=True)
    (tmp_path / "_toc.yml").write_text(
        "format: jb-book\nroot: intro\nchapters:\n  - file: executed/tiny\n  - file: notes\n"
    )
    (tmp_path / "book" / "notebooks" / "tiny.md").write_text(TINY)
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    # Sphinx would not build a book of one page; tests/press/test_book.py builds a reader's runs.
    runs = tmp_path / "book" / "runs"
    monkeypatch.setattr(cli, "_build_runs", lambda: {p: p.with_suffix(".html") for p in runs.iterdir()})
    return tmp_path


def printed(path):
    """Everything that a notebook's cells printed, as text."""
    cells = json.loads(path.read_text())["cells"]
    return "".join(
        text
        for c in cells
        for o in c.get("outputs", [])
        if o["output_type"] == "stream"
        for text in o["text"]
    )


def test_list_shows_every_notebook_and_parameter_with_default_and_help(capsys):
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    for name in notebooks.names():
        assert re.search(rf"^{name} +{re.escape(notebooks.title(name))}$", shown, re.MULTILINE)
        for p in notebooks.parameters(name).values():
            assert re.search(
                rf"^ +{p.name} +{re.escape(repr(p.default))} +{re.escape(p.help)}$", shown, re.MULTILINE
            )


@pytest.mark.parametrize("name", notebooks.names())
def test_every_parameter_of_the_book_has_a_help_and_a_known_type(name):
    found = notebooks.parameters(name)
    assert found
    for p in found.values():
        assert p.help and type(p.default) in notebooks.KINDS
    assert "profile" not in found or found["profile"].default in notebooks.PROFILES


def test_version_and_examples(capsys):
    for arguments, wanted in [
        (["--version"], f"rgnb {version('rgnb')}\n"),
        (["--help"], "\nexamples:\n  rgnb list  "),
        (["run", "--help"], "\nexamples:\n  rgnb run chains "),
    ]:
        with pytest.raises(SystemExit, match="0"):
            main(arguments)
        assert wanted in capsys.readouterr().out


def test_the_profiles_are_those_of_experiments():
    from rgnb.study.settings import PROFILES

    assert set(PROFILES) == set(notebooks.PROFILES)


def test_light_commands_import_nothing_heavy():
    commands = "main(['list']); main(['run', 'nothing'])"
    code = f"import sys; from rgnb.press.cli import main; {commands}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "papermill", "jupytext", "nbformat"} & set(done.stdout.split())


@pytest.mark.parametrize(
    "arguments, wanted",
    [
        (["run", "selectivty"], "did you mean 'selectivity'?"),
        (["run", "selectivity", "-p", "sedes", "3"], "did you mean 'seeds'?"),
        (["run", "selectivity", "-p", "seeds", "three"], "seeds must be an integer"),
        (["run", "selectivity", "-p", "seeds", "2.5"], "seeds must be an integer"),
        (
            ["run", "selectivity", "-p", "correlation_length_long", "long"],
            "correlation_length_long must be a number",
        ),
        (["run", "selectivity", "--profile", "quik"], "did you mean 'quick'?"),
        (["run", "selectivity", "-p", "profile", "fast"], "choose from quick, small, paper"),
        (["run", "chains", "--profile", "quick"], "unknown parameter of chains 'profile'"),
        (["show", "chain"], "did you mean 'chains'?"),
        (["run", "chains", "--output", "page.html"], "ends in .ipynb"),
        (
            ["run", "selectivity", "-p", "correlation_length_long", "-3"],
            "correlation_length_long = -3.0: correlation_length must be finite and gr",
        ),
        (
            ["run", "selectivity", "-p", "correlation_length_long", "-1e-3"],
            "correlation_length must be finite and greater than 0, got -0.001",
        ),
        (["run", "selectivity", "-p", "correlation_length_long", "-.5e1"], "got -5.0"),
        (["run", "selectivity", "-p", "correlation_length_short", "7"], "none twice, got (7.0, 7.0)"),
        (["run", "selectivity", "-p", "family", "rings"], "did you mean 'ring'?"),
        (["run", "selectivity", "-p", "control", "stick"], "did you mean 'sticky'?"),
        (["run", "selectivity", "-p", "seeds", "-1"], "seeds must be at least 1, got -1"),
        (["run", "selectivity", "-p", "rate", "1"], "rate must lie strictly between 0 and 1, got 1.0"),
        (["run", "selectivity", "-p", "steps", "120"], "multiples of 50, got 120"),
        (["run", "selectivity", "-p", "device", "gpu"], "unknown device 'gpu'"),
        (["run", "network", "-p", "scheme", "masks"], "did you mean 'mask'?"),
        (["run", "fixed-point", "-p", "depths", "[6, 0]"], "depth must be at least 1, got 0"),
        (["run", "blind", "-p", "second_profile", "papers"], "did you mean 'paper'?"),
        (["run", "blind", "-p", "correlation_lengths", "[]"], "correlation_lengths must hold at least one"),
        (["run", "robustness", "-p", "states", "[6]"], "power of two for the hierarchical family, got 6"),
        (["run", "explorer", "-p", "families", "[]"], "families must hold at least one"),
        (["run", "own", "-p", "own_steps", "-50"], "steps must be at least 1, got -50"),
        (["build", "selectivty"], "did you mean 'selectivity'?"),
        (["sweep", "my rates", "-p", "seeds", "1", "--plan"], "name must be made of letters, digits"),
        (["build", "--into", str(notebooks.ROOT / "book" / "copy")], "choose another folder"),
    ],
)
def test_bad_input_ends_with_one_helpful_line(arguments, wanted, capsys):
    started = time.process_time()
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert wanted in shown.err and shown.err.startswith("rgnb: ") and shown.err.count("\n") == 1
    assert not shown.out
    assert time.process_time() - started < 5


@pytest.mark.parametrize("name", notebooks.names())
def test_values_that_settings_take_are_not_refused(name):
    defaults = {p.name: p.default for p in notebooks.parameters(name).values()}
    notebooks.check_settings(name, defaults)
    others = {
        "family": "ring",
        "correlation_length_long": 9.0,
        "seeds": 2,
        "steps": 100,
        "rates": [],
        "profile": "quick",
        "device": "cpu",
    }
    notebooks.check_settings(name, {key: value for key, value in others.items() if key in defaults})


def test_which_chains_can_be_built_depends_on_several_parameters_together():
    notebooks.check_settings("robustness", {"states": [6], "families": ["ring", "cycle"]})
    notebooks.check_settings("explorer", {"families": ["ring", "block"], "cosine_families": []})
    with pytest.raises(
        ValueError, match=r"states = \[6\], families = \['ring', 'block'\]: n_blocks must divide n_states"
    ):
        notebooks.check_settings("robustness", {"states": [6], "families": ["ring", "block"]})


@pytest.mark.parametrize(
    "page, value",
    [
        ("optimiser", {"batches": [0]}),
        ("optimiser", {"decays": [-1.0]}),
        ("coarse-graining", {"recipe": "cosin"}),
        ("coarse-graining", {"weight_decays": [-1.0]}),
        ("coarse-graining", {"decay_seeds": -1}),
        ("coarse-graining", {"network_seeds": [-2]}),
        ("explorer", {"cosine_families": ["rings"]}),
        ("published", {"transformer_families": ["rings"]}),
    ],
)
def test_a_value_that_a_setting_refuses_is_refused_at_once(page, value):
    with pytest.raises(ValueError, match=f"{page} cannot run with {next(iter(value))} = "):
        notebooks.check_settings(page, value)
    notebooks.check_settings("coarse-graining", {"network_seeds": [0, 1]})


def test_every_parameter_is_a_setting_or_no_field_of_one():
    known = {name for names in notebooks.SETTINGS.values() for name in names}
    found = {name for page in notebooks.names() for name in notebooks.parameters(page)}
    assert found - known == {
        *("sequences", "seed", "choices", "layers", "judged_steps", "longer"),
        *("train", "folder", "stored", "counted"),
    }


def test_settings_are_refused_before_a_kernel_starts(monkeypatch, capsys):
    monkeypatch.setattr(notebooks, "execute", lambda *a: pytest.fail("started a kernel"))
    assert main(["run", "chains", "-p", "correlation_length_short", "-1"]) == 2
    assert "chains cannot run with correlation_length_short = -1.0" in capsys.readouterr().err


def test_the_commands_that_the_book_names_are_there():
    # Each parsed as a shell would split it, not run.
    texts = [notebooks.ROOT / "README.md", *(notebooks.ROOT / "book").glob("*.md")]
    texts += [notebooks.source(name) for name in notebooks.names()]
    blocks = "\n".join(
        block
        for path in texts
        for block in re.findall(r"```shell\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
    ).replace("\\\n", " ")
    commands = re.findall(r"^(?:\w+=\S+ )*rgnb (.+)$", blocks, re.MULTILINE)
    assert len(commands) > 20
    for command in commands:
        whole = command.replace(" ... ", " ")  # other arguments, left out
        args = cli._parser().parse_args(shlex.split(whole, comments=True))
        if "notebook" in args:
            values = notebooks.parse_parameters(args.notebook, getattr(args, "parameter", []))
            notebooks.check_settings(args.notebook, values)


# --- faults ---


@pytest.mark.parametrize(
    "error", [TypeError("unhashable"), ValueError("a shape"), RuntimeError("mat1 and mat2"), KeyError("x")]
)
def test_a_fault_is_no_bad_input_and_keeps_its_traceback(monkeypatch, error):
    def fault(args):
        raise error

    monkeypatch.setattr(cli, "_list", fault)
    with pytest.raises(type(error)) as raised:
        main(["list"])
    assert raised.value is error and raised.traceback[-1].name == "fault"


def test_what_an_error_in_reading_advises_is_shown(monkeypatch, capsys):
    def unreadable(args):
        with files.reading("/results/x.nc"):
            raise OSError(errno.ESTALE, "Stale file handle", "/results/x.nc")

    monkeypatch.setattr(cli, "_list", unreadable)
    assert main(["list"]) == 1
    shown = capsys.readouterr().err
    assert "Stale file handle" in shown and "/results/x.nc could not be read and was left as it is" in shown


@pytest.mark.parametrize("root, needed", [("checkout", "-e '.[book]'"), (None, "'rgnb[study]'")])
def test_what_is_not_installed_is_said_with_what_to_install(monkeypatch, capsys, root, needed):
    def broken(args):
        raise ModuleNotFoundError("No module named 'joblib'")

    monkeypatch.setattr(cli, "_list", broken)
    monkeypatch.setattr(files, "checkout", lambda: root)
    assert main(["list"]) == 1
    shown = capsys.readouterr().err
    assert "No module named 'joblib'; install what is needed: pip install" in shown and needed in shown


# --- before the work ---


def test_without_git_a_run_is_written(book, monkeypatch):
    monkeypatch.setenv("PATH", str(book))
    assert main(["run", "tiny"]) == 0
    assert len(list((book / "book" / "runs").iterdir())) == 1


def test_where_a_run_was_made_is_found_out_before_it(book, monkeypatch):
    def nowhere():
        raise RuntimeError("nowhere")

    monkeypatch.setattr(notebooks, "_surroundings", nowhere)
    monkeypatch.setattr("papermill.execute_notebook", lambda *a, **k: pytest.fail("executed before"))
    with pytest.raises(RuntimeError, match="nowhere"):
        main(["run", "tiny"])


@pytest.mark.parametrize("command", [["run", "tiny"], ["build"], ["build", "--into", "copy"]])
def test_a_read_only_checkout_says_what_to_do_before_anything_runs(book, monkeypatch, capsys, command):
    def read_only(**kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.chdir(book.parent)
    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    monkeypatch.setattr("papermill.execute_notebook", lambda *a, **k: pytest.fail("executed"))
    monkeypatch.setattr(notebooks, "execute_all", lambda *a: pytest.fail("executed"))
    assert main(command) == 2
    shown = capsys.readouterr().err
    assert (
        "is read-only" in shown
        and "use a copy of the checkout that can be written" in shown
        and shown.count("\n") == 1
    )


def test_the_environment_is_as_it_was(book, monkeypatch):
    importlib.import_module("rgnb.study.sweep")  # whose libraries set variables
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.delenv("JUPYTER_PREFER_ENV_PATH", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = dict(os.environ)
    page = notebooks.executed("tiny")
    source = book / "book" / "notebooks" / "tiny.md"
    source.write_text(
        source.read_text() + "\n```{code-cell} ipython3\nprint('backend', os.environ['MPLBACKEND'])\n```\n"
    )
    notebooks.execute("tiny", page)
    assert "backend agg" not in printed(page) and "backend module://" in printed(page)
    assert dict(os.environ) == before
    monkeypatch.setattr("joblib.cpu_count", lambda: 6)
    seen = []
    monkeypatch.setattr(
        notebooks, "_execute_apart", lambda name, root, made, environment: seen.append(environment) or name
    )
    assert list(notebooks.execute_all(["tiny"])) == ["tiny"]
    assert seen == [before | {"OMP_NUM_THREADS": "6"}] and dict(os.environ) == before


def test_bad_input_from_a_shell():
    command = [sys.executable, "-m", "rgnb.press.cli", "run", "selectivity", "-p", "sedes", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "did you mean 'seeds'?" in done.stderr and "Traceback" not in done.stderr


def test_outside_a_checkout_the_message_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    assert main(["list"]) == 2
    assert "from a checkout" in capsys.readouterr().err


@pytest.mark.parametrize(
    "default, text, value",
    [
        (3, "-4", -4),
        (0.5, "5", 5.0),
        (0.5, "1e-3", 1e-3),
        (False, "true", True),
        (True, "False", False),
        ("x", "5", "5"),
        ("x", 'it\'s "quoted"\n\\n é', 'it\'s "quoted"\n\\n é'),
        ([1.0], "[1, 2.5]", [1.0, 2.5]),
        (("a", "b"), "('c',)", ("c",)),
    ],
)
def test_values_take_the_type_of_the_default(default, text, value):
    parsed = Parameter("p", default, "").parse(text)
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(
    "default, text",
    [(3, "3.0"), (3, "True"), (3, ""), (3, "__import__('os')"), (0.5, "nan"), (0.5, "1e999"), (0.5, "half"),
        (False, "1"),
     ([1.0], "1, 2"), ([1.0], "['a']"), ([1.0], "1.0"), (3, "(" * 500), (3, "\0")],
)  # fmt: skip
def test_values_of_another_type_are_refused(default, text):
    with pytest.raises(ValueError, match=r"p must be .* default"):
        Parameter("p", default, "").parse(text)


def test_parameters_are_read_in_either_form_of_cell_metadata(book):
    short = notebooks.parameters("tiny")
    path = book / "book" / "notebooks" / "tiny.md"
    path.write_text(
        TINY.replace(":tags: [parameters]\n", "---\ntags: [parameters, hide-input]\nslow: 1\n---\n")
    )
    assert notebooks.parameters("tiny") == short == {p.name: p for p in short.values()}
    assert short["count"] == Parameter("count", 3, "how many")


@pytest.mark.promise("no pickle, no code from files")
def test_a_run_keeps_strings_as_data_and_shows_progress_but_does_not_store_it(book, capfd):
    text = 'it\'s "quoted"\n  \\n é # no comment {x}'
    arguments = [
        "run",
        "tiny",
        "-p",
        "label",
        text,
        "-p",
        "rate",
        "1",
        "-p",
        "sizes",
        "[3]",
        "--profile",
        "quick",
    ]
    assert main(arguments) == 0
    shown = capfd.readouterr()
    (output,) = (book / "book" / "runs").iterdir()
    assert f"executed notebook: {output}\n" in shown.out
    assert f"its page: {output.with_suffix('.html').as_uri()}\n" in shown.out
    assert "half way" in shown.err and "half way" not in output.read_text()
    assert repr((3, 1.0, text, False, [3.0], "quick")) in printed(output)
    assert f"kernel {sys.prefix} {book / 'book' / 'notebooks'}" in printed(output)

    # Nothing in it changes without a reason, and the same run may replace it.
    first = output.read_bytes()
    assert main(arguments) == 0
    assert [path.read_bytes() for path in (book / "book" / "runs").iterdir()] == [first]


def test_different_runs_have_different_files():
    values = [
        {},
        {"a": 1},
        {"a": 11},
        {"a": "x y"},
        {"a": "x_y"},
        {"a": "x/y"},
        {"a": "../y"},
        {"a": "long" * 99},
        {"a": "longer" * 99},
    ]
    paths = {notebooks.run_path("chains", value) for value in values}
    assert len(paths) == len(values)
    assert {path.parent for path in paths} == {notebooks.ROOT / "book" / "runs"}


def test_a_failing_cell_leaves_nothing_behind(book, capsys):
    assert main(["run", "tiny", "-p", "count", "100"]) == 1
    shown = capsys.readouterr()
    assert shown.err.endswith("rgnb: tiny stopped in cell 4 with AssertionError: too many to count\n")
    assert "Traceback" not in shown.err
    assert not list((book / "book" / "runs").iterdir())


def test_a_run_says_what_changed_against_the_book(book, capsys):
    notebooks.execute("tiny", notebooks.executed("tiny"))
    assert main(["run", "tiny", "-p", "count", "4"]) == 0
    assert (
        "beside the book's own:\n"
        "                            book   here\n"
        "    twice from depth 0      6      8\n"
        "    third at short memory   1.33   1.67\n" in capsys.readouterr().out
    )
    assert main(["run", "tiny", "-p", "rate", "0.25"]) == 0
    assert "Verdicts and numbers are the book's own." in capsys.readouterr().out


@pytest.mark.parametrize(
    "key, words",
    [
        ("collapse-cosine-centred-0", "collapse cosine centred from depth 0"),
        ("collapse-counts-none-from-1", "collapse verdicts by definition without mixing from depth 1"),
        ("fixed-status-short-sequel", "fixed verdict at short memory sequel"),
        ("robustness-selectivity-short-memory-no-mixing", "robustness selectivity short memory no mixing"),
        ("minutes-tokens", "minutes with token mixing"),
    ],
)
def test_names_of_numbers_in_words(key, words):
    assert notebooks.in_words(key) == words


def test_show_explains_one_notebook(capsys):
    assert main(["show", "selectivity"]) == 0
    shown = capsys.readouterr().out
    for name, parameter in notebooks.parameters("selectivity").items():
        assert f"{name} = {parameter.default!r}\n" in shown and parameter.help in shown
    assert "minutes to train" in shown
    assert re.search(r"quick profile takes about \d+ (s|min) here", shown)
    assert main(["show", "chains"]) == 0
    assert "quick profile" not in capsys.readouterr().out  # it trains nothing


# --- what a run will train ---

TRAINED = """
```{code-cell} ipython3
import sys
sys.path.append(TESTS)
from small import small

ds = small(seeds=2, correlation_lengths=[1.0], mixing="none").run(progress=False)
CHECK
print("trained", bool(ds.training_loss.all()))
```
"""


def with_networks(book, monkeypatch, check=""):
    """Let the tiny notebook load two networks; returns where their results are kept."""
    code = TRAINED.replace("TESTS", repr(os.path.dirname(small.__file__))).replace("CHECK", check)
    (book / "book" / "notebooks" / "tiny.md").write_text(TINY + code)
    monkeypatch.setenv("RGNB_RESULTS", str(book / "results"))
    return book / "results"


def test_a_run_says_what_it_trains_and_then_trains_it(book, monkeypatch, capfd):
    results = with_networks(book, monkeypatch)
    assert main(["run", "tiny"]) == 0
    shown = capfd.readouterr()
    assert re.search(r"\.\.\.\nIt trains 2 networks on \w+ \(.*\), about \d+ (s|min) in all\.\n", shown.out)
    assert "2 of 2 networks done, building the page" in shown.err
    (output,) = (book / "book" / "runs").iterdir()
    assert "trained True" in printed(output) and len(list(results.glob("*.nc"))) == 2
    assert main(["run", "tiny"]) == 0
    again = capfd.readouterr()
    assert "All that it needs was stored" in again.out and "networks" not in again.err


def test_a_cell_that_fails_on_untrained_networks_does_not_end_a_run(book, monkeypatch, capsys):
    with_networks(book, monkeypatch, "assert ds.training_loss.all(), 'untrained'")
    assert main(["run", "tiny"]) == 0
    assert "There may be more" in (shown := capsys.readouterr().out) and "untrained)" in shown


def test_an_error_before_anything_is_missing_ends_a_run_at_once(book, monkeypatch, capsys):
    results = with_networks(book, monkeypatch)
    assert main(["run", "tiny", "-p", "count", "100"]) == 1
    shown = capsys.readouterr()
    assert "It trains" not in shown.out and "too many to count" in shown.err and not results.exists()


def test_an_output_that_did_not_change_keeps_its_record(book):
    page = book / "book" / "executed" / "tiny.ipynb"
    notebooks.execute("tiny", page)
    record = json.loads(page.read_text())["metadata"]["rgnb"]["record"]
    assert record["parameters"]["count"] == 3 and record["seconds"] >= 0
    assert {"device", "python", "torch", "date"} <= set(record) and "commit" not in record
    page.write_text(page.read_text().replace(record["date"], "2001-01-01"))  # an old run
    before = page.read_bytes()
    notebooks.execute("tiny", page)
    assert page.read_bytes() == before
    source = book / "book" / "notebooks" / "tiny.md"
    source.write_text(source.read_text().replace("a share", "another share"))
    notebooks.execute("tiny", page)
    assert json.loads(page.read_text())["metadata"]["rgnb"]["record"]["date"] == record["date"]


@pytest.mark.slow
def test_a_build_that_fails_keeps_the_pages_that_were_there(book, capsys):
    page = book / "book" / "executed" / "tiny.ipynb"
    page.write_text("as it was")
    (book / "book" / "notebooks" / "tiny.md").write_text(TINY.replace("count < 100", "False"))
    assert main(["build"]) == 1
    assert page.read_text() == "as it was"
    assert list(page.parent.iterdir()) == [page]


def test_a_run_replaces_no_other_file(book, tmp_path, capsys):
    mine = tmp_path / "mine.ipynb"
    for content in (
        "no notebook",
        '{"metadata": {}}',
        '{"metadata": {"rgnb": {"notebook": "tiny", "parameters": {"count": 1}}}}',
    ):
        mine.write_text(content)
        assert main(["run", "tiny", "-p", "count", "2", "--output", str(mine)]) == 2
        assert "choose another --output" in capsys.readouterr().err
        assert mine.read_text() == content
    new = tmp_path / "folder" / "new.ipynb"
    assert main(["run", "tiny", "-p", "count", "2", "--output", str(new)]) == 0
    assert f"executed notebook: {new}\n" in capsys.readouterr().out
    (kept,) = (book / "book" / "runs").iterdir()  # which the book of runs is built from
    assert new.read_bytes() == kept.read_bytes()
    assert main(["run", "tiny", "-p", "count", "2", "--output", str(kept)]) == 0
    kept.write_text("something else")
    assert main(["run", "tiny", "-p", "count", "2"]) == 2
    assert "move it away" in capsys.readouterr().err


# --- sweeps ---


def test_a_sweep_says_its_plan_and_lists_what_failed(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RGNB_RESULTS", str(tmp_path))
    one = {"mixing": "none", "steps": 50, "seeds": 1, "correlation_lengths": [1.0]}
    values = SMALL | one | {"learning_rate": [1e-3, 1e30]}
    command = ["sweep", "mine", *(x for k, v in values.items() for x in ("-p", k, str(v)))]
    assert main([*command, "--plan"]) == 0
    assert (
        "2 networks asked for, 0 stored, 2 to train or measure in 2 settings: about "
        in capsys.readouterr().out
    )
    assert not list(tmp_path.iterdir())
    assert main(command) == 1
    said = capsys.readouterr()
    assert (
        "1 settings failed" in said.err
        and "learning_rate 1e+30" in said.err
        and "use a learning_rate below" in said.err
    )
    assert main([*command, "--plan"]) == 0
    assert "1 stored, 1 to train" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, wanted",
    [
        (["-p", "rte", "[0.2]"], "did you mean 'rate'"),
        (["-p", "rate", "often"], "rate must be a number, got 'often'"),
        (["-p", "rate", "0.2", "-p", "rate", "0.3"], "rate is set twice; give one list"),
        (["--profile", "quik"], "did you mean 'quick'"),
        (["-p", "rate", "[]"], "at least one Experiment"),
        (["-p", "rate", "-1e-3"], "rate must be finite and greater than 0, got -0.001"),
        (
            ["-p", "correlation_lengths", "7.0"],
            "correlation_lengths must be a sequence, got 7.0; pass a list such as [7.0]",
        ),
        (["-p", "families", "ring"], "families must be a sequence, got 'ring'; pass a list such as ['ring']"),
        (["-p", "own", "ring"], "own must be a sequence, got 'ring'"),
        (["-p", "snapshots", "100"], "snapshots must be a sequence, got 100; pass a list such as [100]"),
        (["-p", "seeds", "many"], "seeds must be an integer, got 'many'"),
        (["-p", "profile", "quik"], "did you mean 'quick'"),
    ],
)
def test_bad_sweeps(arguments, wanted, capsys):
    assert main(["sweep", "mine", *arguments]) == 2
    assert wanted in capsys.readouterr().err
