"""Train one student with several processes: start them, watch them and stop them together.

torch.distributed.run is not used, because its stores listen on every network interface and accept
every connection. The workers are children of the stage's process, find one another through a file,
and communicate over the loopback interface only.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import FAILED, STOPPED, PipelineError, Stopped
from pipeline.execution import signals
from pipeline.storage.files import read_json, write_json

POLL_SECONDS = 0.1
GRACE_SECONDS = 5.0  # time for workers to end after one of them has ended
SAVE_SECONDS = 120.0  # after a signal: for a step and its checkpoint
JOB, RESULT, RENDEZVOUS = "job.json", "result.json", "rendezvous"
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")  # read by torch


def run_workers(module: str, job: dict[str, Any], processes: int, label: str) -> Any:
    """Run `python -m module FOLDER` in several processes and return the result of the first.

    FOLDER holds `job`. torch's rank variables are set. Raises PipelineError if a process fails, and
    Stopped on Ctrl-C and SIGTERM. All processes have ended when this returns or raises.
    """
    with tempfile.TemporaryDirectory() as folder, _signals() as caught:
        write_json(Path(folder) / JOB, job)
        workers = [_start(module, folder, rank, processes) for rank in range(processes)]
        try:
            while not caught and _are_running(workers):
                time.sleep(POLL_SECONDS)
            if not caught:
                _wait(workers)  # give the other workers time to write their own errors
        finally:
            _end(workers, SAVE_SECONDS if caught else GRACE_SECONDS)
        if caught:
            raise Stopped(caught[0])
        _check(Path(folder), workers, label)
        return read_json(Path(folder) / RESULT)


def rank() -> int:
    """Return the rank of this process; 0 if it trains alone, even if RANK is set."""
    import torch

    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def any_process(value: bool) -> bool:
    """Return True if `value` is true in any of the processes. All of them must call this."""
    import torch

    if not torch.distributed.is_initialized():
        return value
    flag = torch.tensor(float(value), device="cuda" if torch.cuda.is_available() else "cpu")
    torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
    return bool(flag.item())


def clear_environment() -> None:
    """Remove rank variables that a cluster has set, for a process that trains alone.

    With these variables accelerate would wait for other processes.
    """
    for name in RANK_VARIABLES:
        os.environ.pop(name, None)


def serve(folder: Path, work: Any) -> int:
    """Run `work(job)` in a worker and return the exit code. The worker exits if the parent does."""
    import torch

    threading.Thread(target=_exit_with_parent, daemon=True).start()
    number = int(os.environ["RANK"])
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if backend == "nccl":
        torch.cuda.set_device(number)
    size = int(os.environ["WORLD_SIZE"])
    torch.distributed.init_process_group(
        backend, init_method=f"file://{folder / RENDEZVOUS}", rank=number, world_size=size
    )
    try:
        result = work(read_json(folder / JOB))
    except PipelineError as error:
        write_json(folder / f"error-{number}.json", str(error))
        return FAILED
    except Stopped as stop:
        return STOPPED + stop.signal
    if number == 0:
        write_json(folder / RESULT, result)
    torch.distributed.destroy_process_group()
    return 0


def _start(module: str, folder: str, number: int, processes: int) -> subprocess.Popen[bytes]:
    threads = max(1, (os.cpu_count() or 1) // processes)
    ranks = map(str, (number, number, processes, processes))
    environment = {
        "OMP_NUM_THREADS": str(threads),
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
        **os.environ,
        **dict(zip(RANK_VARIABLES, ranks, strict=True)),
    }
    # A new session, so that Ctrl-C reaches only the parent, which then stops the workers. The pipe
    # to stdin closes when the parent ends; `_exit_with_parent` waits for that.
    command = [sys.executable, "-m", module, folder]
    return subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, start_new_session=True)


def _exit_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def _are_running(workers: list[subprocess.Popen[bytes]]) -> bool:
    """Return True if a worker still runs and none has failed."""
    codes = [worker.poll() for worker in workers]
    return None in codes and not any(codes)


def _wait(workers: list[subprocess.Popen[bytes]], seconds: float = GRACE_SECONDS) -> None:
    until = time.monotonic() + seconds
    while any(worker.poll() is None for worker in workers) and time.monotonic() < until:
        time.sleep(POLL_SECONDS)


def _end(workers: list[subprocess.Popen[bytes]], seconds: float) -> None:
    """End the workers that run: ask them, and kill them after `seconds`."""
    for stop in (subprocess.Popen.terminate, subprocess.Popen.kill):
        for worker in workers:
            if worker.poll() is None:
                stop(worker)
        _wait(workers, seconds)
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.close()


def _check(folder: Path, workers: list[subprocess.Popen[bytes]], label: str) -> None:
    """Raise PipelineError if a worker failed, with the worker's own message if there is one."""
    errors = sorted(folder.glob("error-*.json"))
    if errors:
        raise PipelineError(read_json(errors[0]))
    # this may also list workers that `_end` stopped, because another one had failed
    failed = {number: worker.returncode for number, worker in enumerate(workers)}
    codes = ", ".join(f"rank {number} with code {code}" for number, code in failed.items() if code)
    if codes:
        raise PipelineError(
            f"{label}: a process failed ({codes}, of {len(workers)} processes); see what it "
            "printed above. Fix that; the same command continues from the last checkpoint"
        )


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect the numbers of the SIGINT and SIGTERM signals that arrive inside the with block."""
    caught: list[int] = []
    with signals.handled(lambda number, frame: caught.append(number)):
        yield caught
