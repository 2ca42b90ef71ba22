"""What this machine's processor is, and work side by side on its cores."""

import os
import platform
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
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


def processor() -> str:
    """The processor's name and the vector instructions that torch uses on it, as in "AMD EPYC, AVX512"."""
    import torch

    try:
        lines = PROCESSOR.read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


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
