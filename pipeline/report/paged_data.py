"""Data beside a page that is opened from disk: scripts that hand JSON to the page, since a page from disk may fetch nothing."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

PAGE = 256  # rows
LINE = 96  # characters of a row in a list


@dataclass
class Facet:
    """Something to choose rows by: the values there are, and the number of its value for each row."""

    key: str
    label: str
    values: list[str]
    codes: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._numbers = {value: number for number, value in enumerate(self.values)}

    def add(self, value: str) -> None:
        if value not in self._numbers:
            self._numbers[value] = len(self.values)
            self.values.append(value)
        self.codes.append(self._numbers[value])

    def to_json(self) -> dict[str, Any]:
        return {"key": self.key, "label": self.label, "values": self.values, "codes": self.codes}


@dataclass
class Index:
    """What a list shows of each row, a column each, so that it is small for many rows.

    `numbers` are what rows can be sorted by, None where a row has none. `note` says what is not among the rows.
    """

    facets: Sequence[Facet]
    ids: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    numbers: list[float | None] = field(default_factory=list)
    sorts: Sequence[tuple[str, str]] = ()
    note: str = ""

    def add(self, identifier: str, head: str, line: str, number: float | None) -> None:
        self.ids.append(identifier)
        self.heads.append(short(head, LINE // 2))
        self.lines.append(short(line, LINE))
        self.numbers.append(None if number is None else round(number, 3))

    def to_json(self) -> dict[str, Any]:
        return {"page": PAGE, **vars(self), "facets": [facet.to_json() for facet in self.facets]}


def short(text: str, most: int) -> str:
    """One line of at most so many characters."""
    line = " ".join(text[: 4 * most].split())
    return line if len(line) <= most else line[: most - 1] + "…"


def lined(value: Any) -> str:
    """A seed's input as text."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def write_data(folder: Path, name: str, data: Any) -> None:
    """Write `folder`/name.js, which hands `data` to the page. It is read as an object literal, so keys must not be from outside."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    path = folder / f"{name}.js"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        f'browse.take("{folder.name}/{name}",{text})\n'.encode("utf-8", "backslashreplace")
    )


def in_pages(rows: Iterable[Any]) -> Iterable[tuple[str, list[Any]]]:
    """(name, rows) of each page."""
    waiting = iter(rows)
    number = 0
    while page := list(islice(waiting, PAGE)):
        yield f"{number:05d}", page
        number += 1
