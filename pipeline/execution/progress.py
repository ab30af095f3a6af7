"""One line of progress: rewritten in place on a terminal, printed every ten seconds elsewhere."""

import sys
import time
from collections.abc import Mapping
from typing import TextIO

PLAIN_SECONDS = 10.0
TERMINAL_SECONDS = 0.2


class Progress:
    """Counts finished items of `total`.

    `done` includes items that earlier processes finished. The rate, and the remaining time computed
    from it, count only what this process finished.
    """

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
        self._done_at_start = done
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._shown = 0.0

    def add(self, items: int, tokens: int = 0) -> None:
        """Count finished items, and the tokens that they took."""
        self.done += items
        self.tokens += tokens

    def show(self, extra: Mapping[str, object] | None = None, last: bool = False) -> None:
        """Print the line if it is due; `extra` is appended as "name value"."""
        now = time.monotonic()
        interval = TERMINAL_SECONDS if self._live else PLAIN_SECONDS
        if not last and now - self._shown < interval:
            return
        self._shown = now
        line = self.line(now - self.began, extra or {})
        if self._live:
            end = "\n" if last else ""
            self._stream.write(f"\r\x1b[K{line}{end}")
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def line(self, seconds: float, extra: Mapping[str, object]) -> str:
        """Return the progress line; `seconds` is the elapsed time."""
        rate = (self.done - self._done_at_start) / seconds if seconds > 0 else 0.0
        parts = [f"{self.label}: {self.done:,}/{self.total:,} {self.unit}"]
        if self.tokens:
            parts.append(f"{self.tokens / max(seconds, 1e-9):,.0f} tokens/s")
        parts += [f"{name} {value}" for name, value in extra.items()]
        parts.append(f"{format_duration(seconds)} elapsed")
        items = self.total - self.done
        if rate and items > 0:
            parts.append(f"{format_duration(items / rate)} remaining")
        return ", ".join(parts)


def format_duration(seconds: float) -> str:
    """Return seconds as 1:02 or 1:02:03."""
    minutes, whole = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{whole:02d}" if hours else f"{minutes}:{whole:02d}"
