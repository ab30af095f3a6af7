"""An engine must not outlive the process that started it."""

import subprocess
import sys
import time

import psutil

DRIVER = """
import os, signal, subprocess, sys
from pipeline.models.vllm_engine import _watch
engine = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
_watch()
print(engine.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_driver_takes_its_engine_along() -> None:
    """kill -9 of the driver alone used to leave the engine, and its memory, behind."""
    driver = subprocess.run([sys.executable, "-c", DRIVER], capture_output=True, text=True, check=False)
    engine = int(driver.stdout)
    for _ in range(100):
        if not psutil.pid_exists(engine) or psutil.Process(engine).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.05)
    psutil.Process(engine).kill()
    raise AssertionError("the engine lives on")
