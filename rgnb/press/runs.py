"""A reader's own runs as a book: those runs, marked as the reader's, before the pages of the book."""

import hashlib
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import nbformat
import yaml

from rgnb.press import notebooks


def build(outputs: Iterable[Path] = ()) -> dict[Path, Path]:
    """Build `build/runs/_build/html` from all runs in book/runs and in `outputs`, no other notebooks.

    Returns:
        {path of each run: path of its HTML page}; without a run, nothing is built.

    Raises:
        RuntimeError: the build failed, see `notebooks.build_html`.
    """
    root = notebooks.ROOT
    paths = dict.fromkeys([*sorted((root / "book" / "runs").glob("*.ipynb")), *outputs])
    found = {path: nbformat.read(path, as_version=4) for path in paths}
    found = {
        path: notebook for path, notebook in found.items() if "record" in notebook.metadata.get("rgnb", {})
    }
    if not found:
        return {}
    shutil.rmtree(root / "build" / "runs", ignore_errors=True)
    into = notebooks.copy_book(root / "build" / "runs", notebooks.names())
    pages, chapters = {}, []
    for path, notebook in found.items():
        # Beside the executed notebooks its links lead to the same pages as theirs.
        digest = hashlib.sha256(str(path).encode()).hexdigest()[:8]
        page = f"run-{notebook.metadata['rgnb']['notebook']}-{digest}"
        title = mark(notebook, page)
        nbformat.write(notebook, into / "book" / "executed" / f"{page}.ipynb")
        pages[path] = into / "_build" / "html" / "executed" / f"{page}.html"
        chapters.append({"file": f"executed/{page}", "title": title})
    toc = yaml.safe_load((into / "_toc.yml").read_text(encoding="utf-8"))
    toc["parts"].insert(0, {"caption": "Your own runs", "chapters": chapters})
    config = yaml.safe_load((into / "_config.yml").read_text(encoding="utf-8"))
    config["title"] += ", with runs of your own"
    for name, content in {"_toc.yml": toc, "book/_toc.yml": toc, "_config.yml": config}.items():
        (into / name).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    notebooks.build_html(into)
    return pages


def mark(notebook: nbformat.NotebookNode, page: str) -> str:
    """Mark a run's page, in place, as the reader's; figures and tables get names of their own.

    Returns its title.
    """
    made = notebook.metadata["rgnb"]
    name, changed = made["notebook"], made["parameters"]
    values = [f"{key} = {value!r}" for key, value in changed.items()] or ["# the book's own parameters"]
    figures = {c.metadata.get("mystnb", {}).get("figure", {}).get("name") for c in notebook.cells} - {None}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = _renamed(cell.source, figures, page)
        elif "figure" in cell.metadata.get("mystnb", {}):
            figure = cell.metadata["mystnb"]["figure"]
            for key in figure.keys() & {"name", "caption"}:
                figure[key] = _renamed(figure[key], figures, page)
    note = [
        ":::{admonition} A run of yours", ":class: warning",
        f"Not a page of the book, whose own is {{doc}}`{name}`. Made on {made['record']['date']} with",
        "```python", *values, "```",
        "What the text says of results was written about the book's own.", ":::",
    ]  # fmt: skip
    heading, cells = re.compile(r"^# .*$", re.MULTILINE), notebook.cells
    first = next(c for c in cells if c.cell_type == "markdown" and heading.search(c.source))
    first.source = heading.sub(
        lambda found: "\n".join([f"{found[0]} (your run)", "", *note]), first.source, count=1
    )
    return f"{name}: {', '.join(values).lstrip('# ')}"


def _renamed(text, figures, page):
    return re.sub(
        r"(?<![\w-])(?:fig|tab)-[\w-]+",
        lambda found: f"{page}-{found[0]}" if found[0] in figures else found[0],
        text,
    )
