"""Make the four files of leg_counting, a task of PyPI's reasoning-gym (pip install .[tasks]).

    python data/leg_counting/make.py [--out FOLDER] [--seeds 1200 …]

Each item has two or three kinds of animals, one to nine of each. This program writes the rationale
from the item's metadata; no model does. The library draws item i from Random(seed + i), so that
neighbouring random seeds share items. No question is in two files, whatever the order of animals.

    teacher.jsonl   the teacher is fine-tuned on it
    seeds.jsonl     the teacher answers it for the student
    dev.jsonl       for choosing settings
    eval.jsonl      for figures
"""

import argparse
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

# Drawn in this order, so that eval stays the same if the other sizes change.
SIZES = {"eval": 300, "dev": 200, "teacher": 2000, "seeds": 1200}
SEED = 20261121
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
    from reasoning_gym.arithmetic.leg_counting import ANIMALS

    rows = unique(items(), ANIMALS)
    for name in SIZES:
        part = [next(rows) for _ in range(given[name])]
        path = given["out"] / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
        print(f"{path}: {len(part):,} items")


def items() -> Iterator[dict[str, int]]:
    """Yield {animal: count} of each item."""
    from reasoning_gym import create_dataset

    number = 0
    dataset = create_dataset(
        "leg_counting",
        seed=SEED,
        size=1_000_000,
        min_animals=2,
        max_animals=3,
        min_instances=1,
        max_instances=9,
    )
    while True:
        yield dataset[number]["metadata"]["animals"]
        number += 1


def unique(counts: Iterable[dict[str, int]], legs: dict[str, int]) -> Iterator[Row]:
    """Yield a row for each item whose animals were not there before, in any order."""
    seen = set()
    for animals in counts:
        key = frozenset(animals.items())
        if key not in seen:
            seen.add(key)
            yield row(animals, legs)


def row(animals: dict[str, int], legs: dict[str, int]) -> Row:
    """Return one row: the animals in words, the steps of the count, the number of legs."""
    text = ", ".join(f"{count} {name}{'s' if count > 1 else ''}" for name, count in animals.items())
    products = [count * legs[name] for name, count in animals.items()]
    steps = [
        f"{count} {name}: {count} * {legs[name]} = {count * legs[name]}."
        for name, count in animals.items()
    ]
    total = products[0]
    for product in products[1:]:
        steps.append(f"{total} + {product} = {total + product}.")
        total += product
    identifier = f"legs-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    return {
        "id": identifier,
        "animals": text,
        "rationale": " ".join(steps),
        "target": str(total),
        "group": f"{len(animals)} kinds",
    }


if __name__ == "__main__":
    main()
