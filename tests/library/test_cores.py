"""Work side by side: as by `map`, under the caller's settings, which are left as they were."""

import threading

import pytest
import torch

from rgnb import cores


@pytest.fixture(params=[1, 2, 5])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("tasks", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("grad", [True, False])
def test_calls_share_the_threads_and_keep_their_order(threads, tasks, grad):
    seen = set()

    def call(i):
        seen.add((torch.get_num_threads(), torch.is_grad_enabled()))
        return i**2

    with torch.set_grad_enabled(grad), cores.workers(tasks) as each:
        assert list(each(call, range(tasks))) == [i**2 for i in range(tasks)]
    assert seen == ({(threads // min(threads, tasks), grad)} if tasks else set())
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_two_calls_run_at_once_and_an_error_comes_out(threads):
    met = threading.Barrier(2, timeout=60)  # breaks unless both are there
    with cores.workers(2) as each:
        assert sorted(each(lambda _: met.wait(), range(2))) == [0, 1]
    with pytest.raises(ZeroDivisionError), cores.workers(2) as each:
        list(each(lambda x: 1 / x, [1, 0]))
    assert torch.get_num_threads() == threads
