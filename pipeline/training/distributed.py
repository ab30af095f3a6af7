"""Several processes that train one student: started, watched and ended together.

torch.distributed.run is not used: its stores listen on every interface of the machine and trust whoever connects. The workers are children
of the stage's own process, find one another through a file, and talk over loopback only.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from pipeline.errors import PipelineError, Stopped
from pipeline.storage.files import read_json, write_json

POLL_SECONDS = 0.1
GRACE_SECONDS = 5.0  # for the others, when one has ended or all are asked to
JOB, RESULT, RENDEZVOUS = "job.json", "result.json", "rendezvous"
PLACES = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
)  # environment variables of torch's


def run_workers(module: str, job: dict[str, Any], processes: int, label: str) -> Any:
    """Run `python -m module FOLDER` in so many processes, with RANK and the others of torch's variables set; FOLDER holds `job` and takes
    the result of the first. Raises PipelineError if one of them fails, Stopped on Ctrl-C and SIGTERM; none is left behind."""
    with tempfile.TemporaryDirectory() as folder, _signals() as caught:
        write_json(Path(folder) / JOB, job)
        workers = [_start(module, folder, rank, processes) for rank in range(processes)]
        try:
            while (
                any(worker.poll() is None for worker in workers)
                and not any(worker.poll() for worker in workers)
                and not caught
            ):
                time.sleep(POLL_SECONDS)
            if not caught:
                _wait(
                    workers
                )  # one that failed may have taken the others with it, each with its own words
        finally:
            _end(workers)
        if caught:
            raise Stopped(caught[0])
        _complain(Path(folder), workers, label)
        return read_json(Path(folder) / RESULT)


def rank() -> int:
    """Which of the processes this one is; 0 where there is one, whatever a cluster has put into RANK."""
    import torch

    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def clear_environment() -> None:
    """Forget what a cluster has put into the environment: this process trains by itself, and accelerate would wait for others."""
    for name in PLACES:
        os.environ.pop(name, None)


def serve(folder: Path, work: Any) -> int:
    """The other side: do `work(job)` with the others. Returns the exit code; ends at once if the parent does."""
    import torch

    threading.Thread(target=_end_with_parent, daemon=True).start()
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
        return 1
    if number == 0:
        write_json(folder / RESULT, result)
    torch.distributed.destroy_process_group()
    return 0


def _start(module: str, folder: str, number: int, processes: int) -> subprocess.Popen[bytes]:
    threads = max(1, (os.cpu_count() or 1) // processes)
    environment = {
        "OMP_NUM_THREADS": str(threads),
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
        **os.environ,
        **dict(zip(PLACES, map(str, (number, number, processes, processes)), strict=True)),
    }
    # a session of their own, so that Ctrl-C comes to the parent alone; the pipe tells them when it has gone
    command = [sys.executable, "-m", module, folder]
    return subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, start_new_session=True)


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def _wait(workers: list[subprocess.Popen[bytes]]) -> None:
    until = time.monotonic() + GRACE_SECONDS
    while any(worker.poll() is None for worker in workers) and time.monotonic() < until:
        time.sleep(POLL_SECONDS)


def _end(workers: list[subprocess.Popen[bytes]]) -> None:
    for how in (subprocess.Popen.terminate, subprocess.Popen.kill):
        for worker in workers:
            if worker.poll() is None:
                how(worker)
        _wait(workers)
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.close()


def _complain(folder: Path, workers: list[subprocess.Popen[bytes]], label: str) -> None:
    for path in sorted(folder.glob("error-*.json")):
        raise PipelineError(read_json(path))
    # one that was ended from here has a negative code as well, but never went first
    failed = [number for number, worker in enumerate(workers) if worker.returncode]
    if failed:
        codes = ", ".join(f"{number} with code {workers[number].returncode}" for number in failed)
        raise PipelineError(
            f"{label}: of its {len(workers)} processes ended {codes}; what they printed stands above. "
            "Mend that, and the same command goes on from the last checkpoint"
        )


@contextmanager
def _signals() -> Iterator[list[int]]:
    """The numbers of the signals that came in the meantime, SIGINT and SIGTERM."""
    caught: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        caught.append(number)

    before = {
        number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
