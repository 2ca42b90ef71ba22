"""The explorer's page carries the numbers of the results, whatever the script makes of them."""

import json

import numpy as np
import pytest
from bs4 import BeautifulSoup
from small import small

from rgnb.press import explorer


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    return {
        mixing: [
            small(families=[family], mixing=mixing).run(folder, progress=False)
            for family in ("ring", "sticky")
        ]
        for mixing in ("tokens", "none")
    }


@pytest.fixture(scope="module")
def page(results):
    return BeautifulSoup(explorer.html(results), "html.parser")


def test_numbers_are_those_of_the_results(page, results):
    data = json.loads(page.find(id="explorer-data").text)
    assert len(data["results"]) == 8 and data["depths"] == 3
    here = data["results"]["sticky|7|none"]["init"]["pooled"]
    ds = results["none"][1].isel(chain=0).sel(correlation_length=7, state="init", view="pooled")
    expected = ds.effective_rank.sel(centring="uncentred", spectrum="eigen").transpose("seed", "depth")
    np.testing.assert_allclose(here["rank"]["uncentred-eigen"], expected, rtol=1e-3)
    np.testing.assert_allclose(
        np.array(here["drift"], float), ds.kernel_drift.transpose("seed", "transition"), rtol=1e-3
    )
    np.testing.assert_allclose(
        here["rank"]["stable"], ds.stable_rank.sel(centring="centred").transpose("seed", "depth"), rtol=1e-3
    )


def test_every_choice_leads_to_numbers(page):
    data = json.loads(page.find(id="explorer-data").text)
    options = {name: [o["value"] for o in c["options"]] for name, c in data["choices"].items()}
    for family in options["family"]:
        for xi in options["xi"]:
            for mixing in options["mixing"]:
                found = data["results"][f"{family}|{xi}|{mixing}"]
                for state in ("trained", "init"):
                    assert set(found[state]) == set(options["view"])
                    assert all(set(v["rank"]) == set(options["definition"]) for v in found[state].values())


def test_a_mean_over_seeds_needs_all_of_them(results):
    ds = results["none"][1].copy(deep=True)
    one = {"seed": 1, "view": "position", "state": "trained", "correlation_length": 7.0}
    ds.cka.loc[one | {"depth": 0, "other_depth": 2}] = np.nan
    page = BeautifulSoup(explorer.html({"none": [ds]}), "html.parser")
    data = json.loads(page.find(id="explorer-data").text)
    found = np.array(data["results"]["sticky|7|none"]["trained"]["position"]["cka"], float)
    assert np.argwhere(np.isnan(found)).tolist() == [[0, 2]]


def test_no_value_is_null_not_nan(page):
    assert "NaN" not in page.find(id="explorer-data").text
