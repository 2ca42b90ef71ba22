"""Streamed moments against the metrics on whole matrices, and hooks on networks whose outputs are known."""

import pytest
import torch

from rgnb import metrics
from rgnb.model import ModelConfig, ResidualMLP
from rgnb.streaming import Moments, observe

torch.manual_seed(0)


def layers(n=200, shape=(), offset=0.0, scale=1.0):
    base = torch.randn(*shape, n, 6, dtype=torch.float64)
    return [scale * (base @ torch.randn(6, d, dtype=torch.float64)).tanh() + offset for d in (5, 8, 3)]


def moments(found, sizes):
    m = Moments()
    for part in zip(*(x.split(sizes, -2) for x in found)):
        m.update(part)
    return m


@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
@pytest.mark.parametrize("sizes", [[200], [1, 2, 97, 100], [10] * 20])
@pytest.mark.parametrize("debiased", [True, False])
def test_any_split_gives_what_whole_matrices_give(shape, sizes, debiased):
    found = layers(shape=shape)
    m = moments(found, sizes)
    assert m.rows == 200
    assert torch.allclose(m.cka_matrix(debiased), metrics.cka_matrix(found, debiased), rtol=0, atol=1e-10)
    assert torch.allclose(m.kernel_drift(debiased), metrics.kernel_drift(found, debiased), rtol=0, atol=1e-10)
    for center in (True, False):
        for s, x in zip(m.singular_values(center), found):
            assert torch.allclose(s, metrics.singular_values(x, center), rtol=1e-9)


@pytest.mark.parametrize("offset, scale, tolerance", [(1e4, 1.0, 1e-9), (0.0, 1e80, 1e-9), (0.0, 1e-80, 1e-9), (-3e6, 2.0, 1e-7)])
def test_stable_under_offset_and_scale(offset, scale, tolerance):
    found = layers(offset=offset, scale=scale)
    m = moments(found, [50, 150])
    assert torch.allclose(m.cka_matrix(), metrics.cka_matrix(found), rtol=0, atol=tolerance)
    for s, x in zip(m.singular_values(), found):
        assert metrics.spectrum_rank(s).item() == pytest.approx(metrics.effective_rank(x).item(), rel=1e-6)


def test_a_first_batch_that_is_unlike_the_rest():
    found = [torch.cat([x[:1], 50 + 100 * x[1:]]) for x in layers()]
    m = moments(found, [1, 199])
    assert torch.allclose(m.cka_matrix(), metrics.cka_matrix(found), rtol=0, atol=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e8])
def test_a_constant_layer_has_rank_zero_and_no_cka(value):
    found = [*layers()[:1], torch.full((200, 4), value)]
    m = moments(found, [3, 197])
    assert metrics.spectrum_rank(m.singular_values()[1]).item() == 0
    assert metrics.spectrum_rank(m.singular_values(center=False)[1]).item() == pytest.approx(float(value != 0))
    cka = m.cka_matrix()
    assert cka[0, 0] == pytest.approx(1) and cka[1].isnan().all()


def test_deficient_layers_have_the_rank_of_whole_matrices():
    x = torch.randn(300, 3, dtype=torch.float64) @ torch.randn(3, 40, dtype=torch.float64)
    s = moments([x], [100] * 3).singular_values()[0]
    assert (s > 0).sum() == 3
    assert metrics.spectrum_rank(s).item() == pytest.approx(metrics.effective_rank(x).item(), rel=1e-6)


@pytest.mark.parametrize(
    "second, message",
    [
        ([torch.zeros(5, 5)], "widths"),
        ([torch.zeros(5, 5), torch.zeros(4, 8), torch.zeros(5, 3)], "rows"),
        ([torch.zeros(2, 5, d) for d in (5, 8, 3)], "leading dimensions"),
        ([torch.full((5, d), torch.nan) for d in (5, 8, 3)], "NaN"),
        ([torch.zeros(0, d) for d in (5, 8, 3)], "n, d >= 1"),
    ],
)
def test_rows_that_do_not_fit_leave_the_sums_alone(second, message):
    found = layers()
    m = moments(found, [200])
    before = m.cka_matrix()
    with pytest.raises(ValueError, match=message):
        m.update(second)
    assert m.rows == 200 and torch.equal(m.cka_matrix(), before)


def test_too_few_rows():
    with pytest.raises(ValueError, match="at least 1 rows"):
        Moments().singular_values()
    with pytest.raises(ValueError, match="at least 4 rows"):
        moments([x[:3] for x in layers()], [3]).cka_matrix()


class Wrapped(torch.nn.Module):
    """The book's stack as a stranger's network: a module a block."""

    def __init__(self):
        super().__init__()
        self.stack = ResidualMLP(ModelConfig(n_states=4, length=6, width=8, depth=2), 0)
        self.blocks = torch.nn.ModuleList(torch.nn.Identity() for _ in range(3))
        self.unused = torch.nn.Identity()

    def forward(self, tokens, again=None):
        for block, x in zip(self.blocks, self.stack.stream(tokens)):
            out = block(x)
        return out, self.training


NAMES = ["blocks.0", "blocks.1", "blocks.2"]
TOKENS = torch.randint(0, 5, (64, 6))


@pytest.mark.parametrize("view", ["token", "position", "pooled", lambda x: x[:, 2]])
def test_observe_equals_the_stream_measured_whole(view):
    model = Wrapped().train()
    ds = observe(model, TOKENS.split(20), NAMES, view)
    stream = [view(x) if callable(view) else metrics.view(x, view) for x in model.stack.stream(TOKENS)]
    stream = [x.detach() for x in stream]
    for depth, x in enumerate(stream):
        for spectrum in metrics.SPECTRA:
            expected = metrics.effective_rank(x, spectrum=spectrum).mean().item()
            assert ds.effective_rank.sel(centring="centred", spectrum=spectrum, depth=depth).item() == pytest.approx(expected, rel=1e-6)
        assert ds.stable_rank.sel(centring="uncentred", depth=depth).item() == pytest.approx(metrics.stable_rank(x, center=False).mean().item())
    assert ds.kernel_drift.values == pytest.approx(metrics.kernel_drift(stream).reshape(-1, 2).nanmean(0).numpy(), abs=1e-9)
    assert model.training and not model.blocks[0]._forward_hooks
    assert ds.module.values.tolist() == NAMES


def test_observe_takes_tensors_tuples_and_dicts():
    model = Wrapped()
    one, two, three = (observe(model, [b], NAMES) for b in (TOKENS, (TOKENS,), {"tokens": TOKENS}))
    assert one.equals(two) and one.equals(three)


@pytest.mark.parametrize(
    "batches, modules, view, message",
    [
        ([TOKENS], ["block.1"], "token", "did you mean 'blocks.1'"),
        ([TOKENS], ["unused"], "token", "not called"),
        ([TOKENS], [], "token", "at least 1"),
        ([TOKENS], NAMES, "sequence", "unknown view"),
        ([], NAMES, "token", "at least one batch"),
        ([TOKENS], NAMES, lambda x: x.flatten(), r"\(..., n, d\)"),
    ],
)
def test_observe_rejects_bad_input(batches, modules, view, message):
    model = Wrapped()
    with pytest.raises(ValueError, match=message):
        observe(model, batches, modules, view)
    assert not model.blocks[0]._forward_hooks
