"""Run the command line in other processes."""

import subprocess
import sys
from pathlib import Path

from tests.support.task import ROOT


def pipeline(*arguments: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in sorted(folder.glob("0*")) if path.suffix != ".lock"
    }


def start(workshop: Path, *overrides: str, stage_name: str = "generate") -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "pipeline",
        stage_name,
        str(workshop / "config.yaml"),
        *overrides,
    ]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out + err
