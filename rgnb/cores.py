"""Work side by side on a processor's cores."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


@contextmanager
def workers(tasks):
    """A `map` that runs up to `tasks` calls side by side, each in its share of the threads that torch may use.

    Worth it for calls that use one core however many there are, such as torch's decompositions of many small matrices.
    """
    threads, grad = torch.get_num_threads(), torch.is_grad_enabled()
    count = min(threads, tasks)
    if count <= 1:
        yield map
        return

    def share():  # both are settings of each thread by itself
        torch.set_num_threads(threads // count)
        torch.set_grad_enabled(grad)

    pool = ThreadPoolExecutor(count, initializer=share)
    try:
        share()
        yield pool.map
    finally:
        torch.set_num_threads(threads)
        pool.shutdown(cancel_futures=True)
