"""Make teacher.jsonl, seeds.jsonl, dev.jsonl and eval.jsonl of leg_counting, a task of PyPI's reasoning-gym (pip install .[tasks]).

    python data/leg_counting/make.py [--out FOLDER] [--seeds 1200 …]

Two or three kinds of animals, one to nine of each. The rationale is written from the item's metadata, never by a model. Item i of the
library is drawn from Random(seed + i), so neighbouring seeds share items: the parts are kept apart by what they ask, whatever its order.
`teacher` is what the teacher is fine-tuned on, `seeds` what it then answers for the student, `dev` is for choosing settings, `eval` for
figures.
"""

import argparse
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

SIZES = {
    "eval": 300,
    "dev": 200,
    "teacher": 2000,
    "seeds": 1200,
}  # drawn in this order, so that eval does not move with the others
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
    """How many there are of each animal, item by item."""
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


def unique(found: Iterable[dict[str, int]], legs: dict[str, int]) -> Iterator[Row]:
    """A row for every item that was not met before in any order."""
    seen = set()
    for animals in found:
        key = frozenset(animals.items())
        if key not in seen:
            seen.add(key)
            yield row(animals, legs)


def row(animals: dict[str, int], legs: dict[str, int]) -> Row:
    """One seed: the animals in words, how their legs are counted, how many there are."""
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
