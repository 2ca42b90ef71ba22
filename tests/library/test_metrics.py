"""Ranks and similarities against closed forms, invariances and independent implementations."""

import numpy as np
import pytest
import torch

from rgnb import masking, metrics
from rgnb.chains import sticky
from rgnb.metrics.moments import Moments
from rgnb.metrics.ranks import (
    effective_rank,
    participation_ratio,
    relevant_modes,
    singular_values,
    spectrum_rank,
    stable_rank,
)
from rgnb.metrics.similarity import cka_between, cka_matrix, concentration, kernel_drift, linear_cka
from rgnb.metrics.views import view

RANKS = {
    "effective": effective_rank,
    "effective-eigen": lambda x, center=True: effective_rank(x, center, "eigen"),
    "participation": participation_ratio,
    "stable": stable_rank,
}
ranks = pytest.mark.parametrize("rank", RANKS.values(), ids=RANKS)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def orthogonal(n, seed=0):
    return torch.linalg.qr(randn(n, n, seed=seed)).Q


def with_singular_values(values, n=20, d=8, seed=0):
    """An (n, d) matrix with zero column means and these singular values."""
    left = randn(n, len(values), seed=seed)
    left = torch.linalg.qr(left - left.mean(0)).Q
    return (
        left @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ orthogonal(d, seed + 1)[: len(values)]
    )


# --- ranks ---


@ranks
@pytest.mark.parametrize("n", [2, 5, 16])
def test_orthogonal_matrix_has_full_rank(rank, n):
    assert rank(orthogonal(n), center=False).item() == pytest.approx(n, rel=1e-12)


@pytest.mark.parametrize("values", [[5.0], [3.0, 3.0], [4.0, 2.0, 1.0], [10.0, 1.0, 0.1, 0.01], [1.0] * 8])
@pytest.mark.parametrize("center", [True, False])
def test_ranks_from_known_singular_values(values, center):
    x, s = with_singular_values(values), np.array(values)

    def perplexity(weights):
        p = weights / weights.sum()
        return np.exp(-(p * np.log(p)).sum())

    np.testing.assert_allclose(singular_values(x, center)[: len(s)], s, rtol=0, atol=1e-12 * s.max())
    assert (singular_values(x, center)[len(s) :] == 0).all()
    assert effective_rank(x, center).item() == pytest.approx(perplexity(s), rel=1e-10)
    assert effective_rank(x, center, "eigen").item() == pytest.approx(perplexity(s**2), rel=1e-10)
    assert participation_ratio(x, center).item() == pytest.approx((s**2).sum() ** 2 / (s**4).sum(), rel=1e-10)
    assert stable_rank(x, center).item() == pytest.approx((s**2).sum() / s.max() ** 2, rel=1e-10)


@pytest.mark.parametrize("n", [10, 300])  # by SVD alone, by Gram matrix where it is exact enough
@pytest.mark.parametrize(
    "values",
    [
        np.logspace(0, -4, 8),
        np.logspace(0, -12, 8),
        [1, 1, 1e-5, 1e-5, 1e-9, 1e-9, 1e-9],  # neighbours that no direction tells apart
        [1, 1e-5, 1e-10],
        [1, 1e-3, 1e-6],
        [1],
    ],
)
def test_small_singular_values_are_found_beside_large_ones(n, values):
    values = [float(v) for v in values]
    batch = torch.stack([with_singular_values(values, n, seed=1), with_singular_values([1.0] * 8, n, seed=3)])
    found = singular_values(batch)
    np.testing.assert_allclose(found[0, : len(values)], values, rtol=1e-3, atol=1e-12)
    assert (found[0, len(values) :] == 0).all()
    np.testing.assert_allclose(found, torch.linalg.svdvals(batch), rtol=0, atol=1e-12)
    np.testing.assert_allclose(found[1], 1, rtol=1e-13)


def test_deficient_rank_beside_many_others_needs_no_svd(monkeypatch):
    # Rows that repeat, as of embeddings: of rank 5, centred, beside one of full rank; several parts.
    repeated = randn(6, 8)[torch.arange(3000) % 6]
    batch = torch.stack([repeated * (i + 1) for i in range(30)] + [randn(3000, 8)])
    expected = torch.linalg.svdvals(batch - batch.mean(1, keepdim=True))
    exact = torch.linalg.svdvals

    def none(x):
        assert not len(x)
        return exact(x)

    monkeypatch.setattr(torch.linalg, "svdvals", none)
    found = singular_values(batch)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * expected.max())
    assert (found[:30, 5:] == 0).all() and (found[30] > 0).all()


@pytest.mark.parametrize("values", [[3.0, 2.0, 1.0, 0.5], [3.0, 2.0, 1e-6, 1e-7]])
def test_gradient_of_rank(values):
    x = with_singular_values(values, 300, 4).requires_grad_()
    s = torch.linalg.svdvals(x)
    expected = torch.autograd.grad(spectrum_rank(s[: len(values)]), x)[0]
    (found,) = torch.autograd.grad(effective_rank(x, center=False), x)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)


def test_two_equal_values_count_as_two_in_either_spectrum():
    s = torch.tensor([[7.0, 7.0, 0.0], [7.0, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    for spectrum in ("singular", "eigen"):
        assert spectrum_rank(s, spectrum).tolist() == pytest.approx([2, 1, 0], abs=1e-12)


@ranks
@pytest.mark.parametrize("n, d", [(6, 20), (20, 6), (7, 7), (2, 3)])
def test_bounds_and_the_degree_of_freedom_lost_to_centring(rank, n, d):
    x = randn(n, d)
    assert 1 - 1e-12 <= rank(x).item() <= min(n - 1, d) + 1e-9
    assert 1 - 1e-12 <= rank(x, center=False).item() <= min(n, d) + 1e-9
    assert (singular_values(x) > 0).sum() == min(n - 1, d)


@ranks
@pytest.mark.parametrize("value", [0.0, 0.1, 1e6, -3e-7])
def test_constant_input_has_rank_zero(rank, value):
    assert rank(torch.full((9, 5), value, dtype=torch.float64)).item() == 0


@ranks
def test_identical_rows_have_rank_zero_centred_and_one_otherwise(rank):
    x = randn(1, 6).expand(11, 6)
    assert rank(x).item() == 0
    assert rank(x, center=False).item() == pytest.approx(1, rel=1e-12)


@ranks
def test_rank_of_zeros_is_zero_without_centring(rank):
    assert rank(torch.zeros(4, 3), center=False).item() == 0


@ranks
@pytest.mark.parametrize("center", [True, False])
def test_invariance_to_rotation_scale_and_row_order(rank, center):
    x = randn(12, 7) * torch.logspace(0, -2, 7, dtype=torch.float64)
    expected = pytest.approx(rank(x, center).item(), rel=1e-10)
    assert rank(x @ orthogonal(7, 3), center).item() == expected
    assert rank(x.flip(0), center).item() == expected
    for scale in (-1e-6, 1e6, 1e-100, 1e100):
        assert rank(x * scale, center).item() == expected


@ranks
def test_a_shift_changes_only_the_uncentred_rank(rank):
    x = randn(12, 7)
    assert rank(x + 5).item() == pytest.approx(rank(x).item(), rel=1e-10)
    assert rank(x + 1e6).item() == pytest.approx(rank(x).item(), rel=1e-6)
    assert rank(x + 50, center=False) < 0.7 * rank(x, center=False)


@ranks
def test_leading_dimensions_equal_a_loop(rank):
    x = randn(2, 3, 10, 4)
    x[1, 2] = 1.0
    out = rank(x)
    assert out.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            assert out[i, j].item() == pytest.approx(rank(x[i, j]).item(), rel=1e-12)


@ranks
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_any_float_in_float64_out(rank, dtype):
    x = randn(10, 4).to(dtype)
    assert rank(x).dtype == torch.float64
    assert rank(x).item() == rank(x.double()).item()
    assert rank(x.double().numpy()).item() == rank(x).item()


@ranks
@pytest.mark.parametrize(
    "x, error, message",
    [
        (torch.tensor([[1.0, float("nan")]]), ValueError, "NaN or infinite"),
        (torch.tensor([[1.0, -float("inf")]]), ValueError, "NaN or infinite"),
        (torch.ones(4), ValueError, r"got shape \(4,\)"),
        (torch.ones(4, 0), ValueError, r"got shape \(4, 0\)"),
        (torch.ones(0, 4), ValueError, r"got shape \(0, 4\)"),
        (torch.ones(4, 2, dtype=torch.complex64), TypeError, "must be real"),
        ("abc", TypeError, "must be a tensor or array"),
        ([["a", "b"]], TypeError, "must be a tensor or array"),
        (None, TypeError, "must be a tensor or array"),
    ],
)
def test_ranks_reject_bad_input(rank, x, error, message):
    with pytest.raises(error, match=message):
        rank(x)


def test_unknown_spectrum_names_the_closest():
    with pytest.raises(ValueError, match="did you mean 'eigen'"):
        effective_rank(torch.ones(4, 2), spectrum="eigne")


@pytest.fixture(scope="module")
def wide_networks():
    """Activations at depth 0 to 6, no LayerNorm, no residual: {width: 7 tensors (draws, 16, width)}."""
    found = {}
    for width in (512, 1024):
        g, x = torch.Generator().manual_seed(width), torch.eye(16).expand(12, 16, 16)
        layers = [x]
        for _ in range(6):
            w = torch.randn(12, x.shape[-1], width, generator=g) * (2 / x.shape[-1]) ** 0.5
            x = torch.relu(x @ w)
            layers.append(x)
        found[width] = layers
    return found


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("spectrum", ["singular", "eigen"])
def test_rank_at_initialisation_has_its_closed_form(wide_networks, center, spectrum):
    expected = metrics.initial_ranks(16, 7, center, spectrum).numpy()
    if center:
        np.testing.assert_allclose(expected, 15, rtol=1e-12)
    else:
        known = {
            "singular": [16, 15.06, 14.13, 13.34, 12.64, 12.02, 11.47],
            "eigen": [16, 10.85, 7.22, 5.27, 4.14, 3.42, 2.94],
        }[spectrum]
        np.testing.assert_allclose(expected, known, atol=0.005)
    # (draws, depth). The deviation of a finite width falls as 1 / width, so two widths take it out.
    narrow, wide = (
        torch.stack([effective_rank(x, center, spectrum) for x in layers], -1).numpy()
        for layers in wide_networks.values()
    )
    limit = 2 * wide.mean(0) - narrow.mean(0)
    error = np.sqrt((4 * wide.var(0, ddof=1) + narrow.var(0, ddof=1)) / len(wide))
    np.testing.assert_array_less(abs(limit - expected), 4 * error + 0.02)
    assert (error < 0.2).all()


# --- CKA ---


def test_layers_are_identified_across_networks():
    cka = torch.tensor([[0.9, 0.2, 0.1], [0.3, 0.5, 0.6], [0.1, 0.2, 0.8]])
    assert metrics.identified(cka).item() == pytest.approx(2 / 3)
    assert metrics.identified(cka.T).item() == 1  # it depends on whose layers look for theirs
    missing = cka.clone()
    missing[0] = float("nan")  # a constant layer
    assert metrics.identified(torch.stack([missing, torch.eye(3)])).tolist() == pytest.approx([1 / 3, 1])
    layers = [torch.randn(40, 5, generator=torch.Generator().manual_seed(k)) for k in range(4)]
    assert metrics.identified(metrics.cka_between(layers, layers)).item() == 1
    assert metrics.identified(metrics.cka_between(layers, layers[::-1])).item() == 0
    with pytest.raises(ValueError, match="cka must be"):
        metrics.identified(torch.ones(2, 3))


def gram_cka(x, y, debiased):
    """CKA from n x n Gram matrices: Song et al.'s unbiased HSIC (eq. 5), or Kornblith et al.'s."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    n = len(x)

    def hsic(K, L):
        if not debiased:
            H = np.eye(n) - 1 / n
            return np.trace(K @ H @ L @ H)
        K, L, one = K - np.diag(np.diag(K)), L - np.diag(np.diag(L)), np.ones(n)
        mean = (one @ K @ one) * (one @ L @ one) / ((n - 1) * (n - 2))
        return (np.trace(K @ L) + mean - 2 / (n - 2) * (one @ K @ L @ one)) / (n * (n - 3))

    K, L = x @ x.T, y @ y.T
    return hsic(K, L) / np.sqrt(hsic(K, K) * hsic(L, L))


def related(n=20, d1=6, d2=9, seed=0, noise=0.7):
    x = randn(n, d1, seed=seed)
    return x, x @ randn(d1, d2, seed=seed + 1) + noise * randn(n, d2, seed=seed + 2)


both = pytest.mark.parametrize("debiased", [True, False])


@both
@pytest.mark.parametrize(
    "n, d1, d2", [(5, 3, 2), (20, 6, 9), (12, 40, 30), (64, 1, 5), (12, 40, 5), (12, 7, 13), (12, 12, 12)]
)
def test_cka_equals_the_gram_form(debiased, n, d1, d2):
    x, y = related(n, d1, d2)
    assert linear_cka(x + 0.5, y - 2, debiased).item() == pytest.approx(
        gram_cka(x + 0.5, y - 2, debiased), abs=1e-10
    )


@both
def test_cka_of_an_input_with_itself_is_one(debiased):
    x = randn(15, 6)
    assert linear_cka(x, x, debiased).item() == pytest.approx(1, abs=1e-12)


@both
def test_cka_invariances(debiased):
    x, y = related()
    expected = pytest.approx(linear_cka(x, y, debiased).item(), abs=1e-10)
    assert linear_cka(y, x, debiased).item() == expected
    assert (
        linear_cka(-3 * x @ orthogonal(6, 5) + 4, 0.1 * y @ orthogonal(9, 6) - 1, debiased).item() == expected
    )
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    assert linear_cka(x[order], y[order], debiased).item() == expected
    assert linear_cka(x[order], y, debiased).item() != pytest.approx(expected.expected, abs=1e-3)
    assert linear_cka(x @ randn(6, 6, seed=9), y, debiased).item() != pytest.approx(
        expected.expected, abs=1e-3
    )


def test_null_value_on_independent_data():
    x, y = randn(2000, 32, 16, seed=1), randn(2000, 32, 16, seed=2)
    null = linear_cka(x, y)
    assert abs(null.mean()) < 4 * null.std() / 2000**0.5
    assert null.std() > 0.01 and (null < 0).any()
    assert linear_cka(x, y, debiased=False).min() > 0.1


def test_biased_cka_lies_between_0_and_1():
    cka = linear_cka(randn(200, 6, 5, seed=1), randn(200, 6, 5, seed=2), debiased=False)
    assert cka.min() > 0 and cka.max() < 1


@both
def test_cka_matrix_and_kernel_drift_agree_with_linear_cka(debiased):
    layers = [randn(3, 20, d, seed=d) for d in (4, 7, 5)]
    layers.append(layers[-1] + 0.3 * randn(3, 20, 5, seed=50))
    matrix, drift = cka_matrix(layers, debiased), kernel_drift(layers, debiased)
    assert matrix.shape == (3, 4, 4) and drift.shape == (3, 3)
    for m in range(3):
        for i in range(4):
            for j in range(4):
                expected = linear_cka(layers[i][m], layers[j][m], debiased).item()
                assert matrix[m, i, j].item() == pytest.approx(expected, abs=1e-12)
                if j == i + 1:
                    assert drift[m, i].item() == pytest.approx(1 - expected, abs=1e-12)


WIDE = [randn(2, 10, d, seed=d) for d in (4, 30, 10, 11, 500)]  # of 10 rows: some narrow, some wide
WIDE.append(WIDE[1] + 0.3 * randn(2, 10, 30, seed=50))


@both
def test_layers_wider_and_narrower_than_their_rows_side_by_side(debiased):
    matrix, drift = cka_matrix(WIDE, debiased), kernel_drift(WIDE, debiased)
    for m in range(2):
        expected = [[1.0 if x is y else gram_cka(x[m], y[m], debiased) for y in WIDE] for x in WIDE]
        np.testing.assert_allclose(matrix[m], expected, rtol=0, atol=1e-11)
        np.testing.assert_allclose(drift[m], 1 - np.diagonal(expected, 1), rtol=0, atol=1e-11)


@both
def test_cka_between_two_networks_agrees_with_the_gram_form(debiased):
    constant = torch.ones(2, 10, 3)
    one, other = WIDE[:4], [WIDE[5], WIDE[1], constant, WIDE[4], randn(2, 10, 6, seed=60)]
    for a, b in ((one, other), (other, one), (one[:1], other)):
        found = cka_between(a, b, debiased)
        assert found.shape == (2, len(a), len(b))
        for m in range(2):
            for i, x in enumerate(a):
                for j, y in enumerate(b):
                    if x is constant or y is constant:
                        assert found[m, i, j].isnan()
                        continue
                    expected = gram_cka(x[m], y[m], debiased)
                    assert found[m, i, j].item() == pytest.approx(expected, abs=1e-11)
                    assert found[m, i, j].item() == pytest.approx(
                        linear_cka(x[m], y[m], debiased).item(), abs=1e-11
                    )


def test_cka_between_a_network_and_its_rotated_self_finds_every_layer():
    layers = [randn(200, 8, seed=i) for i in range(4)]
    turned = [-3 * x @ orthogonal(8, i) + i for i, x in enumerate(layers)]
    found = cka_between(layers, turned)
    assert found.argmax(-1).tolist() == [0, 1, 2, 3]
    torch.testing.assert_close(found.diagonal(), torch.ones(4, dtype=torch.float64), atol=1e-12, rtol=0)


def test_cka_between_names_what_is_wrong():
    with pytest.raises(ValueError, match=r"layers_b\[1\] must be .* n >= 4 rows"):
        cka_between([X], [X, X[:3]])
    with pytest.raises(
        ValueError, match="layers_a and layers_b must share their leading dimensions and rows"
    ):
        cka_between([X], [X[:7]])
    with pytest.raises(ValueError, match="layers_b must hold at least 1, got 0"):
        cka_between([X], [])
    with pytest.raises(TypeError, match="layers_a must be a sequence"):
        cka_between(3, [X])


@both
def test_cka_and_ranks_of_rows_of_200704_features_take_the_memory_of_the_rows(debiased):
    x = randn(32, 200704)
    y = x.roll(1, 0) + x  # in feature space x^T y alone would be 322 GB
    expected = gram_cka(x, y, debiased)
    assert linear_cka(x, y, debiased).item() == pytest.approx(expected, abs=1e-9)
    assert cka_matrix([x, y], debiased)[1, 0].item() == pytest.approx(expected, abs=1e-9)
    assert kernel_drift([x, y], debiased).item() == pytest.approx(1 - expected, abs=1e-9)


@pytest.mark.parametrize("n", [2, 12])
@pytest.mark.parametrize("center", [True, False])
def test_ranks_of_wide_rows_need_no_svd(monkeypatch, center, n):
    x = randn(n, 5000) * torch.logspace(0, -1, n, dtype=torch.float64)[:, None]
    expected = torch.linalg.svdvals(x - center * x.mean(0))
    exact = torch.linalg.svdvals

    def none(x):
        assert not len(x)
        return exact(x)

    monkeypatch.setattr(torch.linalg, "svdvals", none)
    found = singular_values(x, center)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * expected[0])
    assert (found[-1] == 0) == center


@both
def test_cka_leading_dimensions_equal_a_loop(debiased):
    x, y = randn(2, 3, 10, 4), randn(2, 3, 10, 5, seed=1)
    out = linear_cka(x, y, debiased)
    assert out.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            assert out[i, j].item() == pytest.approx(linear_cka(x[i, j], y[i, j], debiased).item(), abs=1e-12)


@both
@pytest.mark.parametrize(
    "offset, scale, tolerance", [(1e6, 1, 1e-7), (0, 1e-6, 1e-10), (1e6, 1e-2, 1e-5), (0, 1e100, 1e-10)]
)
def test_cka_is_stable_under_offset_and_scale(debiased, offset, scale, tolerance):
    x, y = related()
    expected = gram_cka(x, y, debiased)
    assert linear_cka(scale * x + offset, y, debiased).item() == pytest.approx(expected, abs=tolerance)
    assert linear_cka(scale * x + offset, scale * y - offset, debiased).item() == pytest.approx(
        expected, abs=tolerance
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_cka_is_computed_in_float64(dtype):
    x, y = (z.to(dtype) for z in related())
    assert linear_cka(x, y).dtype == torch.float64
    assert linear_cka(x, y).item() == pytest.approx(gram_cka(x.double(), y.double(), True), abs=1e-10)


@both
@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_cka_of_a_constant_side_is_nan(debiased, value):
    x, constant = randn(9, 3), value * randn(1, 5).expand(9, 5)  # their mean is off by rounding
    assert linear_cka(x, constant, debiased).isnan()
    assert linear_cka(constant, x, debiased).isnan()
    assert kernel_drift([x, constant, x, x], debiased).isnan().tolist() == [True, True, False]
    assert cka_matrix([x, constant, x], debiased).isnan().tolist() == [
        [False, True, False],
        [True] * 3,
        [False, True, False],
    ]


@both
def test_a_constant_member_leaves_its_neighbours_alone(debiased):
    x, y = related()
    out = linear_cka(torch.stack([x, torch.ones_like(x)]), torch.stack([y, y]), debiased)
    assert out[0].item() == pytest.approx(linear_cka(x, y, debiased).item(), abs=1e-12) and out[1].isnan()


X = randn(8, 3)


@pytest.mark.parametrize(
    "bad, error, message",
    [
        (X[:3], ValueError, "n >= 4 rows"),
        (X.clone().index_fill(0, torch.tensor([2]), float("nan")), ValueError, "NaN or infinite"),
        (X.clone().index_fill(0, torch.tensor([2]), float("inf")), ValueError, "NaN or infinite"),
        (X[:, 0], ValueError, "n >= 4 rows"),
        (X.to(torch.complex128), TypeError, "must be real"),
        ("abc", TypeError, None),
        ([["a"]] * 8, TypeError, None),
        (None, TypeError, None),
    ],
    ids=["3 rows", "nan", "inf", "1-d", "complex", "str", "list of str", "None"],
)
def test_cka_rejects_bad_input(bad, error, message):
    with pytest.raises(error, match=message):
        linear_cka(bad, bad)
    with pytest.raises(error, match=message):
        cka_matrix([bad, bad])
    with pytest.raises(error, match=message):
        kernel_drift([bad, bad])


@pytest.mark.parametrize(
    "convert", [lambda x: x, lambda x: x.numpy(), lambda x: x.tolist()], ids=["tensor", "numpy", "list"]
)
def test_cka_rejects_different_rows(convert):
    x, y = convert(randn(8, 3)), convert(randn(7, 3))
    with pytest.raises(ValueError, match=r"leading dimensions and rows, got \(8, 3\) and \(7, 3\)"):
        linear_cka(x, y)
    for function in (cka_matrix, kernel_drift):
        with pytest.raises(ValueError, match="must share their leading dimensions and rows"):
            function([x, y])


def test_cka_accepts_numpy():
    x, y = related()
    assert linear_cka(x.numpy(), y.numpy()).item() == linear_cka(x, y).item()


@pytest.mark.parametrize("function", [cka_matrix, kernel_drift])
def test_one_layer_is_too_few(function):
    with pytest.raises(ValueError, match="layers must hold at least 2, got 1"):
        function([X])


# --- views, concentration, relevant modes ---


def test_views():
    x = randn(3, 5, 2)
    selected = torch.zeros(3, 5, dtype=torch.bool)
    selected[0, 4] = selected[2, 1] = selected[2, 3] = True
    assert view(x, "position").shape == (5, 3, 2)
    assert torch.equal(view(x, "position")[4], x[:, 4])
    assert torch.equal(view(x, "token"), torch.cat([x[0], x[1], x[2]]))
    assert torch.equal(view(x, "masked", selected), torch.stack([x[0, 4], x[2, 1], x[2, 3]]))
    torch.testing.assert_close(view(x, "pooled"), sum(x[:, t] for t in range(5)) / 5)
    assert torch.equal(view(x, "sequence"), x)


@pytest.mark.parametrize(
    "x, name, selected, message",
    [
        (X, "token", None, r"got shape \(8, 3\)"),
        (X[None], "tokens", None, "did you mean 'token'"),
        (X[None], "masked", None, r"booleans of shape \(1, 8\)"),
        (X[None], "masked", torch.ones(1, 7, dtype=torch.bool), r"booleans of shape \(1, 8\)"),
        (X[None], "masked", torch.ones(1, 8), r"booleans of shape \(1, 8\)"),
    ],
)
def test_view_rejects_bad_input(x, name, selected, message):
    with pytest.raises(ValueError, match=message):
        view(x, name, selected)


@pytest.mark.parametrize(
    "drift, leading, expected",
    [
        ([3, 1, 1], 2, 4 / 5),
        ([1, 3, 1], 1, 3 / 5),
        ([3, float("nan"), 1, 1, -0.5], 2, 4 / 5),
        ([0.5, 0.2], 6, 1),
        ([1, 1, 1, 1, 1], 2, 2 / 5),
        ([0, 0], 2, float("nan")),
        ([float("nan"), -1.0], 1, float("nan")),
    ],
)
def test_concentration_by_hand(drift, leading, expected):
    assert concentration(drift, leading).item() == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("n", [4, 5, 16, 1000, 5000])
def test_one_row_unlike_all_others_has_no_debiased_cka(n):
    # The unbiased self-similarity of such a matrix is 0: every pair of other rows says nothing.
    x, other = torch.zeros(n, 3), torch.randn(n, 2, generator=torch.Generator().manual_seed(n))
    x[1] = torch.tensor([3.0, -41.0, 7.0])
    assert linear_cka(x, 2 * x).isnan() and linear_cka(x, other).isnan()
    assert linear_cka(x, 2 * x, debiased=False).item() == pytest.approx(1)
    assert cka_matrix([x, other])[0].isnan().all() and kernel_drift([x, other]).isnan().all()
    moments = Moments()
    moments.update([x, other])
    assert moments.cka_matrix()[0].isnan().all()


def test_concentration_batches_and_checks():
    drift = torch.tensor([[3.0, 1.0, 1.0], [0.0, 0.0, 2.0]])
    assert concentration(drift).tolist() == pytest.approx([0.8, 1.0])
    with pytest.raises(ValueError, match="leading must be at least 1"):
        concentration(drift, 0)


@pytest.fixture(scope="module")
def posterior():
    chain = sticky(5, 4.0)
    g = torch.Generator().manual_seed(0)
    inputs, selected = masking.corrupt(chain.sample(400, 16, g), 5, generator=g)
    return masking.bayes_posterior(chain, inputs)[selected]


def test_relevant_modes_of_a_sticky_chain(posterior):
    log_q = np.log(np.maximum(posterior.numpy(), 1e-6))
    log_q = log_q - log_q.mean(1, keepdims=True)
    values = np.linalg.eigvalsh(np.cov(log_q.T)).clip(min=1e-15)
    p = values / values.sum()
    modes = relevant_modes(posterior)
    assert modes == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-8)
    assert 3.8 < modes <= 4
    assert modes == relevant_modes(posterior, spectrum="eigen")
    s = np.sqrt(values[values > 1e-12])
    p = s / s.sum()
    singular = relevant_modes(posterior, spectrum="singular")
    assert singular == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-8)
    with pytest.raises(ValueError, match="unknown spectrum 'singlar': did you mean 'singular'"):
        relevant_modes(posterior, spectrum="singlar")


def test_the_two_spectra_of_relevant_modes_differ_where_modes_differ():
    # Two states are at times three times as likely as the rest, one of them more often.
    q = torch.tensor([[3.0, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 3.0], [1, 1, 1, 1]]).repeat(4, 1)
    q[4:12, 3] = 1.0
    q = q / q.sum(-1, keepdim=True)
    eigen, singular = (relevant_modes(q, spectrum=kind) for kind in ("eigen", "singular"))
    assert 1 < eigen < singular < 2


def test_relevant_modes_ignore_the_scale_of_each_row_and_use_the_floor():
    q = torch.tensor([[1.0, 0.0, 0.0], [0.9, 0.1, 0.0], [0.0, 0.2, 0.8], [0.3, 0.3, 0.4]])
    raised = q.clamp(min=0.05)
    assert relevant_modes(q, floor=0.05) == pytest.approx(relevant_modes(raised), rel=1e-6)
    assert relevant_modes(q, floor=0.05) != pytest.approx(relevant_modes(q), rel=1e-3)
    assert relevant_modes(raised * torch.tensor([[1.0], [0.5], [0.7], [0.9]])) == pytest.approx(
        relevant_modes(raised), rel=1e-6
    )


@pytest.mark.parametrize(
    "floor, error", [(0, ValueError), (1, ValueError), (-1e-6, ValueError), ("a", TypeError)]
)
def test_relevant_modes_rejects_the_floor(floor, error):
    with pytest.raises(error, match="floor must"):
        relevant_modes(torch.full((4, 2), 0.5), floor)


@pytest.mark.parametrize("correlation_length", [1.0, 7.0])
def test_relevant_modes_of_a_sticky_chain_with_16_states(correlation_length):
    chain, g = sticky(16, correlation_length), torch.Generator().manual_seed(0)
    inputs, selected = masking.corrupt(chain.sample(1000, 32, g), 16, generator=g)
    assert 14.8 < relevant_modes(masking.bayes_posterior(chain, inputs)[selected]) <= 15


def missing(rows=4):
    """64 x 8 with rows that were never written, as netCDF4 returns it: its fill value under a mask."""
    x = np.ma.array(randn(64, 8).numpy())
    x.data[:rows] = 9.969209968386869e36
    x[:rows] = np.ma.masked
    return x


@pytest.mark.parametrize(
    "convert", [lambda x: x, list, lambda x: [list(row) for row in x]], ids=["array", "list", "nested list"]
)
def test_masked_entries_are_refused_and_unmasked_arrays_taken(convert):
    functions = {
        "x": effective_rank,
        "s": spectrum_rank,
        "drift": concentration,
        "posterior": relevant_modes,
    }
    for name, function in functions.items():
        with pytest.raises(ValueError, match=rf"^{name}\S* has masked \(missing\) entries"):
            function(convert(missing()))
    for function in (
        lambda x: linear_cka(randn(64, 3), x),
        lambda x: cka_matrix([x, x]),
        lambda x: kernel_drift([x, x]),
    ):
        with pytest.raises(ValueError, match=r"(y|layers\[0\])\S* has masked \(missing\) entries"):
            function(convert(missing()))
    whole = missing(0)
    assert effective_rank(convert(whole)).item() == effective_rank(whole.data).item()
    assert (
        effective_rank(missing()[4:]).item()
        == effective_rank(whole.data[4:]).item()
        == pytest.approx(7.86, abs=0.02)
    )


def test_masked_entries_are_counted():
    with pytest.raises(
        ValueError, match=r"x has masked \(missing\) entries, 32 of 512; leave out rows that hold them"
    ):
        effective_rank(missing())


def test_pooled_views_of_integers_and_half_floats():
    assert view(torch.tensor([[[1, 2], [2, 4]]]), "pooled").tolist() == [[1.5, 3.0]]
    x = torch.tensor([[[2000.0], [2001.0]]], dtype=torch.float16)  # whose mean no half float holds
    assert view(x, "pooled").item() == 2000.5


@pytest.mark.parametrize(
    "layout", [lambda x: x[::-1], lambda x: np.asfortranarray(x), lambda x: x.astype(">f8")]
)
def test_any_numpy_layout(layout):
    x, y = (z.numpy() for z in related())
    assert effective_rank(layout(x)).item() == pytest.approx(effective_rank(x).item(), rel=1e-12)
    assert linear_cka(layout(x), layout(y)).item() == pytest.approx(linear_cka(x, y).item(), abs=1e-12)


# --- sizes whose squares leave the range of float64 ---


@ranks
@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_ranks_of_extreme_sizes(rank, scale):
    x = randn(12, 7)
    assert rank(x * scale).item() == pytest.approx(rank(x).item(), rel=1e-10)


@both
@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_cka_of_extreme_sizes(debiased, scale):
    x, y = related()
    assert linear_cka(x * scale, y, debiased).item() == pytest.approx(gram_cka(x, y, debiased), abs=1e-10)


def test_gradients_flow_through_cka():
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(12, d, dtype=torch.float64, generator=g).requires_grad_() for d in (5, 3))
    assert torch.autograd.gradcheck(linear_cka, (x, y))
    wide = torch.randn(12, 15, dtype=torch.float64, generator=g).requires_grad_()
    assert torch.autograd.gradcheck(linear_cka, (x, wide)) and torch.autograd.gradcheck(linear_cka, (wide, y))
    assert torch.autograd.gradcheck(lambda *layers: cka_matrix(layers), (x, wide, y))
    pair, matrix = (
        torch.autograd.grad(value, (x, y)) for value in (linear_cka(x, y), cka_matrix([x, y])[0, 1])
    )
    torch.testing.assert_close(pair, matrix)
