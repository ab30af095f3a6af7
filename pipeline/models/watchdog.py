"""The program that ends an engine's processes when its driver dies."""

# Knows its parent's processes, and ends them when the parent is gone: a killed driver would leave the engine, and its GPU memory, behind.
# Looks for them every second until it is told that the engine is up.
WATCHDOG = """
import os, select, sys, psutil
parent = psutil.Process(int(sys.argv[1]))
known, up = {}, False
while True:
    if not up:
        try:
            known = {child.pid: child for child in parent.children(recursive=True) if child.pid != os.getpid()}
        except psutil.NoSuchProcess:
            pass
    if select.select([0], [], [], None if up else 1.0)[0]:
        if not os.read(0, 1):
            break
        known, up = {child.pid: child for child in parent.children(recursive=True) if child.pid != os.getpid()}, True
for process in known.values():
    try:
        process.kill()
    except psutil.NoSuchProcess:
        pass
"""
