"""Make the four files of routing: short messages to a bank, and the desk of twelve that answers.

    python data/routing/make.py [--out FOLDER] [--seeds 1200 …]

This program writes every message from a phrasing of one desk, slots, an opening and a closing, all
in phrasings.yaml. The phrasings of eval and dev are not those of teacher and seeds. Some messages
have typos. One in six is ambiguous: its phrasing belongs to several desks, and one of them, drawn
at random, is the target. So no model can be right about all messages, and a good one is unsure.

    teacher.jsonl   the teacher is fine-tuned on it: few rows, so that it makes mistakes
    seeds.jsonl     the teacher answers it for the student
    dev.jsonl       for choosing settings
    eval.jsonl      for figures
"""

import argparse
import json
import random
from pathlib import Path

import yaml

SIZES = {"eval": 400, "dev": 200, "teacher": 240, "seeds": 1200}
SEED = 20261128
AMBIGUOUS_SHARE = 1 / 6
TYPO_SHARE = 0.25
TEXTS = yaml.safe_load((Path(__file__).parent / "phrasings.yaml").read_text(encoding="utf-8"))
DESKS = list(TEXTS["phrasings"])
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
    given["out"].mkdir(parents=True, exist_ok=True)
    seen: set[str] = set()
    for name in SIZES:
        path = given["out"] / f"{name}.jsonl"
        rows = messages(name, given[name], seen)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        print(f"{path}: {len(rows):,} messages")


def messages(name: str, size: int, seen: set[str]) -> list[Row]:
    """Return the rows of one file, the desks in turn. No text of `seen` is used; it is extended."""
    rng = random.Random(f"{SEED} {name}")
    part = "held_out" if name in ("eval", "dev") else "training"
    rows: list[Row] = []
    while len(rows) < size:
        target = DESKS[len(rows) % len(DESKS)]
        text = message(rng, phrasing(rng, target, part), part)
        if text not in seen:
            seen.add(text)
            rows.append({"id": f"{name}-{len(rows):04}", "text": text, "target": target})
    rng.shuffle(rows)
    return rows


def phrasing(rng: random.Random, target: str, part: str) -> str:
    """Return a phrasing of a desk, or one that it shares with other desks."""
    shared = [text for text, desks in TEXTS["ambiguous"][part].items() if target in desks]
    if shared and rng.random() < AMBIGUOUS_SHARE:
        return rng.choice(shared)
    return rng.choice(TEXTS["phrasings"][target][part])


def message(rng: random.Random, text: str, part: str) -> str:
    """Return a phrasing with its slots filled, an opening, a closing, and perhaps typos."""
    filled = text.format(**{name: rng.choice(words) for name, words in TEXTS["slots"].items()})
    opening, closing = (rng.choice(TEXTS[name][part]) for name in ("openings", "closings"))
    whole = " ".join(piece for piece in (opening, filled, closing) if piece)
    if rng.random() < TYPO_SHARE:
        whole = with_typo(rng, whole)
    return whole.lower().rstrip(".?!") if rng.random() < 0.3 else whole


def with_typo(rng: random.Random, text: str) -> str:
    """Return a text with one or two letters swapped, dropped or doubled."""
    for _ in range(rng.randint(1, 2)):
        place = rng.randrange(len(text) - 1)
        first, second = text[place], text[place + 1]
        wrong = rng.choice((second + first, second, first * 2 + second))
        text = text[:place] + wrong + text[place + 2 :]
    return text


if __name__ == "__main__":
    main()
