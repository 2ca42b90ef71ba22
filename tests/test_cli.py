import json
import re
import subprocess
import sys
import time

import pytest

from rgnb import cli, notebooks
from rgnb.cli import main
from rgnb.notebooks import Parameter

TINY = '''---
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

glue("twice", 2 * count, display=False)
glue("label", label, display=False)
HTML(f'<p id="{uuid.uuid4()}"><b id="T_{uuid.uuid4().hex[:5]}_row0"></b></p>')
```
'''


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A checkout with one tiny notebook."""
    for folder in ("notebooks", "executed"):
        (tmp_path / "book" / folder).mkdir(parents=True)
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: intro\nchapters:\n  - file: executed/tiny\n  - file: notes\n")
    (tmp_path / "book" / "notebooks" / "tiny.md").write_text(TINY)
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    # A book of one page is none that Sphinx would build; tests/test_book.py builds a reader's runs.
    monkeypatch.setattr(cli, "_build_runs", lambda outputs: {path: path.with_suffix(".html") for path in outputs})
    return tmp_path


def printed(path):
    """Everything that a notebook's cells printed, as text."""
    cells = json.loads(path.read_text())["cells"]
    return "".join(text for c in cells for o in c.get("outputs", []) if o["output_type"] == "stream" for text in o["text"])


def test_list_shows_every_notebook_and_parameter_with_default_and_help(capsys):
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    for name in notebooks.names():
        assert f"{name}\n" in shown
        for p in notebooks.parameters(name).values():
            assert re.search(rf"^ +{p.name} +{re.escape(repr(p.default))} +{re.escape(p.help)}$", shown, re.MULTILINE)


@pytest.mark.parametrize("name", notebooks.names())
def test_every_parameter_of_the_book_has_a_help_and_a_known_type(name):
    found = notebooks.parameters(name)
    assert found
    for p in found.values():
        assert p.help and type(p.default) in notebooks.KINDS
    assert "profile" not in found or found["profile"].default in notebooks.PROFILES


def test_the_profiles_are_those_of_experiments():
    from rgnb.experiment import PROFILES

    assert set(PROFILES) == set(notebooks.PROFILES)


def test_light_commands_import_nothing_heavy():
    code = "import sys; from rgnb.cli import main; main(['list']); main(['run', 'nothing']); print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "papermill", "jupytext", "nbformat"} & set(done.stdout.split())


@pytest.mark.parametrize(
    "arguments, wanted",
    [
        (["run", "selectivty"], "did you mean 'selectivity'?"),
        (["run", "selectivity", "-p", "sedes", "3"], "did you mean 'seeds'?"),
        (["run", "selectivity", "-p", "seeds", "three"], "seeds must be an integer"),
        (["run", "selectivity", "-p", "seeds", "2.5"], "seeds must be an integer"),
        (["run", "selectivity", "-p", "correlation_length_long", "long"], "correlation_length_long must be a number"),
        (["run", "selectivity", "--profile", "quik"], "did you mean 'quick'?"),
        (["run", "selectivity", "-p", "profile", "fast"], "choose from quick, paper"),
        (["run", "chains", "--profile", "quick"], "unknown parameter of chains 'profile'"),
        (["show", "chain"], "did you mean 'chains'?"),
        (["run", "chains", "--output", "page.html"], "ends in .ipynb"),
        (["build", "selectivty"], "did you mean 'selectivity'?"),
        (["build", "--into", str(notebooks.ROOT / "book" / "copy")], "choose another folder"),
    ],
)
def test_bad_input_ends_with_one_helpful_line(arguments, wanted, capsys):
    started = time.monotonic()
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert wanted in shown.err and shown.err.startswith("rgnb: ") and shown.err.count("\n") == 1
    assert not shown.out
    assert time.monotonic() - started < 5


def test_bad_input_from_a_shell():
    command = [sys.executable, "-m", "rgnb.cli", "run", "selectivity", "-p", "sedes", "3"]
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
    [(3, "3.0"), (3, "True"), (3, ""), (3, "__import__('os')"), (0.5, "nan"), (0.5, "1e999"), (0.5, "half"), (False, "1"),
     ([1.0], "1, 2"), ([1.0], "['a']"), ([1.0], "1.0"), (3, "(" * 500), (3, "\0")],
)  # fmt: skip
def test_values_of_another_type_are_refused(default, text):
    with pytest.raises(ValueError, match="p must be .* default"):
        Parameter("p", default, "").parse(text)


def test_parameters_are_read_in_either_form_of_cell_metadata(book):
    short = notebooks.parameters("tiny")
    path = book / "book" / "notebooks" / "tiny.md"
    path.write_text(TINY.replace(":tags: [parameters]\n", "---\ntags: [parameters, hide-input]\nslow: 1\n---\n"))
    assert notebooks.parameters("tiny") == short == {p.name: p for p in short.values()}
    assert short["count"] == Parameter("count", 3, "how many")


@pytest.mark.promise("no pickle, no code from files")
def test_a_run_keeps_strings_as_data_and_shows_progress_but_does_not_store_it(book, capfd):
    text = 'it\'s "quoted"\n  \\n é # no comment {x}'
    arguments = ["run", "tiny", "-p", "label", text, "-p", "rate", "1", "-p", "sizes", "[3]", "--profile", "quick"]
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
    values = [{}, {"a": 1}, {"a": 11}, {"a": "x y"}, {"a": "x_y"}, {"a": "x/y"}, {"a": "../y"}, {"a": "long" * 99}, {"a": "longer" * 99}]
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
    assert "twice\n        book  6\n        here  8\n" in capsys.readouterr().out
    assert main(["run", "tiny", "-p", "rate", "0.25"]) == 0
    assert "Verdicts and numbers are the book's own." in capsys.readouterr().out


def test_show_explains_one_notebook(capsys):
    assert main(["show", "selectivity"]) == 0
    shown = capsys.readouterr().out
    for name, parameter in notebooks.parameters("selectivity").items():
        assert f"{name} = {parameter.default!r}\n" in shown and parameter.help in shown
    assert "minutes to train" in shown


def test_an_output_that_did_not_change_keeps_its_record(book):
    page = book / "book" / "executed" / "tiny.ipynb"
    notebooks.execute("tiny", page)
    record = json.loads(page.read_text())["metadata"]["rgnb"]["record"]
    assert record["parameters"]["count"] == 3 and record["seconds"] >= 0
    assert {"device", "python", "torch", "date"} <= set(record) and "commit" not in record
    page.write_text(page.read_text().replace(record["date"], "2001-01-01"))  # a run of old
    before = page.read_bytes()
    notebooks.execute("tiny", page)
    assert page.read_bytes() == before
    source = book / "book" / "notebooks" / "tiny.md"
    source.write_text(source.read_text().replace("a share", "another share"))
    notebooks.execute("tiny", page)
    assert json.loads(page.read_text())["metadata"]["rgnb"]["record"]["date"] == record["date"]


def test_a_build_that_fails_keeps_the_pages_that_were_there(book, capsys):
    page = book / "book" / "executed" / "tiny.ipynb"
    page.write_text("as it was")
    (book / "book" / "notebooks" / "tiny.md").write_text(TINY.replace("count < 100", "False"))
    assert main(["build"]) == 1
    assert page.read_text() == "as it was"
    assert list(page.parent.iterdir()) == [page]


def test_a_run_replaces_no_other_file(book, tmp_path, capsys):
    mine = tmp_path / "mine.ipynb"
    for content in ("no notebook", '{"metadata": {}}', '{"metadata": {"rgnb": {"notebook": "tiny", "parameters": {"count": 1}}}}'):
        mine.write_text(content)
        assert main(["run", "tiny", "-p", "count", "2", "--output", str(mine)]) == 2
        assert "choose another --output" in capsys.readouterr().err
        assert mine.read_text() == content


# --- sweeps ---


def test_a_sweep_says_its_plan_and_lists_what_failed(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RGNB_RESULTS", str(tmp_path))
    small = {"n_states": 4, "length": 6, "width": 8, "depth": 2, "batch": 8, "steps": 50, "snapshots": [], "sequences": 64}
    small |= {"mixing": "none", "seeds": 1, "correlation_lengths": [1.0], "learning_rate": [1e-3, 1e30], "device": "cpu"}
    command = ["sweep", "mine", *(x for k, v in small.items() for x in ("-p", k, str(v)))]
    assert main([*command, "--plan"]) == 0
    assert "2 networks asked for, 0 stored, 2 to train in 2 settings: about " in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    assert main(command) == 1
    said = capsys.readouterr()
    assert "1 settings failed" in said.err and "learning_rate 1e+30" in said.err and "use a learning_rate below" in said.err
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
    ],
)
def test_bad_sweeps(arguments, wanted, capsys):
    assert main(["sweep", "mine", *arguments]) == 2
    assert wanted in capsys.readouterr().err
