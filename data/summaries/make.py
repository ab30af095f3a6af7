"""Make seeds.jsonl, dev.jsonl and eval.jsonl of summaries from docstrings of the running Python.

    python data/summaries/make.py [--out FOLDER] [--seeds 600]

A docstring's second paragraph is the text. Its first line, the summary that the author wrote, is
the target, a reference and not the one right answer. Nothing is imported: the files of the standard
library are parsed. The docstrings of a module are all in one file. Other versions of Python give
other rows.
"""

import argparse
import ast
import hashlib
import json
import random
import sysconfig
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

# Drawn in this order, so that eval stays the same if the other sizes change.
SIZES = {"eval": 200, "dev": 100, "seeds": 600}
SEED = 20261128
FROM_MODULE = 60  # docstrings of one module, at most
TEXT, TARGET = (80, 320), (20, 110)  # lengths in characters
LEFT_OUT = {"test", "tests", "site-packages", "dist-packages", "idlelib", "lib2to3", "turtledemo"}
CODE = (">>>", "->", "|", "://", "@", "{")
Row = dict[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    for name, size in SIZES.items():
        parser.add_argument(
            f"--{name}", type=int, default=size, help=f"rows of {name}.jsonl ({size})"
        )
    given = vars(parser.parse_args())
    rows = unique(Path(sysconfig.get_path("stdlib")))
    given["out"].mkdir(parents=True, exist_ok=True)
    for name, part in split(rows, {name: given[name] for name in SIZES}).items():
        path = given["out"] / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
        print(f"{path}: {len(part):,} texts")


def unique(library: Path) -> dict[str, list[Row]]:
    """Return the rows of each module, in random order; no text or target occurs twice."""
    seen: set[str] = set()
    modules = {}
    for path in sorted(library.rglob("*.py")):
        name = path.relative_to(library)
        if LEFT_OUT.isdisjoint(name.parts):
            rows = [row for row in read(path) if seen.isdisjoint({row["text"], row["target"]})]
            seen |= {text for row in rows for text in (row["text"], row["target"])}
            modules[name.as_posix()] = list({row["text"]: row for row in rows}.values())
    names = list(modules)
    random.Random(SEED).shuffle(names)
    return {name: modules[name][:FROM_MODULE] for name in names}


def read(path: Path) -> Iterator[Row]:
    """Yield a row for each docstring of a file that has a summary line and a paragraph of prose."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            summary, _, rest = (ast.get_docstring(node) or "").partition("\n\n")
            text, target = first_sentences(rest), " ".join(summary.split())
            if is_prose(text, TEXT) and is_prose(target, TARGET):
                digest = hashlib.sha256(text.encode()).hexdigest()[:12]
                yield {"id": f"doc-{digest}", "text": text, "target": target}


def first_sentences(text: str) -> str:
    """Return the first paragraph of a text in one line, and of a long one its first sentences."""
    paragraph = " ".join(text.partition("\n\n")[0].split())
    if len(paragraph) > TEXT[1]:
        paragraph = paragraph[: TEXT[1]].rpartition(". ")[0] + "."
    return paragraph


def is_prose(text: str, lengths: tuple[int, int]) -> bool:
    """Tell if a text is one line of whole sentences with no code in it."""
    right_length = lengths[0] <= len(text) <= lengths[1]
    whole = text[:1].isupper() and text.endswith(".") and text.isascii()
    return right_length and whole and not any(mark in text for mark in CODE)


def split(modules: dict[str, list[Row]], sizes: dict[str, int]) -> dict[str, list[Row]]:
    """Give each part whole modules until it has its size. Exits if there are too few rows."""
    left = iter(modules.values())
    parts = {}
    for name, size in sizes.items():
        parts[name] = list(islice((row for rows in left for row in rows), size))
        if len(parts[name]) < size:
            raise SystemExit(f"{name}: {size:,} rows are wanted and {len(parts[name]):,} are left")
    return parts


if __name__ == "__main__":
    main()
