"""Whatever the shell does with the output, there is no traceback and an exit code that tells."""

import subprocess
import sys

import pytest


def shell(line: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash, in which $P is the command line of the package."""
    script = f"P='{sys.executable} -m pipeline'; {line}"
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, errors="replace")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("$P --help >&-", 0),
        ("$P --help <&- >&- 2>&-", 0),
        ("$P status nothing 2>&-", 1),
        ("$P status nothing >&- 2>&-", 1),
        ("$P --help >/dev/full", 1),
        ("$P status nothing 2>/dev/full", 1),
        ("$P --help | true; exit ${PIPESTATUS[0]}", 141),
        ("$P status nothing 2>&1 >/dev/null | true; exit ${PIPESTATUS[0]}", 141),
    ],
)
def test_streams_that_cannot_be_written(line: str, code: int) -> None:
    """A closed stream, a full disk or a reader that ends gave a traceback."""
    done = shell(line)
    assert "Traceback" not in done.stderr + done.stdout
    assert "Exception ignored" not in done.stderr
    assert done.returncode in (code, {141: 0}.get(code, code))  # the reader may be later


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252", "utf-8"])
def test_streams_of_other_encodings(encoding: str) -> None:
    """A character that the terminal's encoding lacks gave a UnicodeEncodeError."""
    done = shell(f"PYTHONIOENCODING={encoding} $P status 'nothing→語😀'")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "no stage was started here" in done.stderr


def test_files_do_not_get_the_number_of_a_closed_stream() -> None:
    """What a library printed to number 1 landed in the first file that was opened."""
    program = (
        "import os, tempfile; from pipeline.execution import console; console.configure(); "
        "f = tempfile.TemporaryFile(); os.write(1, b'x'); f.seek(0); "
        "raise SystemExit(f.fileno() < 3 or f.read() != b'')"
    )
    assert shell(f'{sys.executable} -c "{program}" >&- 2>&-').returncode == 0
