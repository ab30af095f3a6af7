"""One line that tells how far a stage is: rewritten in place on a terminal, printed now and then elsewhere."""

import sys
import time
from collections.abc import Mapping
from typing import TextIO

PLAIN_SECONDS = 10.0
TERMINAL_SECONDS = 0.2


class Progress:
    """Counts finished items of `total`; rate and ETA are of this process alone, `done` includes what was there before."""

    def __init__(
        self,
        label: str,
        total: int,
        done: int = 0,
        unit: str = "samples",
        stream: TextIO | None = None,
    ):
        self.label, self.total, self.done, self.unit = label, total, done, unit
        self.tokens = 0
        self.began = time.monotonic()
        self._first = done
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._shown = 0.0

    def add(self, items: int, tokens: int = 0) -> None:
        self.done += items
        self.tokens += tokens

    def show(self, extra: Mapping[str, object] | None = None, last: bool = False) -> None:
        """Print the line if it is time to; `extra` is appended as "name value"."""
        now = time.monotonic()
        if not last and now - self._shown < (TERMINAL_SECONDS if self._live else PLAIN_SECONDS):
            return
        self._shown = now
        line = self.line(now - self.began, extra or {})
        self._stream.write(
            f"\r\x1b[K{line}" + ("\n" if last else "") if self._live else line + "\n"
        )
        self._stream.flush()

    def line(self, seconds: float, extra: Mapping[str, object]) -> str:
        rate = (self.done - self._first) / seconds if seconds > 0 else 0.0
        parts = [f"{self.label}: {self.done:,}/{self.total:,} {self.unit}"]
        if self.tokens:
            parts.append(f"{self.tokens / max(seconds, 1e-9):,.0f} tokens/s")
        parts += [f"{name} {value}" for name, value in extra.items()]
        left = self.total - self.done
        parts.append(
            f"{clock(seconds)} gone" + (f", {clock(left / rate)} left" if rate and left > 0 else "")
        )
        return ", ".join(parts)


def clock(seconds: float) -> str:
    """Seconds as 1:02 or 1:02:03."""
    minutes, whole = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{whole:02d}" if hours else f"{minutes}:{whole:02d}"
