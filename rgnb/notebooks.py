"""The book's notebooks from outside: find them, read and check their parameters, execute them, build the HTML."""

import ast
import io
import re
import shutil
import subprocess
import sys
import tokenize
from dataclasses import dataclass
from pathlib import Path

from rgnb import checks

ROOT = Path(__file__).parent.parent
KINDS = {int: "an integer", float: "a number", bool: "True or False", str: "text"}


@dataclass(frozen=True)
class Parameter:
    """One line of a notebook's parameters cell: `name = default  # help`."""

    name: str
    default: object
    help: str

    def parse(self, text):
        """The value that `text` from a command line stands for; ValueError if it is of another type."""
        kind = type(self.default)
        if kind is str:
            return text
        try:
            value = ast.literal_eval(text.capitalize() if kind is bool else text)
        except (ValueError, SyntaxError):
            value = None
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise ValueError(f"parameter {self.name} must be {KINDS[kind]}, got {text!r}; its default is {self.default!r}")
        return value


def names(root=ROOT):
    """Names of the book's notebooks, in the order of its table of contents."""
    toc = (root / "_toc.yml").read_text()
    found = re.findall(r"file: executed/([\w-]+)", toc)
    if not found:
        raise ValueError(f"no notebook is listed in {root / '_toc.yml'}; run rgnb from a checkout of the book")
    return found


def source(name, root=ROOT):
    """Path of a notebook's MyST source; ValueError with the closest name if there is none."""
    return root / "book" / "notebooks" / f"{checks.choice('notebook', name, names(root))}.md"


def parameters(name, root=ROOT):
    """The parameters of a notebook, read from its source without running it: list of Parameter."""
    text = source(name, root).read_text(encoding="utf-8")
    cell = re.search(r"```\{code-cell\}[^\n]*\n:tags: \[parameters\]\n(.*?)```", text, re.DOTALL)
    if cell is None:
        return []
    code = cell.group(1)
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    comments = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    assignments = [node for node in ast.parse(code).body if isinstance(node, ast.Assign)]
    return [Parameter(a.targets[0].id, ast.literal_eval(a.value), comments.get(a.lineno, "")) for a in assignments]


def parse_parameters(name, given, root=ROOT):
    """Check names and types: [(name, text)] -> {name: value}. ValueError names the closest valid name."""
    known = {p.name: p for p in parameters(name, root)}
    return {key: known[checks.choice(f"parameter of {name}", key, known)].parse(text) for key, text in given}


def execute(name, output, values=None, root=ROOT):
    """Execute a notebook with papermill and write it, cleaned, to `output` once every cell has passed.

    Training progress goes to stderr as it happens. A failing cell raises RuntimeError and leaves no output.
    """
    import jupytext
    import nbformat
    import papermill
    from papermill.exceptions import PapermillExecutionError

    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    given = output.with_name(f".{output.stem}.given.ipynb")
    partial = output.with_name(f".{output.stem}.partial.ipynb")
    try:
        nbformat.write(jupytext.read(source(name, root)), given)
        papermill.execute_notebook(
            given, partial, values or {}, kernel_name="python3", progress_bar=False, stderr_file=sys.stderr,
            cwd=source(name, root).parent,
        )  # fmt: skip
        notebook = nbformat.read(partial, as_version=4)
        nbformat.write(clean(notebook), partial)
        partial.replace(output)
    except PapermillExecutionError as error:
        raise RuntimeError(f"{name} stopped with {error.ename}: {error.evalue}") from None
    finally:
        given.unlink(missing_ok=True)
        partial.unlink(missing_ok=True)


def clean(notebook):
    """Drop what changes from run to run for no reason: times, paths, ids, versions, progress bars."""
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    for i, cell in enumerate(notebook.cells):
        cell.id = f"cell-{i}"
        for stamp in ("papermill", "execution"):
            cell.metadata.pop(stamp, None)
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
    return notebook


def build_html(root=ROOT):
    """Build the HTML from the executed notebooks, every warning an error; returns the front page's path.

    Raises:
        RuntimeError: the build failed or a page is missing; the message holds its output.
    """
    command = [Path(sys.executable).parent / "jupyter-book", "build", root / "book", "--all", "-W", "--keep-going"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    html = root / "book" / "_build" / "html"
    pages = ["intro", *re.findall(r"- file: (\S+)", (root / "_toc.yml").read_text())]
    broken = [p for p in pages if not (page := html / f"{p}.html").exists() or "</html>" not in page.read_text()[-200:]]
    if done.returncode or broken:
        missing = f"\npages missing or cut short: {', '.join(broken)}" if broken else ""
        raise RuntimeError(f"jupyter-book failed (exit status {done.returncode}){missing}\n{done.stdout}\n{done.stderr}")
    return html / "index.html"


def copy_book(into, root=ROOT):
    """Copy the book's sources to another root, so that it can be executed and built there."""
    into = Path(into).resolve()
    ignore = shutil.ignore_patterns("_build", "ipynb", "runs", "_toc.yml")
    shutil.copytree(root / "book", into / "book", ignore=ignore, dirs_exist_ok=True)
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(root / name, into / name)
        shutil.copy(root / "_toc.yml", into / "book" / "_toc.yml")
    return into
