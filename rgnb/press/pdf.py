"""The book as one PDF: Sphinx's single page, printed by Chromium with the print rules of `book/_static/rgnb.css`.

It needs the extra `pdf`.
"""

import shutil

from rgnb import checks
from rgnb.press import notebooks

FOOTER = '<div style="width: 100%; text-align: center; font: 8px sans-serif; color: #555"><span class="pageNumber"></span></div>'
MARGIN = {"top": "16mm", "bottom": "18mm", "left": "20mm", "right": "20mm"}


def installed_browser():
    """Path of the Chromium or Chrome on this machine, None if there is none."""
    return next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)


def build(output=None):
    """Print the book to `_build/pdf/book.pdf` (or another root's) and return its path.

    Args:
        output: folder that gets `_build`, the checkout if None.

    Raises:
        RuntimeError: there is no Chromium, or the build failed.
    """
    from playwright.sync_api import sync_playwright

    chromium = installed_browser()
    if not chromium:
        raise checks.Failed(
            "there is no Chromium to print with; install it, on Debian or Ubuntu with: apt install chromium"
        )
    page = notebooks.build_html(output=output, builder="singlehtml")
    path = page.parents[1] / "pdf" / "book.pdf"
    path.parent.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(color_scheme="light")
        tab.goto(page.as_uri())
        tab.evaluate("MathJax.startup.promise")
        tab.emulate_media(media="print")
        tab.pdf(
            path=path, format="A4", margin=MARGIN, print_background=True, outline=True, tagged=True,
            display_header_footer=True, header_template="<span></span>", footer_template=FOOTER,
        )  # fmt: skip
        browser.close()
    return path
