"""Ours against its peers: same data, one process, sides in turn. `make bench` prints the table and stores it.

Every benchmark checks first that the sides computed the same thing, then times them alternately, so that a
machine whose speed drifts slows both. A peer that takes far longer is timed on a part of the work and scaled
up, which its row says. The whole table is run three times, so that a goal is not met by chance; it is stored
beside those of other processors.
"""

import argparse
import contextlib
import importlib
import io
import json
import multiprocessing
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import joblib
import numpy as np
import torch
from scipy import stats
from threadpoolctl import threadpool_limits
from torch import nn
from torch.nn import functional as F

from rgnb import chains, metrics
from rgnb.masking import bayes_posterior, corrupt
from rgnb.metrics.moments import Moments
from rgnb.model import ModelConfig, ResidualMLP
from rgnb.randomness import generator
from rgnb.study.experiment import Experiment
from rgnb.study.measurement import forward
from rgnb.study.store import provenance
from rgnb.study.sweep import grid, plan
from rgnb.training import Run, TrainConfig, count_loss, masked_loss, train

PEERS = (
    "quantecon", "deeptime", "hmmlearn", "pydtmc", "pytorch-cka", "ckatorch", "torch-cka", "numpy", "scipy",
)  # fmt: skip
PROCESSOR = Path("/proc/cpuinfo")  # of Linux
RUNS = 3  # of the whole table
TINY = {"n_states": 4, "length": 8, "width": 8, "depth": 2, "batch": 8, "sequences": 64}


def profile(tiny, **changes):
    """The Experiment whose sizes are timed."""
    return Experiment.profile("quick", **TINY | changes) if tiny else Experiment.profile("paper", **changes)


@dataclass
class Row:
    """One line of the table."""

    work: str
    seconds: float | None  # ours, the median of a run; None: not measured, which the note explains
    others: dict = field(default_factory=dict)  # name -> seconds, the median
    goal: float = 0.0  # how many times the fastest of the others
    agreement: str = ""  # what was found equal before timing
    note: str = ""
    points: list = field(default_factory=list)  # (size, seconds) of a cost against size

    @property
    def ratio(self):
        return min(self.others.values()) / self.seconds if self.others else float("nan")


def peer(name):
    """A peer's module, or None where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError:
        return None


def medians(sides, repeats, budget=8.0):
    """Median seconds of each side, {name: (function, scale)} -> {name: seconds}; a warm-up, then in turn.

    A side stops being repeated once it has used `budget` seconds.
    """
    taken = {name: [] for name in sides}
    for k in range(repeats + 1):
        for name, (function, scale) in sides.items():
            if k > 1 and sum(taken[name]) > budget * scale:
                continue
            started = time.perf_counter()
            with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
                function()
            if k:
                taken[name].append((time.perf_counter() - started) * scale)
    return {name: statistics.median(values) for name, values in taken.items()}


def shares(function, leading=6):
    """Where the time of a function goes: its operations' shares of the processors' time, in words."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        function()
    times = {event.key.removeprefix("aten::"): event.self_cpu_time_total for event in found.key_averages()}
    first = sorted(times, key=times.get, reverse=True)[:leading]
    return ", ".join(f"{name} {times[name] / sum(times.values()):.0%}" for name in first)


@contextlib.contextmanager
def one_core():
    """Torch on one core, for peers that use no more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def row(work, sides, repeats, **rest):
    """A Row from timed sides; the first is ours."""
    ours, *others = medians(sides, repeats).items()
    return Row(work, ours[1], dict(others), **rest)


def sampling(tiny):
    """Stationary sequences of a chain."""
    batch, length, few = (64, 16, 4) if tiny else (4096, 64, 64)
    chain = chains.hierarchical(16, 7.0)
    P = chain.transition_matrix.numpy()
    n, rng = len(P), np.random.default_rng(0)
    sides = {"rgnb": (lambda: chain.sample(batch, length, generator(0, 9)), 1)}
    samples = {"rgnb": chain.sample(batch, length, generator(0, 9)).numpy()}
    if qe := peer("quantecon"):
        simulated = qe.MarkovChain(P)
        sides["quantecon"] = (lambda: simulated.simulate(length, init=rng.integers(n, size=batch)), 1)
        samples["quantecon"] = simulated.simulate(length, init=rng.integers(n, size=batch))
    if deeptime := peer("deeptime.markov.msm"):
        model = deeptime.MarkovStateModel(P)
        sides["deeptime"] = (
            lambda: [model.simulate(length, start=int(s)) for s in rng.integers(n, size=few)],
            batch / few,
        )
    if hmm := peer("hmmlearn.hmm"):
        model_hmm = hmm.CategoricalHMM(n, random_state=0)
        model_hmm.startprob_, model_hmm.transmat_, model_hmm.emissionprob_ = np.full(n, 1 / n), P, np.eye(n)
        sides["hmmlearn"] = (lambda: [model_hmm.sample(length) for _ in range(few)], batch / few)
    if pydtmc := peer("pydtmc"):
        other = pydtmc.MarkovChain(P)
        sides["pydtmc"] = (
            lambda: [other.simulate(length - 1, output_indices=True) for _ in range(few)],
            batch / few,
        )
    smallest = min(law_p_value(s, P) for s in samples.values())
    if smallest < 1e-4:
        raise AssertionError(f"a sampler does not follow its law: chi-square p = {smallest:.2g}")
    agreement = f"chi-square on transitions, p ≥ {smallest:.2g}"
    with one_core():
        shared = shares(sides["rgnb"][0])
        note = f"deeptime, hmmlearn and pydtmc: {few} sequences, scaled up; of its time: {shared}"
        work = f"sampling {batch} x {length} tokens, V = {n}, one core"
        return [row(work, sides, 20, goal=2, agreement=agreement, note=note)]


def law_p_value(tokens, P):
    """Chi-square test that the transitions in (batch, length) tokens follow P."""
    n = len(P)
    counts = np.zeros((n, n))
    np.add.at(counts, (tokens[:, :-1].ravel(), tokens[:, 1:].ravel()), 1)
    expected = counts.sum(1, keepdims=True) * P
    allowed = expected > 0
    statistic = ((counts - expected)[allowed] ** 2 / expected[allowed]).sum()
    return stats.chi2.sf(statistic, allowed.sum() - n)


class Layers(nn.Module):
    """Modules "parts.0", "parts.1", ... that put out the given layers, for peers that measure modules."""

    def __init__(self, layers):
        super().__init__()
        self.widths = [x.shape[1] for x in layers]
        self.parts = nn.ModuleList(nn.Identity() for _ in layers)

    def forward(self, x):
        return [part(piece) for part, piece in zip(self.parts, x.split(self.widths, 1), strict=True)]


def gram_cka(layers):
    """Debiased CKA in float64 from n x n Gram matrices, the definition spelt out (Song et al. 2012)."""
    grams = [x.double() @ x.double().T for x in layers]
    for k in grams:
        k.fill_diagonal_(0)
    n = len(grams[0])

    def hsic(k, m):
        return (k * m).sum() + k.sum() * m.sum() / (n - 1) / (n - 2) - 2 / (n - 2) * k.sum(0) @ m.sum(0)

    values = torch.stack([torch.stack([hsic(k, m) for m in grams]) for k in grams])
    return values / torch.sqrt(values.diagonal()[:, None] * values.diagonal())


def cka(tiny):
    """CKA between 9 layers, 64 wide."""
    rows = []
    for n, goal in ((64, 10),) if tiny else ((1024, 10), (4096, 30)):
        g = generator(0, 9)
        layers = [torch.randn(n, 64, generator=g)]
        for _ in range(8):
            layers.append(layers[-1] + 0.3 * torch.randn(n, 64, generator=g))
        exact, ours = gram_cka(layers), metrics.cka_matrix(layers)
        error = ((ours - exact) / exact).abs().max().item()
        if error > 1e-9:
            raise AssertionError(f"CKA is off by {error:.2g}")
        model, data, errors = Layers(layers), torch.cat(layers, 1), {}
        names = [f"parts.{i}" for i in range(len(layers))]
        batches = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(data), batch_size=n)
        sides, found = {"rgnb": (lambda layers=layers: metrics.cka_matrix(layers), 1)}, {}
        if module := peer("cka"):
            found["pytorch-cka"] = lambda layers=layers, m=module: m.cka_from_features(layers, layers)
        # The cost of the next two grows with n^3: minutes at 4096.
        if (module := peer("ckatorch.core")) and n <= 1024:
            pair = module.cka_batch
            found["ckatorch"] = lambda a=layers, f=pair: torch.stack(
                [torch.stack([f(x[None], y[None]) for y in a]) for x in a]
            )
        if (module := peer("torch_cka")) and n <= 1024:

            def torch_cka(m=module, a=(model, names, batches)):
                compared = m.CKA(a[0], a[0], model1_layers=a[1], model2_layers=a[1])
                with torch.no_grad():
                    compared.compare(a[2])
                return compared.export()["CKA"]

            found["torch-cka"] = torch_cka
        for name, function in found.items():
            with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
                warnings.simplefilter("ignore")
                errors[name] = ((function() - exact) / exact).abs().max().item()
            if errors[name] > 0.05:
                raise AssertionError(
                    f"{name} computes something else: relative difference {errors[name]:.2g}"
                )
            sides[name] = (function, 1)
        agreement = f"relative error {error:.0e}; " + ", ".join(
            f"{name} {e:.0e}" for name, e in errors.items()
        )
        work, note = f"debiased CKA of 9 layers x 64, n = {n}", f"of its time: {shares(sides['rgnb'][0])}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows.append(row(work, sides, 5, goal=goal, agreement=agreement, note=note))
    return rows


def peak_memory():
    """Peak memory of this process in MB, from Linux's own record: getrusage counts the parent's as well."""
    with open("/proc/self/status", encoding="ascii") as file:
        return int(next(line for line in file if line.startswith("VmHWM")).split()[1]) / 1024


def alone(function, *arguments):
    """What a function returns in a process of its own, whose peak memory is its alone."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def stream(n, threads):
    """CKA over n rows in batches, alone in its process.

    Returns:
        Seconds as one stream, seconds of every batch for itself, and peak memory (MB).
    """
    torch.set_num_threads(threads)
    g, batch = generator(0, 9), min(n, 10_000)
    whole, seconds = Moments(), [0.0, 0.0]
    for k in range(n // batch):
        base = torch.randn(batch, 64, generator=g)
        layers = [base + 0.3 * i * torch.randn(batch, 64, generator=g) for i in range(9)]
        sides = [(0, whole), (1, Moments())]
        for side, moments in sides if k % 2 else reversed(sides):  # the second finds the rows in the cache
            started = time.perf_counter()
            moments.update(layers)
            seconds[side] += time.perf_counter() - started
    whole.cka_matrix()
    return *seconds, peak_memory()


def streaming(tiny):
    """The same from a stream: memory flat, and no slower than the batches by themselves."""
    sizes = (1000, 2000) if tiny else (10_000, 100_000, 1_000_000)
    found = {n: alone(stream, n, torch.get_num_threads()) for n in sizes}
    note = "; ".join(f"n = {n:.0e}: {s:.2f} s, peak {m:.0f} MB" for n, (s, _, m) in found.items())
    together, apart, _ = found[sizes[-1]]
    sides = {f"its batches of {min(sizes[-1], 10_000)} by themselves": apart}
    return [Row(f"CKA from a stream of {sizes[-1]:.0e} rows", together, sides, goal=1, note=note)]


def ranks(tiny):
    """Effective rank of every view and depth of one network, against numpy's SVD; one core."""
    e = profile(tiny)
    sequences, shown = min(e.sequences, 1024), 16 if tiny else 64
    chain = chains.hierarchical(e.model.n_states, 7.0)
    inputs, selected = corrupt(
        chain.sample(sequences, e.model.length, generator(0, 9)), chain.n_states, generator=generator(1, 9)
    )
    streams, _ = forward(ResidualMLP(e.model, 0), inputs, torch.device("cpu"))
    # As in a measurement: position and pooled views of all sequences, the others of a part of them.
    parts = [(v, slice(None) if v in ("position", "pooled") else slice(shown)) for v in metrics.VIEWS]
    views = [metrics.view(x[part], v, selected[part]).double() for v, part in parts for x in streams]

    def plain():
        out = []
        for x in views:
            matrices = x.numpy().reshape(-1, *x.shape[-2:])
            values = np.stack([np.linalg.svd(m - m.mean(0), compute_uv=False) for m in matrices])
            out.append(np.exp(stats.entropy(values, axis=-1)))
        return out

    def ours():
        return [metrics.effective_rank(x) for x in views]

    pairs = zip(ours(), plain(), strict=True)
    error = max(float(np.abs(a.flatten().numpy() / b - 1).max()) for a, b in pairs)
    if error > 1e-6:
        raise AssertionError(f"ranks differ by {error:.2g}")
    tall = [x for x in views if x.shape[-2] > 2 * x.shape[-1]]
    size = 256 if tiny else 2048
    square = torch.randn(size, size, dtype=torch.float64, generator=generator(0, 9))
    products = sum(2 * x.numel() * x.shape[-1] for x in tall) / (2 * size**3)
    with one_core(), threadpool_limits(limits=1, user_api="blas"):
        taken = medians({"rgnb": (ours, 1), "numpy": (plain, 1), "": (lambda: square @ square, products)}, 5)
        shared = shares(ours)
    note = (
        f"of its time: {shared}; at the rate of a {size}^3 product in double precision, "
        f"X^T X of the tall matrices alone takes {taken.pop(''):.2g} s"
    )
    work = f"effective rank, all views and depths, {sequences} sequences, one core"
    agreement = f"relative difference {error:.0e}"
    return [Row(work, taken.pop("rgnb"), taken, goal=5, agreement=agreement, note=note)]


class Plain(nn.Module):
    """The same stack as anyone would write it with torch.nn, for one network."""

    def __init__(self, c):
        super().__init__()
        linear, d, t = nn.Linear, c.width, c.length
        self.embedding = linear(c.n_states + 1, d, bias=False)
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                [
                    nn.LayerNorm(d),
                    linear(t, 2 * t),
                    linear(2 * t, t, bias=False),
                    nn.LayerNorm(d),
                    linear(d, 4 * d),
                    linear(4 * d, d),
                ]
            )
            for _ in range(c.depth)
        )
        self.norm, self.head, self.symbols = nn.LayerNorm(d), linear(d, c.n_states), c.n_states + 1

    def forward(self, tokens):
        x = self.embedding(F.one_hot(tokens, self.symbols).float())
        for norm, up, down, norm2, up2, down2 in self.blocks:
            x = x + down(F.gelu(up(norm(x).transpose(1, 2)))).transpose(1, 2)
            x = x + down2(F.gelu(up2(norm2(x))))
        return self.head(self.norm(x))

    def take(self, model):
        """Copy the weights of member 0 of a stack."""
        pairs = [(self.embedding, model.embedding), (self.norm, model.final_norm), (self.head, model.head)]
        for mine, its in zip(self.blocks, model.blocks, strict=True):
            token, channel = its.token_mlp, its.channel_mlp
            theirs = (its.token_norm, token.up, token.down, its.channel_norm, channel.up, channel.down)
            pairs += zip(mine, theirs, strict=True)
        with torch.no_grad():
            for mine, its in pairs:
                for name, p in mine.named_parameters():
                    value = getattr(its, name)[0]
                    p.copy_(value.T if name == "weight" and p.ndim == 2 else value.reshape(p.shape))
        return self


def flops(c, batch, rate):
    """Floating-point operations of one training step of one member.

    A multiply-add counts as 2, the backward pass as twice the forward pass.
    """
    rows = batch * c.length
    token, channel = 4 * batch * c.width * c.length * 2 * c.length, 8 * rows * c.width**2 * 2
    # The last channel MLP and the head run at selected positions alone.
    last = channel * rate + 2 * rows * rate * c.width * c.n_states
    return 3 * (2 * rows * (c.n_states + 1) * c.width + c.depth * token + (c.depth - 1) * channel + last)


def training(tiny):
    """Training with token mixing, as a share of the rate of a large matrix product."""
    e = profile(tiny)
    members, steps, few = (2, 50, 50) if tiny else (2, 300, 100)  # few: of the plain loop, scaled up
    chain = chains.hierarchical(e.model.n_states, 7.0)
    config = TrainConfig(**{**asdict(e.training), "steps": steps, "snapshots": ()})
    stack = ResidualMLP(e.model, list(range(members)))
    tokens = chain.sample(config.batch, e.model.length, generator(0, 9))
    inputs, selected = corrupt(tokens, chain.n_states, config.rate, config.scheme, generator(1, 9))
    with torch.no_grad():
        a = masked_loss(stack(inputs), *(x.expand(members, -1, -1) for x in (tokens, selected)))[0]
        b = F.cross_entropy(Plain(e.model).take(stack)(inputs)[selected], tokens[selected])
    if abs(a - b) > 1e-5:
        raise AssertionError(f"the two stacks differ: loss {a:.6f} and {b:.6f}")

    def ours(seeds=tuple(range(members)), config=config):
        with tempfile.TemporaryDirectory() as folder:
            train(Run(e.model, config, chain, "cpu"), seeds, folder, progress=False)

    def plain():
        model = Plain(e.model)
        optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
        for step in range(few):
            t = chain.sample(config.batch, e.model.length, generator(0, 1, step))
            x, s = corrupt(t, chain.n_states, config.rate, config.scheme, generator(0, 2, step))
            optimizer.zero_grad()
            F.cross_entropy(model(x)[s], t[s]).backward()
            optimizer.step()

    size = 256 if tiny else 2048
    left, right = torch.randn(2, size, size, generator=generator(0, 9))
    step_flops = flops(e.model, config.batch, config.rate)
    # One side is as long as the work of all members would take at the rate of one large product.
    scale = members * steps * step_flops / (2 * size**3)
    product = f"the same operations at the rate of a {size}^3 matrix product"
    sides = {
        "rgnb": (ours, 1),
        "plain loop, one network at a time": (plain, members * steps / few),
        product: (lambda: left @ right, scale),
    }
    taken = medians(sides, 3, budget=30)
    seconds, limit = taken.pop("rgnb"), {product: taken.pop(product)}
    rate, brief = members * steps / seconds, replace(config, steps=50)
    note = (
        f"{rate:.1f} networks' steps a second, {rate * step_flops / 1e9:.0f} GFLOP/s; "
        f"of a network's time: {shares(lambda: ours([0], brief))}"
    )
    work = f"training, token mixing, {members} networks x {steps} steps"
    return [
        Row(work, seconds, taken, goal=1, agreement=f"loss {abs(a - b):.0e} apart", note=note),
        Row(f"{work}, against the machine", seconds, limit, goal=0.75),
    ]


def exponent(points):
    """Slope of ln seconds against ln size over the larger half of sizes, where fixed costs weigh least."""
    sizes, seconds = np.log(np.array(points[len(points) // 2 - 1 :])).T
    return float(np.polyfit(sizes, seconds, 1)[0])


def cost(work, points):
    """A Row of a cost against a size, from its (size, seconds)."""
    return Row(work, points[-1][1], points=points, note=f"grows as size^{exponent(points):.2f}")


def training_seconds(config, seeds, steps, device):
    """Seconds that training networks together takes."""
    chain, plan = chains.hierarchical(config.n_states, 2.0), TrainConfig(steps=steps, snapshots=())
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        train(Run(config, plan, chain, device), list(seeds), folder, progress=False)
    return time.perf_counter() - started


def scaling(tiny):
    """Seconds per training step against each size, the others as in the paper profile; ranks, CKA by rows."""
    base = asdict(profile(tiny).model)
    sizes = {
        "n_states": (8, 16, 32, 64),
        "length": (16, 32, 64, 128),
        "width": (16, 32, 64, 128),
        "depth": (3, 6, 12, 24),
        "seeds": (1, 2, 4, 8),
    }
    sizes = {
        name: tuple(v // 2 for v in values[:2]) if tiny and name != "seeds" else values[: 2 if tiny else 4]
        for name, values in sizes.items()
    }
    steps, out = 50, []
    for name, values in sizes.items():
        points = []
        for value in values:
            seeds = value if name == "seeds" else 1
            config = ModelConfig(**(base if name == "seeds" else base | {name: value}))
            points.append((value, training_seconds(config, range(seeds), steps, "cpu") / steps))
        out.append(cost(f"training step against {name}", points))
    for name, function in {
        "effective rank": metrics.effective_rank,
        "CKA": lambda x: metrics.linear_cka(x, x),
    }.items():
        points = []
        for n in (256, 512) if tiny else (1024, 4096, 16384, 65536):
            x = torch.randn(n, 64, generator=generator(0, 9))
            points.append((n, medians({"rgnb": (lambda f=function, x=x: f(x), 1)}, 3)["rgnb"]))
        out.append(cost(f"{name} of n x 64 against n", points))
    return out


def whole_run(tiny):
    """Trains and measures one network alone in its process: peak memory in MB."""
    torch.set_num_threads(1)
    changes = {"seeds": 1, "correlation_lengths": (7.0,), "steps": 50, "snapshots": (), "device": "cpu"}
    with tempfile.TemporaryDirectory() as folder:
        profile(tiny, **changes).run(folder, progress=False)
    return peak_memory()


def memory(tiny):
    """Peak memory of a run: it does not depend on the number of steps, so 50 are enough."""
    started = time.perf_counter()
    peak = alone(whole_run, tiny)
    note = f"peak {peak:.0f} MB; to stay below 2048 MB"
    return [Row("training and measuring one network", time.perf_counter() - started, note=note)]


def counts(tiny):
    """One training step without mixing of as many networks as a finding needs: count against dense form."""
    e = profile(tiny, mixing="none")
    members = 2 if tiny else len(e.seeds)
    chain, c = chains.hierarchical(e.model.n_states, 7.0), e.training
    model = ResidualMLP(e.model, list(range(members)))
    tokens = chain.sample(members * c.batch, e.model.length, generator(0, 9)).unflatten(0, (members, c.batch))
    inputs, selected = corrupt(tokens, chain.n_states, c.rate, c.scheme, generator(1, 9))
    losses = {
        "rgnb": lambda: count_loss(model, inputs, tokens, selected),
        "dense": lambda: masked_loss(model(inputs), tokens, selected),
    }
    error = (losses["rgnb"]() - losses["dense"]()).abs().max().item()
    if error > 1e-5:
        raise AssertionError(f"the two forms differ by {error:.2g}")

    def step(loss):
        model.zero_grad()
        loss().sum().backward()

    sides = {name: (lambda loss=loss: [step(loss) for _ in range(5)], 0.2) for name, loss in losses.items()}
    note = f"of its time: {shares(sides['rgnb'][0])}"
    work = f"one step without mixing, {members} networks"
    return [row(work, sides, 10, goal=50, agreement=f"loss {error:.0e} apart", note=note)]


def posterior(tiny):
    """Bayes posterior of masked tokens, against a hidden Markov model with a [MASK] symbol."""
    batch, length = (32, 16) if tiny else (4096, 64)
    chain = chains.hierarchical(16, 7.0)
    n = chain.n_states
    observed, _ = corrupt(chain.sample(batch, length, generator(0, 9)), n, generator=generator(1, 9))
    sides = {"rgnb": (lambda: bayes_posterior(chain, observed), 1)}
    agreement = ""
    if hmm := peer("hmmlearn.hmm"):
        model = hmm.CategoricalHMM(n)
        model.startprob_ = chain.stationary_distribution.numpy()
        model.transmat_ = chain.transition_matrix.numpy()
        model.emissionprob_ = np.concatenate([0.85 * np.eye(n), np.full((n, 1), 0.15)], 1)
        flat, lengths = observed.reshape(-1, 1).numpy(), [length] * batch
        theirs = model.predict_proba(flat, lengths).reshape(batch, length, n)
        error = np.abs(theirs - bayes_posterior(chain, observed).numpy()).max()
        if error > 1e-9:
            raise AssertionError(f"posteriors differ by {error:.2g}")
        sides["hmmlearn"] = (lambda: model.predict_proba(flat, lengths), 1)
        agreement = f"largest difference {error:.0e}"
    return [row(f"Bayes posterior, {batch} x {length}, V = {n}", sides, 3, goal=10, agreement=agreement)]


def start(tiny):
    """The command line before any work."""
    command = [sys.executable, "-m", "rgnb.press.cli"]
    sides = {
        f"rgnb {a}": (lambda a=a: subprocess.run([*command, a], capture_output=True, check=True), 1)
        for a in ("--help", "list")
    }
    taken = medians(sides, 1 if tiny else 5)
    return [Row(name, seconds, note="to stay below 1 s") for name, seconds in taken.items()]


def gpu(tiny):
    """16 seeds at once on a GPU against one after the other there."""
    if not torch.cuda.is_available():
        note = "not measured: this machine has none that torch can use"
        return [Row("training 16 networks on a GPU", None, note=note)]
    config, steps = profile(tiny).model, 50 if tiny else 500

    def run(groups):
        for seeds in groups:
            training_seconds(config, seeds, steps, "cuda")
        torch.cuda.synchronize()

    sides = {"rgnb": (lambda: run([list(range(16))]), 1), "one at a time": (lambda: run([[0], [1]]), 8)}
    return [row(f"training 16 networks x {steps} steps on {torch.cuda.get_device_name()}", sides, 2, goal=20)]


def again(tiny):
    """What the first round's networks take from nothing, planned from steps and measures timed now."""
    changes = {
        "families": ("hierarchical", "sticky"),
        "seeds": 1 if tiny else 8,
        "mixing": ["tokens", "none"],
        "device": "cpu",
    }
    with tempfile.TemporaryDirectory() as folder:
        planned = plan(grid("quick" if tiny else "paper", **changes), folder, workers=2)
    note = f"{planned.asked} networks on {planned.workers} workers, {planned.seconds / 3600:.1f} h"
    limit = {"NeuroLibre's limit, 8 h on 2 CPUs": 8 * 3600.0}
    return [
        Row("the first round's networks from nothing, planned", planned.seconds, limit, goal=2, note=note)
    ]


BENCHMARKS = {
    f.__name__: f
    for f in (
        sampling, cka, streaming, ranks, training, counts,
        posterior, start, memory, scaling, again, gpu,
    )
}  # fmt: skip
ONCE = ("memory", "scaling", "start")  # nothing is held against them that a second run could decide


def table(rows):
    """Rows as aligned text."""
    lines = []
    for r in rows:
        lines.append(r.work if r.seconds is None else f"{r.work}: {r.seconds:.4g} s")
        for name, seconds in r.others.items():
            lines.append(f"    {name}: {seconds:.4g} s, {seconds / r.seconds:.3g} x")
        if r.goal:
            lines.append(
                f"    goal {r.goal:g} x the fastest: {'reached' if r.ratio >= r.goal else 'not reached'}"
            )
        lines += [f"    {text}" for text in (r.note, r.agreement) if text]
    return "\n".join(lines)


def combined(runs):
    """Runs of the same benchmarks as rows whose times are lists; notes are those of the run in the middle.

    What only the first run holds is kept as a list of one.
    """
    rows = []
    for work in [r.work for r in runs[0]]:
        found = sorted((r for run in runs for r in run if r.work == work), key=lambda r: r.seconds or 0)
        row = asdict(found[len(found) // 2])
        row["seconds"] = [r.seconds for r in found if r.seconds is not None]
        row["others"] = {name: [r.others[name] for r in found] for name in row["others"]}
        rows.append(row)
    return rows


def processor():
    """The processor's name and the vector instructions that torch uses on it, as in "AMD EPYC, AVX512"."""
    try:
        lines = PROCESSOR.read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def store(runs, path):
    """Keep a table beside those of other processors."""
    made = provenance(torch.device("cpu"))
    made |= {"cores": joblib.cpu_count(), "peers": {name: version(name) for name in PEERS}}
    made |= {"peak_memory_mb": round(peak_memory())}
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    stored[processor()] = {"provenance": made, "rows": combined(runs)}
    path.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main(arguments=None):
    """Run the benchmarks named once, or all of them three times and store their table, as text on the way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(BENCHMARKS)}; all by default")
    parser.add_argument(
        "--tiny", action="store_true", help="sizes that take seconds, to see that everything works"
    )
    args = parser.parse_args(arguments)
    part, runs = bool(args.names or args.tiny), []
    for k in range(1 if part else RUNS):
        if not part:
            print(f"run {k + 1} of {RUNS}", flush=True)
        runs.append([])
        for name in args.names or [b for b in BENCHMARKS if k == 0 or b not in ONCE]:
            found = BENCHMARKS[name](args.tiny)
            print(table(found), flush=True)
            runs[-1] += found
    print(f"peak memory {peak_memory():.0f} MB")
    if not part:
        path = Path(__file__).with_name("results.json")
        store(runs, path)
        print(f"stored in {path}")


if __name__ == "__main__":
    main()
