"""Results made by hand, with known statistics, for tests of what judges and shows them."""

import numpy as np
import xarray as xr

SEEDS, DEPTHS = 8, 7
VIEWS, CENTRINGS, SPECTRA = ["position", "pooled"], ["centred", "uncentred"], ["singular", "eigen"]
FLAT = [10, 10, 10, 10, 10, 10, 10]
FALLING = [10, 9, 8, 7, 6, 5, 4]
CONCENTRATED = [0.9, 0.02, 0.01, 0.01, 0.02, 0.01]
EVEN = [0.1] * 6


def results(
    short=FALLING, long=FLAT, drift=CONCENTRATED, untrained_drift=EVEN, excess=0.0, noise=0.01, seeds=SEEDS
):
    """A dataset as Experiment.run returns it, with given profiles and a little scatter over seeds."""
    rng = np.random.default_rng(0)

    def scatter(values, *shape):
        values = np.broadcast_to(np.asarray(values, dtype=float), (*shape, len(values)))
        return values * (1 + noise * rng.standard_normal(values.shape))

    profiles = np.stack([scatter(p, seeds) for p in (short, long)])  # (xi, seed, depth)
    rank = np.broadcast_to(
        profiles[None, :, :, None, None, None, None],
        (1, 2, seeds, 2, len(VIEWS), len(CENTRINGS), len(SPECTRA), DEPTHS),
    )
    drifts = np.stack([scatter(untrained_drift, 1, 2, seeds), scatter(drift, 1, 2, seeds)], 3)[
        :, :, :, :, None
    ]
    excess = np.broadcast_to(excess, (1, 2, seeds))
    by_length = ("chain", "correlation_length", "seed")
    return xr.Dataset(
        {
            "effective_rank": ((*by_length, "state", "view", "centring", "spectrum", "depth"), rank),
            "step_rank": (
                (*by_length, "step", "spectrum", "depth"),
                np.stack([rank[:, :, :, 1, 0, 0]] * 2, 3),
            ),
            "kernel_drift": ((*by_length, "state", "view", "transition"), np.repeat(drifts, len(VIEWS), 4)),
            "step_drift": ((*by_length, "step", "transition"), np.stack([drifts[:, :, :, 1, 0]] * 2, 3)),
            "excess_loss": ((*by_length, "step"), np.stack([excess + 1, excess], -1)),
            "marginal_entropy": (by_length, np.full((1, 2, seeds), 2.0)),
            "reachable_loss": (by_length, np.full((1, 2, seeds), 1.0)),
        },
        coords={
            "chain": ["hierarchical"],
            "correlation_length": [1.0, 7.0],
            "seed": range(seeds),
            "state": ["init", "trained"],
            "view": VIEWS,
            "centring": CENTRINGS,
            "spectrum": SPECTRA,
            "depth": range(DEPTHS),
            "transition": range(DEPTHS - 1),
            "step": [100, 1000],
        },
    )
