import ast
import io
import json
import re
import shutil
import tomllib
from urllib.parse import unquote, urlsplit

import jupytext
import nbformat
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml
from bs4 import BeautifulSoup

from rgnb.model import MIXINGS
from rgnb.press import notebooks, record, runs
from rgnb.press.cli import main
from rgnb.study import Experiment
from rgnb.study.store import store

pytestmark = pytest.mark.slow  # most of them read the HTML, which takes a minute to build

ROOT = notebooks.ROOT
PAGES = notebooks.pages()


def soup(html, page):
    return BeautifulSoup((html / f"{page}.html").read_text(encoding="utf-8"), "html.parser")


def test_the_table_of_contents_lists_the_notebooks_that_exist():
    assert sorted(notebooks.names()) == sorted(
        path.stem for path in (ROOT / "book" / "notebooks").glob("*.md")
    )
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


def test_every_executed_notebook_has_a_record():
    assert notebooks.names()[-1] == "record"  # it reads those of the others, so it is executed last
    table = record.notebooks_table()
    assert list(table.index) == notebooks.names()
    assert table.drop(columns="seconds").map(bool).all(axis=None)


def test_every_result_has_its_provenance():
    table = record.results_table(ROOT / "results")
    hours = record.hours_table(table)
    assert hours["entries"].sum() == table["entries"].sum() and hours.iloc[0, 1:].sum() > 1
    assert {
        "single networks, token mixing",
        "single networks, no mixing",
        "mode_retention",
        "sweep robustness",
        "sweep laws",
    } <= set(hours.index)
    again = ["anatomy", "mode_retention", "perturbations", "sweep transformers-halves"]  # of networks above
    assert (hours.loc[again, "core hours, training"] == 0).all()
    assert hours.loc["coupling", "core hours, training"] > 1  # of networks that are measured for nothing else
    assert hours.loc["sweep robustness", "entries"] == 1248
    assert len(table) and (table["entries"] > 0).all()
    assert table[["device", "torch", "date", "commit"]].map(bool).all(axis=None)


@pytest.mark.parametrize("mixing", MIXINGS)
def test_results_of_every_kind_of_mixing_are_counted_by_its_name(mixing):
    setting = Experiment.profile(mixing=mixing, families=["hierarchical_pair"]).settings()[0]
    assert record._kind(setting.path(ROOT, 0).name) == f"single networks, {record.MIXING[mixing]}"


def test_results_made_again_are_compared_with_the_stored_ones(tmp_path):
    for folder, last in {"book": 4.0, "again": 4.5}.items():
        (tmp_path / folder).mkdir()
        store(
            xr.Dataset({"rank": ("depth", [3.0, np.nan, last]), "family": ("depth", ["a", "b", folder])}),
            tmp_path / folder / "x-1.nc",
        )
    store(xr.Dataset({"rank": ("depth", [9.0])}), tmp_path / "again" / "y-2.nc")  # not in the book
    found = record.deviations(tmp_path / "again", tmp_path / "book")
    assert found.to_dict("index") == {"rank": {"files": 1, "largest difference": 0.5, "largest size": 4.0}}
    assert record.deviations(tmp_path / "book", ROOT / "results").empty
    more = xr.Dataset({"rank": ("depth", [3.0, 2.0, 4.0])})  # a value where the book has none
    store(more, tmp_path / "again" / "x-1.nc")
    found = record.deviations(tmp_path / "again", tmp_path / "book")
    assert found.loc["rank", "largest difference"] == np.inf


def test_a_book_made_again_is_described_beside_the_stored_one(tmp_path):
    root = notebooks.copy_book(tmp_path / "again", ["network", "kernel-drift"])
    page = notebooks.executed("kernel-drift", root)
    status = notebooks.glued(page)["drift-answer-short-cosine"]
    page.write_text(
        page.read_text(encoding="utf-8").replace(f"'{status}'", "'something else'"), encoding="utf-8"
    )
    stored = sorted((ROOT / "results").glob("hierarchical-1-none-mask-seed*.nc"))[:2]
    (root / "results").mkdir()
    for path in stored:
        shutil.copy(path, root / "results")
    found = record.reproduction(["network", "kernel-drift"], root, root / "results")
    changed = [row for row in found["values"] if row[2] != row[3]]
    assert len(found["values"]) > 5 and changed and {tuple(row[:1]) for row in changed} == {("kernel-drift",)}
    assert [
        "kernel-drift",
        notebooks.in_words("drift-answer-short-cosine"),
        status,
        "something else",
    ] in changed
    assert (
        found["entries"] == 2
        and found["core hours"] >= 0
        and found["made"]["notebooks"] == ["network", "kernel-drift"]
    )
    rank = found["deviations"]["effective_rank"]
    assert rank["files"] == 2 and rank["largest difference"] == 0 < rank["largest size"]
    assert json.loads(json.dumps(found)) == found


def test_a_book_is_made_again_page_by_page(tmp_path, monkeypatch, capsys):
    into = tmp_path / "again"
    monkeypatch.setenv("RGNB_RESULTS", str(into / "results"))
    monkeypatch.setattr(notebooks, "build_html", lambda root: root / "index.html")

    def described():
        return json.loads((into / "reproduced.json").read_text(encoding="utf-8"))["made"]["notebooks"]

    assert main(["build", "--into", str(into), "performance"]) == 0
    assert (
        described() == ["performance"]
        and "Verdicts and numbers are the book's own." in capsys.readouterr().out
    )
    executed = {path.stem: path.read_bytes() for path in (into / "book" / "executed").iterdir()}
    assert set(executed) == set(notebooks.names())
    assert {name for name in executed if executed[name] != notebooks.executed(name).read_bytes()} <= {
        "performance"
    }
    page = notebooks.executed("performance", into)
    page.write_text(page.read_text(encoding="utf-8").replace("peers", "PEERS"), encoding="utf-8")
    assert main(["build", "--into", str(into), "reliability"]) == 0
    assert described() == ["performance", "reliability"] and "PEERS" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [name for name in notebooks.names() if name != "own"])  # which is about code
def test_code_is_folded_and_parameters_stay_open(name):
    hidden = {"hide-input", "remove-cell", "remove-input"}
    cells = [c for c in jupytext.read(notebooks.source(name)).cells if c.cell_type == "code"]
    tags = [c.metadata.get("tags", []) for c in cells]
    shown = [t for t in tags if not hidden & set(t)]
    # The explorer has controls of its own and folds its parameters, too.
    assert shown == [["parameters"]] * (bool(notebooks.parameters(name)) and name != "explorer")


def test_every_reference_is_cited_and_every_citation_resolves():
    bibliography = set(
        re.findall(r"^@\w+\{([^,]+),", (ROOT / "book" / "references.bib").read_text(), re.MULTILINE)
    )
    pages = [
        notebooks.source(p.removeprefix("executed/"))
        if p.startswith("executed/")
        else ROOT / "book" / f"{p}.md"
        for p in PAGES
    ]
    cited = {
        key.strip()
        for p in pages
        for keys in re.findall(r"\{cite\}`([^`]+)`", p.read_text())
        for key in keys.split(",")
    }
    assert cited == bibliography


def test_every_public_name_is_in_the_reference(html):
    text = (html / "api.html").read_text(encoding="utf-8")
    wings = {"": "chains masking model training randomness", "metrics.": "ranks similarity views moments"}
    wings |= {
        "verdicts.": "intervals measures findings first_round hypotheses robustness",
        "study.": "experiment sweep questions probes anatomy models",
    }
    wings |= {"press.": "figures tables answers"}
    for module in (f"rgnb.{wing}{room}" for wing, rooms in wings.items() for room in rooms.split()):
        source = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
        for node in source.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert f'id="{module}.{node.name}"' in text
                assert ast.get_docstring(node)


def test_citation_file_agrees_with_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert "arXiv:2606.10324" in str(citation["references"])
    assert f"version = {{{project['version']}}}" in (ROOT / "book" / "references.md").read_text()


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
def test_images_keep_their_place_while_they_load(html, page):
    for image in soup(html, page).select("main img[src$='.svg']"):
        drawn = (html / f"{page}.html").parent.joinpath(unquote(image["src"])).read_text(encoding="utf-8")
        width, height = map(float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawn).groups())
        assert int(image["width"]) / int(image["height"]) == pytest.approx(width / height, rel=0.01)


@pytest.mark.parametrize("name", notebooks.names())
def test_figures_offer_the_numbers_that_they_draw(html, name):
    cells = nbformat.read(notebooks.executed(name), as_version=4).cells
    named = {c.metadata.get("mystnb", {}).get("figure", {}).get("name"): c.get("outputs", []) for c in cells}
    data = {
        n: o.data["text/csv"]
        for n, outputs in named.items()
        for o in outputs
        if "text/csv" in o.get("data", {})
    }
    offered = soup(html, f"executed/{name}").select("figure:has(a.figure-data)")
    assert {figure["id"] for figure in offered} == set(data)
    assert data or name != "coarse-graining"
    for figure in offered:
        file = (html / "executed" / figure.select_one("a.figure-data")["href"]).resolve()
        assert file.read_text(encoding="utf-8") == data[figure["id"]]


@pytest.mark.parametrize("page", PAGES)
def test_pages_say_what_they_hold_and_how_to_cite_them(html, page):
    here = soup(html, page)
    title = here.select_one("main h1").get_text().rstrip("#\n ")
    (described,) = here.select("meta[name=description]")
    assert 20 < len(described["content"]) <= 205
    shown = {tag["property"]: tag["content"] for tag in here.select("meta[property^='og:']")}
    assert shown["og:description"] == described["content"] and shown["og:title"] == title
    (cited,) = here.select(".cite-page")
    assert f"“{title}”, in Rank collapse in residual MLPs" in cited.get_text()


@pytest.mark.parametrize("page", PAGES)
def test_tables_say_what_their_headers_head(html, page):
    for table in soup(html, page).select("main table"):
        scopes = {part: {th.get("scope") for th in table.select(f"{part} th")} for part in ("thead", "tbody")}
        assert scopes["thead"] <= {"col"} and scopes["tbody"] <= {"row"}
        assert not re.search(r"\d \[-?[\d.]+, ", table.get_text())  # an interval could break over lines


@pytest.mark.parametrize("name", notebooks.names())
def test_tables_with_a_caption_are_numbered_as_tables(html, name):
    cells = nbformat.read(notebooks.executed(name), as_version=4).cells
    named = {c.metadata.get("mystnb", {}).get("figure", {}).get("name"): c.get("outputs", []) for c in cells}
    wanted = {
        n: o.data["text/html"] for n, outputs in named.items() if n for o in outputs if "<tbody>" in str(o)
    }
    here = soup(html, f"executed/{name}")
    for label, table in wanted.items():
        shown = here.select_one(f"table#{label}")
        assert re.match(r"Table \d+ ", shown.caption.get_text())
        cells = [
            [cell.get_text() for cell in t.select("tr > *")]
            for t in (shown, BeautifulSoup(table, "html.parser"))
        ]
        assert len(cells[0]) and [c.replace("\xa0", " ") for c in cells[0]] == cells[1]
    assert not here.select("table > div, figure table")


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
            assert re.search(
                f"""(id|name)=["']{re.escape(unquote(url.fragment))}["']""",
                target.read_text(encoding="utf-8"),
            ), link


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
        assert not re.search(r"""(url\(|@import)\s*["']?(https?:)?//""", sheet.read_text(encoding="utf-8")), (
            sheet
        )


@pytest.mark.parametrize("page", PAGES)
def test_maths_is_set_by_one_script_of_the_book(html, page):
    here = soup(html, page)
    scripts = [s["src"] for s in here.select("script[src]") if "mathjax" in s["src"]]
    assert len(scripts) == bool(here.select(".math"))


def test_the_front_page_shows_the_figure_of_the_page_it_names(html):
    cells = nbformat.read(notebooks.executed("rank-collapse"), as_version=4).cells
    drawn = [
        o.data["image/svg+xml"]
        for cell in cells
        for o in cell.get("outputs", [])
        if "image/svg+xml" in o.get("data", {})
    ]
    figure = soup(html, "intro").select_one("main figure")
    assert (html / figure.img["src"]).read_text(encoding="utf-8") == drawn[0]
    assert figure.select_one("figcaption a[href='executed/rank-collapse.html']")


def test_the_front_page_is_short(html):
    article = soup(html, "intro").select_one("main article")
    for aside in article.select("table, figure, .headerlink"):
        aside.decompose()
    text = article.get_text(" ", strip=True)
    words = [w for w in text[: text.index("Cite this page")].split() if any(map(str.isalnum, w))]
    assert 200 < len(words) <= 400


def test_what_the_front_page_says_in_words_is_what_its_numbers_say():
    glued = {name: notebooks.glued(notebooks.executed(name)) for name in notebooks.names()}

    def low_and_high(page, key):
        return [float(x) for x in re.search(r"\[(.*), (.*)\]", glued[page][key]).groups()]

    for recipe in ("cosine", "sequel"):
        assert low_and_high("selectivity", f"selectivity-{recipe}-difference-centred-0")[0] > 0.1
        assert low_and_high("kernel-drift", f"drift-share-short-{recipe}")[0] > 0.8
        assert float(glued["blind"][f"noise-{recipe}-gradient-mean"]) < float(
            glued["blind"][f"noise-{recipe}-32-mean"]
        )
    ranks, shares, kinds = glued["rank-collapse"], glued["coarse-graining"], glued["groups"]
    ends = [
        [float(x) for x in ranks[f"collapse-last-{key}"].split(" and ")]
        for key in ("trained-short", "trained-long", "untrained-short")
    ]
    assert max(ends[0]) < min(ends[1]) and max(ends[1]) < min(ends[2])
    assert float(ranks["collapse-first-rank"]) < min(ends[2])
    ideal, lens, stream = (float(shares[f"coarse-{name}-long"]) for name in ("ideal", "lens", "stream"))
    assert abs(lens - ideal) < 0.05 < ideal - stream
    assert kinds["groups-worse"] == kinds["groups-cells"]


def test_the_table_of_profiles_is_the_code_s():
    text = (notebooks.ROOT / "book" / "reproducing.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", text, re.MULTILINE)
    assert [name for name, _ in rows] == ["paper", "small", "quick"]
    for name, cells in rows:
        e = Experiment.profile(name)
        sizes = (
            e.model.n_states,
            e.model.length,
            e.model.width,
            e.training.batch,
            e.training.steps,
            e.sequences,
        )
        found = [int(re.sub(r"\D", "", cell)) for cell in cells.split(" | ")]
        assert tuple(found) == sizes and e.model.depth == 6


def test_the_bar_over_folded_code_names_the_figure_below_it(html):
    named = 0
    for name in notebooks.names():
        for cell in soup(html, f"executed/{name}").select("div.cell"):
            numbers = [n.get_text().strip().rstrip(".") for n in cell.select(".caption-number")]
            bars = [bar.get_text() for bar in cell.select("details .collapsed")]
            if numbers and bars:
                kind, number = numbers[0].replace("Fig.", "figure").lower().split()
                assert bars[0] == f"Code of {kind} {number}"
                named += 1
    assert named > 50


@pytest.mark.parametrize("name", notebooks.names())
def test_every_notebook_page_offers_notebook_and_source(html, name):
    links = [a["href"] for a in soup(html, f"executed/{name}").select(".dropdown-download-buttons a[href]")]
    offered = {path.suffix: path for path in ((html / "executed" / link).resolve() for link in links)}
    assert set(offered) == {".ipynb", ".md"}
    assert offered[".md"].read_bytes() == notebooks.source(name).read_bytes()
    assert offered[".ipynb"].read_bytes() == notebooks.executed(name).read_bytes()


@pytest.fixture
def copy(tmp_path):
    """A copy of the book with its executed notebooks, to break."""
    return notebooks.copy_book(tmp_path / "copy", notebooks.names())


@pytest.fixture
def short(copy):
    """The book with two pages of a line each, as builds of the whole take long."""
    contents = "format: jb-book\nroot: intro\nchapters:\n  - file: executed/chains\n"
    for folder in (copy, copy / "book"):
        (folder / "_toc.yml").write_text(contents)
    (copy / "book" / "intro.md").write_text("# Front page\n")
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Chains")])
    nbformat.write(page, copy / "book" / "executed" / "chains.ipynb")
    return copy


def test_a_warning_fails_the_build_and_is_shown(short):
    with (short / "book" / "intro.md").open("a") as page:
        page.write("\n{cite}`nobody1900`\n")
    with pytest.raises(RuntimeError, match="nobody1900"):
        notebooks.build_html(short)


def test_pages_set_no_labels_but_those_of_figures_and_tables():
    # Others would stand twice in a book with a run of the same page, which renames figures and tables alone.
    for name in notebooks.names():
        source = notebooks.source(name).read_text(encoding="utf-8")
        assert not re.search(r"^\([\w-]+\)=|^:(?:name|label):", source, re.MULTILINE), name


def test_the_runs_of_a_reader_are_marked_as_theirs(copy, monkeypatch):
    monkeypatch.setattr(notebooks, "ROOT", copy)
    run = nbformat.read(copy / "book" / "executed" / "chains.ipynb", as_version=4)
    run.metadata["rgnb"]["parameters"] = {"label": "it's `odd`: #1"}
    (copy / "book" / "runs").mkdir()
    nbformat.write(nbformat.v4.new_notebook(), copy / "book" / "runs" / "of-something-else.ipynb")
    (copy / "book" / "runs" / "cut-short.ipynb").write_text("")
    run.metadata["rgnb"]["notebook"] = "a-page-that-was-removed"
    nbformat.write(run, copy / "book" / "runs" / "old.ipynb")
    run.metadata["rgnb"]["notebook"] = "chains"
    made = run.metadata["rgnb"].pop("record")
    nbformat.write(run, copy / "book" / "runs" / "without-a-record.ipynb")
    run.metadata["rgnb"]["record"] = made
    assert runs.build() == {}
    kept, second = (copy / "book" / "runs" / f"{name}.ipynb" for name in ("chains-label=odd", "selectivity"))
    nbformat.write(run, kept)
    shutil.copy(copy / "book" / "executed" / "selectivity.ipynb", second)
    before = {path: path.read_bytes() for path in (copy / "book").rglob("*.*") if path.is_file()}

    pages = runs.build()
    assert list(pages) == [kept, second]
    assert before == {path: path.read_bytes() for path in (copy / "book").rglob("*.*") if path.is_file()}
    html = copy / "build" / "runs" / "_build" / "html"
    assert {page.parent for page in pages.values()} == {html / "executed"}
    page = soup(html, pages[kept].relative_to(html).with_suffix(""))
    assert page.find("h1").get_text().startswith("Chains with a known spectrum (your run)")
    note = page.select_one("main .admonition.warning")
    assert 'label = "it\'s `odd`: #1"' in note.get_text() and note.select_one("a[href='chains.html']")
    figures = {figure["id"] for figure in page.select("main figure[id]")}
    assert figures and figures == {
        f"{pages[kept].stem}-{f['id']}" for f in soup(html, "executed/chains").select("main figure[id]")
    }
    other = soup(html, pages[second].relative_to(html).with_suffix(""))
    beside = other.select_one(f"main figure[id='{pages[second].stem}-fig-selectivity-beside']")
    assert beside.select_one("img") and "yours beside the book" in beside.get_text()
    assert "the book's own parameters" in other.select_one("main .admonition.warning").get_text()
    assert "Your own runs" in soup(html, "intro").get_text()
    assert "(your run)" not in soup(html, "executed/chains").find("h1").get_text()


def curves(panels):
    """A notebook with a figure of curves, {panel: {curve: {seed: values by depth}}}."""
    rows = [
        (panel, curve, seed, depth, value)
        for panel, found in panels.items()
        for curve, seeds in found.items()
        for seed, values in seeds.items()
        for depth, value in enumerate(values)
    ]
    columns = ["panel", "curve", "seed", "depth", "rank"]
    text = pd.DataFrame(rows, columns=columns).to_csv(index=False)
    output = nbformat.v4.new_output("display_data", {"text/csv": text})
    cell = nbformat.v4.new_code_cell(outputs=[output], metadata={"mystnb": {"figure": {"name": "fig-x"}}})
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# X"), cell])


def test_curves_of_a_run_stand_beside_the_books(tmp_path):
    book, path = curves({"short": {"ξ = 1": {2: [4.0, 2.0], 3: [5.0, 1.0]}}}), tmp_path / "x.ipynb"
    nbformat.write(book, path)
    run = curves({"short": {"ξ = 3": {2: [8.0, 7.0]}}})
    runs.add_comparison(run, path)
    (added,) = run.cells[2:]
    assert added.metadata["mystnb"]["figure"]["name"] == "fig-x-beside"
    assert "<svg" in added.outputs[0]["data"]["image/svg+xml"]
    found = pd.read_csv(io.StringIO(added.outputs[0]["data"]["text/csv"]))
    means = found.groupby(["curve", "depth"])["rank"].mean()
    assert means.to_dict() == {
        ("yours, ξ = 3", 0): 8.0, ("yours, ξ = 3", 1): 7.0, ("book, ξ = 1", 0): 4.5, ("book, ξ = 1", 1): 1.5,
    }  # fmt: skip
    other = curves({"short": {"ξ = 1": {2: [4.0]}, "ξ = 2": {2: [1.0]}}})
    runs.add_comparison(other, path)
    runs.add_comparison(run, tmp_path / "missing.ipynb")
    assert len(other.cells) == 2 and len(run.cells) == 3


def test_one_setting_turns_on_the_links_to_repository_and_binder(short, html):
    assert "mybinder" not in (html / "executed" / "chains.html").read_text(encoding="utf-8")
    config = yaml.safe_load((short / "_config.yml").read_text())
    assert not config["repository"]["url"]
    config["repository"]["url"] = "https://github.com/someone/rgnb"
    (short / "_config.yml").write_text(yaml.safe_dump(config))
    links = [a["href"] for a in soup(notebooks.build_html(short).parent, "executed/chains").select("a[href]")]
    assert "https://github.com/someone/rgnb" in links
    assert any(
        link.startswith("https://mybinder.org/v2/gh/someone/rgnb/main")
        and link.endswith("book/executed/chains.ipynb")
        for link in links
    )


def test_a_copy_of_the_book_holds_its_sources_and_nothing_executed(tmp_path):
    root = notebooks.copy_book(tmp_path / "copy")
    assert notebooks.pages(root) == PAGES
    assert (root / "book" / "notebooks" / f"{notebooks.names()[0]}.md").exists()
    assert not (root / "book" / "executed").exists()
    assert notebooks.copy_book(root, ["chains"]) == root
    assert [path.name for path in (root / "book" / "executed").iterdir()] == ["chains.ipynb"]
