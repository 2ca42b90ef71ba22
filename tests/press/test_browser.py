"""The built book as a reader sees it: Debian's Chromium, driven by Playwright, without a network."""

import csv
import io
import os
import re
import statistics
import subprocess
import sys
import threading
import unicodedata
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright
from pypdf import PdfReader

from rgnb.press import notebooks, pdf
from rgnb.study import questions

pytestmark = pytest.mark.slow  # a browser opens every page of the HTML

PAGES = notebooks.pages()
WIDTHS = {"desktop": 1280, "tablet": 768, "phone": 360}
INTERACTIVE = ("explorer", "coarse-graining")
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


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_fits_and_is_accessible(opened, name):
    page = opened(name)
    assert not page.trouble
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert page.locator("mjx-container").count() >= page.locator("main .math").count()
    assert page.locator("mjx-merror").count() == 0
    for width in WIDTHS.values():
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.set_viewport_size({"width": WIDTHS["desktop"], "height": 900})
    assert not serious(page)


def violations(page, **options):
    """What axe finds that is serious, {rule: some places}."""
    found = Axe().run(page, options={"resultTypes": ["violations"], "preload": False} | options)
    return {
        v["id"]: [n["target"] for n in v["nodes"]][:3]
        for v in found.response["violations"]
        if v["impact"] in ("serious", "critical")
    }


def serious(page):
    """What axe finds in the light theme, or else what colours decide in the dark."""
    if found := violations(page):
        return found
    page.add_style_tag(content="* { transition: none !important }")  # else colours fade in
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("document.documentElement.dataset.theme === 'dark'")
    return violations(page, runOnly=["color-contrast", "link-in-text-block"])


@pytest.mark.parametrize("name", INTERACTIVE)
@pytest.mark.parametrize("width", ["tablet", "phone"])
def test_an_interactive_page_is_accessible_on_smaller_screens(opened, name, width):
    assert not serious(opened(f"executed/{name}", width))


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


def drawn(page):
    return page.locator(".explorer svg").evaluate_all("all => all.map(f => f.outerHTML).join()")


def saved(page):
    """What the page's link to its numbers saves, as rows."""
    with page.expect_download() as download:
        page.locator(".explorer-data").click()
    return list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8"))))


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", INTERACTIVE)
def test_an_interactive_figure_answers_to_its_controls(opened, name, width, theme):
    page = opened(f"executed/{name}", width, theme)
    controls = page.locator(".explorer :is(select, input)")
    before = drawn(page)
    for k in reversed(range(controls.count())):  # by keyboard alone; the first one stays changed
        control, address = controls.nth(k), page.url
        last = control.evaluate("c => c.selectedIndex === c.length - 1")
        there, back = ("ArrowUp", "ArrowDown") if last else ("ArrowDown", "ArrowUp")
        control.press(there)
        assert drawn(page) != before and page.url != address
        if k:
            control.press(back)
            assert drawn(page) == before
        box = control.bounding_box()
        assert box["height"] >= 16 and box["x"] + box["width"] <= WIDTHS[width]
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[width]
    again = opened(f"executed/{name}", width, theme, "#" + page.url.split("#")[1])
    assert drawn(again) == drawn(page) and not page.trouble
    assert again.locator(".explorer").inner_text() == page.locator(".explorer").inner_text()
    sizes = page.locator(".explorer svg text").evaluate_all(
        "all => all.map(t => parseFloat(getComputedStyle(t).fontSize) * t.ownerSVGElement.getScreenCTM().a)"
    )
    assert min(sizes) >= 9


@pytest.mark.parametrize("name", INTERACTIVE)
def test_an_address_that_makes_no_sense_shows_the_first_choice(opened, name):
    page = opened(
        f"executed/{name}", fragment="#a-family=nobody&setting=x&depth=99&step=%%%&view=&toString=1"
    )
    assert not page.trouble
    assert (
        page.locator(".explorer").inner_text() == opened(f"executed/{name}").locator(".explorer").inner_text()
    )


def test_the_explorer_reads_values_under_the_pointer_and_saves_them(opened):
    page = opened("executed/explorer", fragment="#a-xi=1&b-training=&first=1&depth=6&view=token")
    figure = page.locator("[data-figure=rank]")
    assert figure.locator("output").inner_text().startswith("depth 6.")
    figure.scroll_into_view_if_needed()
    box = figure.locator("svg").bounding_box()
    page.mouse.move(box["x"] + 0.13 * box["width"], box["y"] + 0.5 * box["height"])
    assert figure.locator("output").inner_text().startswith("depth 1.")
    rows = [r for r in saved(page) if r["quantity"] == "rank" and r["step"] != "0"]
    assert {(r["setting"], r["correlation length"], r["view"]) for r in rows} == {("A", "1", "token")}
    assert len(rows) == len(questions.findings("sequel").seeds) * 6  # networks and depths
    mean = statistics.mean(float(r["value"]) for r in rows if r["depth"] == "1")
    assert f"A: {mean:.2f} [" in figure.locator("output").inner_text()


def test_a_collapse_that_is_not_defined_has_no_value(opened):
    # Masked positions are all alike at depth 0: a rank of 0 to start from.
    page = opened("executed/explorer", fragment="#b-training=&view=masked&first=0")
    assert "collapse C = no value" in page.locator(".explorer-summary").inner_text()
    assert {r["quantity"] for r in saved(page)} == {"rank", "drift", "cka"}


def test_the_explorer_keeps_its_axes(opened):
    ticks = {}
    for fragment in ("#a-xi=1&b-training=", "#a-xi=7&b-xi=1&step=300&untrained=hidden&first=1"):
        texts = opened("executed/explorer", fragment=fragment).locator("[data-figure=rank] .explorer-right")
        ticks[fragment] = texts.evaluate_all("all => all.map(t => [t.textContent, t.getAttribute('y')])")
    first, second = ticks.values()
    assert first == second and len(first) > 2


def test_the_explorer_goes_back_through_training(opened):
    page = opened("executed/explorer", fragment="#b-training=&step=300")
    assert {r["step"] for r in saved(page)} == {"0", "300"}
    assert "step 300:" in page.locator(".explorer-summary").inner_text()
    page.locator("select[name=view]").select_option("token")  # measured at the ends of training alone
    assert {r["step"] for r in saved(page)} == {"0"}


def test_modes_move_towards_their_ideal_as_the_slider_moves_through_depth(opened):
    page = opened("executed/coarse-graining", fragment="#depth=0")
    slider = page.locator("input[name=depth]")
    assert "alike" in page.locator("svg.shares").text_content()
    moved, bars = set(), {}
    for depth in range(1, 7):
        slider.press("ArrowRight")
        assert slider.get_attribute("aria-valuetext") == str(depth)
        moved.add(page.locator("[data-moves=arrow]").get_attribute("transform"))
        bars[depth] = page.locator("svg.shares rect.explorer-b").first.bounding_box()["height"]
    assert len(moved) == 6 and bars[6] > bars[1]
    rows = [r for r in saved(page) if r["depth"] == "6" and r["modes"] == "1"]
    lens = statistics.mean(float(r["lens"]) for r in rows)
    cells = page.locator(".explorer tbody tr").first.locator("td").all_inner_texts()
    assert cells[2].startswith(f"{lens:.2f} [") and cells[3] == f"{float(rows[0]['ideal']):.2f}"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_figures_suit_the_theme(opened, theme):
    page = opened("executed/coarse-graining", theme=theme)
    image = page.locator("main figure img").first
    page.wait_for_timeout(250)
    png = image.screenshot()
    shade = page.evaluate("getComputedStyle(document.body).backgroundColor")
    corner = page.evaluate(
        """async (bytes) => {
            const image = await createImageBitmap(new Blob([new Uint8Array(bytes)]));
            const context = new OffscreenCanvas(9, 9).getContext("2d");
            context.drawImage(image, 0, 0);
            return [...context.getImageData(4, 4, 1, 1).data].slice(0, 3);
        }""",
        list(png),
    )
    page_shade = [int(c) for c in re.findall(r"\d+", shade)[:3]]
    assert max(abs(a - b) for a, b in zip(corner, page_shade, strict=True)) <= 2


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
    further = yaml.safe_load((notebooks.ROOT / "_toc.yml").read_text())["parts"][4]
    assert further["caption"] == "Further questions"  # where the reader's part ends, one paper
    assert starts[PAGES.index(further["chapters"][0]["file"]) - 1] <= 40
    opened = zip(titles(), starts, strict=True)
    assert all(squeezed(title) in squeezed(pages[start]) for title, start in opened)
    assert all(
        len(text) > 40 or page.images for text, page in zip(pages, reader.pages, strict=True)
    )  # no empty page
    text = " ".join(pages)
    assert "not supported" in text and "{glue" not in text
    assert {page.mediabox.width // 1 for page in reader.pages} == {595}  # A4


def squeezed(text):
    """Text with plain quotation marks, without spaces and ligatures, which come and go where a line ends."""
    return re.sub(r"\s+", "", unicodedata.normalize("NFKC", text)).replace("’", "'")


def titles():
    """Titles of all chapters after the front page, from their sources."""
    folder = notebooks.ROOT / "book"
    sources = [
        notebooks.source(p.removeprefix("executed/")) if p.startswith("executed/") else folder / f"{p}.md"
        for p in PAGES[1:]
    ]
    return [re.search(r"^# (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)[1] for path in sources]
