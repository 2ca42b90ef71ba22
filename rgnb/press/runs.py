"""A reader's own runs as a book: those runs, marked as the reader's, before the pages of the book."""

import hashlib
import io
import re
import shutil
from pathlib import Path

import matplotlib as mpl
import nbformat
import pandas as pd
import xarray as xr
import yaml
from filelock import FileLock

from rgnb.press import figures, notebooks


def build() -> dict[Path, Path]:
    """Build `build/runs/_build/html` from all runs in book/runs, no other notebooks.

    Returns:
        {path of each run: path of its HTML page}; without a run, nothing is built.

    Raises:
        RuntimeError: the build failed, see `notebooks.build_html`.
    """
    root = notebooks.ROOT
    (root / "build").mkdir(exist_ok=True)
    with FileLock(root / "build" / "runs.lock"):  # two runs may end at once
        known, paths = notebooks.names(root), sorted((root / "book" / "runs").glob("*.ipynb"))
        about = {path: notebooks.run_of(path) for path in paths}
        found = {
            path: nbformat.read(path, as_version=4)
            for path, run in about.items()
            if run and run["notebook"] in known
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
            add_comparison(notebook, notebooks.executed(notebook.metadata["rgnb"]["notebook"], root))
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


def add_comparison(notebook: nbformat.NotebookNode, of_the_book: Path) -> None:
    """Put the run's curves beside the book's, in place, below the first figure of curves in both.

    Curves match by their order, since parameters stand in their names; nothing is added where their numbers
    differ.
    """
    book = _curves(nbformat.read(of_the_book, as_version=4)) if of_the_book.exists() else {}
    matching = (
        (name, place, table, panels)
        for name, (place, table) in _curves(notebook).items()
        if name in book and (panels := _side_by_side(table, book[name][1]))
    )
    if (first := next(matching, None)) is None:
        return
    name, place, table, panels = first
    x, y = table.columns[3:5]
    with mpl.rc_context(figures.STYLE):
        figure, svg = figures.seed_lines(panels, x, x.replace("_", " "), y, shared=False), io.StringIO()
        figure.savefig(svg, format="svg", metadata={"Date": None})
    caption = "The curves of the figure above, yours beside the book's: every network, and their means."
    data = {"image/svg+xml": svg.getvalue(), "text/csv": figure._repr_mimebundle_()["text/csv"]}
    cell = nbformat.v4.new_code_cell(
        "# drawn when the book of runs was built",  # a cell without a source would not be shown
        outputs=[nbformat.v4.new_output("display_data", data)],
        metadata={
            "tags": ["remove-input"],
            "mystnb": {
                "figure": {"name": f"{name}-beside", "caption": caption},
                "image": {"alt": f"{y} against {x}: the means of this run's networks and of the book's."},
            },
        },
    )
    notebook.cells.insert(place + 1, cell)


def _curves(notebook: nbformat.NotebookNode) -> dict[str, tuple[int, pd.DataFrame]]:
    # Of every figure of `figures.seed_lines`: {its name: (the place of its cell, its numbers)}.
    return {
        name: (place, pd.read_csv(io.StringIO(text)))
        for place, cell in enumerate(notebook.cells)
        if (name := cell.metadata.get("mystnb", {}).get("figure", {}).get("name"))
        for output in cell.get("outputs", [])
        if (text := output.get("data", {}).get("text/csv", "")).startswith("panel,curve,seed,")
    }


def _side_by_side(yours: pd.DataFrame, book: pd.DataFrame) -> dict[str, dict[str, xr.DataArray]] | None:
    # Panels for `figures.seed_lines`; None where they do not match.
    x, y = yours.columns[3:5]

    def panels(who: str, table: pd.DataFrame) -> list[dict[str, xr.DataArray]]:
        return [
            {f"{who}, {curve}": rows.set_index(["seed", x])[y].to_xarray() for curve, rows in panel}
            for panel in (
                found.groupby("curve", sort=False) for _, found in table.groupby("panel", sort=False)
            )
        ]

    mine, theirs = panels("yours", yours), panels("book", book)
    if [*map(len, mine)] != [*map(len, theirs)]:
        return None
    return {title: a | b for title, a, b in zip(yours["panel"].unique(), mine, theirs, strict=True)}


def mark(notebook: nbformat.NotebookNode, page: str) -> str:
    """Mark a run's page, in place, as the reader's; figures and tables get names of their own.

    Returns its title.
    """
    made = notebook.metadata["rgnb"]
    name, changed = made["notebook"], made["parameters"]
    values = [f"{key} = {value!r}" for key, value in changed.items()] or ["# the book's own parameters"]
    named = {c.metadata.get("mystnb", {}).get("figure", {}).get("name") for c in notebook.cells} - {None}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = _renamed(cell.source, named, page)
        elif "figure" in cell.metadata.get("mystnb", {}):
            figure = cell.metadata["mystnb"]["figure"]
            for key in figure.keys() & {"name", "caption"}:
                figure[key] = _renamed(figure[key], named, page)
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
