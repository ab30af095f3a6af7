"""Write data for a page that is opened from disk, as scripts that pass JSON to the page.

Browsers forbid a page from disk to fetch files, but let it load scripts.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

PAGE_ROWS = 256
MAX_LINE = 96  # characters of a row in the list


@dataclass
class Facet:
    """A property by which rows can be selected; `codes` has the index of each row's value."""

    key: str
    label: str
    values: list[str]
    codes: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._numbers = {value: number for number, value in enumerate(self.values)}

    def add(self, value: str) -> None:
        """Add a row's value."""
        if value not in self._numbers:
            self._numbers[value] = len(self.values)
            self.values.append(value)
        self.codes.append(self._numbers[value])

    def to_json(self) -> dict[str, Any]:
        """Return what the page reads."""
        return {"key": self.key, "label": self.label, "values": self.values, "codes": self.codes}


@dataclass
class Index:
    """The columns of the list of rows; columns are more compact than one object per row.

    Rows can be sorted by `numbers`, which is None for a row without one. `note` says which rows are
    left out.
    """

    facets: Sequence[Facet]
    ids: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    numbers: list[float | None] = field(default_factory=list)
    sorts: Sequence[tuple[str, str]] = ()
    note: str = ""

    def add(self, identifier: str, head: str, line: str, number: float | None) -> None:
        """Add a row: its id, the heading and the line that the list shows, and its number."""
        self.ids.append(identifier)
        self.heads.append(short(head, MAX_LINE // 2))
        self.lines.append(short(line, MAX_LINE))
        self.numbers.append(None if number is None else round(number, 3))

    def to_json(self) -> dict[str, Any]:
        """Return what the page reads."""
        return {
            "page": PAGE_ROWS,
            **vars(self),
            "facets": [facet.to_json() for facet in self.facets],
        }


def short(text: str, most: int) -> str:
    """Return a text as one line of at most `most` characters."""
    line = " ".join(text[: 4 * most].split())
    return line if len(line) <= most else line[: most - 1] + "…"


def input_text(value: Any) -> str:
    """Return one input of an example as text."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def write_data(folder: Path, name: str, data: Any) -> None:
    """Write `folder`/name.js, which passes `data` to the page.

    The browser reads `data` as an object literal, in which the key "__proto__" is special. So no
    key may come from the user's data.
    """
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    path = folder / f"{name}.js"
    path.parent.mkdir(parents=True, exist_ok=True)
    script = f'browse.take("{folder.name}/{name}",{text})\n'
    path.write_bytes(script.encode("utf-8", "backslashreplace"))


def in_pages(rows: Iterable[Any]) -> Iterable[tuple[str, list[Any]]]:
    """Yield (name, rows) of each page."""
    remaining = iter(rows)
    number = 0
    while page := list(islice(remaining, PAGE_ROWS)):
        yield f"{number:05d}", page
        number += 1
