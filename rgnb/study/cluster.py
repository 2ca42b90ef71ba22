"""Settings of a sweep on a Dask cluster, whose workers need this version of rgnb and one thread each."""

import traceback
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from dask.distributed import Client, Future, as_completed

from rgnb import checks, files
from rgnb.study.settings import Setting
from rgnb.study.store import Store, results_folder
from rgnb.study.sweep import settled


def computed(
    scheduler: str, waiting: dict[Setting, list[int]], store: Store, device: torch.device
) -> Iterator[tuple[Setting, list[int], str | None]]:
    """Compute settings on a cluster; yields (setting, seeds, error or None) as each is done; see `sweep`.

    Args:
        scheduler: its address.
        waiting: {Setting: seeds}.
        store: of entries.

    Raises:
        ValueError: workers with several threads.
        OSError: no scheduler answers, or a file cannot be written.
    """
    with Client(scheduler, timeout=10) as client:
        several = sorted(address for address, threads in client.nthreads().items() if threads > 1)
        if several:
            raise checks.BadValue(
                f"workers with several threads: {', '.join(several)}; "
                "start each with --nthreads 1, more of them instead"
            )
        store.folder.mkdir(parents=True, exist_ok=True)
        token = store.folder / f".shared-{uuid.uuid4().hex}"  # a worker that finds it shares this folder
        token.touch()
        futures = {
            client.submit(_settled_there, *row, store, token, device, pure=False): row
            for row in waiting.items()
        }
        try:
            for future in as_completed(list(futures)):
                setting, seeds = futures.pop(future)
                yield setting, seeds, _collected(future, store.folder)
        finally:
            client.cancel(list(futures))
            token.unlink(missing_ok=True)


def _collected(future: Future, folder: Path) -> str | None:
    # The error of a setting, or None: its results are in the folder then.
    fault = future.exception()
    if isinstance(fault, OSError):
        raise fault
    if fault is not None:
        error = "".join(traceback.format_exception(fault.with_traceback(future.traceback()))).rstrip()
    else:
        error, sent = future.result()
        for name, content in sent.items():
            if not (folder / name).exists():
                with files.replacing(folder / name) as partial:
                    partial.write_bytes(content)
    future.release()
    return error


def _settled_there(
    setting: Setting, seeds: list[int], store: Store, token: Path, device: torch.device
) -> tuple[str | None, dict[str, bytes]]:
    # On a worker: the error, and {file name: content} of the results unless it sees the asking side's folder.
    torch.set_num_threads(1)  # whatever its environment says: every core has a worker of its own
    if token.exists():
        return settled(setting, seeds, store, device), {}
    store = replace(store, results=results_folder())
    error = settled(setting, seeds, store, device)
    paths = [store.path(setting, seed) for seed in seeds]
    return error, {path.name: path.read_bytes() for path in paths if path.exists()}
