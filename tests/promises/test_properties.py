"""Whatever comes in, every public function ends in a documented result or an error that names the argument.

`--hypothesis-profile=more` tries many more cases.
"""

import ast
import importlib
import inspect
import math
import re
import string
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import rgnb
from rgnb import chains, masking, metrics, observe, training
from rgnb.metrics.moments import Moments
from rgnb.model import MIXINGS, ModelConfig, ResidualMLP
from rgnb.press import answers, figures, notebooks, tables
from rgnb.randomness import generator, resolve_device
from rgnb.study import Experiment, anatomy, comparison, models, probes, questions
from rgnb.study import law as study_law
from rgnb.study.measurement import Evaluation, evaluation, forward, measure
from rgnb.study.settings import Setting
from rgnb.study.store import results_folder, stored
from rgnb.study.sweep import Plan, grid, held, pivot, plan, settled, sweep
from rgnb.training import Diverged, Run, TrainConfig, load_model, train
from rgnb.verdicts import findings, first_round, hypotheses, intervals, law, measures, robustness
from rgnb.verdicts.measures import Definition

pytestmark = [pytest.mark.promise("bad input"), pytest.mark.slow]

PACKAGE = str(Path(rgnb.__file__).parent)
numbers = st.one_of(
    st.integers(-3, 40),
    st.integers(),
    st.integers(10**18, 10**400),
    st.floats(),
    st.floats(1e-3, 50),
    st.booleans(),
    st.sampled_from([math.nan, math.inf, -math.inf]),
)
names = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["../x", "/etc/passwd", "a/b", "\x00", "ξ", "𝕏-1", "'; import os #", 'a"b\nc']),
)
junk = st.one_of(
    numbers,
    names,
    st.none(),
    st.binary(max_size=4),
    st.complex_numbers(),
    st.lists(numbers, max_size=3),
    st.dictionaries(names, numbers, max_size=2),
    st.just(object()),
)
dtypes = st.one_of(
    hnp.floating_dtypes(),
    hnp.integer_dtypes(),
    hnp.unsigned_integer_dtypes(),
    hnp.complex_number_dtypes(),
    st.sampled_from([bool, "U2", object]),
)


def arrays(max_dims=4, dtype=dtypes):
    shapes = hnp.array_shapes(min_dims=0, max_dims=max_dims, min_side=0, max_side=6)
    return dtype.flatmap(
        lambda kind: hnp.arrays(
            kind,
            shapes,
            fill=st.nothing() if kind is object else None,
            elements=junk if kind is object else None,
        )
    )


real = hnp.arrays(
    st.sampled_from(["f4", "f8"]),
    hnp.array_shapes(min_dims=2, max_dims=3, min_side=4, max_side=7),
    elements=st.floats(-1e3, 1e3, width=32),
)


@pytest.fixture
def ends_well(request):
    """Call something and count the case: what it returns, or None where it refused with a good error."""
    counted = {"cases": 0}

    def call(named, function, *args, **kwargs):
        counted["cases"] += 1
        try:
            return function(*args, **kwargs)
        except (ValueError, TypeError) as error:
            frame = error.__traceback__
            while frame.tb_next:
                frame = frame.tb_next
            where = frame.tb_frame.f_code.co_filename
            assert where.startswith(PACKAGE), f"from inside {where}: {error}"
            found = (re.search(rf"(?<!\w){re.escape(name)}(?!\w)", str(error)) for name in named)
            assert any(found), f"{error} names none of {named}"

    yield call
    request.node.user_properties.append(("cases", counted["cases"]))


vectors = st.one_of(
    hnp.arrays("f8", st.integers(0, 5), elements=st.one_of(st.floats(1e-3, 50), st.floats())), arrays(2), junk
)
FAMILIES = ["sticky", "ring", "cycle", "block", "hierarchical", "reversible"]
FAMILIES += ["nested_blocks", "hierarchical_pair", "lazy"]


@given(st.sampled_from(FAMILIES), st.one_of(st.integers(0, 20), junk), st.one_of(st.floats(1e-3, 1e3), junk))
def test_chain_families(ends_well, family, n, xi):
    assume(not (isinstance(n, int) and 64 < n <= 4096))  # allowed, and slow
    chain = ends_well(["n_states", "correlation_length", "n_blocks"], getattr(chains, family), n, xi)
    if chain is not None:
        sums = chain.transition_matrix.sum(-1)
        assert torch.allclose(sums, torch.ones_like(sums)) and (chain.transition_matrix >= 0).all()
        assert chain.correlation_length == pytest.approx(float(xi), rel=1e-6, abs=1e-9) or float(xi) < 0.04


@given(st.one_of(st.integers(0, 20), junk), junk, st.one_of(st.integers(0, 5), junk))
def test_dirichlet(ends_well, n, alpha, seed):
    assume(not (isinstance(n, int) and 64 < n <= 4096))
    chain = ends_well(["n_states", "alpha", "seed"], chains.dirichlet, n, alpha, seed)
    assert chain is None or torch.isfinite(chain.stationary_distribution).all()


@given(st.one_of(arrays(3), st.lists(st.lists(st.floats(0, 1), max_size=4), max_size=4), junk))
def test_own_matrices(ends_well, matrix):
    chain = ends_well(["transition_matrix"], chains.MarkovChain, matrix)
    if chain is not None:
        pi = chain.stationary_distribution
        assert torch.allclose(pi @ chain.transition_matrix, pi) and pi.sum().item() == pytest.approx(1)


CHAIN = chains.hierarchical(4, 2.0)


@given(
    st.one_of(st.floats(0.5, 5), junk),
    st.one_of(st.lists(st.integers(1, 4), max_size=3), st.just((2, 4)), arrays(1), junk),
)
def test_trees(ends_well, ratio, branching):
    named = ["ratio", "branching"]
    chain = ends_well(named, chains.hierarchical, 8, 2.0, ratio, branching)
    assert chain is None or (chain.n_states == 8 and chain.correlation_length == pytest.approx(2))


@given(st.one_of(st.just(CHAIN), junk), st.one_of(st.just(CHAIN), junk))
def test_products_of_chains(ends_well, first, second):
    chain = ends_well(["first", "second"], chains.product, first, second)
    assert chain is None or chain.n_states == 16


@given(st.one_of(arrays(2), junk), st.one_of(st.lists(st.integers(0, 9), max_size=4), junk))
def test_autocorrelation(ends_well, observable, lags):
    found = ends_well(["observable", "lags"], CHAIN.autocorrelation, observable, lags)
    assert found is None or (torch.isfinite(found).all() and (found.abs() <= 1 + 1e-9).all())


@given(st.one_of(st.integers(0, 8), junk), st.one_of(st.integers(0, 8), junk), st.one_of(st.none(), junk))
def test_sampling(ends_well, batch, length, generator):
    assume(
        not all(isinstance(k, int) for k in (batch, length)) or not 2**16 < batch * length <= 2**28
    )  # allowed, and slow
    tokens = ends_well(["batch", "length", "generator"], CHAIN.sample, batch, length, generator)
    assert tokens is None or (tokens.shape == (batch, length) and ((tokens >= 0) & (tokens < 4)).all())


@given(
    st.one_of(st.lists(st.lists(st.integers(-1, 5), max_size=5), max_size=4), arrays(3), junk),
    st.one_of(st.none(), junk),
    st.one_of(st.floats(0, 2), junk),
)
def test_estimating_chains(ends_well, sequences, n, pseudocount):
    found = ends_well(
        ["sequences", "tokens", "n_states", "pseudocount", "state"],
        chains.estimate,
        sequences,
        n,
        pseudocount,
    )
    assert found is None or torch.allclose(
        found.transition_matrix.sum(-1), torch.ones(found.n_states, dtype=torch.float64)
    )


tokens = st.one_of(
    hnp.arrays(
        "i8", hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5), elements=st.integers(0, 4)
    ),
    arrays(3),
    junk,
)
schemes = st.one_of(st.sampled_from(["mask", "bert"]), junk)


@given(tokens, st.one_of(st.just(4), junk), st.one_of(st.floats(0, 1), junk), schemes)
def test_corruption(ends_well, x, n, rate, scheme):
    found = ends_well(["tokens", "n_states", "rate", "scheme"], masking.corrupt, x, n, rate, scheme)
    if found is not None:
        inputs, selected = found
        assert inputs.shape == selected.shape and torch.equal(
            inputs[~selected], torch.as_tensor(x)[~selected]
        )


@given(st.one_of(st.just(CHAIN), junk), tokens, schemes, st.one_of(st.floats(0, 1), junk))
def test_bayes_posterior(ends_well, chain, observed, scheme, rate):
    posterior = ends_well(
        ["chain", "observed", "scheme", "rate"], masking.bayes_posterior, chain, observed, scheme, rate
    )
    if posterior is not None:
        sums = posterior.sum(-1)
        assert (
            torch.allclose(sums, torch.ones_like(sums))
            and (masking.entropy(posterior) <= math.log(4) + 1e-9).all()
        )


@given(
    st.one_of(arrays(4, st.just("f8")), junk),
    st.one_of(st.integers(0, 9), junk),
    st.one_of(st.integers(0, 9), junk),
    st.one_of(st.sampled_from(["singular", "eigen"]), junk),
)
def test_layers_and_initial_ranks(ends_well, cka, n, depths, spectrum):
    found = ends_well(["cka"], metrics.identified, cka)
    assert found is None or ((found >= 0) & (found <= 1)).all()
    assume(not (isinstance(n, int) and 100 < n <= 10**6) and not (isinstance(depths, int) and depths > 100))
    found = ends_well(["n must", "depths", "spectrum"], metrics.initial_ranks, n, depths, True, spectrum)
    assert found is None or (found <= n).all()


@given(st.one_of(st.just(CHAIN), junk), schemes)
def test_expected_counts(ends_well, chain, scheme):
    found = ends_well(["chain", "scheme"], masking.expected_counts, chain, scheme)
    assert found is None or found.sum().item() == pytest.approx(1)


@given(
    st.one_of(hnp.arrays("f8", (2, 3, 4), elements=st.floats(0, 0.25)), arrays(), junk),
    st.one_of(hnp.arrays(bool, (2, 3)), arrays(2), junk),
)
def test_loss_floor(ends_well, posterior, selected):
    found = ends_well(["posterior", "selected", "p"], masking.loss_floor, posterior, selected)
    assert found is None or 0 <= found <= 4
    found = ends_well(["p"], masking.entropy, posterior)
    assert found is None or (found >= -1e-5).all()


@given(
    st.sampled_from([metrics.spectrum_rank, metrics.spectrum_participation, metrics.spectrum_stable]),
    st.one_of(arrays(), hnp.arrays("f8", (2, 5), elements=st.floats(0, 1e300)), junk),
)
def test_ranks_of_spectra(ends_well, function, s):
    found = ends_well(["s"], function, s)
    assert found is None or (((found == 0) | (found >= 1 - 1e-9)) & (found <= np.shape(s)[-1] + 1e-9)).all()


ONE = [metrics.effective_rank, metrics.participation_ratio, metrics.stable_rank, metrics.singular_values]


@given(st.sampled_from(ONE), st.one_of(arrays(), real, junk))
def test_ranks(ends_well, function, x):
    found = ends_well(["x"], function, x)
    if found is not None:
        n, d = np.asarray(x).shape[-2:]
        assert torch.isfinite(found).all() and (found >= 0).all()
        if function is not metrics.singular_values:
            assert ((found == 0) | (found >= 1 - 1e-9)).all() and (found <= min(n, d) + 1e-9).all()


@given(real, st.floats(-1e3, 1e3))
def test_rank_of_constant_rows_is_zero_and_scale_does_not_matter(ends_well, x, value):
    assert (ends_well(["x"], metrics.effective_rank, np.full_like(x, value)) == 0).all()
    one, scaled = (
        ends_well(["x"], metrics.effective_rank, y) for y in (x.astype("f8"), 8.0 * x.astype("f8"))
    )
    torch.testing.assert_close(one, scaled, rtol=1e-9, atol=1e-9)


@given(st.one_of(arrays(), real), st.one_of(arrays(), real), st.booleans())
def test_cka(ends_well, x, y, debiased):
    found = ends_well(["x", "y"], metrics.linear_cka, x, y, debiased)
    assert found is None or ((found <= 1 + 1e-6) | found.isnan()).all()


@given(real)
def test_identical_layers_do_not_drift(ends_well, x):
    drift = ends_well(["layers"], metrics.kernel_drift, [x, x])
    assert drift is None or (drift[~drift.isnan()].abs() < 1e-6).all()
    found = ends_well(["layers"], metrics.cka_matrix, [x, x, x])
    assert found is None or found.shape[-2:] == (3, 3)


@given(st.one_of(st.lists(st.one_of(arrays(), real), max_size=3), junk))
def test_layers(ends_well, layers):
    ends_well(["layers"], metrics.kernel_drift, layers)


@given(*2 * [st.one_of(st.lists(st.one_of(arrays(), real), max_size=2), junk)], st.booleans())
def test_layers_of_two_networks(ends_well, one, other, debiased):
    found = ends_well(["layers_a", "layers_b"], metrics.cka_between, one, other, debiased)
    assert found is None or ((found <= 1 + 1e-6) | found.isnan()).all()


@given(st.one_of(arrays(2), junk), st.one_of(st.integers(0, 5), junk))
def test_concentration(ends_well, drift, leading):
    found = ends_well(["drift", "leading"], metrics.concentration, drift, leading)
    assert found is None or ((found >= 0) & (found <= 1 + 1e-9) | found.isnan()).all()


@given(
    st.one_of(real, arrays(), junk),
    st.one_of(st.floats(0, 1), junk),
    st.one_of(st.sampled_from(metrics.SPECTRA), junk),
)
def test_relevant_modes(ends_well, posterior, floor, spectrum):
    named = ["posterior", "floor", "spectrum"]
    found = ends_well(named, metrics.relevant_modes, posterior, floor, spectrum)
    assert found is None or found >= 0


@given(
    st.one_of(arrays(), junk),
    st.one_of(st.sampled_from(metrics.VIEWS), junk),
    st.one_of(st.none(), arrays(2), junk),
)
def test_views(ends_well, x, name, selected):
    found = ends_well(["x", "view", "selected"], metrics.view, x, name, selected)
    assert found is None or found.ndim >= 2


@given(st.lists(st.one_of(st.lists(real, min_size=2, max_size=2), arrays(3), junk), max_size=3))
def test_moments(ends_well, batches):
    moments = Moments()
    for layers in batches:
        ends_well(["layers", "rows"], moments.update, layers)
    found = ends_well(["rows"], moments.kernel_drift)
    assert found is None or torch.isfinite(found[~found.isnan()]).all()


TWO = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.GELU())
inputs = st.just(torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0)))


@given(
    st.one_of(st.just(TWO), junk),
    st.one_of(
        st.lists(
            st.one_of(inputs, st.tuples(inputs), st.fixed_dictionaries({"input": inputs}), junk), max_size=2
        ),
        inputs,
        junk,
    ),
    st.one_of(st.just(["0", "1"]), st.lists(names, max_size=2), junk),
    st.one_of(st.sampled_from(metrics.VIEWS), junk),
)
def test_observing_networks(ends_well, model, batches, modules, view):
    found = ends_well(
        ["model", "batches", "module", "modules", "view"], observe, model, batches, modules, view, "cpu"
    )
    assert found is None or ((found.effective_rank >= 0) & (found.effective_rank <= 4 + 1e-9)).all()


THREE = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.GELU(), torch.nn.Linear(4, 4))
SEEN = observe(THREE, [torch.arange(180.0).sin().reshape(15, 4, 3)], ["0", "1", "2"], "position", "cpu")


def by_length_and_seed(values):
    by_seed = st.dictionaries(st.integers(-1, 2), st.one_of(values, junk), max_size=2)
    by_length = st.dictionaries(st.one_of(st.floats(-1, 9), names), st.one_of(by_seed, junk), max_size=2)
    return st.one_of(values.map(lambda value: {1.0: {0: value}}), by_length, junk)


@given(
    by_length_and_seed(st.just(SEEN)),
    st.one_of(st.none(), by_length_and_seed(st.just(SEEN))),
    st.one_of(st.none(), by_length_and_seed(st.floats(0, 1))),
)
def test_observed_networks_as_results(ends_well, trained, untrained, excess_share):
    named = ["trained", "excess_share"]
    found = ends_well(named, measures.from_observed, trained, untrained, excess_share=excess_share)
    assert found is None or findings.judge_rank_collapse(found).seeds == found.sizes["seed"]


fields = st.sampled_from(["n_states", "length", "width", "depth", "mixing"])


@given(st.dictionaries(fields, st.one_of(st.integers(1, 8), junk), max_size=3))
def test_model_configs(ends_well, values):
    config = ends_well(list(values), ModelConfig, **values)
    if (
        config is not None
        and config.width <= 64
        and config.length <= 64
        and config.depth <= 12
        and config.n_states <= 64
    ):
        assert ResidualMLP(config).config == config


MODEL = ResidualMLP(ModelConfig(n_states=4, length=5, width=8, depth=2))


@given(junk, st.one_of(st.integers(0, 3), st.lists(st.integers(0, 3), max_size=2), junk))
def test_making_networks(ends_well, config, seeds):
    ends_well(["config"], ResidualMLP, config)
    made = ends_well(["seeds"], ResidualMLP, MODEL.config, seeds)
    assert made is None or made.single == isinstance(seeds, int)


@given(
    st.one_of(
        junk,
        st.dictionaries(
            st.one_of(names, st.just("weight.head.bias")),
            st.one_of(junk, st.just(torch.zeros(4))),
            max_size=2,
        ),
    )
)
def test_weights_of_another_network(ends_well, snapshot):
    assert ends_well(["snapshot"], load_model, MODEL.config, snapshot) is None


TINY = {
    "model": ModelConfig(n_states=4, length=5, width=4, depth=1),
    "training": TrainConfig(batch=2, steps=50, snapshots=()),
    "chain": CHAIN,
    "device": "cpu",
}


@given(st.sampled_from([*TINY, "run", "seeds", "folder"]), junk)
def test_training(ends_well, tmp_path_factory, name, value):
    assume(
        not (name == "folder" and isinstance(value, str) and value.strip("\0"))
    )  # any other name is a folder's
    run = ends_well([name], Run, **TINY | {name: value}) if name in TINY else Run(**TINY)
    if run is None:
        return
    folder = tmp_path_factory.getbasetemp() / "weights"
    arguments = {"run": run, "seeds": [0], "folder": folder, "progress": False}
    found = ends_well([name], train, **arguments | ({} if name in TINY else {name: value}))
    assert found is None or all(np.isfinite(steps[50]["history"]).all() for steps in found.values())


@given(tokens)
def test_networks(ends_well, x):
    out = ends_well(["tokens"], MODEL, x)
    assert out is None or (out.shape == (*x.shape, 4) and torch.isfinite(out).all())


train_fields = st.sampled_from(
    ["scheme", "rate", "batch", "steps", "learning_rate", "snapshots", "gradient", "loss_over", "donors"]
)


@given(st.dictionaries(train_fields, junk, max_size=3))
def test_train_configs(ends_well, values):
    ends_well([*values, "snapshots"], TrainConfig, **values)


experiment_fields = st.sampled_from(
    [
        "families",
        "correlation_lengths",
        "own",
        "seeds",
        "sequences",
        "device",
        "n_states",
        "width",
        "rate",
        "mixing",
        "no such field",
    ]
)


@given(
    st.one_of(st.sampled_from(["quick", "paper"]), junk), st.dictionaries(experiment_fields, junk, max_size=3)
)
def test_experiments(ends_well, profile, values):
    words = [
        w for name in values for w in (name, name.rstrip("s"), "family", "correlation_length", "parameter")
    ]
    ends_well([*words, "profile", "n_states"], Experiment.profile, profile, **values)


@given(st.dictionaries(experiment_fields, st.lists(junk, max_size=2), max_size=2))
def test_grids(ends_well, values):
    words = [
        w for name in values for w in (name, name.rstrip("s"), "family", "correlation_length", "parameter")
    ]
    ends_well([*words, "n_states", "experiments"], grid, "quick", **values)


@given(junk)
def test_devices(ends_well, device):
    assert ends_well(["device"], resolve_device, device) in (None, torch.device("cpu"))


@given(names)
def test_names_of_files(ends_well, tmp_path_factory, name):
    folder = tmp_path_factory.getbasetemp() / "names"
    ends_well(["name"], stored, name, {}, lambda: metrics_dataset(), folder)
    assert {p.suffix for p in folder.rglob("*") if p.is_file()} <= {".nc"} and not list(
        folder.parent.glob("x-*.nc")
    )


@given(junk)
def test_folders_of_results(ends_well, folder):
    assert ends_well(["results"], results_folder, folder) is not None or folder is not None
    ends_well(["analysis"], Experiment.profile("quick", seeds=1).missing, analysis=folder)


SMALL = grid(
    "quick",
    n_states=4,
    length=4,
    width=4,
    depth=1,
    batch=2,
    steps=50,
    snapshots=(),
    sequences=64,
    seeds=1,
    mixing="none",
)


@given(
    st.one_of(st.just(SMALL), st.lists(junk, max_size=2), junk),
    st.one_of(st.just(["kernel_drift"]), st.lists(names, max_size=2), junk),
    junk,
)
def test_sweeps(ends_well, tmp_path_factory, experiments, variables, workers):
    folder = tmp_path_factory.getbasetemp() / "sweeps"
    found = ends_well(
        ["experiments", "variable", "variables"],
        sweep,
        "tiny",
        experiments,
        variables,
        folder,
        progress=False,
    )
    assert found is None or found.sizes["run"] == 2
    found = ends_well(["experiments", "workers"], plan, experiments, folder, workers=workers)
    assert found is None or (isinstance(found, Plan) and found.asked == 2)


@given(
    st.one_of(st.just(None), junk),
    vectors,
    st.lists(st.one_of(st.sampled_from(["seed", "scheme", "correlation_length"]), names), max_size=3),
)
def test_arranging_rows(ends_well, ds, values, dims):
    found = ends_well(["ds", "values"], pivot, WHOLE["rows"] if ds is None else ds, values, *dims)
    assert found is None or set(found.dims) == set(dims)


mixings = st.sampled_from(MIXINGS)
SETTINGS = st.builds(
    lambda n, xi, length, width, depth, mixing, rate, scheme: Experiment.profile(
        "quick", n_states=n, correlation_lengths=[xi], families=["sticky"], length=length, width=width,
        depth=depth, mixing=mixing, rate=rate,
        scheme=scheme, sequences=64, seeds=1, steps=50, snapshots=(),
    ).settings()[0],
    st.integers(2, 5), st.floats(0.1, 30), st.integers(1, 6), st.integers(2, 8), st.integers(1, 3), mixings,
    st.floats(0.02, 0.98), st.sampled_from(masking.SCHEMES),
)  # fmt: skip


@given(
    st.sampled_from([measure, probes.mode_retention, probes.perturbations, comparison.comparison]), SETTINGS
)
def test_analyses_of_any_setting(ends_well, analysis, setting):
    untrained = {f"weight.{k}": v[0] for k, v in ResidualMLP(setting.model).state_dict().items()} | {
        "history": torch.zeros(1)
    }
    task = ends_well(["rate"], evaluation, setting)
    found = task and ends_well(
        ["rate", "length", "sequences"], analysis, task, setting, 0, {50: untrained}, torch.device("cpu")
    )
    if found is not None:
        for name, variable in found.data_vars.items():
            assert not np.isinf(variable).any(), name
        if analysis is measure:
            stream, log_p = forward(load_model(setting.model, untrained), task.inputs, torch.device("cpu"))
            assert len(stream) == setting.model.depth + 1 and torch.allclose(
                log_p.exp().sum(-1), torch.ones(log_p.shape[:-1]), atol=1e-5
            )
            assert (found.effective_rank.fillna(0) <= max(setting.model.width, 1) + 1e-6).all() and (
                found.kernel_drift.fillna(0) <= 2 + 1e-6
            ).all()


def metrics_dataset():
    return xr.Dataset({"x": ("row", [1.0])})


def results(rank):
    dims = ("correlation_length", "seed", "state", "view", "centring", "spectrum", "depth")
    return xr.Dataset(
        {
            "effective_rank": (dims, rank),
            "excess_loss": (("correlation_length", "seed", "step"), np.zeros((*rank.shape[:2], 1))),
            "marginal_entropy": (dims[:2], np.ones(rank.shape[:2])),
            "reachable_loss": (dims[:2], np.zeros(rank.shape[:2])),
        },
        coords={
            "correlation_length": np.arange(1.0, rank.shape[0] + 1),
            "state": ["trained"],
            "view": ["position"],
            "centring": ["centred"],
            "spectrum": ["singular"],
        },
    )


ranks = st.tuples(st.integers(1, 2), st.integers(1, 4), st.integers(2, 5)).flatmap(
    lambda s: hnp.arrays(
        "f8", (s[0], s[1], 1, 1, 1, 1, s[2]), elements=st.one_of(st.floats(0, 40), st.just(math.nan))
    )
)


@given(ranks, st.one_of(st.just("position"), junk), st.one_of(st.integers(0, 4), junk))
def test_verdicts(ends_well, rank, view, start):
    for finding in (first_round.judge_rank_collapse, first_round.judge_selectivity):
        verdict = ends_well(
            ["view", "start", "correlation lengths"], finding, results(rank), Definition(view, start=start)
        )
        assert verdict is None or verdict.status in ("supported", "partly supported", "not supported")
        assert ends_well(["definition", "correlation lengths"], finding, results(rank), view) is None


@given(vectors, st.one_of(st.floats(0, 1), junk))
def test_intervals(ends_well, values, confidence):
    found = ends_well(["values", "confidence"], intervals.Interval.of, values, confidence)
    assert found is None or (not found.low > found.mean and not found.high < found.mean)


@given(
    st.sampled_from([measures.collapse, measures.collapse_from_maximum, measures.largest_rise]),
    st.one_of(arrays(3), real, junk),
)
def test_rank_profiles(ends_well, function, profile):
    found = ends_well(["profile"], function, profile)
    assert found is None or found.shape == np.shape(profile)[:-1]


interval = st.one_of(
    st.builds(intervals.Interval.of, hnp.arrays("f8", st.integers(1, 5), elements=st.floats(-1e6, 1e6))), junk
)


@given(interval, numbers, st.one_of(st.sampled_from([1, -1]), junk))
def test_conditions(ends_well, one, bound, direction):
    over, under, _ = (
        ends_well(["interval", "bound", "bounds"], function, "C", one, bound)
        for function in (intervals.above, intervals.below, lambda *a: intervals.inside(*a[:2], (a[2], a[2])))
    )
    same = ends_well(["interval"], intervals.bounded, "C", one, "above 0", low=0.0)
    assert same is None or over is None or bound != 0.0 or same.word == over.word
    assert over is None or (isinstance(over, intervals.Condition) and not (over.holds and under.holds))
    p = ends_well(["interval", "bound", "direction"], robustness.p_value, one, bound, direction)
    assert p is None or 0 <= p <= 1


VERDICT = first_round.judge_rank_collapse(results(np.ones((1, 2, 1, 1, 1, 1, 3))))
other = intervals.Verdict("Another", "supported", "", (), {})


@given(
    st.one_of(
        st.dictionaries(names, st.sampled_from([VERDICT, other]), max_size=3),
        st.dictionaries(names, junk, max_size=2),
        junk,
    )
)
def test_many_verdicts(ends_well, verdicts):
    words = ends_well(["verdicts"], first_round.tally, verdicts)
    assert words is None or isinstance(words, str)
    stays = ends_well(["verdict", "verdicts"], robustness.corrected, verdicts)
    assert stays is None or set(stays) == set(verdicts)
    for verdict in verdicts.values() if isinstance(verdicts, dict) else [verdicts]:
        p = ends_well(["verdict"], robustness.finding_p, verdict)
        assert p is None or 0 <= p <= 1


@given(junk)
def test_findings_by_definition_and_step(ends_well, finding):
    assert ends_well(["judge"], first_round.by_definition, finding, WHOLE["results"]) is None
    assert ends_well(["judge"], first_round.by_step, finding, WHOLE["results"]) is None


columns = st.dictionaries(
    st.sampled_from(["relevant modes", "correlation length", "last rank, eigen", "last rank, singular"]),
    st.lists(st.floats(0.1, 9), min_size=3, max_size=3),
)


@given(st.one_of(columns.map(pd.DataFrame), junk))
def test_tables_of_settings(ends_well, table):
    found = ends_well(["table", "rank"], hypotheses.explained_variances, table)
    assert found is None or len(found) == 6


@given(vectors, vectors, vectors)
def test_explained_variances(ends_well, x, y, z):
    found = ends_well(["x", "y"], hypotheses.explained_variance, x, y)
    assert found is None or 0 <= found <= 1 + 1e-9
    ends_well(["x", "y"], hypotheses.residuals, x, y)
    ends_well(["rank", "modes", "correlation_length"], hypotheses.explains_better, x, y, z, resamples=9)
    ends_well(["one", "other"], hypotheses.judge_scheme_and_law, (x, y), (y, z))


@given(vectors, st.one_of(st.floats(0, 1), junk), st.one_of(st.integers(0, 9), junk))
def test_equivalence(ends_well, differences, margin, comparisons):
    found = ends_well(
        ["values", "margin", "comparisons"], hypotheses.equivalent, "d", differences, margin, comparisons
    )
    assert found is None or isinstance(found.holds, bool)


matrices = st.one_of(
    hnp.arrays("f8", st.tuples(st.just(6), st.integers(1, 4)), elements=st.floats(-1e3, 1e3)), arrays(3), junk
)


@given(
    matrices,
    matrices,
    st.one_of(st.just(np.arange(6) < 3), arrays(1), junk),
    st.one_of(hnp.arrays("i8", st.integers(0, 4), elements=st.integers(-1, 4)), junk),
)
def test_linear_readouts(ends_well, x, y, fit, group):
    fitted = ends_well(["x", "y"], probes.linear_fit, x, y)
    assert fitted is None or torch.isfinite(fitted[0]).all()
    r2 = ends_well(["x", "y", "fit", "group"], probes.held_out_r2, x, y, fit, group)
    assert r2 is None or (r2.isnan() | (r2 <= 1)).all()
    q = ends_well(["x", "y"], probes.erasing_directions, x, y)
    assert q is None or torch.allclose(q.T @ q, torch.eye(q.shape[1], dtype=q.dtype), atol=1e-9)


@given(tokens, st.one_of(st.just(4), junk))
def test_nearest_visible(ends_well, inputs, n_states):
    found = ends_well(["inputs", "n_states"], probes.nearest_visible, inputs, n_states)
    assert found is None or all(((-1 <= side) & (side < n_states)).all() for side in found)


@given(
    st.one_of(
        st.builds(chains.ring, st.integers(3, 9), st.floats(0.3, 20)),
        st.builds(chains.cycle, st.integers(3, 9), st.floats(0.5, 20)),
        junk,
    )
)
def test_eigenmodes(ends_well, chain):
    found = ends_well(["chain", "n_states", "correlation_length"], probes.eigenmodes, chain)
    if found is not None:
        gram = found[2].T @ (chain.stationary_distribution[:, None] * found[2])
        assert (gram.diagonal() - 1).abs().max() < 1e-6


def whole(seeds=2):
    """Results, a sweep's rows and two analyses, with every variable that a verdict reads."""
    names = {
        "state": ["init", "trained"], "view": list(metrics.VIEWS), "centring": ["centred", "uncentred"],
        "spectrum": list(metrics.SPECTRA),
        "target": ["left", "right", "posterior"], "direction": list(probes.DIRECTIONS),
        "perturbation": ["random", "between sequences"],
        "scale": list(probes.SCALES), "correlation_length": [1.0, 7.0], "seed": list(range(seeds)),
        "depth": range(5), "transition": range(4), "step": [0, 50], "eigenmode": range(3), "removed": [1],
        "floor": [1e-6], "run": range(4),
    }  # fmt: skip

    def dataset(variables):
        used = dict.fromkeys(d for dims in variables.values() for d in dims.split())
        values = {
            v: (dims.split(), np.ones([len(names[d]) for d in dims.split()])) for v, dims in variables.items()
        }
        ds = xr.Dataset(values, {d: list(names[d]) for d in used})
        return ds if "run" in ds.dims else ds.expand_dims(chain=["ring"])

    labels = {
        "scheme": ["mask"] * 4,
        "family": ["ring"] * 4,
        "mixing": ["none"] * 4,
        "rate": [0.15] * 4,
        "experiment": [0] * 4,
        "correlation_length": [1.0, 1.0, 7.0, 7.0],
        "seed": [0, 1, 0, 1],
    }
    drift = {"kernel_drift": "run state view transition", "relevant_modes": "run floor"}
    modes = {"relevant_modes": "correlation_length floor"}
    retention = dataset(
        hypotheses.RETENTION
        | {
            "loss_increase": "correlation_length seed direction removed depth",
            "learnable": "correlation_length seed",
        }
    )
    return {
        "results": dataset(measures.RANK | measures.STEP_RANK | measures.STEP_DRIFT | modes),
        "rows": dataset(hypotheses.RANK | hypotheses.GATE | drift).assign_coords(
            {k: ("run", v) for k, v in labels.items()}
        ),
        "retention": retention,
        "modes": retention.isel(chain=0, correlation_length=0),
        "perturbations": dataset(
            {
                "growth": "correlation_length seed state perturbation transition",
                "scaled_drift": "correlation_length seed scale transition",
            }
        ),
    }


WHOLE = whole()
drifts = xr.DataArray(np.ones((2, 3)), dims=("seed", "transition"))
READERS = {
    "results": [
        first_round.judge_rank_collapse, first_round.judge_selectivity, first_round.judge_kernel_drift,
        lambda ds: first_round.by_definition(first_round.judge_selectivity, ds),
        lambda ds: first_round.by_step(first_round.judge_kernel_drift, ds),
        lambda ds: first_round.gate(ds, 1.0), lambda ds: first_round.gate_limit(ds, 1.0),
        lambda ds: hypotheses.judge_no_selectivity({"quick": ds}),
        lambda ds: tables.modes_table({("ring", "quick"): ds}), lambda ds: tables.stack_table({3: ds}),
        findings.judge_rank_collapse, findings.judge_selectivity, measures.excess_share,
        lambda ds: findings.judge_kernel_drift(ds, 1.0),
        lambda ds: measures.defined_drift(ds, correlation_length=1.0, view="position", state="trained"),
    ],
    "rows": [
        hypotheses.trained, hypotheses.all_trained, hypotheses.row_collapses, hypotheses.judge_blind,
        lambda ds: hypotheses.judge_embedding_artifact(ds, 1.0, 7.0),
        hypotheses.settings_table, hypotheses.judge_relevant_modes,
        lambda ds: robustness.judge_robustness(ds, ["as it is"], 1.0, 7.0),
    ],
    "retention": [
        lambda ds: hypotheses.judge_kept_modes(ds, 7.0),
        lambda ds: hypotheses.retention_panels(ds, "trained"),
        hypotheses.relevance_panels,
    ],
    "modes": [lambda ds: hypotheses.by_modulus(ds, "r2"), hypotheses.group_starts],
    "perturbations": [lambda ds: hypotheses.judge_fixed_point(ds, drifts, 7.0)],
}  # fmt: skip


@pytest.mark.parametrize("kind", READERS)
def test_whole_results_are_judged(kind):
    for reader in READERS[kind]:
        assert reader(WHOLE[kind]) is not None


@given(st.data())
def test_broken_results(ends_well, data):
    kind = data.draw(st.sampled_from(list(READERS)))
    ds, reader = WHOLE[kind], data.draw(st.sampled_from(READERS[kind]))
    variable, dim = (
        data.draw(st.sampled_from(sorted(ds.data_vars))),
        data.draw(st.sampled_from(sorted(ds.dims))),
    )
    change = data.draw(
        st.sampled_from(["no variable", "no dim", "empty", "words", "complex", "NaN", "no labels", "junk"])
    )
    broken = {
        "no variable": lambda: ds.drop_vars(variable),
        "no dim": lambda: ds.isel({dim: 0}, drop=True),
        "empty": lambda: ds.isel({dim: slice(0)}),
        "words": lambda: ds.assign({variable: ds[variable].astype(str)}),
        "complex": lambda: ds.assign({variable: ds[variable].astype(complex)}),
        "NaN": lambda: ds.assign({variable: ds[variable] * math.nan}),
        "no labels": lambda: ds.drop_vars(dim, errors="ignore"),
        "junk": lambda: data.draw(junk),
    }[change]()
    ends_well(
        ["ds", "results", "retention", "stacks", "rank", "variants", "correlation lengths"], reader, broken
    )


FIGURES = [
    figures.transition_matrices, figures.spectra, figures.autocorrelation, figures.effects, figures.scatter,
    figures.cka_matrices, tables.verdict_table, tables.step_table,
    tables.statistics_table, tables.modes_table, tables.stack_table, figures.lines, figures.seed_lines,
    figures.status_grid, figures.shares, figures.paths, tables.share_table,
    answers.box, answers.rule_table,
]  # fmt: skip
shown = st.one_of(
    junk,
    st.dictionaries(names, junk, max_size=2),
    st.dictionaries(names, st.dictionaries(names, junk, min_size=1, max_size=2), max_size=2),
)


@given(st.sampled_from(FIGURES), shown)
def test_figures(ends_well, figure, panels):
    more = {
        figures.effects: [(), "x"],
        figures.scatter: ["x", "y"],
        figures.lines: ["x"],
        figures.seed_lines: ["depth", "x", "y"],
        figures.status_grid: [{}, {}],
        figures.shares: [{}],
        figures.paths: ["x", "y"],
        answers.box: ["collapse", "x"],
        tables.share_table: [{}, 1],
    }
    ends_well(
        ["chains", "curves", "rows", "panels", "verdicts", "results", "stacks", "claims"],
        figure,
        panels,
        *more.get(figure, []),
    )


PARAMETERS = [(name, p) for name in notebooks.names() for p in notebooks.parameters(name).values()]
spelled = st.one_of(
    st.text(max_size=30),
    junk.map(repr),
    st.sampled_from(["__import__('os').system('x')", "9" * 5000, "[" * 300, "1e999", "nan", "{}"]),
)


@given(st.sampled_from(PARAMETERS), spelled)
def test_notebook_parameters(ends_well, parameter, text):
    name, known = parameter
    found = ends_well([known.name, "profile"], notebooks.parse_parameters, name, [(known.name, text)])
    if found is not None:
        assert type(found[known.name]) is type(known.default)


@given(spelled, st.text(max_size=10))
def test_parameters_reach_notebooks_as_data(ends_well, text, value):
    # papermill writes them into a cell as a literal, which evaluates to the same text and nothing else.
    from papermill.translators import translate_parameters

    code = ends_well(
        ["text"],
        translate_parameters,
        "python3",
        "python",
        {"family": text, "values": [text, value]},
        "Parameters",
    )
    first, second = ast.parse(code).body
    assert ast.literal_eval(first.value) == text and ast.literal_eval(second.value) == [text, value]


@given(
    st.dictionaries(st.text(string.ascii_lowercase, min_size=1, max_size=8), st.text(), max_size=3),
    st.one_of(st.none(), names),
)
def test_where_runs_go(ends_well, values, output):
    path = ends_well(["output"], notebooks.run_path, "selectivity", values, output)
    if path is not None and output is None:
        assert path.parent == notebooks.ROOT / "book" / "runs"


# --- valid input of every kind is taken, and gives what the plain tensor gives ---


def spread(x):
    """The same values, not contiguous in memory."""
    wide = x.new_zeros(*(2 * n for n in x.shape))
    wide[tuple(slice(None, None, 2) for _ in x.shape)] = x
    return wide[tuple(slice(None, None, 2) for _ in x.shape)]


def read_only(x):
    x = x.numpy().copy()
    x.flags.writeable = False
    return x


FORMS = {
    "strided": spread,
    "transposed": lambda x: (
        x.T.contiguous().T if x.ndim == 2 else x.mT.contiguous().mT if x.ndim > 2 else x.flip(0).flip(0)
    ),
    "numpy": torch.Tensor.numpy,
    "Fortran": lambda x: np.asfortranarray(x.numpy()),
    "negative strides": lambda x: x.flip(0).numpy()[::-1],
    "big-endian": lambda x: x.numpy().astype(x.numpy().dtype.newbyteorder(">")),
    "read-only": read_only,
    "list": torch.Tensor.tolist,
    "tuple": lambda x: tuple(x.tolist()),
    "list of arrays": lambda x: list(x.numpy()),
    "masked array without a mask": lambda x: np.ma.array(x.numpy()),
    "empty mask": lambda x: np.ma.array(x.numpy(), mask=np.zeros(x.shape, bool)),
    "data array": lambda x: xr.DataArray(x.numpy()),
}
FLOATS = {
    str(t).removeprefix("torch."): lambda x, t=t: x.to(t)
    for t in (torch.float16, torch.bfloat16, torch.float32)
} | {
    "float16 array": lambda x: x.numpy().astype("f2"),
    "requires_grad": lambda x: x.clone().requires_grad_(),
    "Parameter": lambda x: torch.nn.Parameter(x.clone()),
    "part of a graph": lambda x: x.clone().requires_grad_() * 1,
}
INTEGERS = {
    f"{kind}": lambda x, kind=kind: torch.from_numpy(x.numpy().astype(kind))
    for kind in ("i1", "i2", "i4", "u1", "u2", "u8")
}
BOTH = FORMS | FLOATS

# Whole numbers, which every type holds.
WHOLE_NUMBERS = torch.tensor(
    [[1, 0, 2, 5], [3, 1, 0, 2], [0, 4, 1, 1], [2, 2, 7, 0], [1, 6, 0, 3]], dtype=torch.float64
)
OTHER = WHOLE_NUMBERS.flip(1) ** 2 % 5
WIDER = torch.cat([WHOLE_NUMBERS, OTHER], 1)
STREAM = torch.stack([WHOLE_NUMBERS, OTHER, WHOLE_NUMBERS + OTHER])
CERTAIN = torch.eye(4, dtype=torch.float64)[[0, 1, 2, 1, 3, 0]]  # probabilities that are whole
HALVES = torch.tensor([[0.5, 0.25, 0.25], [0.25, 0.75, 0.0], [0.125, 0.375, 0.5]], dtype=torch.float64)
STATES = torch.tensor([[0, 1, 4, 3, 2], [4, 4, 1, 0, 3]])  # of CHAIN, 4 is [MASK]
NUMBERS = torch.tensor([3.0, 1.0, 4.0, 2.0, 5.0], dtype=torch.float64)


def streamed(layers):
    moments = Moments()
    moments.update(layers)
    return moments


# A function of one argument, a value for it, and the forms that it may have.
ACCEPTED = {
    **{f.__name__: (f, WHOLE_NUMBERS, BOTH | INTEGERS) for f in ONE},
    "ranks of wide rows": (
        lambda x: metrics.singular_values(x),
        torch.cat([WIDER, WIDER + 1], 1),
        BOTH | INTEGERS,
    ),
    "x": (lambda x: metrics.linear_cka(x, OTHER), WHOLE_NUMBERS, BOTH | INTEGERS),
    "y": (lambda y: metrics.linear_cka(OTHER, y, False), WIDER, BOTH | INTEGERS),
    "cka_matrix": (lambda x: metrics.cka_matrix([x, OTHER, WIDER]), WHOLE_NUMBERS, BOTH | INTEGERS),
    "kernel_drift": (lambda x: metrics.kernel_drift((OTHER, x)), WIDER, BOTH | INTEGERS),
    "layers": (lambda x: metrics.kernel_drift(x), STREAM, BOTH | INTEGERS),
    **{
        f.__name__: (f, WHOLE_NUMBERS, BOTH | INTEGERS)
        for f in (metrics.spectrum_rank, metrics.spectrum_participation, metrics.spectrum_stable)
    },
    "cka_between": (lambda x: metrics.cka_between([x, OTHER], [WIDER]), WHOLE_NUMBERS, BOTH | INTEGERS),
    "concentration": (metrics.concentration, WHOLE_NUMBERS, BOTH | INTEGERS),
    "relevant_modes": (metrics.relevant_modes, CERTAIN, BOTH | INTEGERS),
    **{
        view: (lambda x, view=view: metrics.view(x, view).double(), STREAM, BOTH | INTEGERS)
        for view in metrics.VIEWS
        if view != "masked"
    },
    "masked": (lambda x: metrics.view(STREAM, "masked", x), STREAM[..., 0] > 1, FORMS),
    "Moments": (lambda x: streamed([x, OTHER]).kernel_drift(), WHOLE_NUMBERS, BOTH | INTEGERS),
    "moments of a stack": (lambda x: streamed(x).cka_matrix(), STREAM, BOTH | INTEGERS),
    "MarkovChain": (lambda x: chains.MarkovChain(x).transition_matrix, HALVES, BOTH),
    "stationary_distribution": (
        lambda x: chains.sticky(5, 2.0, x).transition_matrix,
        NUMBERS,
        BOTH | INTEGERS,
    ),
    "observable": (lambda x: CHAIN.autocorrelation(x, [0, 1, 2]), NUMBERS[:4], BOTH | INTEGERS),
    "estimate": (lambda x: chains.estimate(x, pseudocount=0.5).transition_matrix, STATES, FORMS | INTEGERS),
    "corrupt": (lambda x: masking.corrupt(x, 5, 0.5, generator=generator(0))[0], STATES, FORMS | INTEGERS),
    "bayes_posterior": (lambda x: masking.bayes_posterior(CHAIN, x), STATES, FORMS | INTEGERS),
    "entropy": (masking.entropy, HALVES, BOTH),
    "loss_floor": (lambda x: masking.loss_floor(x, [True, False, True]), HALVES, BOTH),
    "selected": (lambda x: masking.loss_floor(HALVES, x), torch.tensor([True, False, True]), FORMS),
    "nearest_visible": (lambda x: torch.stack(probes.nearest_visible(x, 4)), STATES, FORMS | INTEGERS),
    "network": (lambda x: MODEL(x).detach(), STATES, FORMS | INTEGERS),
    "linear_fit": (lambda x: probes.linear_fit(x, OTHER)[0], WHOLE_NUMBERS, BOTH | INTEGERS),
    "held_out_r2": (
        lambda y: probes.held_out_r2(WHOLE_NUMBERS[:, :1], y, np.arange(5) < 3, [0, 0, 1, 1]),
        OTHER,
        BOTH | INTEGERS,
    ),
    "erasing_directions": (
        lambda x: probes.erasing_directions(x, OTHER[:, :2]),
        WHOLE_NUMBERS,
        BOTH | INTEGERS,
    ),
    "Interval": (lambda x: intervals.Interval.of(x).low, NUMBERS, BOTH | INTEGERS),
    **{
        f.__name__: (f, WHOLE_NUMBERS, BOTH | INTEGERS)
        for f in (measures.collapse, measures.collapse_from_maximum, measures.largest_rise)
    },
    "explained_variance": (
        lambda x: hypotheses.explained_variance(x, NUMBERS.flip(0)),
        NUMBERS,
        BOTH | INTEGERS,
    ),
    "residuals": (lambda y: hypotheses.residuals(NUMBERS.flip(0), y), NUMBERS, BOTH | INTEGERS),
    "equivalent": (lambda x: hypotheses.equivalent("d", x, 9.0).text, NUMBERS, BOTH | INTEGERS),
    "pivot": (
        lambda x: pivot(WHOLE["rows"], x, "correlation_length", "seed").values,
        NUMBERS[:4],
        BOTH | INTEGERS,
    ),
}


@pytest.mark.parametrize("function", ACCEPTED)
def test_valid_input_of_every_kind_is_taken(function):
    call, value, forms = ACCEPTED[function]
    expected = call(value)
    for form, convert in forms.items():
        try:
            found = call(convert(value))
        except Exception as error:
            raise AssertionError(f"{form} was refused") from error
        if isinstance(expected, str):
            assert found == expected, form
        else:
            found = found.detach() if isinstance(found, torch.Tensor) else found
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9, err_msg=form)


OBSERVED = FLOATS | INTEGERS | {"strided": spread, "transposed": FORMS["transposed"]}


@pytest.mark.parametrize("form", [form for form in OBSERVED if "array" not in form])
def test_outputs_of_every_kind_are_observed(form):
    model = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Identity())
    for view in ("token", lambda x: x, lambda x: FORMS["numpy"](x.detach().double())):
        expected = metrics.effective_rank(WHOLE_NUMBERS).item()
        found = observe(model, [OBSERVED[form](WHOLE_NUMBERS)], ["0", "1"], view, "cpu")
        assert found.effective_rank.sel(centring="centred", spectrum="singular").values == pytest.approx(
            [expected] * 2
        )


def one_masked(x):
    x = np.ma.array(x.numpy())
    x[(0,) * x.ndim] = np.ma.masked
    return x


REFUSED = {  # what no function takes: how it is made, and what the error says
    "sparse": (
        torch.Tensor.to_sparse,
        "must be a dense tensor, got one of layout torch.sparse_coo; pass x.to_dense",
    ),
    "compressed": (
        torch.Tensor.to_sparse_csr,
        "must be a dense tensor, got one of layout torch.sparse_csr; pass x.to_dense",
    ),
    "nested": (
        lambda x: torch.nested.nested_tensor([x, x]),
        "must be a dense tensor, got a nested one; pass .*unbind",
    ),
    "ragged": (
        lambda x: torch.nested.nested_tensor([x, x], layout=torch.jagged),
        "must be a dense tensor, got a nested one; pass .*unbind",
    ),
    "meta": (lambda x: x.to("meta"), "must be a dense tensor, got one on the meta device"),
    "quantized": (
        lambda x: torch.quantize_per_tensor(x.float(), 0.5, 0, torch.qint8),
        "must be a dense tensor, got a quantized one; pass x.dequantize",
    ),
    "complex": (lambda x: x.to(torch.complex128), "must be real"),
    "complex array": (lambda x: x.numpy().astype(complex), "must be real"),
    "masked": (one_masked, "has masked .missing. entries, 1 of"),
    "list of masked": (
        lambda x: list(one_masked(x)),
        "has masked .missing. entries, 1 of|must be a number|integer",
    ),
    "words": (
        lambda x: x.numpy().astype(str),
        "must be a tensor or array of numbers|one sequence of integers",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.filterwarnings("ignore:.*(quantize|nested|Sparse)")
def test_what_is_no_dense_real_number_is_refused_in_the_same_words(kind):
    (convert, message), tried = REFUSED[kind], 0
    for call, value, _ in ACCEPTED.values():
        if (kind == "compressed" and value.ndim != 2) or (
            kind == "quantized" and value.dtype != torch.float64
        ):
            continue
        try:
            given = convert(value)
        except RuntimeError:  # torch makes none of this type or shape
            continue
        with pytest.raises((ValueError, TypeError), match=rf"^\w+(\[\d+\])* ({message})"):
            call(given)
        tried += 1
    assert tried > 20


@pytest.mark.parametrize(
    "value",
    [np.eye(2), torch.eye(2), one_masked(torch.eye(2)), [1.0, 2.0]],
    ids=["array", "tensor", "masked", "list"],
)
def test_arrays_are_never_one_of_the_choices(value):
    calls = {
        "view": lambda: metrics.view(STREAM, value),
        "spectrum": lambda: metrics.spectrum_rank(NUMBERS, value),
        "device": lambda: resolve_device(value),
        "module": lambda: observe(TWO, [torch.ones(4, 3)], [value]),
        "correlation_length": lambda: first_round.judge_kernel_drift(
            WHOLE["results"], correlation_length=value
        ),
    }
    for name, call in calls.items():
        with pytest.raises(ValueError, match=rf"unknown {name} "):
            call()


# What only the package itself calls or makes, with checked arguments; and what takes no arguments.
OWN = {
    Evaluation, Setting, Diverged, generator, metrics.unbiased_hsic, metrics.normalised_hsic,
    metrics.cka_from_hsic, training.masked_loss, training.mixed_loss,
    anatomy.anatomy, anatomy.coupling, anatomy.couplings, probes.absolute_growth, findings.Claim,
    findings.by_group, questions.Job, questions.Question, questions.by_recipe, models.path,
    models.keep, probes.pooled, probes.tilts, probes.responses,
    comparison.halves, comparison.mode_responses,
    questions.coverage, study_law.compared,
    questions.optimisers, questions.small_optimisers, held, settled,
    training.count_loss, training.seconds_a_step, training.added, training.plain,
    first_round.limits, measures.one_chain, measures.chosen, measures.contrast, measures.lengths,
    measures.fall, measures.rank_profiles, hypotheses.last, figures.use_style,
    tables.interval_table, tables.bench_table, tables.bench_notes, tables.bench_costs,
}  # fmt: skip


small_matrices = st.one_of(hnp.arrays("f8", (4, 3), elements=st.floats(-5, 5)), arrays(2), junk)
fours = st.one_of(hnp.arrays("f8", 4, elements=st.floats(1e-3, 5)), arrays(1), junk)


@given(small_matrices, fours, small_matrices)
def test_what_the_optimiser_does(ends_well, outcome, rates, shares):
    named = ["outcome", "rate", "rates", "batch", "batches", "decay", "excess", "recipes", "values"]
    found = ends_well(named, findings.judge_rate, outcome, rates, shares)
    assert found is None or found.status in ("supported", "not supported")
    ends_well(named, findings.judge_small_size, outcome, rates, rates, rates, shares)
    found = ends_well(named, findings.slopes, outcome, rate=rates)
    assert found is None or found["rate"].shape == np.shape(outcome)[1:]


square = xr.DataArray(np.arange(1.0, 5).reshape(2, 2), dims=["family", "correlation_length"])
squares = square.assign_coords(family=["a", "b"], correlation_length=[1.0, 7.0])


@given(
    st.one_of(st.just(squares), st.just(square), junk),
    st.one_of(st.just(squares), st.just(squares - 1), junk),
    st.one_of(st.just(["a", "b"]), st.lists(names, max_size=3), junk),
)
def test_the_law(ends_well, measured, predicted, varying):
    named = ["measured", "predicted", "varying", "two families"]
    found = ends_well(named, law.judge_law, measured, predicted, varying, 10)
    assert found is None or found.status in ("supported", "not supported")
    ends_well(named, law.r_squared, measured, predicted)
    ends_well(named, law.family_ratios, measured, predicted)


@given(fours, fours, fours, st.one_of(st.floats(1e-3, 1), junk))
def test_excess_and_noise(ends_well, a, b, c, target):
    ends_well(["values", "axis"], findings.effect, a, target)
    ends_well(["ranks", "signs", "draws"], findings.chance_of_marker, [a, b], [b, a], 10)
    ends_well(["small", "large", "exact"], findings.judge_gradient_noise, a, b, c)
    ends_well(["ranks", "signs"], findings.judge_marker, a, b)
    ends_well(["ranks", "shares", "target"], findings.rank_at_excess, a, b, target)
    found = ends_well(["transitions"], findings.noise_share, target)
    assert found is None or 0 < found <= 1


@given(junk)
def test_signs_of_couplings(ends_well, ds):
    ends_well(["dissected"], findings.coupling_sign, ds)


@given(st.one_of(st.just(CHAIN), junk), small_matrices, small_matrices, st.one_of(st.just([0, 0, 1]), junk))
def test_anatomy(ends_well, chain, x, y, group):
    ends_well(["chain", "logits"], anatomy.level_shares, chain, x)
    found = ends_well(["x", "y", "group"], anatomy.explained_shares, x, y, group)
    assert found is None or found.isnan().all() or (found.nan_to_num() <= 1 + 1e-6).all()
    found = ends_well(["features", "weights"], anatomy.alignment, x, y)
    assert found is None or math.isnan(found) or abs(found) <= 1 + 1e-9
    ends_well(["posterior"], anatomy.log_posterior, x)
    ends_well(["responses"], comparison.decay_rates, x)


words = st.one_of(st.sampled_from(["sequel", "cosine", "sticky"]), junk)


@given(words, words, st.one_of(st.none(), st.just([2]), junk))
def test_questions(ends_well, recipe, family, seeds):
    ends_well(["recipe", "family", "families", "seed", "seeds"], questions.findings, recipe, family, seeds)
    ends_well(
        ["learning_rate", "batch", "weight_decay", "n"],
        questions.small_optimiser,
        family,
        seeds,
        0.0,
        recipe,
    )
    ends_well(["family", "families", "profile", "seed", "seeds"], questions.marker, family, recipe, seeds)
    ends_well(
        ["family", "families", "mixing", "profile", "n"], study_law.experiments, recipe, [family], n=seeds
    )
    ends_well(["n", "profile"], questions.gradient_noise, recipe, seeds)
    ends_well(["part", "seeds", "donors"], questions.transplants, recipe, [(seeds, seeds)])
    ends_well(["choice", "choices", "n", "profile"], questions.smallest, recipe, seeds, family)
    ends_well(["n", "profile"], questions.transformers, seeds, family)
    ends_well(["weight_decay", "n", "profile"], questions.weight_decays, [seeds], seeds, family)
    ends_well(["setting"], models.network, recipe, 2)
    ends_well(["claim"], answers.answer, seeds)
    ends_well(["claim"], findings.supporting, seeds)
    ends_well(["claim"], findings.decides, recipe, seeds)
    ends_well(["rows"], measures.as_results, family)


def documented():
    """Every function and class of the page "API reference"."""
    page = (notebooks.ROOT / "book" / "api.md").read_text(encoding="utf-8")
    for block in re.findall(r"automodule:: (\S+)\n((?:   :.*\n)*)", page):
        module, options = importlib.import_module(block[0]), dict(re.findall(r":([\w-]+): *(.*)\n", block[1]))
        left_out = options.get("exclude-members", "").split(", ")
        members = options["members"].split(", ") if options["members"] else vars(module)
        for name in members:
            value = getattr(module, name)
            if (
                (inspect.isfunction(value) or inspect.isclass(value))
                and value.__module__ == block[0]
                and not name.startswith("_")
                and name not in left_out
            ):
                yield value


def test_every_documented_function_is_tried():
    tree = ast.parse(Path(__file__).read_text(encoding="utf-8"))
    used = {
        getattr(node, "attr", None) or getattr(node, "id", None)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute | ast.Name)
    }
    found = set(documented())
    assert len(found) > 60
    assert {f.__qualname__ for f in found - OWN} <= used | set(FAMILIES) and OWN <= found
