"""The anatomy of a network: each measure against a closed form or brute force, and stored measures."""

import numpy as np
import pytest
import torch

from rgnb import chains, metrics
from rgnb.model import MIXINGS, ModelConfig, ResidualMLP
from rgnb.study import Experiment, anatomy, probes
from rgnb.study.measurement import rehearse
from rgnb.study.probes import eigenmodes
from rgnb.study.settings import analysis, analysis_key

SMALL = {
    "n_states": 4,
    "length": 8,
    "width": 12,
    "depth": 3,
    "batch": 16,
    "steps": 100,
    "snapshots": (50,),
    "sequences": 256,
}
MODEL = ModelConfig(n_states=4, length=20, width=12, depth=3)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_level_shares_of_logits_made_from_the_modes():
    chain = chains.hierarchical(8, 3.0)
    _, group, functions = eigenmodes(chain)
    size = torch.tensor([2.0, 1.0, 0.5])[group]
    coordinates = noise(500, 7)
    coordinates = (coordinates - coordinates.mean(0)) / coordinates.std(0, correction=0)
    logits = 3.0 + coordinates * size @ functions.T
    expected = torch.tensor([4.0, 2 * 1.0, 4 * 0.25]) / 7.0
    torch.testing.assert_close(anatomy.level_shares(chain, logits), expected.double())
    assert anatomy.level_shares(chain, torch.ones(5, 8)).isnan().all()


def test_explained_shares_are_those_of_least_squares():
    x, y, group = noise(300, 6), noise(300, 5, seed=1), torch.tensor([0, 0, 1, 1, 1])
    x[:, 0] += y[:, 0] - 2 * y[:, 3]
    for scale in (1.0, 1e-6):  # targets of any size
        found = anatomy.explained_shares(x, scale * y, group)
        for g in range(2):
            part = np.column_stack([np.ones(300), y[:, group == g]])
            left = x.numpy() - part @ np.linalg.lstsq(part, x.numpy(), rcond=None)[0]
            centred = x.numpy() - x.numpy().mean(0)
            assert found[g].item() == pytest.approx(1 - (left**2).sum() / (centred**2).sum(), abs=1e-10)
    twice = anatomy.explained_shares(
        x, torch.cat([y, y[:, :1]], 1), torch.tensor([0, 0, 1, 1, 1, 0])
    )  # dependent targets
    torch.testing.assert_close(twice, found)
    assert anatomy.explained_shares(torch.full((300, 6), 0.1), y, group).isnan().all()


def test_alignment_is_one_for_balanced_factors():
    # Z = U S V^T factored as H = U S^(1/2) Q and W = V S^(1/2) Q: H^T H = W^T W = Q^T S Q.
    u, v, q = (
        torch.linalg.qr(x - x.mean(0)).Q for x in (noise(50, 4), noise(9, 4, seed=1), noise(12, 12, seed=2))
    )
    root = torch.tensor([3.0, 2.0, 1.0, 0.5], dtype=torch.float64).sqrt()
    h, w = (u * root) @ q[:4], (v * root) @ q[:4]
    assert anatomy.alignment(h, w) == pytest.approx(1)
    assert anatomy.alignment(3 * h + 1, w / 7 + 2) == pytest.approx(1)
    assert anatomy.alignment(h, (v * root) @ q[4:8]) == pytest.approx(0, abs=1e-12)


def test_couplings_are_means_of_diagonals():
    model = ResidualMLP(MODEL, 0)
    product = torch.zeros(20, 20)
    for k, value in ((-1, 0.5), (0, -1.0), (2, 0.25), (12, 3.0)):
        product += torch.diag(torch.full((20 - abs(k),), value), k)
    mlp = model.blocks[1].token_mlp
    mlp.up.weight.data[0] = torch.cat([torch.eye(20), torch.zeros(20, 20)], 1)
    mlp.down.weight.data[0] = torch.cat([product, noise(20, 20).float()])
    mean, elsewhere = (x[1] for x in anatomy.couplings(model))
    expected = torch.zeros(17)
    expected[[7, 8, 10]] = torch.tensor([0.5, -1.0, 0.25])
    torch.testing.assert_close(mean, expected)
    assert elsewhere.item() == pytest.approx((8 * 3.0**2 / (2 * sum(range(1, 12)))) ** 0.5)
    for mixing in ("none", "window", "embedding", "attention"):
        assert all(x.isnan().all() for x in anatomy.couplings(ResidualMLP(ModelConfig(mixing=mixing), 0)))


@pytest.mark.parametrize("mixing", MIXINGS)
def test_networks_of_every_kind_of_mixing_are_dissected(mixing):
    setting = Experiment.profile("quick", **SMALL, mixing=mixing).settings()[0]
    found = rehearse(setting, 128, torch.device("cpu"), anatomy.anatomy)
    assert found.coupling.isnull().all() == (mixing != "tokens")
    assert (found.growth > 0).all() and found.alignment.notnull().all()
    # Where the embedding holds neighbours, masked positions differ at depth 0 already; alone, at no depth.
    lens = found.lens_singular_value.isel(step=0).sum("symbol") > 0
    assert lens.values.tolist() == [mixing == "embedding", *[mixing != "none"] * 3]


def test_growth_is_that_of_a_small_difference():
    model = ResidualMLP(MODEL, 0).double().requires_grad_(False)
    inputs = chains.hierarchical(4, 2.0).sample(6, 20, torch.Generator().manual_seed(0))
    found = probes.absolute_growth(model, inputs, torch.Generator().manual_seed(1))[1]
    stream = model.stream(inputs)
    for depth, x in enumerate(stream[:-1]):
        v = 1e-6 * (x.roll(1, 0) - x)
        moved = model.blocks[depth]((x + v)[None])[0] - model.blocks[depth]((x - v)[None])[0]
        assert found[depth].item() == pytest.approx((moved.norm() / (2 * v.norm())).item(), rel=1e-4)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    experiment = Experiment.profile("quick", **SMALL, correlation_lengths=(2.0,), seeds=1, device="cpu")
    folder = tmp_path_factory.mktemp("results")
    measured, dissected = (experiment.run(folder, False, analysis=a) for a in (None, anatomy.anatomy))
    return tuple(ds.isel(chain=0, correlation_length=0, seed=0) for ds in (measured, dissected))


def test_anatomy_agrees_with_what_is_measured(both):
    measured, dissected = both
    assert (dissected.step.values == measured.step.values).all()
    ends = dissected.isel(step=[0, -1])
    uncentred = measured.effective_rank.sel(view="position", centring="uncentred").values
    np.testing.assert_allclose(ends.uncentred_rank.values, uncentred, rtol=1e-5)
    spectra = measured.singular_value.sel(view="masked").fillna(0).values
    np.testing.assert_allclose(ends.masked_singular_value.values, spectra, rtol=1e-4, atol=1e-5)
    # Under the scheme "mask" selected positions are masked: at the last depth the lens is the prediction.
    np.testing.assert_allclose(dissected.lens_excess.isel(depth=-1), measured.excess_loss, atol=1e-5)
    bayes = torch.from_numpy(dissected.bayes_singular_value.values)
    assert metrics.spectrum_rank(bayes, "eigen").item() == pytest.approx(
        measured.relevant_modes.sel(floor=1e-6).item()
    )


def test_masked_positions_are_alike_at_depth_0_and_differ_after(both):
    _, dissected = both
    for name in ("lens_singular_value", "masked_singular_value"):
        assert (
            dissected[name]
            .isel(depth=0)
            .sel(**{"centring": "centred"} if "centring" in dissected[name].dims else {})
            == 0
        ).all()
    for name in ("unread", "lens_share"):
        assert (
            dissected[name].isel(depth=0).isnull().all()
            and dissected[name].isel(depth=slice(1, None)).notnull().all()
        )
    assert dissected.stream_share.sel(rows_shown="masked").isel(depth=0).isnull().all()
    np.testing.assert_allclose(dissected.lens_share.isel(depth=-1).sum("level"), 1, rtol=1e-5)
    # Visible positions show their own token at depth 0: all modes together explain its variance, no more.
    shares = dissected.stream_share.sel(rows_shown="visible").sum("level")
    assert (shares <= 1.02).all() and (shares.isel(depth=0) > 0.95).all()


def at_the_top(task, setting, seed, snapshots, device): ...
def without_a_device(task, setting, seed, snapshots): ...


def test_an_analysis_is_found_by_its_id_wherever_it_lives():
    def own(task, setting, seed, snapshots, device): ...

    assert analysis_key(anatomy.anatomy) == {"analysis": "rgnb.probes.anatomy"}
    with pytest.raises(TypeError, match=r"inside another function.*@analysis"):
        analysis_key(own)  # another call of this test would make another function of that name
    with pytest.raises(TypeError, match=r"must take \(task, setting, seed, snapshots, device\)"):
        analysis_key(without_a_device)
    assert analysis_key(at_the_top)["analysis"].endswith(".at_the_top")
    assert analysis_key(analysis("group.own", 1)(own)) == {"analysis": "group.own"}
    assert analysis_key(analysis("group.own", 2)(own)) == {"analysis": "group.own", "analysis_version": 2}
    for bad in ("", "a b", "a..b", 3):
        with pytest.raises(ValueError, match="dotted name"):
            analysis(bad, 1)


def test_the_marker_alone_is_that_of_the_whole_anatomy(tmp_path):
    e = Experiment.profile("quick", seeds=[1], correlation_lengths=[2.0], device="cpu", **SMALL)
    whole, alone = (e.run(tmp_path, progress=False, analysis=a) for a in (anatomy.anatomy, anatomy.coupling))
    assert set(alone) == {"coupling", "coupling_elsewhere"}
    for name in alone:
        assert alone[name].drop_vars("provenance").equals(whole[name].drop_vars("provenance"))
