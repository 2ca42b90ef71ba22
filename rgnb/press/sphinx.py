"""Sphinx extension of the book: what its theme leaves out or says wrongly."""

import json
import re
import shutil
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.transforms import SphinxTransform

FRONT = ("rank-collapse", "fig-collapse")  # the notebook and the figure of it that the front page shows
DESCRIPTION = 200  # letters of a page's first paragraph that search engines and previews show


def _link_repository(app, config):
    # One setting, `repository: url` in _config.yml, turns on the links to the repository and to Binder.
    if config.html_theme_options.get("repository_url"):
        binder = {"launch_buttons": {"binderhub_url": "https://mybinder.org"}}
        config.html_theme_options.update(binder, use_repository_button=True, use_issues_button=True)


def _figures(notebook):
    # The outputs of a notebook's cells that have a figure's name, each as {mime type: text}.
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        name = cell["metadata"].get("mystnb", {}).get("figure", {}).get("name")
        for output in cell.get("outputs", []) if name else []:
            yield name, {kind: "".join(text) for kind, text in output.get("data", {}).items()}


def _draw_front(app):
    # Taken from its page at every build, so that the front page cannot show another one.
    notebook, wanted = FRONT
    found = _figures(Path(app.srcdir, "executed", f"{notebook}.ipynb"))
    (svg,) = (d["image/svg+xml"] for name, d in found if name == wanted and "image/svg+xml" in d)
    Path(app.srcdir, "_static", "front.svg").write_text(svg, encoding="utf-8")


class _NumberTables(SphinxTransform):
    # A table that a cell gives a caption, as it would a figure, is "Table 3", not "Fig. 3".
    default_priority = 500  # before anything is numbered

    def apply(self, **kwargs):
        for figure in list(self.document.findall(nodes.figure)):
            for raw in [n for n in figure.findall(nodes.raw) if "<tbody>" in n.astext()]:
                rows = re.search(r"<thead>.*</tbody>", raw.astext(), re.DOTALL)[0]
                raw.children[:], raw["classes"] = [nodes.Text(rows)], []
                caption, bundle = figure.children[-1], figure.children[0]
                title = nodes.title("", "", *caption.children)
                labels = {key: figure[key] for key in ("ids", "names")}
                table = nodes.table("", title, bundle, classes=["dataframe"], **labels)
                figure.replace_self(table)
                for label in table["ids"]:
                    self.document.ids[label] = table


def _complete(app, doctree, page):
    # Images keep their place while they load; figures offer the numbers they draw.
    for image in doctree.findall(nodes.image):
        path = Path(app.srcdir, image["uri"])
        if path.suffix == ".svg" and (
            size := re.search(
                r'<svg[^>]* viewBox="0 0 ([\d.]+) ([\d.]+)"', path.read_text(encoding="utf-8")[:2000]
            )
        ):
            # In notebooks' SVG a unit is a point, of which 3 are 4 pixels.
            image["width"], image["height"] = (str(round(float(x) * 4 / 3)) for x in size.groups())
    _name_code(doctree, app.env.toc_fignumbers.get(page, {}))
    source = Path(app.env.doc2path(page))
    if app.builder.name != "html" or source.suffix != ".ipynb":
        return
    data = {name: d["text/csv"] for name, d in _figures(source) if "text/csv" in d}
    for figure in doctree.findall(nodes.figure):
        for name in [n for n in figure["names"] if n in data]:
            file = Path(app.outdir, "_data", f"{source.stem}-{name}.csv")
            file.parent.mkdir(exist_ok=True)
            file.write_text(data[name], encoding="utf-8")
            address = f"{'../' * page.count('/')}_data/{file.name}"
            link = f' <a class="figure-data" href="{address}" download>Data (CSV)</a>'
            figure.children[-1].append(nodes.raw("", link, format="html"))


def _name_code(doctree, numbers):
    # The bar over the folded code of a figure or a table says which one it makes.
    named = {
        label: f"{kind} {'.'.join(map(str, number))}"
        for kind, found in numbers.items()
        for label, number in found.items()
    }
    for cell in doctree.findall(nodes.container):
        makes = [named[label] for n in cell.findall(nodes.Element) for label in n["ids"] if label in named]
        if cell.get("nb_element") == "cell_code" and makes:
            for bar in cell.findall(
                lambda n: isinstance(n, nodes.Element) and n.get("prompt_show") == "Code"
            ):
                bar["prompt_show"] = f"Code of {' and '.join(makes)}"


def _mend(app, page, template, context, doctree):
    if "body" in context:
        context["body"] = _mend_body(context["body"])
    if doctree is not None and app.builder.name == "html":
        _describe(app, page, context, doctree)
    # The theme offers the executed notebook; a reader who wants to change a page wants its source.
    source = Path(app.srcdir, "notebooks", f"{Path(page).name}.md")
    for group in context.get("header_buttons", []) if source.exists() else []:
        if group.get("label") == "download-buttons":
            address = f"{context['pathto']('_sources', 1)}/{source.relative_to(app.srcdir)}"
            button = {"type": "link", "url": address, "icon": "fas fa-file", "label": "download-myst-button"}
            group["buttons"].insert(1, button | {"text": ".md", "tooltip": "Download MyST source"})


def _mend_body(body):
    # Docutils marks a bibliography as a list, and its entries as something that no list may contain.
    body = body.replace('role="doc-biblioentry"', 'role="listitem"')
    # Headers of tables say whether they are of columns or of rows; the empty corner is none.
    for part, scope in (("thead", "col"), ("tbody", "row")):
        body = re.sub(
            rf"<{part}>.*?</{part}>",
            lambda found, scope=scope: re.sub(r"<th(?=[ >])(?![^>]*scope)", f'<th scope="{scope}"', found[0]),
            body.replace("<th></th>", "<td></td>"),
            flags=re.DOTALL,
        )
    # Sizes as attributes: a browser takes the ratio of an image's sides from them before it is loaded.
    body = re.sub(r'style="width: (\d+)px; height: (\d+)px;"', r'width="\1" height="\2"', body)
    # Intervals don't break over lines.
    number = r"(-?[\d.]+|-?inf)"
    return re.sub(rf"(-?\d[\d.]*) \[{number}, {number}\]", r"\1&#160;[\2,&#160;\3]", body)


def _describe(app, page, context, doctree):
    # What search engines and previews show of a page, and how to cite it.
    title = app.env.titles[page].astext()
    first = next((p.astext() for p in doctree.findall(nodes.paragraph) if len(p.astext()) > 40), title)
    first = re.sub(r"\s+", " ", first)
    if len(first) > DESCRIPTION:
        first = first[:DESCRIPTION].rpartition(" ")[0] + " …"
    book = app.config.html_title
    tags = {"og:title": title, "og:type": "article", "og:site_name": book, "og:description": first}
    context["metatags"] += f'\n<meta name="description" content="{escape(first)}" />' + "".join(
        f'\n<meta property="{name}" content="{escape(text)}" />' for name, text in tags.items()
    )
    context["body"] += (
        f'<p class="cite-page">Cite this page: {escape(app.config.author)}, “{escape(title)}”, in '
        f"<cite>{escape(book)}</cite>, version {version('rgnb')}, {app.config.copyright}.</p>"
    )


def _finish(app, error):
    # The sources of pages are there to download; maps of the theme's scripts are for its own developers.
    if app.builder.name == "html" and error is None:
        sources = Path(app.outdir, "_sources", "notebooks")
        shutil.copytree(Path(app.srcdir, "notebooks"), sources, dirs_exist_ok=True)
        for file in Path(app.outdir, "_static").rglob("*.map"):
            file.unlink()


def setup(app: Any) -> dict[str, bool]:
    """Entry point that Sphinx calls."""
    app.add_transform(_NumberTables)
    app.connect("config-inited", _link_repository)
    app.connect("builder-inited", _draw_front)
    app.connect("doctree-resolved", _complete, priority=900)  # after the output of cells was chosen
    app.connect("html-page-context", _mend, priority=900)  # after the theme has made its buttons
    app.connect("build-finished", _finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
