"""Probes on data and networks whose answer is known."""

import numpy as np
import pytest
import torch

from rgnb import chains
from rgnb.model import MIXINGS, ModelConfig, ResidualMLP
from rgnb.study import Experiment, measurement, probes
from rgnb.training import load_model, train

RANDOM = chains.dirichlet(6, 1.0, seed=3)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    small = {
        "n_states": 8,
        "length": 8,
        "width": 16,
        "depth": 3,
        "batch": 64,
        "steps": 300,
        "snapshots": (),
        "sequences": 512,
    }
    e = Experiment.profile("quick", correlation_lengths=[7.0], seeds=[0], device="cpu", **small)
    return {
        a.__name__: e.run(folder, False, a).squeeze() for a in (probes.mode_retention, probes.perturbations)
    } | {"experiment": e, "folder": folder}


# --- modes ---


@pytest.mark.parametrize(
    "chain",
    [
        chains.sticky(5, 2.0, [1, 2, 3, 4, 5]),
        chains.hierarchical(8, 7.0),
        chains.cycle(5, 3.0),
        chains.block(8, 2.0),
        RANDOM,
    ],
    ids=["sticky", "hierarchical", "cycle", "block", "dirichlet"],
)
def test_eigenmodes_span_the_eigenspaces(chain):
    modulus, group, functions = probes.eigenmodes(chain)
    np.testing.assert_allclose(modulus, chain.eigenvalues.abs()[1:], atol=1e-7)
    pi, P = chain.stationary_distribution, chain.transition_matrix
    torch.testing.assert_close(
        pi @ functions, torch.zeros(chain.n_states - 1, dtype=torch.float64), atol=1e-8, rtol=0
    )
    for g in group.unique():
        f = functions[:, group == g]
        torch.testing.assert_close(f.T @ (pi[:, None] * f), torch.eye(f.shape[1], dtype=torch.float64))
        # P maps the span of the group into itself, scaled by the modulus.
        image = P @ f
        inside = f @ (f.T @ (pi[:, None] * image))
        torch.testing.assert_close(inside, image, atol=1e-7, rtol=0)


def test_modes_of_the_hierarchy_come_level_by_level():
    modulus, group, functions = probes.eigenmodes(chains.hierarchical(8, 7.0))
    np.testing.assert_allclose(modulus, np.exp([-1 / 7] + [-2 / 7] * 2 + [-4 / 7] * 4))
    assert group.tolist() == [0, 1, 1, 2, 2, 2, 2]
    np.testing.assert_allclose(functions[:, 0] / functions[0, 0], [1] * 4 + [-1] * 4)  # the two halves


def test_nearest_visible_by_hand():
    inputs = torch.tensor([[4, 1, 4, 4, 2, 3]])  # [MASK] = 4
    left, right = probes.nearest_visible(inputs, 4)
    assert left.tolist() == [[-1, -1, 1, 1, 1, 2]]
    assert right.tolist() == [[1, 2, 2, 2, 3, -1]]


def test_nearest_visible_by_brute_force():
    inputs = torch.randint(0, 4, (20, 9), generator=torch.Generator().manual_seed(0))
    left, right = probes.nearest_visible(inputs, 3)
    for i, row in enumerate(inputs.tolist()):
        for t in range(9):
            assert left[i, t] == next((o for o in reversed(row[:t]) if o != 3), -1)
            assert right[i, t] == next((o for o in row[t + 1 :] if o != 3), -1)


# --- linear readouts ---


def linear_data(n=4000, noise=1.0):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, 5, generator=g, dtype=torch.float64) + 3
    y = x[:, :2] @ torch.tensor([[1.0, 2.0], [0.5, -1.0]], dtype=torch.float64)
    return x, y + noise * y.std(0) * torch.randn(n, 2, generator=g, dtype=torch.float64)


def test_linear_fit_is_least_squares():
    x, y = linear_data(50)
    weights, intercept = probes.linear_fit(x, y)
    expected = np.linalg.lstsq(np.c_[x, np.ones(50)], y.numpy(), rcond=None)[0]
    np.testing.assert_allclose(np.r_[weights, intercept[None]], expected, atol=1e-6)


@pytest.mark.parametrize("noise, expected", [(0.0, 1.0), (1.0, 0.5), (3.0, 0.1)])
def test_held_out_r2_is_the_explained_variance(noise, expected):
    x, y = linear_data(40_000, noise)
    fit = torch.arange(len(x)) % 2 == 0
    np.testing.assert_allclose(probes.held_out_r2(x, y, fit, torch.tensor([0, 1])), expected, atol=0.02)
    separate = probes.held_out_r2(x, y, fit, torch.tensor([0, 1]))
    pooled = probes.held_out_r2(x, y, fit, torch.tensor([0, 0]))
    assert pooled[0] == pooled[1] and separate.min() <= pooled[0] <= separate.max()


def test_held_out_r2_finds_nothing_where_there_is_nothing():
    g = torch.Generator().manual_seed(1)
    x, y = (
        torch.randn(4000, 5, generator=g, dtype=torch.float64),
        torch.randn(4000, 1, generator=g, dtype=torch.float64),
    )
    fit, group = torch.arange(4000) < 2000, torch.tensor([0])
    assert abs(probes.held_out_r2(x, y, fit, group).item()) < 0.01
    assert (
        abs(probes.held_out_r2(torch.ones_like(x), y, fit, group).item()) < 0.01
    )  # a constant stream holds nothing
    assert probes.held_out_r2(x, torch.ones_like(y), fit, group).isnan().all()


def test_r2_of_a_degenerate_group_does_not_hang_on_its_basis():
    x, y = linear_data()
    q = torch.linalg.qr(torch.randn(2, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)).Q
    fit, group = torch.arange(len(x)) % 2 == 0, torch.tensor([0, 0])
    torch.testing.assert_close(probes.held_out_r2(x, y, fit, group), probes.held_out_r2(x, y @ q, fit, group))


def test_erasing_directions_leave_no_linear_trace():
    x, y = linear_data()
    x = x @ torch.randn(
        5, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )  # correlated columns
    Q = probes.erasing_directions(x, y)
    torch.testing.assert_close(Q.T @ Q, torch.eye(2, dtype=torch.float64))
    erased = x - (x - x.mean(0)) @ Q @ Q.T
    weights, intercept = probes.linear_fit(erased, y)
    left = ((y - erased @ weights - intercept) ** 2).sum() / ((y - y.mean(0)) ** 2).sum()
    assert left == pytest.approx(1, abs=1e-6)


# --- on networks ---


def test_the_stream_continues_from_any_depth():
    config = ModelConfig(n_states=5, length=6, width=8, depth=3)
    tokens = torch.randint(0, 6, (4, 6), generator=torch.Generator().manual_seed(0))
    for model in (ResidualMLP(config, 0), ResidualMLP(config, [0, 1])):
        stream = model.stream(tokens)
        for depth, x in enumerate(stream):
            for mine, whole in zip(model.continue_stream(x, depth), stream[depth:], strict=True):
                torch.testing.assert_close(mine, whole)


def test_retention_of_a_trained_network(stored):
    r2 = stored["mode_retention"].r2
    assert (r2 <= 1).all()
    np.testing.assert_allclose(r2.sel(depth=0), 0, atol=0.05)  # a masked position knows nothing at depth 0
    trained = r2.sel(state="trained", target="posterior").isel(depth=-1)
    assert (
        trained.sel(eigenmode=1)
        > 0.5
        > r2.sel(state="init", target="posterior", eigenmode=1).isel(depth=-1) + 0.2
    )
    assert trained.sel(eigenmode=2) == trained.sel(eigenmode=3)


def test_removals_cost_what_they_should(stored):
    increase = stored["mode_retention"].loss_increase
    assert (increase.sel(depth=0) == 0).all()  # masked positions are all alike at depth 0: nothing to remove
    last = increase.isel(depth=-1).sel(removed=1)
    assert last.sel(direction="relevant") > last.sel(direction="random") + 0.01
    assert (abs(increase) < 3).all()


def test_removing_everything_that_the_posterior_needs_leaves_the_stationary_law(stored):
    # With all directions gone at the last depth, every masked position gives the same prediction.
    e = stored["experiment"]
    setting = e.settings()[0]
    task = measurement.evaluation(setting)
    snapshots = train(setting.run("cpu"), [0], setting.weights(stored["folder"]), progress=False)[0]
    model = load_model(setting.model, snapshots[setting.training.steps])
    x = measurement.forward(model, task.inputs, torch.device("cpu"))[0][-1]
    q = torch.zeros(*task.inputs.shape, 8, dtype=torch.float64)
    q[task.selected] = task.bayes
    x[task.selected] = x[task.selected].mean(0)
    same = model.readout(x[task.selected][:1]).log_softmax(-1).double()
    expected = -(task.bayes @ same[0]).mean()
    found = probes._masked_loss(model, x, setting.model.depth, task.selected, q)
    assert found == pytest.approx(expected.item(), rel=1e-5)


def test_growth_agrees_with_finite_differences(stored):
    growth = stored["perturbations"].growth
    assert growth.dims == ("state", "perturbation", "transition") and (growth > 0).all()
    e = stored["experiment"]
    setting = e.settings()[0]
    inputs = measurement.evaluation(setting).inputs[-probes.INTERVENTIONS :]
    model = ResidualMLP(setting.model, 0).double().requires_grad_(False)
    stream = model.stream(inputs)
    spread = [(x - x.mean(0)).square().mean().sqrt() for x in stream]
    x = stream[0][:128]
    v = x.roll(1, 0) - x
    moved = (model.continue_stream(x + 1e-6 * v, 0)[1] - model.continue_stream(x - 1e-6 * v, 0)[1]) / 2e-6
    expected = moved.norm() / v.norm() * spread[0] / spread[1]
    assert float(growth.sel(state="init", perturbation="between sequences", transition=0)) == pytest.approx(
        expected.item(), rel=1e-4
    )


def test_unscaled_drift_is_the_kernel_drift(stored):
    e, found = stored["experiment"], stored["perturbations"]
    ds = e.run(stored["folder"], progress=False).squeeze()
    drift = ds.kernel_drift.sel(state="trained", view="position")
    np.testing.assert_allclose(found.scaled_drift.sel(scale=1.0), drift, atol=2e-3)
    assert (found.scaled_drift.sel(scale=4.0) < found.scaled_drift.sel(scale=0.25)).all()
    assert (found.mode_response.sel(depth=0) == 0).all()  # the field touches visible tokens alone
    assert (found.mode_response.isel(depth=-1) > 0).all()


@pytest.mark.parametrize("mixing", MIXINGS)
def test_response_to_a_modes_field_agrees_with_finite_differences(mixing):
    sizes = {"n_states": 4, "length": 8, "width": 8, "depth": 2, "mixing": mixing, "snapshots": ()}
    setting = Experiment.profile("quick", **sizes, correlation_lengths=[2.0], sequences=128).settings()[0]
    cpu = torch.device("cpu")
    found = measurement.rehearse(setting, 128, cpu, probes.perturbations).mode_response.sel(state="init")
    _, group, functions = probes.eigenmodes(setting.chain)
    inputs = measurement.evaluation(setting).inputs
    masked = inputs == 4
    model = ResidualMLP(setting.model, 0).double().requires_grad_(False)
    spread = [(x - x.mean(0)).square().mean().sqrt() for x in model.stream(inputs)]
    shown, square = torch.nn.functional.one_hot(inputs, 5).double(), torch.zeros(3, 3)
    for k in range(3):
        field = torch.zeros_like(shown)
        field[..., :4] = 1e-5 * (~masked)[..., None] * functions[:, k]  # pi is uniform
        one, other = (
            model.continue_stream(model.embedding((shown + sign * field)[None])[0], 0) for sign in (1, -1)
        )
        for depth in range(3):
            moved = (one[depth] - other[depth])[masked] / 2e-5
            square[k, depth] = moved.square().mean() / spread[depth] ** 2
    pooled = torch.stack([square[group == g].mean(0) for g in group]).sqrt()
    np.testing.assert_allclose(found, pooled, rtol=1e-3, atol=1e-7)
    assert (found > 0).all("eigenmode").values.tolist() == [mixing == "embedding", *[mixing != "none"] * 2]
