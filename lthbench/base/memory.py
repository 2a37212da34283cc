"""The most memory that this process has held, on the device it computes on."""

from __future__ import annotations

import re
import resource
from contextlib import suppress
from pathlib import Path


def forget_peak(device: str = "cpu") -> None:
    """Count anew from here, where the system can."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak(device: str = "cpu") -> int:
    """Bytes held at most since `forget_peak`, or since the process began; on a GPU, bytes allocated there.

    On Linux not by `getrusage`, which knows no beginning anew and counts what the parent held before it.
    """
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError):
        if found := re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text()):
            return 1024 * int(found[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
