"""Work side by side on the cores of this machine."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


@contextmanager
def workers(tasks: int) -> Iterator[Callable]:
    """A `map` that runs up to `tasks` calls side by side, each with its share of torch's threads.

    Worthwhile for calls that hardly gain from several cores, such as torch's decompositions of many small
    matrices.
    """
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
