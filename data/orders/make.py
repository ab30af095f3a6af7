"""Make the four files of orders: messy order messages, and the order in each of them as JSON.

    python data/orders/make.py [--out FOLDER] [--seeds 1000 …]

This program writes every message from a layout, a greeting, distractors and a closing line, all in
texts.yaml, and fills in a customer, one to three items with quantities, and a date. The layouts,
greetings, distractors and closing lines of eval and dev are not those of teacher and seeds.

    teacher.jsonl   the teacher is fine-tuned on it
    seeds.jsonl     the teacher answers it for the student
    dev.jsonl       for choosing settings
    eval.jsonl      for figures
"""

import argparse
import calendar
import hashlib
import json
import random
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import yaml

SIZES = {"eval": 300, "dev": 200, "teacher": 1000, "seeds": 1000}
SEED = 20261128
Row = dict[str, str]
Order = Mapping[str, Any]
TEXTS = yaml.safe_load((Path(__file__).parent / "texts.yaml").read_text(encoding="utf-8"))
ITEMS, NUMBERS = TEXTS["items"], TEXTS["numbers"]


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
    given["out"].mkdir(parents=True, exist_ok=True)
    for name in SIZES:
        path = given["out"] / f"{name}.jsonl"
        rows = part(name, given[name])
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        print(f"{path}: {len(rows):,} messages")


def part(name: str, size: int) -> list[Row]:
    """Return the rows of one file. No order is in it twice, or in two files: see `orders`."""
    wording = TEXTS["held_out" if name in ("eval", "dev") else "training"]
    rows = []
    for number, order in zip(range(size), orders(name), strict=False):
        rng = random.Random(f"{SEED} {name} {number}")
        text = message(rng, wording, order)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        rows.append({"id": f"order-{digest}", "text": text, "target": json.dumps(order)})
    return rows


def orders(name: str) -> Iterator[Order]:
    """Yield orders without end; those of different files are disjoint, by a digest of the order."""
    seen = set()
    for number in count():
        rng = random.Random(f"{SEED} order {number}")
        kinds = rng.choices((1, 2, 3), (5, 4, 1))[0]
        order: Order = {
            "name": f"{rng.choice(TEXTS['first_names'])} {rng.choice(TEXTS['last_names'])}",
            "items": {item: quantity(rng) for item in rng.sample(ITEMS, kinds)},
            "date": f"{rng.randint(1, 12):02}-{rng.randint(1, 28):02}",
        }
        key = json.dumps(order, sort_keys=True)
        if file_of(key) == name and key not in seen:
            seen.add(key)
            yield order


def file_of(key: str) -> str:
    """Return the file that an order belongs to, the same one whatever the sizes are."""
    return list(SIZES)[hashlib.sha256(key.encode()).digest()[0] % len(SIZES)]


def quantity(rng: random.Random) -> int:
    return rng.choices((1, 2, rng.randint(3, 12), rng.randint(13, 60)), (3, 3, 5, 1))[0]


def message(rng: random.Random, wording: Mapping[str, list[str]], order: Order) -> str:
    """Return a message that states the order, and other things."""
    body = rng.choice(wording["layouts"]).format(
        name=order["name"],
        date=date_text(rng, order["date"]),
        items=items_text(rng, order["items"]),
    )
    others = [item for item in ITEMS if item not in order["items"]]
    distractor = rng.choice(wording["distractors"]).format(
        phone=rng.randint(10000, 99999),
        other=item_text(rng, rng.choice(others), rng.randint(1, 9)),
        thing=plural(rng.choice(others)),
        price=rng.randint(4, 60) * 5,
        person=rng.choice(TEXTS["first_names"]),
        past=date_text(rng, f"{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"),
        floor=rng.randint(1, 9),
    )
    middle = [body, distractor] if rng.random() < 0.7 else [distractor, body]
    parts = [rng.choice(wording["greetings"]), *middle, rng.choice(wording["closings"])]
    return " ".join(part for part in parts if part)


def items_text(rng: random.Random, items: Mapping[str, int]) -> str:
    """Return the items as words, as "lamp x2", or as a list with commas."""
    style = rng.randrange(3)
    if style == 0:
        return ", ".join(f"{name} x{number}" for name, number in items.items())
    words = [item_text(rng, name, number) for name, number in items.items()]
    if style == 1 or len(words) == 1:
        return ", ".join(words)
    return ", ".join(words[:-1]) + " and " + words[-1]


def item_text(rng: random.Random, name: str, number: int) -> str:
    """Return a quantity of an item, in digits or in words."""
    if number == 1:
        article = "an" if name[0] in "aeiou" else "a"
        return f"{rng.choice((article, 'one', '1'))} {name}"
    forms = [str(number), f"{number} pieces of"]
    if number <= len(NUMBERS):
        forms += [NUMBERS[number - 1]] * 2
    forms += {2: ["a pair of"], 6: ["half a dozen"], 12: ["a dozen"]}.get(number, [])
    return f"{rng.choice(forms)} {plural(name)}"


def plural(name: str) -> str:
    return f"{name}es" if name.endswith(("s", "x", "ch", "sh")) else f"{name}s"


def date_text(rng: random.Random, date: str) -> str:
    """Return a date such as 03-14 in one of many forms."""
    month, day = (int(number) for number in date.split("-"))
    name, short = calendar.month_name[month], calendar.month_abbr[month]
    ending = {1: "st", 2: "nd", 3: "rd"}.get(0 if day in (11, 12, 13) else day % 10, "th")
    forms = [
        f"{day} {name}",
        f"{name} {day}",
        f"{short} {day}",
        f"the {day}{ending} of {name}",
        f"{name} {day}{ending}",
        f"2027-{month:02}-{day:02}",
        f"{rng.choice(list(calendar.day_name))}, {day} {short}",
    ]
    return rng.choice(forms)


if __name__ == "__main__":
    main()
