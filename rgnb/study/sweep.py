"""Many settings in one Dataset: each (setting, seed) is trained and stored as always, the sweep in one file.

That file is small and holds all that is read from it, so that hundreds of settings can be committed and
loaded at once; the entries it was made from stay in a folder of their own. What is missing runs on this
machine's cores or its GPU, or on a Dask cluster.
"""

import itertools
import json
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import torch
import xarray as xr
from tqdm import tqdm

from rgnb import checks
from rgnb.randomness import resolve_device
from rgnb.study import rehearsal
from rgnb.study.experiment import Experiment
from rgnb.study.measurement import rehearse
from rgnb.study.runner import settle
from rgnb.study.settings import Analysis, Setting, analysis_key, content_key
from rgnb.study.store import Store, attributes, load, rehearsal_folder, results_folder, stored
from rgnb.training import Diverged

Row = tuple[Setting, int]  # a setting and a seed

LABELS = (  # of a setting, in addition to its chain
    *("n_states", "length", "mixing", "width", "blocks", "scheme", "rate"),
    *("learning_rate", "schedule", "steps", "batch", "weight_decay", "gradient", "loss_over"),
)
# What the findings are judged by.
VARIABLES = ("effective_rank", "kernel_drift", "excess_loss", "marginal_entropy", "reachable_loss")
# Lists that an Experiment takes whole.
OWN_AXES = ("families", "correlation_lengths", "own", "seeds", "snapshots")


def grid(profile: str = "quick", **values: Any) -> list[Experiment]:
    """Every combination of settings.

    Args:
        profile: "quick", "small" or "paper".
        values: fields as in `Experiment.profile`; a list stands for one Experiment per entry, except for
            families, correlation_lengths, own, seeds and snapshots, which every Experiment takes whole.
    """
    axes = {
        name: values.pop(name) if isinstance(values[name], list | tuple) else [values.pop(name)]
        for name in list(values)
        if name not in OWN_AXES
    }
    points = (dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values()))
    return [Experiment.profile(profile, **values, **point) for point in points]


@dataclass(frozen=True)
class Plan:
    """What a sweep will do: see `plan`."""

    asked: int  # (setting, seed) pairs
    stored: int
    waiting: tuple  # ((setting, seeds), ...) that have to be trained or measured
    workers: int
    seconds: float  # roughly, for training and measuring them

    def __str__(self) -> str:
        text = f"{self.asked} networks asked for, {self.stored} stored"
        text += f", {self.asked - self.stored} to train or measure in {len(self.waiting)} settings"
        if not self.waiting:
            return text
        took = rehearsal.duration(self.seconds)
        return f"{text}: about {took} on {self.workers} worker{'s' * (self.workers > 1)} of this machine"


def plan(
    experiments: Sequence[Experiment],
    results: str | Path | None = None,
    workers: int | None = None,
) -> Plan:
    """What of a sweep is stored, what is not, and about how long that will take.

    Args:
        experiments, results: as in `sweep`.
        workers: how many will run at once; None: as many as `sweep` would use here.

    Returns:
        Plan. Its seconds are scaled up from a few training steps of each size and from measuring a part of
        the sequences, timed now on one core or the GPU of this machine.
    """
    rows, device, stores = _rows(experiments), _device(experiments), _stores(results, None)
    known = held(stores[0].folder, VARIABLES)
    missing = (row for row in rows if not any(store.holds(*row) for store in stores))
    waiting = _by_setting((s, seed) for s, seed in missing if s.key(seed) not in known)
    if workers is None:
        workers = _workers(device, len(waiting))
    else:
        workers = checks.integer("workers", workers, 1)
    threads, seconds, clock = torch.get_num_threads(), 0.0, rehearsal.Clock()
    torch.set_num_threads(1 if workers > 1 else threads)
    try:
        for setting, seeds in waiting.items():
            untrained = [seed for seed in seeds if not setting.last_weights(stores[0].results, seed).exists()]
            seconds += clock.training(setting, untrained, device) if untrained else 0
            seconds += clock.measuring(setting, device, None) * len(seeds)
    finally:
        torch.set_num_threads(threads)
    there = len(rows) - sum(map(len, waiting.values()))
    return Plan(len(rows), there, tuple(waiting.items()), workers, seconds / workers)


def sweep(
    name: str,
    experiments: Sequence[Experiment],
    variables: Sequence[str] = VARIABLES,
    results: str | Path | None = None,
    progress: bool = True,
    analysis: Analysis | None = None,
    scheduler: str | None = None,
    partial: bool = False,
) -> xr.Dataset:
    """Run experiments of any sizes and return chosen variables of all of them, one row per (setting, seed).

    What is missing runs in one process for each core that this process may use (`joblib.cpu_count`, and at
    most `torch.get_num_threads()`); in this one where that is one core, or where it has a GPU. With the
    address of a Dask scheduler it runs on that cluster, whose workers need this version of rgnb and one
    thread each (`dask worker --nthreads 1`). They write to the same results folder where they see it; else to
    their own ($RGNB_RESULTS there), and what they computed is sent back and stored here.

    Args:
        name: of the sweep's file, letters, digits and dashes.
        experiments: a (setting, seed) that two of them share is one row.
        variables: names of variables that the analysis measures. Where depths or other dimensions differ in
            length they are padded with NaN; only the last training step is kept.
        results, progress, analysis: as in `Experiment.run`; entries are kept in the folder
            `<results>/entries`, unless a (setting, seed) is stored in `<results>` itself.
        scheduler: address of a Dask scheduler, such as "tcp://10.0.0.1:8786".
        partial: if settings fail, return the networks of the others all the same. The attribute `failed`
            lists those that failed with their errors (JSON), and the sweep has no file of its own yet.

    Returns:
        Dataset with a dimension `run` and along it the coordinates family, correlation_length, seed,
        provenance, those in `LABELS`, and `experiment`, the number of the first experiment with the row.

    Raises:
        ValueError: a bad name, an unknown variable, no experiment, or workers with several threads.
        OSError: a file cannot be written, or no scheduler answers.
        RuntimeError: settings failed, listed with their errors; all others were computed and stored first.
            With `partial`: every setting failed.
    """
    rows, variables = _rows(experiments), checks.sequence("variables", variables)
    stores = _stores(results, analysis)
    asked = [
        [setting.config() | {"seed": seed} for setting in e.settings() for seed in e.seeds]
        for e in experiments
    ]
    config = {"experiments": asked, "variables": list(variables), "analysis": None} | analysis_key(analysis)

    def make() -> xr.Dataset:
        found: dict[Row, xr.Dataset] = {}
        for store in stores:
            for setting, seeds in _by_setting(row for row in rows if row not in found).items():
                found |= _kept(setting, store.get(setting, seeds), variables)
        found |= _held(stores[0], [row for row in rows if row not in found], variables)
        failed, own = [], stores[-1]
        if waiting := _by_setting(row for row in rows if row not in found):
            _check_variables(variables, next(iter(waiting)), analysis)
            done = _computed(waiting, own, _device(experiments), scheduler)
            total = sum(map(len, waiting.values()))
            with tqdm(total=total, desc=name, unit="network", disable=not progress) as bar:
                for setting, seeds, error in done:
                    bar.update(len(seeds))
                    found |= _kept(setting, own.get(setting, seeds), variables)
                    if lost := [seed for seed in seeds if (setting, seed) not in found]:
                        why = error or "its results are gone"
                        failed.append(_labels(setting) | {"seeds": lost, "error": why})
        if not found:
            raise checks.Failed(f"every setting failed, the first with: {failed[0]['error']}")
        ds = _combined(rows, found).assign_attrs(stores[0].stamp())
        return ds.assign_attrs(failed=json.dumps(failed)) if failed else ds

    ds = stored(f"sweep-{name}", config, make, results, dtype="float32")
    stores[0].compare(ds)
    if "failed" in ds.attrs and not partial:
        raise checks.Failed(_failures(json.loads(ds.attrs["failed"]), ds.sizes["run"]))
    return ds


def _failures(failed: list[dict[str, Any]], others: int) -> str:
    lines = [
        f"{len(failed)} settings failed; the same sweep tries them again, and with partial=True it returns "
        f"the {others} other networks:"
    ]
    for row in failed:
        labels = ", ".join(f"{k} {v}" for k, v in row.items() if k != "error")
        lines.append(f"    {labels}\n        {row['error']}")
    return "\n".join(lines)


def held(folder: Path, variables: Sequence[str] = ()) -> set[str]:
    """Keys (`Setting.key`) of the results of which the files of sweeps in a folder hold some variables."""
    return {key for path in folder.glob("sweep-*.nc") for key in _keys(path, variables)}


def _keys(path: Path, variables: Sequence[str]) -> list[str]:
    # Those of the rows of a sweep's file, in their order, if it holds some variables; none of the first
    # round's, which say less.
    config = json.loads(attributes(path).get("config", "{}"))
    if not set(variables) <= set(config.get("variables", ())):
        return []
    about = {k: config[k] for k in ("version", "analysis", "analysis_version") if config.get(k)}
    rows = itertools.chain(*config.get("experiments", []))
    return list(dict.fromkeys(content_key(row | about) for row in rows))


def _held(store: Store, rows: Iterable[Row], variables: Sequence[str]) -> dict[Row, xr.Dataset]:
    # What the files of other sweeps hold of some rows: a sweep that grows trains only what is new.
    wanted = {setting.key(seed, store.analysis): (setting, seed) for setting, seed in rows}
    found: dict[Row, xr.Dataset] = {}
    for path in sorted(store.folder.glob("sweep-*.nc")) if wanted else []:
        there = {i: wanted[key] for i, key in enumerate(_keys(path, variables)) if key in wanted}
        ds = load(path) if there else None
        if ds is None:
            continue
        store.compare(ds)
        labels = set(ds.coords) - set(ds.dims) - {"provenance"}
        for i, row in there.items():
            one = ds[list(variables)].isel(run=i).drop_vars(labels)
            found[row] = _unpadded(one)
    return found


def _unpadded(one: xr.Dataset) -> xr.Dataset:
    # A row of a sweep without what longer rows made it longer by: NaN at the end, of offsets at both ends.
    for dim in one.dims:
        values = [v for v in one.values() if dim in v.dims]
        known = np.any([v.notnull().any([d for d in v.dims if d != dim]) for v in values], axis=0)
        if known.any():
            first, last = known.nonzero()[0][[0, -1]].tolist()
            one = one.isel({dim: slice(first if dim == "offset" else 0, last + 1)})
    return one


def pivot(ds: xr.Dataset, values: Any, *dims: str, partial: bool = False) -> xr.DataArray:
    """Values of a sweep's rows, (run,), arranged by coordinates of theirs: DataArray with `dims`.

    Raises:
        ValueError: a combination of the coordinates has several rows, or none unless `partial`: NaN then.
    """
    checks.results("ds", ds, **dict.fromkeys(dims, "run"))
    values = checks.vector("values", values)
    if len(values) != ds.sizes.get("run"):
        raise checks.BadValue(
            f"values must be one number for each of the {ds.sizes.get('run')} rows of ds, got {len(values)}"
        )
    frame = pd.DataFrame({d: ds[d].values for d in dims} | {"value": values})
    if frame.duplicated(list(dims)).any():
        raise checks.BadValue(
            f"ds holds several rows with the same {', '.join(dims)}; choose among them first, or "
            "name more dims"
        )
    rows = set(frame[list(dims)].itertuples(index=False, name=None))
    missing = [point for point in itertools.product(*(frame[d].unique() for d in dims)) if point not in rows]
    if missing and not partial:
        first = ", ".join(f"{d} {label}" for d, label in zip(dims, missing[0], strict=True))
        raise checks.BadValue(
            f"ds has no row for {len(missing)} combinations of {', '.join(dims)}, such as {first}; run what "
            "is missing, choose rows that have all with ds.isel(run=...), or pass partial=True for NaN there"
        )
    return xr.DataArray.from_series(frame.set_index(list(dims))["value"])


def _stores(results: str | Path | None, analysis: Analysis | None) -> tuple[Store, Store]:
    # Where entries are looked for; new ones go to the second.
    folder = results_folder(results)
    return Store(folder, analysis), Store(folder, analysis, swept=True)


def _rows(experiments: Sequence[Experiment]) -> dict[Row, int]:
    # {row: number of the first experiment that asks for it}, in the order of asking.
    rows: dict[Row, int] = {}
    advice = "rgnb.study.sweep.grid makes a list of them"
    for i, e in enumerate(checks.sequence("experiments", experiments, 0)):
        for setting in checks.instance(f"experiments[{i}]", e, Experiment, advice).settings():
            for seed in e.seeds:
                rows.setdefault((setting, seed), i)
    if not rows:
        raise checks.BadValue("experiments must hold at least one Experiment, got none")
    return rows


def _by_setting(rows: Iterable[Row]) -> dict[Setting, list[int]]:
    found: dict[Setting, list[int]] = {}
    for setting, seed in rows:
        found.setdefault(setting, []).append(seed)
    return found


def _device(experiments: Sequence[Experiment]) -> torch.device:
    named = {e.device for e in experiments}
    if len(named) > 1:
        raise checks.BadValue(f"the experiments of a sweep must name the same device, got {sorted(named)}")
    return resolve_device(named.pop())


def _workers(device: torch.device, settings: int) -> int:
    return max(1, min(torch.get_num_threads(), joblib.cpu_count(), settings)) if device.type == "cpu" else 1


def _known(variables: Sequence[str], ds: xr.Dataset) -> None:
    for variable in variables:
        checks.choice("variable", variable, list(ds.data_vars))


def _check_variables(variables: Sequence[str], setting: Setting, analysis: Analysis | None) -> None:
    # An unknown variable must not show after hours.
    try:
        measured = rehearse(setting, 64, torch.device("cpu"), analysis)
    except Exception:
        return
    _known(variables, measured)


def _kept(setting: Setting, found: dict[int, xr.Dataset], variables: Sequence[str]) -> dict[Row, xr.Dataset]:
    # The part of its entries that a sweep holds.
    kept = {}
    for seed, ds in found.items():
        _known(variables, ds)
        kept[setting, seed] = (ds.isel(step=-1, drop=True) if "step" in ds.dims else ds)[list(variables)]
    return kept


def _labels(setting: Setting) -> dict[str, Any]:
    values = vars(setting.model) | vars(setting.training) | {"blocks": setting.model.depth}
    chain = {"family": setting.family, "correlation_length": setting.correlation_length}
    return chain | {k: values[k] for k in LABELS}


def _combined(rows: dict[Row, int], found: dict[Row, xr.Dataset]) -> xr.Dataset:
    there = [row for row in rows if row in found]
    own = ("chain", "correlation_length", "seed", "provenance")
    how: dict[str, Any] = {"data_vars": "all", "coords": "minimal", "compat": "override", "join": "outer"}
    ds = xr.concat([found[row].drop_vars(own, errors="ignore") for row in there], "run", **how)
    labels = pd.DataFrame([_labels(setting) for setting, _ in there])
    columns = {k: labels[k].to_numpy() for k in labels} | {
        "seed": [seed for _, seed in there],
        "experiment": [rows[row] for row in there],
        "provenance": [str(found[row].provenance.values) for row in there],
    }
    return ds.assign_coords({k: ("run", v) for k, v in columns.items()})


def _computed(
    waiting: dict[Setting, list[int]], store: Store, device: torch.device, scheduler: str | None
) -> Iterator[tuple[Setting, list[int], str | None]]:
    # (setting, seeds, error or None) of settings as each is done.
    if scheduler:
        from rgnb.study import cluster  # needs Dask, the others do not

        return cluster.computed(scheduler, waiting, store, device)
    workers = _workers(device, len(waiting))
    if rehearsal_folder():
        rehearsal.fill(waiting, store, device, workers)
        return ((*row, None) for row in waiting.items())
    # Loky takes functions of a notebook, and scripts need no main guard.
    backend = "loky" if workers > 1 else "sequential"
    run = joblib.Parallel(workers, backend=backend, return_as="generator_unordered")
    return run(joblib.delayed(_settled_alone)(*row, store, device, workers) for row in waiting.items())


def _settled_alone(
    setting: Setting, seeds: list[int], store: Store, device: torch.device, workers: int
) -> tuple[Setting, list[int], str | None]:
    if workers > 1:
        torch.set_num_threads(1)  # every core has a worker of its own
    return setting, seeds, settled(setting, seeds, store, device)


def settled(setting: Setting, seeds: list[int], store: Store, device: torch.device) -> str | None:
    """Settle a setting: its error as text, with its traceback if it is a fault; None where it is stored.

    A disk that is full fails all settings: OSErrors are passed on and end the sweep.
    """
    try:
        settle(setting, seeds, store, device)
    except OSError:
        raise
    except (checks.BadInput, Diverged) as error:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return traceback.format_exc().rstrip()
    return None
