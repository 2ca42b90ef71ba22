"""The book as one PDF (extra `pdf`): Sphinx's single page, printed by Chromium as `rgnb.css` says."""

import shutil
from pathlib import Path

from rgnb import checks
from rgnb.press import notebooks

FOOTER = (
    '<div style="width: 100%; text-align: center; font: 8px sans-serif; color: #555">'
    '<span class="pageNumber"></span></div>'
)


def installed_browser() -> str | None:
    """Path of Chromium or Chrome on this machine; None if there is none."""
    return next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)


def build(output: Path | None = None) -> Path:
    """Print the book to `_build/pdf/book.pdf` (or another root's) and return its path.

    Args:
        output: folder that gets `_build`; None: the checkout.

    Raises:
        RuntimeError: there is no Chromium, or the build failed.
    """
    from playwright.sync_api import sync_playwright

    chromium = installed_browser()
    if not chromium:
        advice = "install it, on Debian or Ubuntu with: apt install chromium"
        raise checks.Failed(f"there is no Chromium to print with; {advice}")
    page = notebooks.build_html(output=output, builder="singlehtml")
    path = page.parents[1] / "pdf" / "book.pdf"
    path.parent.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(color_scheme="light")
        tab.goto(page.as_uri(), timeout=0)  # however slow the machine is
        tab.evaluate("MathJax.startup.promise")
        tab.emulate_media(media="print")
        tab.pdf(
            path=path, format="A4", print_background=True, outline=True, tagged=True,
            margin={"top": "14mm", "bottom": "16mm", "left": "18mm", "right": "18mm"},
            display_header_footer=True, header_template="<span></span>", footer_template=FOOTER,
        )  # fmt: skip
        browser.close()
    return path
