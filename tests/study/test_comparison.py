"""What a second paper reports, on networks whose answer is known."""

import numpy as np
import pytest
import torch
import xarray as xr

from rgnb import chains
from rgnb.model import MIXINGS, ModelConfig, ResidualMLP
from rgnb.study import Experiment, comparison, probes

SIZES = {"n_states": 4, "length": 6, "width": 8, "depth": 3}
INPUTS = torch.randint(0, 5, (20, 6), generator=torch.Generator().manual_seed(0))  # [MASK] = 4


def network(mixing):
    return ResidualMLP(ModelConfig(**SIZES, mixing=mixing), 1).double().requires_grad_(False)


@pytest.mark.parametrize("mixing", MIXINGS)
def test_halves_are_the_stream_and_what_the_channel_mlp_adds_to(mixing):
    model = network(mixing)
    found, stream = comparison.halves(model, INPUTS), model.stream(INPUTS)
    for depth, x in enumerate(stream):
        torch.testing.assert_close(found[2 * depth], x, rtol=0, atol=0)
    for block, after, whole in zip(model.blocks, found[1::2], stream[1:], strict=True):
        channels = block.channel_mlp(block.channel_norm(after[None]))[0]
        torch.testing.assert_close(after + channels, whole, rtol=0, atol=1e-12)
    same = [torch.equal(after, before) for after, before in zip(found[1::2], found[::2], strict=False)]
    assert same == {"none": [True] * 3, "embedding": [True] * 3, "window": [False, True, True]}.get(
        mixing, [False] * 3
    )


@pytest.mark.parametrize("mixing", MIXINGS)
def test_responses_are_finite_differences(mixing):
    model, tilt, step = network(mixing), torch.tensor([0.3, -1.0, 0.5, 0.2]).double(), 1e-6
    visible, stream = INPUTS < 4, model.stream(INPUTS)
    symbols = torch.nn.functional.one_hot(INPUTS, 5).double()
    tilted = symbols.clone()
    tilted[visible] += step * torch.cat([tilt, torch.zeros(1)])
    moved = model.continue_stream(model.embedding(tilted[None])[0], 0)
    expected = [
        ((y - x)[visible] / step).square().mean().sqrt()
        / x[visible].std(0, correction=0).square().mean().sqrt()
        for x, y in zip(stream, moved, strict=True)
    ]
    np.testing.assert_allclose(comparison.mode_responses(model, tilt[None], INPUTS)[0], expected, rtol=1e-4)


def test_responses_are_relative_to_what_varies():
    # Where all visible tokens are equal nothing does.
    same = torch.zeros(3, 6, dtype=torch.long)
    assert comparison.mode_responses(network("none"), torch.eye(4).double(), same).isnan().all()


def test_pooling_forgets_the_basis_of_a_group():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 5, generator=g, dtype=torch.float64)
    turned = x.clone()
    turned[:, 1:] = torch.linalg.qr(torch.randn(2, 2, generator=g, dtype=torch.float64)).Q @ x[:, 1:]
    group = torch.tensor([0, 1, 1])
    found = probes.pooled(x, group)
    torch.testing.assert_close(found, probes.pooled(turned, group))
    torch.testing.assert_close(found[:, 0], x[:, 0].abs())
    torch.testing.assert_close(found[:, 1] ** 2, (x[:, 1] ** 2 + x[:, 2] ** 2) / 2)
    assert torch.equal(found[:, 1], found[:, 2])


def test_decay_rates_of_exponentials():
    rates, depth = np.array([0.5, 0.0, -0.2]), np.arange(7)
    responses = 3 * np.exp(-rates[:, None] * depth)
    responses[:, 0] = 100  # the embedding alone, left out
    found = comparison.decay_rates(xr.DataArray(responses, {"depth": depth}, ("eigenmode", "depth")))
    np.testing.assert_allclose(found, rates, atol=1e-12)
    assert found.dims == ("eigenmode",)


def test_decay_rates_want_every_response():
    with pytest.raises(ValueError, match="responses"):
        comparison.decay_rates(xr.DataArray([1.0, np.nan, 2.0], {"depth": range(3)}, ("depth",)))


def test_without_mixing_the_channels_do_it_all(tmp_path):
    sizes = SIZES | {"sequences": 128, "steps": 50, "snapshots": (), "correlation_lengths": (2.0,)}
    e = Experiment.profile("quick", mixing="none", families=("sticky",), seeds=1, device="cpu", **sizes)
    found = e.run(tmp_path, False, comparison.comparison).squeeze()
    whole = e.run(tmp_path, False).squeeze()
    assert (found.relative_update.sel(part="mixing") == 0).all() and (
        found.relative_update.sel(part="channels") > 0
    ).all()
    np.testing.assert_allclose(found.moved.sel(part="mixing"), 0, atol=1e-9)
    np.testing.assert_allclose(
        found.moved.sel(part="channels"), whole.kernel_drift.sel(view="token"), rtol=1e-4
    )
    # One group of three modes: one modulus, one response.
    np.testing.assert_allclose(found.modulus, chains.sticky(4, 2.0).eigenvalues.abs()[1:], atol=1e-9)
    assert (found.mode_response == found.mode_response.isel(eigenmode=0)).all()
