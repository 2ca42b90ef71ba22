"""Named streams of random numbers, and the device to compute on."""

import numpy as np
import torch

from rgnb import checks

LAST_SEED = 2**32 - 1  # a larger seed would share streams with another: it counts as two integers


def generator(*entropy: int, device: str | torch.device = "cpu") -> torch.Generator:
    """A torch.Generator on `device` seeded from several integers, such as (seed, stream, block).

    Trailing zeros do not count (numpy's SeedSequence): give uses of one seed different leading streams.
    """
    state = np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state >> np.uint64(1)))


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """`torch.device` for "auto" (CUDA, then MPS, then CPU) or for a named device that is there.

    Raises:
        ValueError: the device is unknown or not on this machine.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if isinstance(device, str) and device == "auto":
        return torch.device(next(name for name, there in available.items() if there))
    kind = checks.choice("device", str(device).split(":")[0], available)
    try:
        found = torch.device(device)
    except RuntimeError:  # not the name of a device
        found = None
    beyond = kind == "cuda" and found is not None and (found.index or 0) >= torch.cuda.device_count()
    if found is None or beyond or not available[kind]:
        raise checks.BadValue(f"device {device!r} is not on this machine; use device='auto' or 'cpu'")
    return found
