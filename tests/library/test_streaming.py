"""Streamed moments against the metrics on whole matrices, and hooks on networks whose outputs are known."""

import re
from collections import OrderedDict, UserDict, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from rgnb import metrics, observe
from rgnb.metrics.moments import Moments
from rgnb.model import ModelConfig, ResidualMLP


@pytest.fixture(autouse=True)
def the_same_numbers():  # whichever tests came before
    torch.manual_seed(0)


def layers(n=200, shape=(), offset=0.0, scale=1.0):
    base = torch.randn(*shape, n, 6, dtype=torch.float64)
    return [scale * (base @ torch.randn(6, d, dtype=torch.float64)).tanh() + offset for d in (5, 8, 3)]


def moments(found, sizes):
    m = Moments()
    for part in zip(*(x.split(sizes, -2) for x in found), strict=True):
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
        for s, x in zip(m.singular_values(center), found, strict=True):
            assert torch.allclose(s, metrics.singular_values(x, center), rtol=1e-9)


@pytest.mark.parametrize(
    "offset, scale, tolerance", [(1e4, 1.0, 1e-9), (0.0, 1e80, 1e-9), (0.0, 1e-80, 1e-9), (-3e6, 2.0, 1e-7)]
)
def test_stable_under_offset_and_scale(offset, scale, tolerance):
    found = layers(offset=offset, scale=scale)
    m = moments(found, [50, 150])
    assert torch.allclose(m.cka_matrix(), metrics.cka_matrix(found), rtol=0, atol=tolerance)
    for s, x in zip(m.singular_values(), found, strict=True):
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
    assert metrics.spectrum_rank(m.singular_values(center=False)[1]).item() == pytest.approx(
        float(value != 0)
    )
    cka = m.cka_matrix()
    assert cka[0, 0] == pytest.approx(1) and cka[1].isnan().all()


@pytest.mark.parametrize("width", [1, 64, 1000])
def test_what_is_constant_does_not_depend_on_the_width(width):
    x = 1 + 1e-15 * torch.randn(40, width, dtype=torch.float64)  # rounding alone
    assert metrics.effective_rank(x).item() == 0 and metrics.linear_cka(x, x).isnan()
    m = moments([x], [40])
    assert metrics.spectrum_rank(m.singular_values()[0]).item() == 0 and m.cka_matrix().isnan()


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
        ([torch.zeros(0, d) for d in (5, 8, 3)], "n >= 1 rows"),
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


def test_rows_that_are_too_wide_are_refused_before_anything_is_added():
    m = Moments()
    with pytest.raises(
        ValueError, match=r"layers are too wide .* 30001 features .* 6.71 GiB, and 4 are .*kernel_drift"
    ):
        m.update([torch.zeros(2, 30000), torch.zeros(2, 1)])
    with pytest.raises(ValueError, match=r"leading dimensions \(500,\)"):
        m.update([torch.zeros(500, 2, 2000)])
    m.update([torch.zeros(2, 3)])
    assert m.rows == 2


class Wrapped(torch.nn.Module):
    """The book's stack as a stranger's network: one module per block."""

    def __init__(self):
        super().__init__()
        self.stack = ResidualMLP(ModelConfig(n_states=4, length=6, width=8, depth=2), 0)
        self.blocks = torch.nn.ModuleList(torch.nn.Identity() for _ in range(3))
        self.unused = torch.nn.Identity()

    def forward(self, tokens, again=None):
        for block, x in zip(self.blocks, self.stack.stream(tokens), strict=True):
            out = block(x)
        return out, self.training


NAMES = ["blocks.0", "blocks.1", "blocks.2"]
TOKENS = torch.randint(0, 5, (64, 6), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("view", ["token", "position", "pooled", lambda x: x[:, 2]])
def test_observe_equals_the_stream_measured_whole(view):
    model = Wrapped().train()
    ds = observe(model, TOKENS.split(20), NAMES, view)
    stream = [view(x) if callable(view) else metrics.view(x, view) for x in model.stack.stream(TOKENS)]
    stream = [x.detach() for x in stream]
    for depth, x in enumerate(stream):
        for spectrum in metrics.SPECTRA:
            expected = metrics.effective_rank(x, spectrum=spectrum).mean().item()
            assert ds.effective_rank.sel(
                centring="centred", spectrum=spectrum, depth=depth
            ).item() == pytest.approx(expected, rel=1e-6)
        assert ds.stable_rank.sel(centring="uncentred", depth=depth).item() == pytest.approx(
            metrics.stable_rank(x, center=False).mean().item()
        )
    assert ds.kernel_drift.values == pytest.approx(
        metrics.kernel_drift(stream).reshape(-1, 2).nanmean(0).numpy(), abs=1e-9
    )
    assert model.training and not model.blocks[0]._forward_hooks
    assert ds.module.values.tolist() == NAMES
    assert ds.attrs == {"rows": 64 * (1, 6)[view == "token"], "view": "own" if callable(view) else view}


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


# --- networks as people write them ---


def sample(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def measured(layers, observed):
    """Check a dataset against the metrics of whole matrices."""
    layers = [x.detach().double() for x in layers]
    drift = metrics.kernel_drift(layers).tolist() if len(layers) > 1 else []
    assert observed.kernel_drift.values == pytest.approx(drift, abs=1e-9)
    for spectrum in metrics.SPECTRA:
        expected = [metrics.effective_rank(x, spectrum=spectrum).item() for x in layers]
        assert observed.effective_rank.sel(centring="centred", spectrum=spectrum).values == pytest.approx(
            expected, rel=1e-6
        )
    assert observed.attrs["rows"] == len(layers[0])


class Into(nn.Module):
    """A block whose output a later operation writes into."""

    def __init__(self, how):
        super().__init__()
        self.one, self.two, self.how = nn.Linear(8, 8), nn.Linear(8, 8), how

    def forward(self, x):
        y = self.one(x)
        if self.how == "+=":
            z = self.two(x)
            z += y
            y += z
            return y
        return {"relu": torch.relu_, "mul_": lambda y: y.mul_(x), "view": lambda y: y[:, :4].zero_()}[
            self.how
        ](y)


@pytest.mark.parametrize("how", ["relu", "+=", "mul_", "view"])
def test_what_is_written_in_place_afterwards_does_not_count(how):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(8, 8), Into(how)), sample(64, 8)
    ds = observe(model, [x[:20], x[20:]], ["0", "1.one"], device="cpu")
    first = model[0](x)
    measured([first, model[1].one(first)], ds)


def test_an_in_place_relu_drifts():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(8, 8), nn.ReLU(inplace=True)), sample(64, 8)
    for dtype in (torch.float32, torch.float64):
        model, x = model.to(dtype), x.to(dtype)
        ds = observe(model, [x], ["0", "1"], device="cpu")
        first = nn.functional.linear(x, model[0].weight, model[0].bias)
        measured([first, first.relu()], ds)
        assert ds.kernel_drift.item() > 0.1


class Looped(nn.Module):
    """Two blocks, each used `times` times: one after the other, or in turns."""

    def __init__(self, times, turns):
        super().__init__()
        self.a, self.b, self.times, self.turns = nn.Linear(8, 8), nn.Linear(8, 8), times, turns
        self.tied = self.a

    def order(self):
        return [self.a, self.b] * self.times if self.turns else [self.a] * self.times + [self.b] * self.times

    def forward(self, x):
        for block in self.order():
            x = block(x).tanh_()
        return x


@pytest.mark.parametrize(
    "turns, modules, labels",
    [
        (True, ["a", "b"], ["a", "b", "a#2", "b#2", "a#3", "b#3"]),
        (True, ["b", "a"], ["a", "b", "a#2", "b#2", "a#3", "b#3"]),
        (False, ["a", "b"], ["a", "a#2", "a#3", "b", "b#2", "b#3"]),
    ],
)
def test_each_call_of_a_module_is_a_depth(turns, modules, labels):
    torch.manual_seed(0)
    model, x = Looped(3, turns), sample(64, 8)
    ds = observe(model, x.split(40), modules, device="cpu")
    expected, state = [], x
    for block in model.order():
        expected.append(block(state))
        state = expected[-1].tanh()
    measured(expected, ds)
    assert ds.module.values.tolist() == labels


def test_modules_called_once_stay_in_the_order_given():
    torch.manual_seed(0)
    model, x = Looped(1, True), sample(64, 8)
    ds = observe(model, [x], ["b", "a"], device="cpu")
    first = model.a(x)
    measured([model.b(first.tanh()), first], ds)
    assert ds.module.values.tolist() == ["b", "a"]


class Unsteady(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = nn.Linear(8, 8)

    def forward(self, x):
        for _ in range(len(x) // 10):
            x = self.block(x)
        return x


def test_batches_that_call_a_module_differently_often():
    for sizes, message in (([20, 30], "'block#2'|None.*'block#3'"), ([30, 20], "'block#3'.*None")):
        with pytest.raises(ValueError, match=f"must call the modules alike.*({message})"):
            observe(Unsteady(), [sample(n, 8) for n in sizes], ["block"], device="cpu")


@pytest.mark.parametrize(
    "modules, message",
    [
        (["a", "b", "a"], "module 'a' is named twice; name it once"),
        (["a", "tied"], "module 'tied' is the same as 'a'"),
    ],
)
def test_modules_named_twice(modules, message):
    with pytest.raises(ValueError, match=message):
        observe(Looped(2, True), [sample(8, 8)], modules, device="cpu")


def test_a_second_name_of_a_module_will_do():
    model, x = Looped(2, True), sample(64, 8)
    one, other = (observe(model, [x], [name], device="cpu") for name in ("tied", "a"))
    assert one.kernel_drift.equals(other.kernel_drift) and one.module.values.tolist() == ["tied", "tied#2"]


def test_every_module_keeps_its_own_mode():
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Sequential(nn.BatchNorm1d(8)))
    model.train()
    model[1].eval()
    model[3].eval()[0].train()
    before = [module.training for module in model.modules()]
    mean = model[1].running_mean.clone()
    observe(model, [sample(64, 8)], ["0"], device="cpu")
    assert [module.training for module in model.modules()] == before == [True, True, False, True, False, True]
    assert torch.equal(model[1].running_mean, mean)
    with pytest.raises(TypeError):
        observe(model, [None], ["0"], device="cpu")
    assert [module.training for module in model.modules()] == before


MLP = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4))


def test_rows_of_an_mlp_are_tokens():
    x = sample(64, 8)
    measured([MLP[0](x), MLP[:2](x), MLP(x)], observe(MLP, x.split(24), ["0", "1", "2"], device="cpu"))
    for view in ("position", "pooled"):
        with pytest.raises(
            ValueError, match=r"'0' returns \(64, 16\), not \(batch, length, d\); pass token as view"
        ):
            observe(MLP, [x], ["0"], view, device="cpu")


def test_feature_maps_are_told_what_to_do():
    with pytest.raises(
        ValueError, match=r"returns \(4, 3, 5, 5\).*lambda x: x.mean\(\(-2, -1\)\) for feature maps"
    ):
        observe(nn.Sequential(nn.Identity()), [sample(4, 3, 5, 5)], ["0"], device="cpu")


def test_pairs_of_a_data_loader():
    x, labels = sample(64, 8), torch.arange(64)
    loader = DataLoader(TensorDataset(x, labels), 24)
    with pytest.raises(
        TypeError, match=r"batches: a list of 2.*inputs=lambda batch: batch\[0\].*inputs=tuple"
    ):
        observe(MLP, loader, ["0"], device="cpu")
    with pytest.raises(
        TypeError, match=r"batches do not suit.*too many positional.*inputs=lambda batch: batch\[0\]"
    ):
        observe(MLP, [(x, labels)], ["0"], device="cpu")
    expected = observe(MLP, [x], ["0", "2"], device="cpu")
    assert_close(observe(MLP, loader, ["0", "2"], device="cpu", inputs=lambda batch: batch[0]), expected)
    assert_close(observe(MLP, DataLoader(TensorDataset(x), 24), ["0", "2"], device="cpu"), expected)
    with pytest.raises(TypeError, match="inputs must be a function of a batch"):
        observe(MLP, loader, ["0"], device="cpu", inputs=0)
    with pytest.raises(TypeError, match=r"batches must hold tensors.*got str"):
        observe(MLP, loader, ["0"], device="cpu", inputs=lambda batch: "x")


def assert_close(one, other):
    for name in one.data_vars:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-6, atol=1e-9, err_msg=name)


@dataclass
class Output:
    logits: torch.Tensor
    last_hidden_state: torch.Tensor


class Plain(nn.Module):
    """A module that returns what a function makes of its input."""

    def __init__(self, make):
        super().__init__()
        self.make, self.layer = make, nn.Linear(8, 8)

    def forward(self, input_ids, attention_mask=None):
        return self.make(self.layer(input_ids))


class Head(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.body = Plain(make)

    def forward(self, input_ids, attention_mask=None):
        self.body(input_ids, attention_mask)


@pytest.mark.parametrize(
    "make",
    [
        lambda x: OrderedDict(loss=None, last_hidden_state=x, pooler_output=x[:, 0]),
        lambda x: UserDict(pooler_output=x[:, 0], last_hidden_state=x),
        lambda x: Output(x[..., :2], x),
        lambda x: namedtuple("Out", "logits last_hidden_state")(x[..., :2], x),
        lambda x: SimpleNamespace(past=None, hidden=x),
        lambda x: {"hidden": x, "other": x[:, 0]},
        lambda x: (x, (x, x)),
        lambda x: (None, x),
        lambda x: [x],
    ],
    ids=[
        *("ModelOutput", "mapping", "dataclass", "named tuple", "object", "dict", "tuple", "tuple with None"),
        "list",
    ],
)
def test_outputs_that_hold_tensors(make):
    torch.manual_seed(0)
    model, x = Head(make), sample(32, 6, 8)
    expected = model.body.layer(x)
    measured([expected.flatten(0, 1)] * 2, observe(model, [x], ["body.layer", "body"], device="cpu"))
    ds = observe(model, [UserDict(input_ids=x, attention_mask=x[..., 0])], ["body"], lambda x: x[:, 0], "cpu")
    measured([expected[:, 0]], ds)


def test_errors_name_the_module():
    for value, message in ((torch.nan, "NaN"), (torch.inf, "NaN or infinite")):
        with pytest.raises(ValueError, match=f"the view of module 'body' holds {message}"):
            observe(Head(lambda x, value=value: x * value), [sample(8, 6, 8)], ["body"], device="cpu")
    with pytest.raises(ValueError, match="at least 4 rows are needed, got 3; give more"):
        observe(MLP, [sample(3, 8)], ["0"], device="cpu")


def test_outputs_and_mappings_that_do_not_fit():
    with pytest.raises(
        ValueError, match="module 'body' returns dict without a tensor; name one of its submodules"
    ):
        observe(Head(lambda x: {"x": None}), [sample(4, 8)], ["body"], device="cpu")
    model = Head(lambda x: x)
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'labels'.*inputs=lambda batch: {name"):
        observe(model, [{"input_ids": sample(4, 8), "labels": torch.ones(4)}], ["body"], device="cpu")
    with pytest.raises(TypeError, match="batches must be an iterable of inputs, got UserDict"):
        observe(model, UserDict(input_ids=sample(4, 8)), ["body"], device="cpu")


class Encoder(nn.Module):
    """PyTorch's own, as it comes: in evaluation mode it makes nested tensors of padded batches."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.input, self.encoder = nn.Linear(8, 8), nn.TransformerEncoder(layer, 2)

    def forward(self, x, padding):
        return self.encoder(self.input(x), src_key_padding_mask=padding)


def test_padding_rows_are_left_out_by_a_view_that_sees_the_batch():
    torch.manual_seed(0)
    model, x, lengths = Encoder().eval(), sample(32, 7, 8), torch.arange(32) % 5 + 2
    padding = torch.arange(7) >= lengths[:, None]
    rows = [{"x": a, "padding": b} for a, b in zip(x.split(10), padding.split(10), strict=True)]
    modules = ["input", "encoder.layers.0", "encoder.layers.1"]
    ds = observe(model, rows, modules, lambda output, batch: output[~batch["padding"]], "cpu")
    expected = [[], [], []]  # every sequence by itself, without padding
    for one, length in zip(x, lengths, strict=True):
        state = model.input(one[None, :length])
        expected[0].append(state[0])
        for k, layer in enumerate(model.encoder.layers):
            state = layer(state)
            expected[k + 1].append(state[0])
    expected = [torch.cat(rows).detach().double() for rows in expected]
    assert ds.attrs["rows"] == int(lengths.sum())
    assert ds.kernel_drift.values == pytest.approx(metrics.kernel_drift(expected).numpy(), abs=1e-5)
    ranks = ds.effective_rank.sel(centring="centred", spectrum="singular").values
    assert ranks == pytest.approx([metrics.effective_rank(x).item() for x in expected], rel=1e-5)
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_rows_of_nested_tensors(layout):
    torch.manual_seed(0)
    x, parts = sample(30, 8), [5, 20, 5]
    model = nn.Sequential(
        nn.Linear(8, 8), Plain(lambda y: torch.nested.nested_tensor(list(y.split(parts)), layout=layout))
    )
    measured([model[0](x), model[1].layer(model[0](x))], observe(model, [x], ["0", "1"], device="cpu"))
    with pytest.raises(ValueError, match=r"'1' returns a nested tensor.*pass token as view"):
        observe(model, [x], ["1"], "pooled", "cpu")


def test_views_with_one_argument_or_two():
    x = sample(64, 8)
    expected = observe(MLP, [x], ["0", "2"], lambda y: y[::2], "cpu")

    class Every:
        def __call__(self, y, batch):
            assert batch is x
            return y[::2]

    for view in (lambda y, k=2: y[::k], lambda y, *rest: y[::2], Every(), Every().__call__):
        assert observe(MLP, [x], ["0", "2"], view, "cpu").equals(expected)
    assert observe(MLP, [x], ["0", "2"], torch.clone, "cpu").equals(
        observe(MLP, [x], ["0", "2"], device="cpu")
    )


@pytest.mark.parametrize("part", [False, True], ids=["whole", "a part in place"])
def test_compiled_networks_that_have_run(part):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(8, 16), nn.Sequential(nn.GELU(), nn.Linear(16, 4))), sample(64, 8)
    expected = observe(model, [x], ["0", "1.1"], device="cpu")
    if part:
        model[1] = torch.compile(model[1], backend="eager")
    compiled = model if part else torch.compile(model, backend="eager")
    compiled.eval()
    with torch.no_grad():
        compiled(x)
    for _ in range(2):
        assert observe(compiled, [x], ["0", "1.1"], device="cpu").equals(expected)
    assert (
        observe(compiled, [x], ["1._orig_mod.1" if part else "_orig_mod.1.1"], device="cpu").module.item()
        == "1.1"
    )
    with pytest.raises(TypeError, match="batches do not suit the model"):
        observe(compiled, [(x, x)], ["0"], device="cpu")
    assert torch._dynamo.eval_frame._stance.stance == "default"


def test_a_wrong_name_among_thousands_shows_ten():
    model = nn.Sequential(*(nn.Sequential(nn.Identity()) for _ in range(400)))
    with pytest.raises(ValueError, match=r"unknown module '317.1': did you mean '317.0'\?") as error:
        observe(model, [sample(4, 8)], ["317.1"], device="cpu")
    assert re.search(r"choose from (\S+, ){10}\.\.\. \(800 in all\)$", str(error.value))


def test_fewer_rows_than_features_are_said_once(recwarn):
    model, x = nn.Sequential(nn.Linear(8, 40), nn.Linear(40, 30), nn.Linear(30, 80)), sample(32, 8)
    observe(model, x.split(8), ["0", "1", "2"], device="cpu")
    (warning,) = recwarn
    assert "the sample limits ranks: its 32 rows are fewer than the features of 0, 2; give more" in str(
        warning.message
    )
    assert warning.filename == __file__
    recwarn.clear()
    observe(model, [sample(80, 8)], ["0", "1", "2"], device="cpu")
    assert not recwarn.list


def unusable():
    """Tensors that are not dense real numbers, and what is said about them."""
    x = torch.rand(6, 4)
    return {
        "sparse": (x.to_sparse(), r"layout torch.sparse_coo; pass x.to_dense\(\)"),
        "nested": (
            torch.nested.nested_tensor([x, x[:2]]),
            r"nested one; pass the rows of its parts, torch.cat\(x.unbind\(\)\)",
        ),
        "meta": (x.to("meta"), "meta device, which has no values"),
        "quantized": (
            torch.quantize_per_tensor(x, 0.1, 0, torch.quint8),
            r"quantized one; pass x.dequantize\(\)",
        ),
    }


@pytest.mark.parametrize("kind", ["sparse", "nested", "meta", "quantized"])
def test_outputs_without_dense_values(kind):
    x, message = unusable()[kind]
    with pytest.raises(TypeError, match=r"layers\[1\] must be a dense tensor, got .*" + message):
        Moments().update([torch.rand(6, 4), x])
    with pytest.raises(TypeError, match="the view of module '0' must be a dense tensor, got .*" + message):
        observe(nn.Sequential(nn.Identity()), [torch.rand(6, 4)], ["0"], lambda y: x, "cpu")


def test_networks_and_batches_without_values():
    with pytest.raises(ValueError, match="model has weights on the meta device"):
        observe(nn.Linear(2, 2, device="meta"), [torch.rand(4, 2)], [""], device="cpu")
    with pytest.raises(TypeError, match=r"batches must hold tensors.*got one without values"):
        observe(MLP, [torch.rand(4, 8, device="meta")], ["0"], device="cpu")
