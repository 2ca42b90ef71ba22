"""The book's explorer: the data and the frame of its page, which the script beside this file draws."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import xarray as xr
from scipy import stats

from rgnb.verdicts.rules import CONFIDENCE

STATES = {"both": "trained and untrained", "trained": "trained", "init": "untrained"}
MIXING = {
    "tokens": "token mixing",
    "none": "no mixing",
    "window": "first-block mixing",
    "embedding": "window at the embedding",
    "attention": "attention",
}
DEFINITIONS = {
    "centred-singular": "singular values, centred",
    "centred-eigen": "eigenvalues, centred",
    "uncentred-singular": "singular values, uncentred",
    "uncentred-eigen": "eigenvalues, uncentred",
    "participation": "participation ratio, centred",
    "stable": "stable rank, centred",
}
FIGURES = {
    "rank": "Rank by depth. Thin lines: seeds; thick: mean with its 95 % interval; dashed: untrained.",
    "drift": "Kernel drift, 1 − CKA of consecutive depths.",
    "cka": "Debiased linear CKA between depths, mean over seeds.",
}


def _rounded(values):
    # Nested lists with 4 significant digits; null where there is no value.
    flat = [None if np.isnan(v) else float(f"{v:.4g}") for v in np.ravel(values)]
    return np.array(flat, dtype=object).reshape(np.shape(values)).tolist()


def _numbers(one):
    # Of one state and view, dims (seed, ...).
    rank = {
        f"{centring}-{spectrum}": _rounded(
            one.effective_rank.sel(centring=centring, spectrum=spectrum).transpose("seed", "depth")
        )
        for centring in one.centring.values
        for spectrum in one.spectrum.values
    }
    for name, variable in (("participation", "participation_ratio"), ("stable", "stable_rank")):
        rank[name] = _rounded(one[variable].sel(centring="centred").transpose("seed", "depth"))
    return {
        "rank": rank,
        "drift": _rounded(one.kernel_drift.transpose("seed", "transition")),
        "cka": _rounded(one.cka.mean("seed", skipna=False).transpose("depth", "other_depth")),
    }


def html(results: dict[str, list[xr.Dataset]]) -> str:
    """The explorer as HTML: controls, three figures and the numbers they are drawn from.

    Args:
        results: {mixing: [Dataset of Experiment.run, one per chain family]}, all of one depth and at the same
            correlation lengths.
    """
    found: dict[str, dict] = {}
    families: dict[str, str] = {}
    lengths: dict[str, str] = {}
    for mixing, ds in ((mixing, ds) for mixing, datasets in results.items() for ds in datasets):
        for family, xi in product(ds.chain.values.tolist(), ds.correlation_length.values.tolist()):
            here = ds.sel(chain=family, correlation_length=xi)
            families[family], lengths[f"{xi:g}"] = family, f"{xi:g}"
            found[f"{family}|{xi:g}|{mixing}"] = {"seeds": here.sizes["seed"]} | {
                state: {v: _numbers(here.sel(state=state, view=v)) for v in here.view.values.tolist()}
                for state in ("trained", "init")
            }
    first = next(iter(results.values()))[0]
    views = {view: view for view in first.view.values.tolist()}
    choices: dict[str, tuple[str, dict[str, str]]] = {
        "family": ("Chain", families),
        "xi": ("Correlation length ξ", lengths),
        "mixing": ("Architecture", {m: MIXING[m] for m in results}),
        "view": ("View", views),
        "definition": ("Rank", DEFINITIONS),
        "state": ("Networks", STATES),
    }
    data = {
        "depths": first.sizes["depth"],
        "t": [round(float(stats.t.ppf((1 + CONFIDENCE) / 2, df)), 4) for df in range(1, 64)],
        "choices": {
            k: {"label": label, "options": [{"value": v, "label": w} for v, w in o.items()]}
            for k, (label, o) in choices.items()
        },
        "results": found,
    }
    figures = "".join(
        f'<figure data-figure="{name}"><svg viewBox="0 0 430 270" role="img"></svg>'
        f"<figcaption>{caption}</figcaption></figure>"
        for name, caption in FIGURES.items()
    )
    script, style = (
        Path(__file__).with_suffix(suffix).read_text(encoding="utf-8") for suffix in (".js", ".css")
    )
    numbers = json.dumps(data, separators=(",", ":"))
    return (
        f'<style>{style}</style><div id="explorer-app"><div class="explorer-controls"></div>'
        '<p class="explorer-summary" aria-live="polite"></p>'
        f'<div class="explorer-figures">{figures}</div></div><noscript><p>A script in this page draws these '
        "figures; the browser has scripts turned off.</p></noscript>"
        f'<script type="application/json" id="explorer-data">{numbers}</script>'
        f"<script>{script}</script>"
    )
