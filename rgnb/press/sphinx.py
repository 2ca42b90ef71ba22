"""Sphinx extension of the book: what its theme leaves out or says wrongly."""

import json
import shutil
from pathlib import Path
from typing import Any

FRONT = ("rank-collapse", "fig-collapse")  # the notebook and the figure of it that the front page shows


def _link_repository(app, config):
    # One setting, `repository: url` in _config.yml, turns on the links to the repository and to Binder.
    if config.html_theme_options.get("repository_url"):
        binder = {"launch_buttons": {"binderhub_url": "https://mybinder.org"}}
        config.html_theme_options.update(binder, use_repository_button=True, use_issues_button=True)


def _draw_front(app):
    # Taken from its page at every build, so that the front page cannot show another one.
    notebook, name = FRONT
    cells = json.loads(Path(app.srcdir, "executed", f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    (cell,) = (c for c in cells if c["metadata"].get("mystnb", {}).get("figure", {}).get("name") == name)
    (svg,) = (o["data"]["image/svg+xml"] for o in cell["outputs"] if "image/svg+xml" in o.get("data", {}))
    Path(app.srcdir, "_static", "front.svg").write_text("".join(svg), encoding="utf-8")


def _mend(app, page, template, context, doctree):
    # Docutils marks a bibliography as a list, and its entries as something that no list may contain.
    if "body" in context:
        context["body"] = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')
    # The theme offers the executed notebook; a reader who wants to change a page wants its source.
    source = Path(app.srcdir, "notebooks", f"{Path(page).name}.md")
    for group in context.get("header_buttons", []) if source.exists() else []:
        if group.get("label") == "download-buttons":
            address = f"{context['pathto']('_sources', 1)}/{source.relative_to(app.srcdir)}"
            button = {"type": "link", "url": address, "icon": "fas fa-file", "label": "download-myst-button"}
            group["buttons"].insert(1, button | {"text": ".md", "tooltip": "Download MyST source"})


def _copy_sources(app, error):
    if app.builder.name == "html" and error is None:
        sources = Path(app.outdir, "_sources", "notebooks")
        shutil.copytree(Path(app.srcdir, "notebooks"), sources, dirs_exist_ok=True)


def setup(app: Any) -> dict[str, bool]:
    """Entry point that Sphinx calls."""
    app.connect("config-inited", _link_repository)
    app.connect("builder-inited", _draw_front)
    app.connect("html-page-context", _mend, priority=900)  # after the theme has made its buttons
    app.connect("build-finished", _copy_sources)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
