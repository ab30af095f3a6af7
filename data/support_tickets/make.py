"""Make seeds.jsonl and eval.jsonl of support_tickets, the made-up tickets of docs/tutorial.md.

    python data/support_tickets/make.py [--out FOLDER]

This program writes every ticket: a problem of one subject, a detail and a closing line. The
problems of eval are not those of seeds, so that held-out tickets are new wordings and not copies.
The first half of seeds has ground truth, as if somebody had already sorted these tickets.
"""

import argparse
import json
import random
from pathlib import Path

SIZES = {"seeds": 400, "eval": 120}
LABELLED = {"seeds": 200, "eval": 120}
SEED = 20261128
Row = dict[str, str]

PROBLEMS = {
    "seeds": {
        "money": [
            "My card was charged twice for the same {thing}",
            "The invoice for the {thing} shows the wrong tax number",
            "I cancelled the {thing} but the money was not refunded",
            "Your shop declines my credit card when I pay for the {thing}",
            "The discount code was not taken off the price of the {thing}",
            "I need a receipt for the {thing} for my accountant",
            "You billed me {amount} although the {thing} costs less",
            "I would like to pay for the {thing} by bank transfer",
            "My monthly subscription went up to {amount} without notice",
            "A fee of {amount} appears on my statement and I do not know why",
        ],
        "login": [
            "I forgot my password and the reset mail never arrives",
            "I cannot log in since I changed my phone number",
            "Please change the e-mail address of my profile",
            "The code for the two-step login is always rejected",
            "My account was locked after three wrong passwords",
            "How do I delete my profile and all my data",
            "Somebody else seems to use my login",
            "I want to add a second user for my {device}",
            "The app signs me out on my {device} every hour",
            "My user name is misspelled and I cannot edit it",
        ],
        "delivery": [
            "The {thing} that I ordered has not arrived yet",
            "The parcel with the {thing} came damaged",
            "The courier left my {thing} at the wrong house",
            "Tracking has shown no movement of the {thing} for {days} days",
            "You sent me a {thing} in the wrong colour",
            "One {thing} is missing from the box",
            "Can the {thing} be shipped to my office instead",
            "How long does shipping of a {thing} to Norway take",
            "The driver did not ring and took the {thing} back to the depot",
            "I want to send the {thing} back, where is the return label",
        ],
    },
    "eval": {
        "money": [
            "There are two withdrawals of {amount} for one {thing}",
            "Where can I download the bill for my {thing}",
            "The voucher was ignored when I bought the {thing}",
            "When do I get my {amount} back for the {thing} I returned",
        ],
        "login": [
            "The sign-in page says that my password is unknown",
            "I lost the phone that receives the security codes",
            "Please close my account for good",
            "I registered with a wrong address and cannot correct it on my {device}",
        ],
        "delivery": [
            "It is {days} days since you shipped my {thing} and nothing came",
            "The box was open and the {thing} broken",
            "A neighbour got my {thing} by mistake",
            "Please bring the {thing} on a Saturday, nobody is at home in the week",
        ],
    },
}
WORDS = {
    "thing": [
        "kettle",
        "lamp",
        "desk",
        "backpack",
        "printer",
        "headset",
        "tent",
        "blender",
        "chair",
    ],
    "device": ["tablet", "laptop", "phone", "television"],
    "amount": ["12 euros", "29.90 euros", "45 pounds", "8 dollars", "130 dollars"],
    "days": ["three", "five", "nine", "twelve"],
}
DETAILS = [
    "It happened on {weekday}.",
    "This is the second time this year.",
    "I wrote to you on {weekday} and got no reply.",
    "My customer number is {number}.",
    "I have tried it in another browser as well.",
    "My husband has the same trouble.",
    "",
]
CLOSINGS = [
    "Please help.",
    "What can I do?",
    "Thanks in advance.",
    "It is urgent.",
    "Kind regards",
    "",
]
WEEKDAYS = ["Monday", "Tuesday", "Thursday", "Saturday"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name, size in SIZES.items():
        lines = [json.dumps(row) + "\n" for row in tickets(name, size)]
        path = out / f"{name}.jsonl"
        path.write_text("".join(lines), encoding="utf-8")
        print(f"{path}: {len(lines)} tickets")


def tickets(name: str, size: int) -> list[Row]:
    """Tickets of one file, no two alike, the subjects in turn."""
    rng = random.Random(f"{SEED} {name}")
    subjects = list(PROBLEMS[name])
    rows: dict[str, Row] = {}
    while len(rows) < size:
        subject = subjects[len(rows) % len(subjects)]
        text = ticket(rng, rng.choice(PROBLEMS[name][subject]))
        row = {"id": f"{name}-{len(rows):03}", "text": text}
        if len(rows) < LABELLED[name]:
            row["target"] = subject
        rows.setdefault(text, row)
    return list(rows.values())


def ticket(rng: random.Random, problem: str) -> str:
    """One ticket around a problem."""
    words = {name: rng.choice(choices) for name, choices in WORDS.items()}
    detail = rng.choice(DETAILS).format(
        weekday=rng.choice(WEEKDAYS), number=rng.randint(10000, 99999)
    )
    parts = [problem.format(**words) + ".", detail, rng.choice(CLOSINGS)]
    return " ".join(part for part in parts if part)


if __name__ == "__main__":
    main()
