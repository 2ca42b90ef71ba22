"""Ranks and similarities of activations: pure functions on tensors from any network."""

from rgnb.metrics.moments import Moments
from rgnb.metrics.ranks import (
    SPECTRA,
    effective_rank,
    initial_ranks,
    participation_ratio,
    relevant_modes,
    singular_values,
    spectrum_participation,
    spectrum_rank,
    spectrum_stable,
    stable_rank,
)
from rgnb.metrics.similarity import (
    cka_between,
    cka_from_hsic,
    cka_matrix,
    concentration,
    identified,
    kernel_drift,
    linear_cka,
    normalised_hsic,
    unbiased_hsic,
)
from rgnb.metrics.views import VIEWS, view

__all__ = [
    "SPECTRA",
    "VIEWS",
    "Moments",
    "cka_between",
    "cka_from_hsic",
    "cka_matrix",
    "concentration",
    "effective_rank",
    "identified",
    "initial_ranks",
    "kernel_drift",
    "linear_cka",
    "normalised_hsic",
    "participation_ratio",
    "relevant_modes",
    "singular_values",
    "spectrum_participation",
    "spectrum_rank",
    "spectrum_stable",
    "stable_rank",
    "unbiased_hsic",
    "view",
]
