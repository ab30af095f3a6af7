"""How much memory a model takes, as the system tells it."""

import os
from contextlib import suppress
from pathlib import Path


def reset_peak() -> None:
    """Have this process's peak counted from now on, where the system lets one: what ran in it before is no part of the model."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_of_processes(exclude: int) -> int | None:
    """Bytes: the peaks (VmHWM) of this process and all below it, but for process `exclude`, added up; None where there is no /proc.

    Peaks need not have come together, and what two processes share counts twice: it is an upper bound.
    """
    import psutil

    try:
        tree = [
            process.pid
            for process in psutil.Process().children(recursive=True)
            if process.pid != exclude
        ]
        return sum(_peak(pid) for pid in (os.getpid(), *tree))
    except OSError:
        return None


def gpu_bytes_in_use() -> int:
    """Bytes in use on the GPUs that this process sees, by whomever."""
    import torch

    seen = [torch.cuda.mem_get_info(device) for device in range(torch.cuda.device_count())]
    return sum(total - free for free, total in seen)


def _peak(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0  # a process that has ended, and is not yet reaped
