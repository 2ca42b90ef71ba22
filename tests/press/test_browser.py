"""The built book as a reader sees it: Debian's Chromium, driven by Playwright, without a network."""

import os
import re
import subprocess
import sys
import threading
import unicodedata
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright
from pypdf import PdfReader

from rgnb.press import notebooks, pdf

pytestmark = pytest.mark.slow  # a browser opens every page of the HTML

PAGES = notebooks.pages()
WIDTHS = {"desktop": 1400, "tablet": 800, "phone": 390}
CHROMIUM = pdf.installed_browser()
if not CHROMIUM and not os.environ.get("CI"):
    pytest.skip(
        "no Chromium on this machine; install it to test the book in a browser", allow_module_level=True
    )


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield running
        running.close()


@pytest.fixture
def opened(browser, html):
    """Open a page of the book from its file; the network is refused, what goes wrong is recorded."""
    contexts = []

    def open_(name, width="desktop", theme="light", fragment=""):
        context = browser.new_context(viewport={"width": WIDTHS[width], "height": 900}, color_scheme=theme)
        contexts.append(context)
        context.set_default_timeout(15_000)
        page = context.new_page()
        page.trouble = []
        page.on("console", lambda message: message.type == "error" and page.trouble.append(message.text))
        page.on("pageerror", lambda error: page.trouble.append(str(error)))
        page.on("requestfailed", lambda request: page.trouble.append(f"failed: {request.url}"))
        page.on(
            "request",
            lambda request: (
                request.url.startswith(("file:", "data:", "blob:"))
                or page.trouble.append(f"outside: {request.url}")
            ),
        )
        page.goto((html / f"{name}.html").as_uri() + fragment)
        if page.locator(".math").count():
            page.evaluate("MathJax.startup.promise")
        return page

    yield open_
    for context in contexts:
        context.close()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_and_fits(opened, name, width):
    page = opened(name, width)
    assert not page.trouble
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert page.locator("mjx-container").count() >= page.locator("main .math").count()
    assert page.locator("mjx-merror").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[width]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_no_serious_accessibility_violation(opened, name, theme):
    page = opened(name, theme=theme)
    page.wait_for_timeout(250)  # the theme's colours fade in
    found = Axe().run(page, options={"resultTypes": ["violations"], "preload": False}).response["violations"]
    serious = {
        v["id"]: [n["target"] for n in v["nodes"]][:3]
        for v in found
        if v["impact"] in ("serious", "critical")
    }
    assert not serious


def test_the_theme_can_be_switched(opened):
    page = opened("intro")
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    for _ in range(3):  # light, dark and the system's own
        page.locator("button.theme-switch-button:visible").first.click()
        page.wait_for_timeout(300)
        if page.evaluate("getComputedStyle(document.body).backgroundColor") != before:
            return
    pytest.fail("the background stayed as it was")


def test_folded_code_opens(opened):
    page = opened("executed/rank-collapse")
    fold = page.locator("details.hide").first
    assert not fold.locator("pre").first.is_visible()
    fold.locator("summary").click()
    assert fold.locator("pre").first.is_visible()


def test_search_finds_kernel_drift(browser, html):
    handler = partial(SimpleHTTPRequestHandler, directory=html)
    handler.log_message = lambda *a: None
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/search.html?q=kernel+drift")
        page.wait_for_selector("#search-results li a")
        titles = page.locator("#search-results li a").all_inner_texts()
        context.close()
        server.shutdown()
    assert any("drift" in title.lower() for title in titles)


def test_the_explorer_answers_to_its_controls(opened):
    page = opened("executed/explorer")
    figures = page.locator("#explorer-app svg")
    assert figures.count() == 3
    selects = page.locator("#explorer-app select")
    for k in range(selects.count()):
        before, address = figures.evaluate_all("all => all.map(f => f.innerHTML)"), page.url
        select = selects.nth(k)
        select.focus()
        page.keyboard.press("ArrowDown")  # by keyboard alone
        assert figures.evaluate_all("all => all.map(f => f.innerHTML)") != before
        assert page.url != address
    again = opened("executed/explorer", fragment="#" + page.url.split("#")[1])
    assert again.locator("#explorer-app").inner_text() == page.locator("#explorer-app").inner_text()


def test_an_address_that_makes_no_sense_shows_the_first_choice(opened):
    page = opened("executed/explorer", fragment="#family=nobody&xi=%%%&view=")
    assert not page.trouble
    assert (
        page.locator("#explorer-app").inner_text()
        == opened("executed/explorer").locator("#explorer-app").inner_text()
    )


@pytest.mark.long
def test_the_book_prints_to_a_whole_pdf(tmp_path):
    # In a process of its own: one process drives one browser at a time.
    code = "import sys; from pathlib import Path; from rgnb.press import pdf; pdf.build(Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True)
    reader = PdfReader(tmp_path / "_build" / "pdf" / "book.pdf")
    pages = [page.extract_text() for page in reader.pages]
    chapters = {
        squeezed(entry.title): reader.get_destination_page_number(entry)
        for entry in reader.outline[1]
        if not isinstance(entry, list)
    }
    starts = [chapters[squeezed(title)] for title in titles()]
    assert starts == sorted(set(starts))  # every chapter begins a page, in the book's order
    opened = zip(titles(), starts, strict=True)
    assert all(squeezed(title) in squeezed(pages[start]) for title, start in opened)
    assert all(
        len(text) > 40 or page.images for text, page in zip(pages, reader.pages, strict=True)
    )  # no empty page
    text = " ".join(pages)
    assert "not supported" in text and "{glue" not in text
    assert {page.mediabox.width // 1 for page in reader.pages} == {595}  # A4


def squeezed(text):
    """Text without spaces and ligatures, which come and go where a line ends."""
    return re.sub(r"\s+", "", unicodedata.normalize("NFKC", text))


def titles():
    """Titles of all chapters after the front page, from their sources."""
    folder = notebooks.ROOT / "book"
    sources = [
        notebooks.source(p.removeprefix("executed/")) if p.startswith("executed/") else folder / f"{p}.md"
        for p in PAGES[1:]
    ]
    return [re.search(r"^# (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)[1] for path in sources]
