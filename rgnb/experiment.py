"""Experiments: a frozen configuration in, one labelled Dataset out, each (setting, seed) stored once.

Results are NetCDF files under a key made of their whole setting, their seed and `RESULTS_VERSION`, with a digest of their
content; a file that is damaged is set aside and made again. Trained weights are kept beside them (safetensors, not
committed) so that new probes need no training.
"""

import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime, timezone
from functools import cache
from importlib.metadata import version
from pathlib import Path

import netCDF4
import numpy as np
import torch
import xarray as xr
from filelock import FileLock, Timeout
from tqdm import tqdm

from rgnb import chains, checks, files, metrics, rules
from rgnb.masking import bayes_posterior, corrupt, entropy
from rgnb.model import ModelConfig, ResidualMLP
from rgnb.training import BLOCK, Diverged, TrainConfig, check_gradient, generator, load_model, plain, resolve_device, train

RESULTS_VERSION = 1  # raise by hand when the meaning of a stored number changes

PROFILES = {
    # The size of arXiv:2607.15449's baseline: the defaults of ModelConfig and TrainConfig.
    "paper": {},
    # Minutes on a laptop: everything smaller, trained faster.
    "quick": {
        "n_states": 8,
        "length": 16,
        "width": 32,
        "batch": 128,
        "steps": 1500,
        "learning_rate": 1e-3,
        "snapshots": (100, 300, 700),
        "sequences": 1024,
    },
    # About a minute a network: the least size at which pilots saw the findings' pattern.
    "small": {
        "length": 16,
        "width": 32,
        "batch": 128,
        "steps": 4000,
        "snapshots": (50, 100, 150, 200, 350, 550, 900, 1450, 2350),
        "sequences": 1024,
    },
}
# How a network is trained; see the rules. Snapshots are spaced evenly in the logarithm of the step.
RECIPES = {
    "sequel": {"learning_rate": 3e-4, "schedule": "constant"},
    "cosine": {
        "learning_rate": 1e-3,
        "schedule": "cosine",
        "snapshots": (50, 100, 150, 200, 350, 550, 900, 1450, 2350, 3800, 6200),
    },
}
MATRICES = 256  # sequences that the token, masked and sequence views use: rows enough, a fraction of the time

FLOORS = (1e-6, 1e-3)  # of the log-posteriors whose effective rank counts the relevant modes


@dataclass(frozen=True)
class Experiment:
    """A grid of settings (chain family x correlation length) and seeds, trained and measured alike.

    `Experiment.profile("quick", mixing="none", seeds=3)` starts from a profile and takes any field of
    this class, `ModelConfig` or `TrainConfig` by name.

    Args:
        families: names in `chains.FAMILIES`.
        correlation_lengths: in steps.
        own: MarkovChains to use instead of families; they form the family "own", each at its own
            correlation length.
        seeds: a number of seeds (0, 1, ...) or the seeds themselves.
        sequences: fresh sequences, of a fixed seed, on which everything is measured.
        device: where to train and measure; see `training.resolve_device`. Not part of a result's key.
    """

    families: tuple = ("hierarchical",)
    correlation_lengths: tuple = (1.0, 7.0)
    own: tuple = ()
    seeds: int | tuple = 8
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainConfig = field(default_factory=TrainConfig)
    sequences: int = 4096
    device: str = "auto"

    def __post_init__(self):
        def fix(**values):
            for name, value in values.items():
                object.__setattr__(self, name, value)

        for name, kind in {"model": ModelConfig, "training": TrainConfig}.items():
            checks.instance(name, getattr(self, name), kind, "Experiment.profile makes one from its fields")
        families = checks.sequence("families", self.families, 0)
        lengths = checks.sequence("correlation_lengths", self.correlation_lengths, 0)
        several = hasattr(self.seeds, "__iter__") and not isinstance(self.seeds, str)
        seeds = self.seeds if several else range(checks.integer("seeds", self.seeds, 1, 10_000))
        fix(
            families=tuple(checks.choice("family", f, chains.FAMILIES) for f in families),
            correlation_lengths=tuple(checks.positive("correlation_length", xi) for xi in lengths),
            own=checks.sequence("own", self.own, 0),
            seeds=tuple(checks.integer("seeds", s, 0) for s in checks.sequence("seeds", seeds, 0)),
            sequences=checks.integer("sequences", self.sequences, 64),
        )
        for name in ("seeds",) if self.own else ("seeds", "families", "correlation_lengths"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise checks.BadValue(f"{name} must hold at least one value and none twice, got {values}")
        for chain in self.own:
            checks.instance("own", chain, chains.MarkovChain, "wrap a matrix as MarkovChain(P)")
            if chain.n_states != self.model.n_states:
                raise checks.BadValue(
                    f"the chain has {chain.n_states} states, the model {self.model.n_states}; make them equal"
                )
        resolve_device(self.device)
        check_gradient(self.model, self.training)
        lengths = [setting.chain.correlation_length for setting in self.settings()]  # builds every chain: bad ones fail here
        if self.own and len(set(lengths)) < len(lengths):
            raise checks.BadValue(
                "own chains must differ in correlation length; run equal ones as separate experiments"
            )

    @classmethod
    def profile(cls, profile="paper", recipe=None, **changes):
        """An Experiment from a profile in `PROFILES` with fields changed by name, trained by a recipe in `RECIPES` (None: the profile's own)."""
        trained = {} if recipe is None else RECIPES[checks.choice("recipe", recipe, RECIPES)]
        changes = PROFILES[checks.choice("profile", profile, PROFILES)] | trained | changes
        parts = {"model": ModelConfig, "training": TrainConfig}
        own = {f.name for f in fields(cls)} - set(parts)
        known = own.union(*({f.name for f in fields(part)} for part in parts.values()))
        for name in changes:
            checks.choice("parameter", name, sorted(known))
        built = {
            part: kind(**{f.name: changes[f.name] for f in fields(kind) if f.name in changes})
            for part, kind in parts.items()
        }
        return cls(**built, **{name: value for name, value in changes.items() if name in own})

    def settings(self):
        """The grid's settings, as a list of `Setting`."""
        common = {"model": self.model, "training": self.training, "sequences": self.sequences}
        if self.own:
            return [Setting("own", _digits(c.correlation_length, 9), _frozen(c), **common) for c in self.own]
        return [Setting(f, xi, (), **common) for f in self.families for xi in self.correlation_lengths]

    def missing(self, results=None, analysis=None):
        """The (setting, seed) pairs that are not stored yet; whether a stored file is whole shows when it is read."""
        folder = results_folder(results)
        return [(s, seed) for s in self.settings() for seed in self.seeds if not s.path(folder, seed, analysis).exists()]

    def run(self, results=None, progress=True, analysis=None):
        """Load every stored (setting, seed), train and measure the others, and combine them.

        Args:
            results: folder of results; None takes $RGNB_RESULTS, or `results/` of this checkout.
            progress: show bars on stderr.
            analysis: what is measured on the trained networks: a function of (task, setting, seed,
                snapshots, device) that returns a Dataset, as those in `rgnb.probes`; its id and version (see `analysis`)
                are part of a result's key. None: ranks, drift and losses, see `measure`.

        Returns:
            xarray.Dataset with dims (chain, correlation_length, seed) and those of the analysis; by default
            among (state, view, centring, spectrum, depth, other_depth, mode, transition, step, block, rows,
            floor). Every variable has a `long_name` and `units`, and the coordinate `provenance` says in JSON
            where each entry was made.

        Raises:
            FloatingPointError: training diverged; the other seeds, and what was stored before, stay.
            OSError: a file cannot be written or read, or a damaged one not be set aside.
            ValueError: the results folder is read-only and something is missing.
        """
        folder, device = results_folder(results), resolve_device(self.device)
        found, seen = {}, set()
        # Processes that run the same settings share them out: each takes one that no other is at.
        waiting = self.settings()
        while waiting:
            setting = next((s for s in waiting if s not in seen), waiting[0])
            entries = settle(setting, self.seeds, folder, device, progress, analysis, wait=setting in seen)
            seen.add(setting)
            if entries is not None:
                waiting.remove(setting)
                found[setting.family, setting.correlation_length] = _concat(list(entries.values()), "seed")
        by_family = {}
        for setting in self.settings():
            by_family.setdefault(setting.family, []).append(found[setting.family, setting.correlation_length])
        combined = _concat([_concat(d, "correlation_length") for d in by_family.values()], "chain")
        return combined.assign_attrs(experiment=json.dumps(self._config(), sort_keys=True), version=RESULTS_VERSION)

    def _config(self):
        config = asdict(self) | {"own": [c.transition_matrix.tolist() for c in self.own]}
        return {k: v for k, v in config.items() if k != "device"}


@dataclass(frozen=True)
class Setting:
    """One row of an experiment's grid: a chain, a network, its training and its measurement."""

    family: str
    correlation_length: float
    matrix: tuple  # of an own chain; () for a family
    model: ModelConfig
    training: TrainConfig
    sequences: int

    @property
    def chain(self):
        if self.matrix:
            return chains.MarkovChain(self.matrix)
        return chains.FAMILIES[self.family](self.model.n_states, self.correlation_length)

    def config(self):
        """The whole setting as plain data: what a result's key is made of."""
        return json.loads(json.dumps({f.name: getattr(self, f.name) for f in fields(self)}, default=plain))

    def path(self, folder, seed, analysis=None):
        """Where the result of one seed is stored."""
        label = f"{self.family}-{self.correlation_length:.4g}-{self.model.mixing}-{self.training.scheme}"
        config = self.config() | {"seed": seed}
        if analysis is not None:
            config |= analysis_key(analysis)
            label += f"-{config['analysis'].rpartition('.')[2]}"
        return Path(folder) / f"{label}-seed{seed}-{content_key(config)}.nc"

    def weights(self, folder):
        """Folder of the trained weights of every seed."""
        return Path(folder) / "weights" / content_key({k: v for k, v in self.config().items() if k != "sequences"})


def content_key(config):
    """Short hash of plain data and of `RESULTS_VERSION`: the end of a result's file name."""
    text = json.dumps(config | {"version": RESULTS_VERSION}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def analysis(id, version):  # noqa: A002 the word that users know
    """Decorator that gives an analysis the id and version by which its results are found, wherever the function lives.

    Args:
        id: dotted name, such as "mygroup.spectra"; its last part stands in file names.
        version: raise it when the meaning of a stored number changes, so that it is measured again.
    """
    if not isinstance(id, str) or not all(part.isidentifier() for part in id.split(".")):
        raise checks.BadValue(f'id must be a dotted name such as "mygroup.spectra", got {id!r}')
    version = checks.integer("version", version, 1)

    def name(function):
        function.id, function.version = id, version
        return function

    return name


def analysis_key(analysis):
    """The part of a result's key that an analysis makes: its id, and its version from the second on.

    An analysis that was not given one by `analysis` is found by its module and name. TypeError unless it is a function with a name of its
    own, which lambdas have not.
    """
    if not callable(analysis) or not getattr(analysis, "__name__", "<").isidentifier():
        raise checks.BadType(f"analysis must be a function made with def, got {analysis!r}; its name is what its results are found by")
    key = {"analysis": getattr(analysis, "id", f"{analysis.__module__}.{analysis.__name__}")}
    version = getattr(analysis, "version", 1)
    return key if version == 1 else key | {"analysis_version": version}


def stored(name, config, make, results=None, **encoding):
    """A Dataset of any kind, stored under its name and everything that it hangs on: loaded, or made and stored.

    Args:
        name: of the file, letters, digits and dashes.
        config: plain data (JSON) that says what was asked for, all of it.
        make: function without arguments that returns the Dataset; one with an attribute `failed` is incomplete, and is
            returned but not stored.
        results: folder, as in `Experiment.run`.
        encoding: of every variable in the file, as xarray takes it.

    Raises:
        ValueError: a bad name, or a results folder that is read-only; OSError: the file cannot be written.
    """
    if not name.replace("-", "").isalnum() or not name.isascii():
        raise checks.BadValue(f"name must be made of letters, digits and dashes, got {name!r}")
    path = results_folder(results) / f"{name}-{content_key(config)}.nc"
    if (dataset := load(path)) is not None:
        return dataset
    _make_writable(path.parent)
    where = json.dumps(provenance(torch.device("cpu")))
    dataset = make()
    dataset = dataset.assign_attrs(config=json.dumps(config, sort_keys=True), provenance=where)
    if "failed" in dataset.attrs:
        return dataset
    store(dataset, path, **encoding)
    return load(path)


def store(dataset, path, **encoding):
    """Write a compressed NetCDF file, never seen half written and sealed (see `seal`); `encoding` holds for every variable."""
    with files.replacing(path) as partial:
        dataset.to_netcdf(partial, engine="netcdf4", encoding={v: {"zlib": True, **encoding} for v in dataset.data_vars})
        seal(partial)


SEAL = b"rgnb-sha256:"


def seal(path):
    """Append the SHA-256 of a NetCDF file's bytes to it, which no NetCDF reader looks at."""
    found = hashlib.sha256(path.read_bytes()).digest()
    with open(path, "ab") as file:
        file.write(SEAL + found)


def load(path, **expected):
    """A Dataset that `store` wrote, or None where there is no such file; a file that is damaged is set aside.

    Args:
        expected: attributes that the file must have, by name.

    Raises:
        OSError, MemoryError, ImportError: the file could not be read, and is left as it is.
    """
    if (content := files.content(path)) is None:
        return None
    # The digest comes first: a damaged HDF5 file can keep its library busy for ever. What has the right one
    # was written like this, so that an error in parsing it is no damage.
    if content[-len(SEAL) - 32 :] != SEAL + hashlib.sha256(content[: -len(SEAL) - 32]).digest():
        files.set_aside(path, "its content was changed, or it was not written by rgnb")
        return None
    with files.reading(path):
        dataset = xr.load_dataset(xr.backends.NetCDF4DataStore(netCDF4.Dataset(path.name, memory=content)))
    for name, value in expected.items():
        if dataset.attrs.get(name) != value:
            files.set_aside(path, f"its {name} is another")
            return None
    return dataset


def _concat(datasets, dim):
    return xr.concat(datasets, dim, data_vars="all", coords=["provenance"], compat="equals", join="exact")


def _digits(x, digits):
    # The last digits of what was computed differ from machine to machine, and must not decide whether a result is found.
    return float(f"{x:.{digits}g}")


def _frozen(chain):
    return tuple(tuple(_digits(p, 12) for p in row) for row in chain.transition_matrix.tolist())


def results_folder(results=None):
    """The folder of stored results: the argument, else $RGNB_RESULTS, else `results/` of the checkout.

    Where the package is installed without its checkout, the last is `results/` in the working folder, and
    stderr says so.
    """
    if results is not None:
        return checks.path("results", results)
    if named := os.environ.get("RGNB_RESULTS"):
        return checks.path("RGNB_RESULTS", named)
    root = files.checkout()
    return root / "results" if root else _said(Path.cwd() / "results")


@cache
def _said(folder):
    # Once a folder.
    print(f"results are kept in {folder}; set RGNB_RESULTS to keep them elsewhere", file=sys.stderr)
    return folder


def _make_writable(folder):
    files.make_writable(folder, "results folder", "set RGNB_RESULTS to a folder that can be written")


def settle(setting, seeds, folder, device, progress=False, analysis=None, wait=True):
    """Load what is stored of one setting and compute the rest.

    Args:
        setting: Setting; seeds: ints; folder: of results; device: torch.device; progress, analysis: as in `Experiment.run`.
        wait: for another process that is at this setting; else None is returned where there is one.

    Returns:
        {seed: Dataset}, or None.

    Raises:
        As `Experiment.run`.
    """
    found = entries(setting, seeds, folder, analysis)
    if len(found) == len(seeds):
        return found
    _make_writable(folder)
    weights = setting.weights(folder)
    weights.parent.mkdir(exist_ok=True)
    lock = FileLock(weights.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            return None
        if progress:
            print(f"waiting for another process that is at {setting.family} chains, {setting.correlation_length:.3g}", file=sys.stderr)
        lock.acquire()
    try:
        for part in (weights, *weights.glob("seed-*")):
            files.remove_partial(part)
        found |= entries(setting, [seed for seed in seeds if seed not in found], folder, analysis)
        missing = [seed for seed in seeds if seed not in found]
        if missing:
            _compute(setting, missing, folder, device, progress, analysis)
            found |= entries(setting, missing, folder, analysis)
    finally:
        lock.release()
    return {seed: found[seed] for seed in seeds}


def rehearse(setting, sequences, device, analysis=None):
    """What is measured of a setting, on an untrained network and a number of sequences: before long work, its variables and its time."""
    weights = {f"weight.{name}": value[0] for name, value in ResidualMLP(setting.model).state_dict().items()} | {"history": torch.zeros(1)}
    # At a very low rate few sequences may have no position to measure.
    training = replace(setting.training, rate=max(setting.training.rate, 0.1))
    part, steps = replace(setting, sequences=sequences, training=training), (*training.snapshots, training.steps)
    return (analysis or measure)(evaluation(setting.chain, part), part, 0, dict.fromkeys(steps, weights), device)


def seconds_measuring(setting, device, analysis=None):
    """Wall time of measuring one network of a setting (seconds): a line through that of a sixteenth and a quarter of the sequences, timed now."""
    took = []
    for sequences in (max(64, setting.sequences // 16), max(64, setting.sequences // 4)):
        started = time.monotonic()
        rehearse(setting, sequences, device, analysis)
        took.append(time.monotonic() - started)
    return took[1] + 4 * max(took[1] - took[0], 0)


def entries(setting, seeds, folder, analysis=None):
    """The stored results of one setting: {seed: Dataset}, without those that are missing; damaged ones are set aside."""
    about = {"version": RESULTS_VERSION, "setting": json.dumps(setting.config(), sort_keys=True)}
    found = {seed: load(setting.path(folder, seed, analysis), seed=seed, **about) for seed in seeds}
    found = {seed: ds.assign_coords(provenance=ds.attrs["provenance"]) for seed, ds in found.items() if ds is not None}
    for ds in found.values():
        ds.attrs = {}
    return found


def _compute(setting, seeds, folder, device, progress, analysis):
    chain, diverged, made = setting.chain, None, provenance(device)
    task = evaluation(chain, setting)  # a setting that cannot be measured is not trained
    try:
        trained = train(setting.model, setting.training, chain, seeds, setting.weights(folder), device, progress)
    except Diverged as error:  # the other seeds are measured and stored first
        diverged, seeds = error, [seed for seed in seeds if seed not in error.seeds]
        trained = train(setting.model, setting.training, chain, seeds, setting.weights(folder), device, progress) if seeds else {}
    label = f"measuring {setting.family} at {setting.correlation_length:.3g}"
    for seed in tqdm(seeds, desc=label, unit="seed", disable=not progress):
        started = time.monotonic()
        result = (analysis or measure)(task, setting, seed, trained[seed], device)
        result = result.assign_coords(chain=setting.family, correlation_length=setting.correlation_length, seed=seed)
        seconds = {
            "seconds_training": round(trained[seed][setting.training.steps]["seconds"].item(), 1),
            "seconds_measuring": round(time.monotonic() - started, 1),
        }
        result.attrs = {
            "setting": json.dumps(setting.config(), sort_keys=True),
            "seed": seed,
            "version": RESULTS_VERSION,
            "provenance": json.dumps(made | seconds),
        }
        path = setting.path(folder, seed, analysis)
        files.remove_partial(folder, path.name)
        store(result, path)
    if diverged:
        raise diverged


def provenance(device):
    """Where and with what work is done, asked before it: device, threads, versions, commit, date."""
    names = ("torch", "numpy", "scipy", "xarray")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "device": f"{device.type} ({name})",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{package: version(package) for package in names},
        "commit": _commit(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "rules": hashlib.sha256(Path(rules.__file__).read_bytes()).hexdigest(),
    }


def _commit():
    # Of rgnb's own checkout: a repository that the package was installed into says nothing about its code.
    if (root := files.checkout()) is None:
        return "unknown"
    # The repository is named: else git looks for one in the folders above, or takes that of $GIT_DIR.
    git = ["git", "-C", root, f"--git-dir={root / '.git'}", f"--work-tree={root}"]
    describe = ["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        found = subprocess.run([*git, *describe], capture_output=True, text=True, check=False)
    except OSError:  # no git
        return "unknown"
    return found.stdout.strip() or "unknown"


@dataclass
class Evaluation:
    """The fixed task on which networks of one setting are measured."""

    inputs: torch.Tensor  # (sequences, length)
    selected: torch.Tensor  # (sequences, length) bool
    bayes: torch.Tensor  # (selected positions, V) posterior given the whole sequence
    reachable: torch.Tensor  # the same, given only what the architecture can see


def evaluation(chain, setting):
    """Draw the evaluation sequences of a setting (fixed seed) with their exact posteriors."""
    config, n = setting.training, chain.n_states
    g = generator(0, 2)
    tokens = chain.sample(setting.sequences, setting.model.length, g)
    inputs, selected = corrupt(tokens, n, config.rate, config.scheme, g)
    if not selected.any():
        raise checks.BadValue(
            f"no position was selected at rate {config.rate}; use more sequences or a higher rate"
        )
    bayes = bayes_posterior(chain, inputs, config.scheme, config.rate)[selected]
    alone = bayes_posterior(chain, torch.arange(n + 1)[:, None], config.scheme, config.rate)[:, 0]
    return Evaluation(inputs, selected, bayes, bayes if setting.model.mixing == "tokens" else alone[inputs[selected]])


@torch.no_grad()
def forward(model, inputs, device):
    """Stream (depth + 1 tensors) and log-probabilities of all sequences of a single network, on the CPU."""
    model = model.to(device)
    if model.config.mixing == "none":  # what a position carries depends on its own token alone
        stream = model.stream(torch.arange(model.config.n_states + 1, device=device)[None])
        log_p = model.readout(stream[-1]).log_softmax(-1)
        return [x[0].cpu()[inputs] for x in stream], log_p[0].cpu()[inputs]
    streams = [torch.empty(*inputs.shape, model.config.width) for _ in range(model.config.depth + 1)]
    log_p = torch.empty(*inputs.shape, model.config.n_states)
    for part in torch.arange(len(inputs)).split(64):  # small enough for the caches
        here = slice(part[0], part[-1] + 1)
        stream = model.stream(inputs[here].to(device))
        log_p[here] = model.readout(stream[-1]).log_softmax(-1).cpu()
        for whole, x in zip(streams, stream):
            whole[here] = x.cpu()
    return streams, log_p


def _ranks(x):
    # Every rank of one activation array (..., n, d), averaged over its leading dimensions.
    out = {}
    for centring in ("centred", "uncentred"):
        s = metrics.singular_values(x, center=centring == "centred")
        ranks = [metrics.spectrum_rank(s, spectrum) for spectrum in metrics.SPECTRA]
        ranks += [metrics.spectrum_participation(s), metrics.spectrum_stable(s)]
        out[centring] = [r.mean().item() for r in ranks], (s**2).flatten(0, -2).mean(0).sqrt() if s.ndim > 1 else s
    return out


def _view_layers(stream, view, selected):
    part = slice(None) if view in ("position", "pooled") else slice(MATRICES)
    return [metrics.view(x[part], view, selected[part]) for x in stream]


def _position_cka(layers, function):
    # A few positions at a time keeps the float64 copies of all depths small.
    return torch.cat([function([x[i : i + 8] for x in layers]) for i in range(0, len(layers[0]), 8)])


def measure(task, setting, seed, snapshots, device):
    """Ranks, drift and losses of one trained network; see `Experiment.run` for the dims.

    Args:
        task: Evaluation; setting: Setting; seed: int; snapshots: {step: weights}, as `train` returns them;
        device: torch.device.
    """
    steps = sorted(snapshots)
    models = {0: ResidualMLP(setting.model, seed)} | {s: load_model(setting.model, snapshots[s]) for s in steps}
    depths, width, views = setting.model.depth + 1, setting.model.width, metrics.VIEWS
    definitions = [*metrics.SPECTRA, "participation", "stable"]
    rank = np.full((2, len(views), 2, len(definitions), depths), np.nan)
    spectra = np.full((2, len(views), 2, depths, width), np.nan, dtype=np.float32)
    cka = np.full((2, len(views), depths, depths), np.nan)
    step_rank = np.full((len(models), 2, depths), np.nan)
    step_drift = np.full((len(models), depths - 1), np.nan)
    excess, loss = np.zeros(len(models)), np.zeros(len(models))
    rows = [r for r in (setting.sequences // 64, setting.sequences // 16, setting.sequences // 4, setting.sequences) if r > 1]
    by_rows = np.full((len(rows), 2, depths), np.nan)

    for k, (step, model) in enumerate(models.items()):
        stream, log_p = forward(model, task.inputs, device)
        log_p = log_p[task.selected].double()
        excess[k] = (-entropy(task.reachable) - (task.reachable * log_p).sum(-1)).mean()
        loss[k] = -(task.bayes * log_p).sum(-1).mean()
        position = _view_layers(stream, "position", task.selected)
        if step not in (0, steps[-1]):
            s = [metrics.singular_values(x) for x in position]
            step_rank[k] = [[metrics.spectrum_rank(x, spectrum).mean() for x in s] for spectrum in metrics.SPECTRA]
            step_drift[k] = _position_cka(position, metrics.kernel_drift).mean(0)
            continue
        state = int(step > 0)
        for v, name in enumerate(views):
            layers = position if name == "position" else _view_layers(stream, name, task.selected)
            for depth, x in enumerate(layers):
                for c, (ranks, s) in enumerate(_ranks(x).values()):
                    rank[state, v, c, :, depth] = ranks
                    spectra[state, v, c, depth, : len(s)] = s
            if min(x.shape[-2] for x in layers) >= 4:
                matrices = _position_cka(layers, metrics.cka_matrix) if name == "position" else metrics.cka_matrix(layers)
                cka[state, v] = matrices.reshape(-1, depths, depths).nanmean(0)  # a constant matrix has no CKA
        step_rank[k] = rank[state, 0, 0, :2]
        step_drift[k] = 1 - cka[state, 0].diagonal(1)
        if state:
            by_rows[:-1] = [
                [[metrics.effective_rank(x[:, :r], spectrum=s).mean() for x in position] for s in metrics.SPECTRA]
                for r in rows[:-1]
            ]
            by_rows[-1] = rank[1, 0, 0, :2]

    last = snapshots[steps[-1]]
    pi = setting.chain.stationary_distribution
    modes = [metrics.relevant_modes(task.bayes, floor) for floor in FLOORS]
    dims = ("state", "view", "centring")
    long = {  # name: (dims, values, long name, units)
        "effective_rank": ((*dims, "spectrum", "depth"), rank[:, :, :, :2], "effective rank, mean over the view's matrices", "1"),
        "participation_ratio": ((*dims, "depth"), rank[:, :, :, 2], "participation ratio", "1"),
        "stable_rank": ((*dims, "depth"), rank[:, :, :, 3], "stable rank", "1"),
        "singular_value": ((*dims, "depth", "mode"), spectra, "root mean square over matrices of each singular value", "1"),
        "cka": (("state", "view", "depth", "other_depth"), cka, "debiased linear CKA between depths, mean over matrices", "1"),
        "kernel_drift": (("state", "view", "transition"), 1 - np.diagonal(cka, 1, -2, -1), "1 - CKA of consecutive depths", "1"),
        "step_rank": (("step", "spectrum", "depth"), step_rank, "effective rank, position view, centred", "1"),
        "step_drift": (("step", "transition"), step_drift, "kernel drift, position view", "1"),
        "rows_rank": (("rows", "spectrum", "depth"), by_rows, "effective rank, position view, centred, by sequences used", "1"),
        "excess_loss": (("step",), excess, "mean KL from the best reachable predictor at selected positions", "nat"),
        "loss": (("step",), loss, "expected cross-entropy at selected positions", "nat"),
        "training_loss": (("block",), last["history"].numpy(), f"training loss, mean over {BLOCK} steps", "nat"),
        "bayes_loss": ((), entropy(task.bayes).mean().item(), "Bayes loss floor", "nat"),
        "reachable_loss": ((), entropy(task.reachable).mean().item(), "loss floor of the architecture", "nat"),
        "marginal_entropy": ((), entropy(pi).item(), "entropy of the stationary law", "nat"),
        "relevant_modes": (("floor",), modes, "effective rank (eigenvalues) of the Bayes log-posterior", "1"),
    }  # fmt: skip
    dataset = xr.Dataset(
        {k: (d, v, {"long_name": name, "units": unit}) for k, (d, v, name, unit) in long.items()},
        coords={
            "state": ["init", "trained"],
            "view": list(views),
            "centring": ["centred", "uncentred"],
            "spectrum": list(metrics.SPECTRA),
            "depth": range(depths),
            "other_depth": range(depths),
            "transition": range(depths - 1),
            "step": list(models),
            "rows": rows,
            "floor": list(FLOORS),
            "block": BLOCK * np.arange(1, len(last["history"]) + 1),
        },
    )
    return dataset
