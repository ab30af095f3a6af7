"""Make seeds.jsonl, dev.jsonl and eval.jsonl of the rewriting task from data/sms_spam.

    python data/rewriting/make.py [--out FOLDER] [--seeds 500]

The licence of the messages is beside them. There is no ground truth: the target of a held-out
message is the message itself, so that the metric `exact` counts unchanged copies.
"""

import argparse
import json
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "sms_spam"
SIZES = {"eval": 100, "dev": 50, "seeds": 500}  # dev and seeds are cut from the training part
SHORTEST = 30  # characters; "Ok." leaves nothing to rewrite
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
    training, held_out = messages("seeds"), messages("eval")
    parts = {
        "eval": held_out[: given["eval"]],
        "dev": training[: given["dev"]],
        "seeds": training[given["dev"] :][: given["seeds"]],
    }
    for name, rows in parts.items():
        path = given["out"] / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
        )
        print(f"{path}: {len(rows):,} messages")


def messages(part: str) -> list[Row]:
    """Return the personal messages of a part, without advertisements."""
    rows = [
        json.loads(line)
        for line in (SOURCE / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    kept = [row for row in rows if row["target"] == "normal" and len(row["text"]) >= SHORTEST]
    return [{"id": row["id"], "text": row["text"], "target": row["text"]} for row in kept]


if __name__ == "__main__":
    main()
