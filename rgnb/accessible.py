"""Sphinx extension of the book: mends what its theme's HTML says wrongly to screen readers."""


def _mend(app, page, template, context, doctree):
    # Docutils marks a bibliography as a list, and its entries as something that no list may hold.
    if "body" in context:
        context["body"] = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')


def setup(app):
    """Entry point that Sphinx calls."""
    app.connect("html-page-context", _mend)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
