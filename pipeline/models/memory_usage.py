"""The memory that a model takes, as the operating system reports it."""

import os
from contextlib import suppress
from pathlib import Path


def reset_peak() -> None:
    """Reset this process's peak memory, where the system allows it.

    Otherwise memory used earlier in this process would be counted as the model's.
    """
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_of_processes(exclude: int) -> int | None:
    """Add up the peak memory (VmHWM, bytes) of this process and its descendants.

    `exclude` is the id of a process to leave out. Returns None on a system without /proc. The sum
    is an upper bound: the peaks may be at different times, and shared memory counts twice.
    """
    import psutil

    try:
        children = psutil.Process().children(recursive=True)
        pids = [process.pid for process in children if process.pid != exclude]
        return sum(_peak(pid) for pid in (os.getpid(), *pids))
    except OSError:
        return None


def gpu_bytes_in_use() -> int:
    """Return the bytes in use, by any process, on the GPUs that this process sees."""
    import torch

    memory = [torch.cuda.mem_get_info(device) for device in range(torch.cuda.device_count())]
    return sum(total - free for free, total in memory)


def _peak(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0  # a process that has ended and is not yet reaped
