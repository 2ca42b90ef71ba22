"""The interactive figures carry the numbers of the results, whatever their scripts make of them."""

import json
import re
from itertools import product

import numpy as np
import pytest
import xarray as xr
from bs4 import BeautifulSoup
from small import small

from rgnb.press import coarse_graining, explorer
from rgnb.study.anatomy import anatomy

CHANGES = {"steps": 100, "snapshots": (50,), "seeds": (3, 5)}
TRAINED = {"tokens": ["ring", "sticky"], "none": ["sticky"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def results(folder):
    return {
        mixing: [small(**CHANGES, families=[f], mixing=mixing).run(folder, False) for f in families]
        for mixing, families in TRAINED.items()
    }


def data_of(html, app="explorer"):
    return json.loads(BeautifulSoup(html, "html.parser").find(id=f"{app}-data").text)


@pytest.fixture(scope="module")
def data(results):
    return data_of(explorer.html(results))


def test_numbers_are_those_of_the_results(data, results):
    assert len(data["results"]) == 6 and data["depths"] == 3
    found = data["results"]["none|sticky|7"]
    assert found["seeds"] == [3, 5] and list(found["steps"]) == ["0", "50", "100"]
    here = found["steps"]["0"]["pooled"]
    one = results["none"][0].isel(chain=0).sel(correlation_length=7)
    ds = one.sel(state="init", view="pooled")
    expected = ds.effective_rank.sel(centring="uncentred", spectrum="eigen").transpose("seed", "depth")
    np.testing.assert_allclose(here["rank"]["uncentred-eigen"], expected, rtol=1e-3)
    np.testing.assert_allclose(
        np.array(here["drift"], float), ds.kernel_drift.transpose("seed", "transition"), rtol=1e-3
    )
    np.testing.assert_allclose(
        here["rank"]["stable"], ds.stable_rank.sel(centring="centred").transpose("seed", "depth"), rtol=1e-3
    )
    between = found["steps"]["50"]["position"]
    assert set(between["rank"]) == {"centred-singular", "centred-eigen"} and set(found["steps"]["50"]) == {
        "position"
    }
    expected = one.step_rank.sel(step=50, spectrum="eigen").transpose("seed", "depth")
    np.testing.assert_allclose(between["rank"]["centred-eigen"], expected, rtol=1e-3)
    expected = one.step_drift.sel(step=50).transpose("seed", "transition")
    np.testing.assert_allclose(np.array(between["drift"], float), expected, rtol=1e-3)


def test_every_choice_leads_to_numbers(data):
    options = {k: [o["value"] for o in c["options"]] for k, c in (data["setting"] | data["shared"]).items()}
    settings = {"|".join(s) for s in product(options["training"], options["family"], options["xi"])}
    assert set(data["results"]) < settings  # one family was not trained without mixing
    for result in data["results"].values():
        for step in ("0", "100"):
            found = result["steps"][step]
            assert set(found) == set(options["view"])
            assert all(set(v["rank"]) == set(options["definition"]) for v in found.values())


def test_a_mean_over_seeds_needs_all_of_them(results):
    ds = results["none"][0].copy(deep=True)
    one = {"seed": 5, "view": "position", "state": "trained", "correlation_length": 7.0}
    ds.cka.loc[one | {"depth": 0, "other_depth": 2}] = np.nan
    found = data_of(explorer.html({"x": [ds]}))["results"]["x|sticky|7"]["steps"]["100"]["position"]["cka"]
    assert np.argwhere(np.isnan(np.array(found, float))).tolist() == [[0, 2]]


def test_no_value_is_null_not_nan(results):
    text = explorer.html(results)
    assert not re.search(r"\bNaN\b", text[text.index("explorer-data") : text.index("<script>")])


def test_shares_of_modes_are_those_of_the_anatomy(folder):
    ds = small(**CHANGES).run(folder, False, analysis=anatomy)
    html = coarse_graining.html({"short": ds})
    data = data_of(html, "coarse-graining")
    found = data["results"]["hierarchical, ξ = 7, short"]
    here = ds.isel(chain=0).sel(correlation_length=7)
    assert found["seeds"] == [3, 5] and found["multiplicity"] == [1, 2] and data["depths"] == 3
    np.testing.assert_allclose(found["modulus"], np.exp([-1 / 7, -2 / 7]), rtol=0.01)
    np.testing.assert_allclose(found["ideal"], here.bayes_share.mean("seed"), rtol=0.01)
    for state, step in (("untrained", 0), ("trained", 100)):
        at = here.sel(step=step)
        shares = {"lens": at.lens_share, "visible": at.stream_share.sel(rows_shown="visible")}
        for name, expected in shares.items():
            drawn = np.array(found[state][name], float)
            np.testing.assert_allclose(
                drawn, expected.transpose("seed", "level", "depth"), rtol=0.01, atol=1e-9
            )


def test_the_diagram_has_every_block_and_depth():
    svg = BeautifulSoup(coarse_graining.diagram(4), "html.parser")
    assert [t.text for t in svg("text")][2:-2] == ["0", "1", "1", "2", "2", "3", "3", "4", "4"]
    assert len(svg.select("circle")) == 5 and len(svg.select("path.diagram-branch")) == 5


@pytest.mark.parametrize("values", [[1.0, np.nan], [[2.0], [3.14159]]])
def test_rounded_numbers_are_plain(values):
    found = explorer.rounded(xr.DataArray(np.array(values)), 3)
    assert found in ([1.0, None], [[2.0], [3.14]]) and json.dumps(found)
