"""An engine must not outlive its driver, and a driver must not wait for a dead engine."""

import queue
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest

from pipeline.models.vllm_engine import _await_output

DRIVER = """
import os, signal, subprocess, sys, time
from pipeline.models.watchdog import Watchdog
watchdog = Watchdog()
engine = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
if sys.argv[1] == "up":
    watchdog.engine_is_up()
time.sleep(2.5)
print(engine.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("state", ["up", "loading"])
def test_killed_driver_takes_its_engine_along(state: str) -> None:
    """kill -9 of the driver left the engine and its memory behind, also while the engine loaded."""
    driver = subprocess.run(
        [sys.executable, "-c", DRIVER, state], capture_output=True, text=True, check=False
    )
    engine = int(driver.stdout)
    for _ in range(100):
        if not psutil.pid_exists(engine) or psutil.Process(engine).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.05)
    psutil.Process(engine).kill()
    raise AssertionError("the engine lives on")


def test_engine_that_was_killed_is_not_waited_for_for_ever() -> None:
    """vLLM's client knew that its engine was dead and still waited: a run over night hung."""

    def ensure_alive() -> None:
        raise RuntimeError("dead")

    core = SimpleNamespace(outputs_queue=queue.Queue(), ensure_alive=ensure_alive)
    with pytest.raises(RuntimeError, match="dead"):
        _await_output(core)
    core.outputs_queue.put("what came before it died")
    _await_output(core)
    _await_output(SimpleNamespace())
