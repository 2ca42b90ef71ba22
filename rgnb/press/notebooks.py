"""The book's notebooks from outside: find them, check their parameters, execute them, build the HTML."""

import ast
import hashlib
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
import tokenize
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rgnb import checks, files

if TYPE_CHECKING:
    from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[2]  # the checkout
PROFILES = ("quick", "small", "paper")  # of rgnb.study.settings, here without importing torch
KINDS: dict[type, str] = {
    int: "an integer", float: "a number", bool: "True or False",
    str: "text", list: "a list", tuple: "a tuple",
}  # fmt: skip


@dataclass(frozen=True)
class Parameter:
    """One line of a notebook's parameters cell: `name = default  # help`."""

    name: str
    default: Any
    help: str

    def parse(self, text: str) -> Any:
        """The value that `text` from a command line stands for; ValueError if it is of another type."""
        if isinstance(self.default, str):
            return checks.choice("profile", text, PROFILES) if self.name == "profile" else text
        try:
            value = ast.literal_eval(text.capitalize() if isinstance(self.default, bool) else text)
            return _like(self.default, value)
        except (ValueError, SyntaxError, TypeError, OverflowError, MemoryError, RecursionError):
            kind = f"{KINDS[type(self.default)]}, such as its default {self.default!r}"
            raise checks.BadValue(f"{self.name} must be {kind}; got {text!r}") from None


def _like(default, value):
    # `value` in the type of `default`, where an int may be a float; entries of a list in that of its first.
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if type(value) is not type(default) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError
    if isinstance(value, list | tuple) and default:
        return type(value)(_like(default[0], entry) for entry in value)
    return value


def pages(root: Path | None = None) -> list[str]:
    """Every page of the book, in the order of its table of contents, as paths from book/ without a suffix."""
    toc = (root or ROOT) / "_toc.yml"
    if not toc.exists():
        advice = "install rgnb from a checkout of its repository: pip install -e '.[book]'"
        raise checks.BadValue(f"no book at {toc.parent}; {advice}")
    return re.findall(r"^[\s-]*(?:root|file): *([\w/-]+)", toc.read_text(encoding="utf-8"), re.MULTILINE)


def names(root: Path | None = None) -> list[str]:
    """Names of the book's notebooks, in the order of its table of contents."""
    return [page.removeprefix("executed/") for page in pages(root) if page.startswith("executed/")]


def source(name: str, root: Path | None = None) -> Path:
    """Path of a notebook's MyST source; ValueError with the closest name if there is none."""
    return (root or ROOT) / "book" / "notebooks" / f"{checks.choice('notebook', name, names(root))}.md"


def title(name: str) -> str:
    """A notebook's title: its first heading."""
    found = re.search(r"^# (.+)$", source(name).read_text(encoding="utf-8"), re.MULTILINE)
    return found[1].strip() if found else ""


def parameters(name: str, root: Path | None = None) -> dict[str, Parameter]:
    """The parameters of a notebook, read from its source without running it: {name: Parameter}."""
    # jupytext and papermill.inspect_notebook could do this, but their imports would make `rgnb list` and
    # errors in a command's arguments wait ten times as long, and defaults would come as text.
    text = source(name, root).read_text(encoding="utf-8")
    cells = re.findall(r"^```\{code-cell\}.*?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    code = next((c for c in cells if re.match(r"(---\n)?:?tags:\s*(\[|- )parameters\b", c)), "")
    code = re.sub(r"\A(---\n.*?^---\n|(:[^\n]*\n)+)", "", code, flags=re.MULTILINE | re.DOTALL)
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    comments = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    found = [
        Parameter(line.targets[0].id, ast.literal_eval(line.value), comments.get(line.end_lineno or 0, ""))
        for line in ast.parse(code).body
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name)
    ]
    return {parameter.name: parameter for parameter in found}


def parse_parameters(name: str, given: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Check names and types: [(name, text)] -> {name: value}. ValueError names the closest valid name."""
    known = parameters(name)
    return {key: known[checks.choice(f"parameter of {name}", key, known)].parse(text) for key, text in given}


def run_path(name: str, values: dict[str, Any], output: str | Path | None = None) -> Path:
    """Where a run with changed parameters is written: a file in book/runs/ named after the run, or `output`.

    Raises:
        ValueError: there is something other than an earlier output of the same run.
    """
    plain = "-".join([name, *(f"{key}={value}" for key, value in sorted(values.items()))])
    slug = re.sub(r"[^\w.+=-]", "_", plain, flags=re.ASCII)[:120]
    if slug != plain:
        slug += "-" + hashlib.sha256(plain.encode()).hexdigest()[:8]
    path = Path(os.path.abspath(output)) if output else ROOT / "book" / "runs" / f"{slug}.ipynb"
    if path.suffix != ".ipynb" or "\0" in str(path):
        raise checks.BadValue(f"the output must be a notebook, a name that ends in .ipynb; got {str(path)!r}")
    if path.exists() and run_of(path) != _run_label(name, values):
        there = f"{path} is there already and is not an earlier output of this run"
        raise checks.BadValue(f"{there}; {'choose another --output' if output else 'move it away'}")
    return path


SETTINGS = {  # fields of an Experiment, and the parameters of notebooks that give them, alone or in lists
    "profile": ("profile", "second_profile", "noise_profile", "own_profile", "sizes"),
    "n_states": ("n_states", "states"),
    "families": ("family", "control", "families", "cosine_families", "transformer_families"),
    "correlation_lengths": ("correlation_length_short", "correlation_length_long", "correlation_lengths"),
    "seeds": (
        *("seeds", "sequel_seeds", "second_seeds", "control_seeds", "pairs"),
        *("depth_seeds", "noise_seeds", "own_seeds", "decay_seeds", "transformer_seeds"),
        "network_seeds",
    ),
    "recipe": ("recipe",),
    "batch": ("batches",),
    "weight_decay": ("decays", "weight_decays"),
    "mixing": ("mixings",),
    "steps": ("steps", "own_steps"),
    "rate": ("rate", "rates"),
    "scheme": ("scheme", "schemes"),
    "width": ("width", "widths"),
    "depth": ("depths",),
    "learning_rate": ("learning_rates",),
    "length": ("length",),
    "device": ("device",),
}


def check_settings(name: str, values: dict[str, Any]) -> None:
    """Build the Experiments that a notebook's parameters describe, to refuse bad ones before a kernel starts.

    Args:
        name: of the notebook; one that does not import rgnb has no settings.
        values: {parameter: value} of those that are changed.

    Raises:
        ValueError: names the changed parameters and says what is wrong.
    """
    text = source(name).read_text(encoding="utf-8")
    if not values or not re.search(r"^(from|import) rgnb\b", text, re.MULTILINE):
        return
    from rgnb.study.experiment import Experiment

    defaults = {p.name: p.default for p in parameters(name).values()}
    given = defaults | values
    listed = {n: value if isinstance(value, list) else [value] for n, value in given.items()}
    if "network_seeds" in given:  # a list of seeds, not of how many there are
        listed["network_seeds"] = [given["network_seeds"]]
    # Which chains can be built depends on several fields together; the others can be tried one by one.
    # What a page has by default stands (0 steps: as the profile says).
    together: dict[str, list] = {}
    single: list[dict[str, Any]] = []
    for field, names in SETTINGS.items():
        own = [n for n in names if n in given]
        if field in ("profile", "n_states", "families", "correlation_lengths"):
            together |= {field: [x for n in own for x in listed[n]]} if own else {}
        else:
            single += [{field: x} for n in own if given[n] != defaults[n] for x in listed[n]]
    if "families" in together:
        # The explorer may do without networks of the recipe cosine.
        needed = [n for n in SETTINGS["families"] if n != "cosine_families"]
        empty: list[list] = [[] for n in needed if listed.get(n) == []]
        together["families"] = [[family] for family in together["families"]] + empty
    if "correlation_lengths" in together:
        together["correlation_lengths"] = [together["correlation_lengths"]]
    points = [dict(zip(together, point, strict=True)) for point in product(*together.values())]
    try:
        for changes in [*points, *single]:
            Experiment.profile(**changes)
    except checks.BadInput as error:
        changed = ", ".join(f"{key} = {value!r}" for key, value in values.items())
        raise checks.BadValue(f"{name} cannot run with {changed}: {error}") from None


def _run_label(name, values):
    return json.loads(json.dumps({"notebook": name, "parameters": values}))


def _surroundings():
    from rgnb.randomness import resolve_device
    from rgnb.study.store import provenance

    made = provenance(resolve_device())
    del made["commit"]  # of the sources, which are not committed yet
    return made


def run_of(path: Path) -> dict[str, Any] | None:
    """{"notebook": name, "parameters": those changed} of an executed notebook; None for any other file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["metadata"]["rgnb"]
        return {key: found[key] for key in ("notebook", "parameters")} if "record" in found else None
    except (ValueError, KeyError, TypeError, OSError):
        return None


def execute(
    name: str,
    output: str | Path,
    values: dict[str, Any] | None = None,
    root: Path | None = None,
    progress: bool = True,
    stderr: Any = None,
    rehearsal: Path | None = None,
    made: dict[str, Any] | None = None,
) -> None:
    """Execute a notebook with papermill and write it, cleaned, to `output` once every cell has passed.

    Its metadata record when, where, how long and with which parameters it ran. An existing output with the
    same cells is left as it is, record and all.

    Args:
        name: of the notebook; values: parameters that differ from its own; root: of its book.
        progress: show a bar of the cells.
        stderr: takes what cells print there, mostly the progress of training; None: stderr, as it happens.
        rehearsal: an empty folder: nothing is trained, see `rgnb.study.rehearsal`. If a result is missing it
            is noted there, and nothing is written.
        made: where and with what, for the record; None: found out here, which imports torch.

    Raises:
        ValueError: the output's folder is read-only; nothing is executed then.
        RuntimeError: a cell failed or the kernel died; nothing is written then.
    """
    import jupytext
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError

    path, output, values, started = source(name, root), Path(output), values or {}, time.monotonic()
    check_folder(output.parent)
    defaults = {p.name: p.default for p in parameters(name, root).values()}
    made = _surroundings() if made is None else made
    label = _run_label(name, values)
    try:
        # The kernel of this environment, not one of the user's, with its own backend for figures.
        training = {"RGNB_REHEARSAL": rehearsal and str(rehearsal)}
        with _environment(JUPYTER_PREFER_ENV_PATH="1", MPLBACKEND=None, **training):
            notebook = papermill.execute_notebook(
                jupytext.read(path), None, values, kernel_name="python3", cwd=path.parent,
                progress_bar={"desc": name, "leave": False, "disable": not progress},
                stderr_file=stderr or _Live(),
                extra_arguments=["--IPKernelApp.log_level=50"],
            )  # fmt: skip
    except papermill.PapermillExecutionError as error:
        where = f"cell {error.exec_count} with {error.ename}: {error.evalue}"
        raise checks.Failed(f"{name} stopped in {where}") from None
    except DeadKernelError:
        died = f"the kernel of {name} died, for want of memory perhaps; nothing was written"
        raise checks.Failed(died) from None
    if rehearsal and any(rehearsal.iterdir()):
        return
    clean(notebook)
    if run_of(output) == label and nbformat.read(output, as_version=4).cells == notebook.cells:
        return
    made |= {"seconds": round(time.monotonic() - started), "parameters": defaults | values}
    notebook.metadata["rgnb"] = label | {"record": made}
    with files.replacing(output) as partial:
        nbformat.write(notebook, partial)


@contextmanager
def _environment(**changes):
    # Environment variables for a while; None removes one.
    before = {name: os.environ.get(name) for name in changes}

    def put(values):
        for name, value in values.items():
            os.environ.pop(name, None)
            os.environ.update({} if value is None else {name: value})

    put(changes)
    try:
        yield
    finally:
        put(before)


def check_folder(folder: Path) -> None:
    """Check that a folder can be written before anything is executed for it; a ValueError says what to do."""
    advice = "choose another, or where it is the checkout's, use a copy of the checkout that can be written"
    files.make_writable(folder, "the folder", advice)


def execute_all(chosen: Collection[str], root: Path | None = None) -> Iterator[str]:
    """Execute notebooks, as many at once as there are cores, at most 4; yields each name as it is done.

    Those that took longest last time come first, so that none is left to run alone. Notebooks that need the
    same networks share their training, see `Experiment.run`. The book's last notebook, the execution record,
    waits for all others.

    Args:
        chosen: names of notebooks.
        root: of the book; None: this checkout.

    Raises:
        RuntimeError: as `execute`; those not begun yet are not executed.
    """
    import joblib  # `rgnb list` does without

    count = joblib.cpu_count()
    workers = max(1, min(4, count, len(chosen)))
    environment = {"OMP_NUM_THREADS": str(count // workers)} | os.environ
    made = json.dumps(_surroundings() | {"threads": environment["OMP_NUM_THREADS"]})
    last = names(root)[-1]
    chosen = sorted(chosen, key=_seconds, reverse=True)
    pool = ThreadPoolExecutor(workers)
    try:
        for group in ([n for n in chosen if n != last], [n for n in chosen if n == last]):
            apart = [pool.submit(_execute_apart, name, root or ROOT, made, environment) for name in group]
            for done in as_completed(apart):
                yield done.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _execute_apart(name, root, made, environment):
    # In a process of its own, since two cannot run in one, and so that each stops like a single one. It
    # imports no torch: the page's kernel does, and once is seconds enough for every page.
    code = "import sys; from rgnb.press import notebooks; notebooks._execute_here(*sys.argv[1:])"
    command = [sys.executable, "-c", code, name, root, made]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if status := done.returncode:
        raise checks.Failed(done.stdout.strip() or f"the execution of {name} ended with status {status}")
    return name


def _execute_here(name, root, made):
    # What that process does; it says on stdout why it failed.
    root = Path(root)
    try:
        execute(name, executed(name, root), {}, root, progress=False, made=json.loads(made))
    except (checks.Failed, checks.BadInput) as error:
        print(error)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


class _Live:
    """Passes a cell's stderr on; on a terminal, a bar clears its line before it is redrawn."""

    def write(self, text):
        sys.stderr.write(text.replace("\r", "\r\x1b[K") if sys.stderr.isatty() else text)

    def flush(self):
        sys.stderr.flush()


def clean(notebook: "NotebookNode") -> None:
    """Remove, in place, what differs between equal runs: times, paths, versions, ids, progress."""
    for key in ("papermill", "jupytext"):
        notebook.metadata.pop(key, None)
    notebook.metadata["language_info"] = {"name": "python"}
    for i, cell in enumerate(notebook.cells):
        cell.id = f"cell-{i}"
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            cell.outputs = _merged([o for o in cell.outputs if o.get("name") != "stderr"])
            for output in cell.outputs:
                # "text" of a stream; else HTML and plain text, also under the names that glue gives them.
                texts = output.get("data", output)
                for kind in texts:
                    if kind == "text" or kind.endswith(("text/html", "text/plain")):
                        texts[kind] = _steady(texts[kind], f"cell-{i}")


def _merged(outputs):
    # In how many messages a cell's output arrives is a matter of timing.
    merged = []
    for output in outputs:
        if merged and output.output_type == merged[-1].output_type == "stream":
            merged[-1].text += output.text
        else:
            merged.append(output)
    return merged


def _steady(text, label):
    # Tables of pandas and xarray carry random ids; objects print their address.
    ids = re.findall(r"\bT_[0-9a-f]{5}(?=[_\"])|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", text)
    for k, found in enumerate(dict.fromkeys(ids)):
        text = text.replace(found, f"{label}-id-{k}")
    return re.sub(r" at 0x[0-9a-f]+", " at 0x0", text)


def record(name: str, root: Path | None = None) -> dict[str, Any]:
    """When, where, in what time and with which parameters the book's own output of a notebook was made."""
    return json.loads(executed(name, root).read_text(encoding="utf-8"))["metadata"]["rgnb"]["record"]


def _seconds(name):
    # How long the book's own run of a notebook took; 0 where there is none that can be read.
    try:
        return record(name)["seconds"]
    except (OSError, ValueError, KeyError):
        return 0


def executed(name: str, root: Path | None = None) -> Path:
    """Path of a notebook as the book's own run left it."""
    return (root or ROOT) / "book" / "executed" / f"{checks.choice('notebook', name, names(root))}.ipynb"


def glued(path: Path) -> dict[str, str]:
    """The verdicts and key numbers of an executed notebook, as its pages quote them: {name: text}."""
    import nbformat

    found = {}
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            if "scrapbook" in output.get("metadata", {}):
                (text,) = (v for k, v in output.data.items() if k.endswith("text/plain"))
                found[output.metadata.scrapbook.name] = text.strip("'\"")
    return found


WORDS = {  # of the names under which pages quote their numbers, where they are not plain
    r"\bstatus\b": "verdict",
    r"\bcounts\b": "verdicts by definition",
    r"\bshort\b(?! memory)": "at short memory",
    r"\blong\b(?! memory)": "at long memory",
    r"\btokens$|\btokens (?=from)": "with token mixing ",
    r"\bnone$|\bnone (?=from)": "without mixing ",
    r"\b(?:from )?([01])$": r"from depth \1",
}


def in_words(key: str) -> str:
    """The name of a verdict or number that a notebook quotes, such as "collapse-cosine-0", in words."""
    words = key.replace("-", " ")
    for name, meaning in WORDS.items():
        words = re.sub(name, meaning, words)
    return words.strip()


def _three_digits(text: str) -> str:
    # A number as a page would round it; verdicts, intervals and counts are written for readers already.
    return f"{float(f'{float(text):.3g}'):g}" if re.fullmatch(r"-?\d+\.\d+(e-?\d+)?", text) else text


def beside(name: str, output: Path) -> list[tuple[str, str, str]]:
    """What pages quote of a notebook, in the book's own and another output: [(in words, in the book, there)].

    Numbers have three digits. Whole paragraphs, which repeat what is quoted, are left out.
    """
    page = executed(name)
    book = glued(page) if page.exists() else {}
    return [
        (in_words(key), _three_digits(book.get(key, "-")), _three_digits(value))
        for key, value in glued(output).items()
        if not value.startswith("<IPython")
    ]


def build_html(root: Path | None = None, output: Path | None = None, builder: str = "html") -> Path:
    """Build the HTML from the executed notebooks, every warning an error; returns the front page's path.

    Args:
        root: of the book; None: this checkout.
        output: folder that gets `_build/<builder>`; None: `root`.
        builder: "html", or "singlehtml" for all in one page.

    Raises:
        RuntimeError: the build failed or a page is missing; the message holds its output.
    """
    root = root or ROOT
    output, started = output or root, time.time()
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", "book"]
    command += ["--all", "-W", "--keep-going", "-q", "--builder", builder, "--path-output", str(output)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    html = output / "_build" / builder
    made = pages(root) if builder == "html" else pages(root)[:1]
    broken = [page for page in made if not _whole(html / f"{page}.html", started)]
    if done.returncode or broken:
        missing = f"\npages missing or cut short: {', '.join(broken)}" if broken else ""
        failed = f"jupyter-book failed (exit status {done.returncode}){missing}"
        raise checks.Failed(f"{failed}\n{done.stdout}\n{done.stderr}")
    return html / f"{made[0]}.html"


def _whole(page, started):
    fresh = page.exists() and page.stat().st_mtime > started - 2
    return fresh and "</html>" in page.read_text(encoding="utf-8")[-200:]


def copy_book(into: str | Path, keep: Iterable[str] = ()) -> Path:
    """Copy the book's sources to another root, so that it can be executed and built there; returns that root.

    Args:
        into: folder.
        keep: names of the notebooks whose executed copies are taken along, where `into` has none.
    """
    into = Path(into).resolve()
    if ROOT.is_relative_to(into) or into.is_relative_to(ROOT / "book"):
        advice = "choose another folder, such as build/reproduce"
        raise checks.BadValue(f"{into} holds or is inside the book itself; {advice}")
    check_folder(into)
    ignore = shutil.ignore_patterns("_build", "ipynb", "executed", "runs", "_toc.yml")
    shutil.copytree(ROOT / "book", into / "book", ignore=ignore, dirs_exist_ok=True)
    for name in ("_config.yml", "_toc.yml", "book/_toc.yml"):
        shutil.copy(ROOT / name, into / name)
    for name in keep:
        executed(name, into).parent.mkdir(exist_ok=True)
        if not executed(name, into).exists():
            shutil.copy(executed(name), executed(name, into))
    return into
