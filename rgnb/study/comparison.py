"""What arXiv:2607.15449 reports of a transformer and of an MLP, measured by definitions stated here.

Of that paper the abstract alone is known to us: what it counts as moving the representation, and along what
its perturbations decay, are our readings.
"""

from itertools import pairwise

import numpy as np
import torch
import xarray as xr

from rgnb import checks, metrics
from rgnb.model import ResidualMLP
from rgnb.study.measurement import MATRICES, Evaluation, Snapshots, networks, variable
from rgnb.study.probes import PERTURBED, eigenmodes, pooled, responses, tilts
from rgnb.study.settings import Setting, analysis

ROUNDING = 1e-6  # of a stream's size, in single precision
PARTS = ("mixing", "channels")  # the two halves of a block


@torch.no_grad()
def halves(model: ResidualMLP, inputs: torch.Tensor) -> list[torch.Tensor]:
    """The stream before the first block, after its mixing, after its channel MLP, and so on.

    Args:
        model: single network; inputs: (batch, length) tokens.

    Returns:
        2 depth + 1 tensors (batch, length, width). Without mixing every second one repeats the one before.
    """
    found = []
    hooks = [
        b.channel_norm.register_forward_pre_hook(lambda _, x: found.append(x[0][0])) for b in model.blocks
    ]
    try:
        stream = model.stream(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return [stream[0], *(x for pair in zip(found, stream[1:], strict=True) for x in pair)]


def mode_responses(model: ResidualMLP, tilts: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """Size, by depth, of the response to a tilt of what the embedding reads at every visible position.

    Followed exactly to first order, at the visible positions themselves, so that a network without mixing
    has one, too; relative to the stream's spread there (root mean square about the mean over rows).

    Args:
        model: single network; inputs: (batch, length) tokens.
        tilts: (k, V) directions in the space of one-hot tokens.

    Returns:
        (k, depth + 1).
    """
    visible = inputs != model.config.n_states
    stream = model.stream(inputs)
    shown = [x[visible] for x in stream]
    spread = torch.stack([(x - x.mean(0)).square().mean().sqrt() for x in shown])
    size = torch.stack([x.square().mean().sqrt() for x in shown])
    spread[spread < ROUNDING * size] = torch.nan  # equal rows: nothing to compare with
    found = torch.zeros(len(tilts), len(stream), dtype=torch.float64)
    for k, moved in enumerate(responses(model, tilts, inputs)):
        found[k] = torch.stack([v[visible].square().mean().sqrt() for v in moved]) / spread
    return found


@analysis(id="rgnb.comparison.comparison", version=1)
def comparison(
    task: Evaluation, setting: Setting, seed: int, snapshots: Snapshots, device: torch.device
) -> xr.Dataset:
    """What each half of a block moves, and how perturbations along modes fade with depth.

    Returns:
        Dataset with dims (state, part, block) and (state, eigenmode, depth); eigenmodes of one modulus share
        their root mean square.
    """
    chain, depth = setting.chain, setting.model.depth
    modulus, group, functions = eigenmodes(chain)
    last = max(snapshots)
    drift, update = (torch.zeros(2, len(PARTS), depth, dtype=torch.float64) for _ in range(2))
    response = torch.zeros(2, len(group), depth + 1, dtype=torch.float64)
    for state, model in enumerate(networks(setting, seed, {last: snapshots[last]}).values()):
        model = model.to(device).requires_grad_(False)
        layers = [x.cpu() for x in halves(model, task.inputs[:MATRICES].to(device))]
        moved = metrics.kernel_drift([metrics.view(x, "token") for x in layers])
        sizes = torch.tensor([((y - x).norm() / x.norm()).item() for x, y in pairwise(layers)])
        for part in range(len(PARTS)):
            drift[state, part], update[state, part] = moved[part::2], sizes[part::2]
        response[state] = mode_responses(
            model, tilts(chain, functions), task.inputs[-PERTURBED:].to(device)
        ).cpu()
    variables = {
        "moved": variable("state part block", drift, "kernel drift of half a block, token view"),
        "relative_update": variable(
            "state part block", update, "size of half a block's update relative to the stream"
        ),
        "mode_response": variable(
            "state eigenmode depth",
            pooled(response, group),
            "response at visible positions to a mode's field, relative to the stream's spread",
        ),
        "modulus": variable("eigenmode", modulus, "modulus of the eigenvalue"),
    }
    coords = {
        "state": ["init", "trained"],
        "part": list(PARTS),
        "block": range(1, depth + 1),
        "eigenmode": range(1, len(group) + 1),
        "depth": range(depth + 1),
    }
    return xr.Dataset(variables, coords)


def decay_rates(responses: xr.DataArray) -> xr.DataArray:
    """How fast responses fade with depth: minus the slope of their logarithm from depth 1 on, per block.

    The inverse is a decay length in blocks; negative where responses grow.

    Args:
        responses: positive, with the dim depth.
    """
    dims = checks.instance("responses", responses, xr.DataArray).dims
    checks.choice("dim of responses", "depth", dims)
    later = np.log(checks.complete("responses", responses).sel(depth=slice(1, None)))
    return -later.polyfit("depth", 1).polyfit_coefficients.sel(degree=1, drop=True)
