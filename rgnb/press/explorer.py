"""The book's explorer: the data and the frame of its page, which the scripts beside this file draw."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from rgnb.verdicts.rules import CONFIDENCE

DEFINITIONS = {
    "centred-singular": "singular values, centred",
    "centred-eigen": "eigenvalues, centred",
    "uncentred-singular": "singular values, uncentred",
    "uncentred-eigen": "eigenvalues, uncentred",
    "participation": "participation ratio, centred",
    "stable": "stable rank, centred",
}
FIGURES = {
    "rank": "Rank by depth. Thin lines: networks; thick: mean with its 95 % interval; dashed: untrained.",
    "drift": "Kernel drift, 1 − CKA of consecutive depths.",
    "cka-a": "A: debiased linear CKA between depths, mean over networks.",
    "cka-b": "B: debiased linear CKA between depths, mean over networks.",
}


def rounded(values: Any, digits: int = 4) -> list:
    """Nested lists of numbers with so many significant digits; None where there is no value."""
    flat = [None if np.isnan(v) else float(f"{v:.{digits}g}") for v in np.ravel(values)]
    return np.array(flat, dtype=object).reshape(np.shape(values)).tolist()


def page(app: str, body: str, data: dict[str, Any]) -> str:
    """An interactive figure as HTML that needs no network: style, body, its data and its script.

    Args:
        app: name of the script beside this file; the body's element `#<app>-app` is what it fills.
        body: HTML inside that element.
        data: plain data; quantiles of Student's t are added, from which the script makes intervals.
    """
    data = {"t": [round(float(stats.t.ppf((1 + CONFIDENCE) / 2, df)), 4) for df in range(1, 64)]} | data
    style, charts, script = (
        Path(__file__).with_name(name).read_text(encoding="utf-8")
        for name in ("explorer.css", "charts.js", f"{app}.js")
    )
    return (
        f'<style>{style}</style><div id="{app}-app" class="explorer">{body}</div>'
        "<noscript><p>A script in this page draws this figure; the browser has scripts turned off.</p>"
        "</noscript>"
        f'<script type="application/json" id="{app}-data">{json.dumps(data, separators=(",", ":"))}</script>'
        f"<script>(() => {{\n{charts}\n{script}\n}})();</script>"
    )


def choice(label: str, options: dict[str, str]) -> dict[str, Any]:
    """A control with a label and {value: words} to choose from, as the script takes it."""
    return {"label": label, "options": [{"value": v, "label": w} for v, w in options.items()]}


def _numbers(one):
    # Of one state and view, dims (seed, ...).
    rank = {
        f"{centring}-{spectrum}": rounded(
            one.effective_rank.sel(centring=centring, spectrum=spectrum).transpose("seed", "depth")
        )
        for centring in one.centring.values
        for spectrum in one.spectrum.values
    }
    for name, variable in (("participation", "participation_ratio"), ("stable", "stable_rank")):
        rank[name] = rounded(one[variable].sel(centring="centred").transpose("seed", "depth"))
    return {
        "rank": rank,
        "drift": rounded(one.kernel_drift.transpose("seed", "transition")),
        "cka": rounded(one.cka.mean("seed", skipna=False).transpose("depth", "other_depth"), 3),
    }


def _snapshots(one):
    # Between the ends of training the position view was measured alone, centred.
    between = one.isel(step=slice(1, -1))
    return {
        str(step): {
            "rank": {
                f"centred-{s}": rounded(at.step_rank.sel(spectrum=s).transpose("seed", "depth"))
                for s in at.spectrum.values
            },
            "drift": rounded(at.step_drift.transpose("seed", "transition")),
        }
        for step in between.step.values.tolist()
        for at in [between.sel(step=step)]
    }


def html(results: dict[str, list[xr.Dataset]]) -> str:
    """The explorer as HTML: controls, its figures and the numbers they are drawn from.

    Args:
        results: {how networks were trained, in words: [Dataset of Experiment.run, one per chain family]},
            all of one depth.
    """
    found: dict[str, dict] = {}
    families: dict[str, str] = {}
    lengths: dict[str, str] = {}
    for training, ds in ((training, ds) for training, datasets in results.items() for ds in datasets):
        for family, xi in product(ds.chain.values.tolist(), ds.correlation_length.values.tolist()):
            here = ds.sel(chain=family, correlation_length=xi)
            families[family], lengths[f"{xi:g}"] = family, f"{xi:g}"
            last = str(here.step.values[-1])
            ends = {
                step: {v: _numbers(here.sel(state=state, view=v)) for v in here.view.values.tolist()}
                for step, state in (("0", "init"), (last, "trained"))
            }
            between = {step: {"position": numbers} for step, numbers in _snapshots(here).items()}
            steps = {"0": ends["0"], **between, last: ends[last]}
            found[f"{training}|{family}|{xi:g}"] = {"seeds": here.seed.values.tolist(), "steps": steps}
    first = next(iter(results.values()))[0]
    data = {
        "depths": first.sizes["depth"],
        "setting": {
            "training": choice("Training", {t: t for t in results}),
            "family": choice("Chain", families),
            "xi": choice("Correlation length ξ", lengths),
        },
        "shared": {
            "view": choice("View", {v: v for v in first.view.values.tolist()}),
            "definition": choice("Rank", DEFINITIONS),
            "first": choice("First depth", {"0": "0, the embedding", "1": "1, after the first block"}),
            "untrained": choice("Untrained networks", {"beside": "beside", "hidden": "hidden"}),
        },
        "results": found,
    }
    figures = "".join(
        f'<figure data-figure="{name}"><svg viewBox="0 0 430 270" role="img"></svg>'
        f"{'' if name.startswith('cka') else '<output></output>'}<figcaption>{caption}</figcaption></figure>"
        for name, caption in FIGURES.items()
    )
    body = (
        '<div class="explorer-controls"></div><div class="explorer-summary" aria-live="polite"></div>'
        f'<div class="explorer-figures">{figures}</div>'
        '<p><a class="explorer-data" href="#" download="explorer.csv">The numbers shown (CSV)</a></p>'
    )
    return page("explorer", body, data)
