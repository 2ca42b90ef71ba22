"""What this machine's processor is, and work side by side on its cores."""

import os
import platform
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path

PROCESSOR = Path("/proc/cpuinfo")  # of Linux
QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container: microseconds of processor time in a period, or "max"


def available() -> int:
    """How many cores this process may use: those of its affinity, fewer where a container's quota says so."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = QUOTA.read_text().split()
        return max(1, min(count, int(quota) // int(period)))
    except (OSError, ValueError):  # no container, or one without a quota
        return count


@cache
def described() -> dict[str, str]:
    """What Linux says of the first processor, such as its "model name" and "vendor_id"; {} elsewhere."""
    try:
        first = PROCESSOR.read_text().split("\n\n")[0]
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (x.partition(":") for x in first.splitlines())}


def processor() -> str:
    """The processor's name and the vector instructions that torch uses on it, as in "AMD EPYC, AVX512"."""
    import torch

    name = described().get("model name") or platform.processor() or platform.machine()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


@cache
def has_narrow_products() -> bool:
    """Whether matrix products use half of the processor's vector width, and convolutions all of it.

    So it is with AVX-512 on processors that are not Intel's: products come from MKL, which keeps to AVX2
    there, and convolutions from oneDNN.
    """
    import torch

    wide = torch.backends.cpu.get_cpu_capability().startswith("AVX512") and torch.backends.mkl.is_available()
    return wide and described().get("vendor_id", "GenuineIntel") != "GenuineIntel"


@contextmanager
def workers(tasks: int) -> Iterator[Callable]:
    """A `map` that runs up to `tasks` calls side by side, each with its share of torch's threads.

    Worthwhile for calls that use a single core whatever there is, such as torch's decompositions of many
    small matrices.
    """
    import torch  # here, so that cores can be counted without it

    threads, grad = torch.get_num_threads(), torch.is_grad_enabled()
    count = min(threads, tasks)
    if count <= 1:
        yield map
        return

    def share() -> None:  # both settings belong to a thread
        torch.set_num_threads(threads // count)
        torch.set_grad_enabled(grad)

    pool = ThreadPoolExecutor(count, initializer=share)
    try:
        share()
        yield pool.map
    finally:
        torch.set_num_threads(threads)
        pool.shutdown(cancel_futures=True)
