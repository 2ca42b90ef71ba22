"""The interactive figure of coarse-graining: what a chain's modes keep on the way through depth."""

from itertools import product
from typing import Any

import xarray as xr

from rgnb.press import explorer

ROWS = ("masked", "visible")
STATES = {"trained": -1, "untrained": 0}  # which of the training steps


def diagram(blocks: int) -> str:
    """The network with its stream as SVG: embedding, what each block adds, and the lens at one depth."""
    step = 330 / blocks

    def box(x, y, width, height, *lines):
        middle = y + height / 2 + 5 - 7.5 * (len(lines) - 1)
        text = "".join(
            f'<text x="{x + width / 2:.1f}" y="{middle + 15 * k}">{t}</text>' for k, t in enumerate(lines)
        )
        return f'<rect class="diagram-box" x="{x}" y="{y}" width="{width}" height="{height}" rx="3"/>{text}'

    parts = [box(2, 78, 62, 36, "tokens"), '<path class="diagram-stream" d="M64,96H424"/>']
    for depth in range(blocks + 1):
        x = 82 + step * depth
        parts.append(f'<circle class="diagram-depth" cx="{x:.1f}" cy="96" r="4"/>')
        parts.append(f'<text x="{x:.1f}" y="119">{depth}</text>')
        if depth < blocks:
            loop = f"M{x + 8:.1f},96V66M{x + step - 8:.1f},66V90"
            parts.append(f'<path class="diagram-branch" d="{loop}" marker-end="url(#diagram-head)"/>')
            parts.append(box(round(x + 3, 1), 30, round(step - 6, 1), 36, depth + 1))
    lens = box(0, 146, 124, 40, "LayerNorm, head:", "the lens")
    arrow = '<path class="diagram-branch" d="M0,124V143" marker-end="url(#diagram-head)"/>'
    return (
        '<svg class="diagram" viewBox="0 0 430 190" role="img" aria-label="The network: an embedding, a '
        f"stream to which {blocks} blocks add one after the other, and at any depth the lens, which is the "
        'final LayerNorm and the head applied to the stream there."><defs><marker id="diagram-head" '
        'viewBox="0 0 6 6" refX="5" refY="3" markerWidth="6" markerHeight="6" orient="auto">'
        '<path class="diagram-head" d="M0,0L6,3L0,6Z"/></marker></defs>'
        f'<text x="247" y="18">blocks: each mixes positions, then channels</text>{"".join(parts)}'
        f'<g data-moves="arrow" transform="translate(412 0)">{arrow}</g>'
        f'<g data-moves="lens" transform="translate(304 0)">{lens}</g></svg>'
    )


def html(results: dict[str, xr.Dataset]) -> str:
    """The interactive figure as HTML: the network, a slider through depth, shares of the chain's modes.

    Args:
        results: {how networks were trained, in words: Dataset of `Experiment.run(analysis=anatomy)`},
            all of one depth.
    """
    found = {}
    for training, ds in results.items():
        for family, xi in product(ds.chain.values.tolist(), ds.correlation_length.values.tolist()):
            here = ds.sel(chain=family, correlation_length=xi)
            found[f"{family}, ξ = {xi:g}, {training}"] = {
                "seeds": here.seed.values.tolist(),
                "modulus": explorer.rounded(here.modulus.isel(seed=0), 2),
                "multiplicity": here.multiplicity.isel(seed=0).values.tolist(),
                "ideal": explorer.rounded(here.bayes_share.mean("seed", skipna=False), 3),
                **{state: _shares(here.isel(step=step)) for state, step in STATES.items()},
            }
    blocks = next(iter(results.values())).sizes["depth"] - 1
    data: dict[str, Any] = {
        "depths": blocks + 1,
        "choices": {
            "setting": explorer.choice("Chain and training", {title: title for title in found}),
            "state": explorer.choice("Networks", {state: state for state in STATES}),
            "rows": explorer.choice("Stream at", {rows: f"{rows} positions" for rows in ROWS}),
        },
        "results": found,
    }
    body = (
        f"<figure>{diagram(blocks)}<figcaption>The network. The lens reads the stream at the chosen depth as "
        'if it were the last.</figcaption></figure><div class="explorer-controls"></div><figure>'
        '<svg class="shares" viewBox="0 0 430 270" role="img"></svg><figcaption>Share of each group of '
        "equally relevant modes at the chosen depth, the most relevant first: of the stream's variance, of "
        "the lens's, and the ideal. Bars are means, dots networks.</figcaption></figure>"
        '<p class="explorer-summary" aria-live="polite"></p><div class="table-scroll" tabindex="0">'
        '<table class="dataframe"><caption></caption><thead></thead><tbody></tbody></table></div>'
        '<p><a class="explorer-data" href="#" download="coarse-graining.csv">The numbers at all depths (CSV)'
        "</a></p>"
    )
    return explorer.page("coarse-graining", body, data)


def _shares(one):
    # {what: networks x levels x depths} at one training step.
    shares = {rows: one.stream_share.sel(rows_shown=rows) for rows in ROWS} | {"lens": one.lens_share}
    return {name: explorer.rounded(s.transpose("seed", "level", "depth"), 3) for name, s in shares.items()}
