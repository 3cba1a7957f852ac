"""The device of a fit, and torch's random state on it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

SEEDING = threading.RLock()  # torch's random state is one for all threads


@contextmanager
def seeded(seed: int, device: str) -> Iterator[None]:
    """Torch's random state set for the block, and put back after it; one thread at a time."""
    devices = range(torch.cuda.device_count()) if device.startswith("cuda") else []
    with SEEDING, torch.random.fork_rng(devices=devices):
        if device == "cpu":
            torch.default_generator.manual_seed(seed)  # torch.manual_seed seeds all GPUs as well
        else:
            torch.manual_seed(seed)
        yield


def torch_device(device: str) -> str:
    """The device that ``"auto"`` stands for."""
    if device != "auto":
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
