import re
import shutil
from urllib.parse import unquote, urlsplit

import jupytext
import nbformat
import pytest
from bs4 import BeautifulSoup

from rgnb import notebooks

ROOT = notebooks.ROOT
PAGES = notebooks.pages()


@pytest.fixture(scope="session")
def html(tmp_path_factory):
    """The book's HTML, built from the committed executed notebooks."""
    return notebooks.build_html(output=tmp_path_factory.mktemp("book")).parent


def soup(html, page):
    return BeautifulSoup((html / f"{page}.html").read_text(encoding="utf-8"), "html.parser")


def test_the_table_of_contents_lists_the_notebooks_that_exist():
    assert sorted(notebooks.names()) == sorted(path.stem for path in (ROOT / "book" / "notebooks").glob("*.md"))
    assert sorted(notebooks.names()) == sorted(path.stem for path in (ROOT / "book" / "executed").iterdir())


@pytest.mark.parametrize("name", notebooks.names())
def test_executed_notebooks_are_clean_and_of_the_present_source(name):
    executed = nbformat.read(ROOT / "book" / "executed" / f"{name}.ipynb", as_version=4)
    sources = [(cell.cell_type, cell.source) for cell in jupytext.read(notebooks.source(name)).cells]
    assert [(cell.cell_type, cell.source) for cell in executed.cells] == sources, "run `make book`"
    assert all(cell.execution_count for cell in executed.cells if cell.cell_type == "code")
    again = executed.copy()
    notebooks.clean(again)
    assert again == executed


@pytest.mark.parametrize("page", PAGES)
def test_pages_are_whole_and_every_reference_is_resolved(html, page):
    main = soup(html, page).find("main") or soup(html, page)
    assert main.find("h1")
    for code in main(["pre", "code"]):
        code.decompose()
    text = main.get_text()
    assert len(text) > 200
    for mark in ("{glue", "{numref", "{cite", "{doc", "{ref", "glue:", "Traceback", "??"):
        assert mark not in text
    assert not main.select(".problematic, .system-message, .error, .stderr")


@pytest.mark.parametrize("page", PAGES)
def test_every_image_exists_and_is_described(html, page):
    for image in soup(html, page)("img"):
        assert (html / f"{page}.html").parent.joinpath(unquote(image["src"])).is_file()
        assert image.get("alt") and not image["alt"].endswith((".svg", ".png"))


@pytest.mark.parametrize("page", PAGES)
def test_every_link_inside_the_book_leads_somewhere(html, page):
    here = html / f"{page}.html"
    for link in soup(html, page).select("a[href]"):
        url = urlsplit(link["href"])
        if url.scheme or not (url.path or url.fragment):
            continue
        target = (here.parent / unquote(url.path)) if url.path else here
        assert target.is_file(), link
        if url.fragment and target.suffix == ".html":
            assert re.search(f"""(id|name)=["']{re.escape(unquote(url.fragment))}["']""", target.read_text(encoding="utf-8")), link


@pytest.mark.parametrize("page", PAGES)
def test_pages_load_nothing_from_elsewhere(html, page):
    loaded = [
        tag.get(attribute)
        for tag in soup(html, page).select("script, link, img, iframe, source, video, audio, object, embed")
        for attribute in ("src", "href", "data", "srcset")
        if tag.get(attribute)
    ]
    assert loaded
    here = (html / f"{page}.html").parent
    for address in loaded:
        assert not urlsplit(address).netloc, address
        assert (here / unquote(urlsplit(address).path)).is_file(), address
    for script in soup(html, page)("script"):
        assert not re.search(r"https?://", script.get_text())


def test_style_sheets_load_nothing_from_elsewhere(html):
    for sheet in html.rglob("*.css"):
        assert not re.search(r"""(url\(|@import)\s*["']?(https?:)?//""", sheet.read_text(encoding="utf-8")), sheet


@pytest.mark.parametrize("page", PAGES)
def test_maths_is_set_by_one_script_of_the_book(html, page):
    here = soup(html, page)
    scripts = [s["src"] for s in here.select("script[src]") if "mathjax" in s["src"]]
    assert len(scripts) == bool(here.select(".math"))


@pytest.fixture
def copy(tmp_path):
    """A copy of the book with its executed notebooks, to break."""
    root = notebooks.copy_book(tmp_path / "copy")
    shutil.copytree(ROOT / "book" / "executed", root / "book" / "executed")
    return root


def test_a_warning_fails_the_build_and_is_shown(copy):
    with (copy / "book" / "references.md").open("a") as page:
        page.write("\n{cite}`nobody1900`\n")
    with pytest.raises(RuntimeError, match="nobody1900"):
        notebooks.build_html(copy)


def test_a_copy_of_the_book_holds_its_sources_and_nothing_executed(tmp_path):
    root = notebooks.copy_book(tmp_path / "copy")
    assert notebooks.pages(root) == PAGES
    assert (root / "book" / "notebooks" / f"{notebooks.names()[0]}.md").exists()
    assert not (root / "book" / "executed").exists()
    assert notebooks.copy_book(root) == root
