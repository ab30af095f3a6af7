"""Which texts are copies of a held-out text, and which only look like one."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import Source
from pipeline.errors import PipelineError
from pipeline.filters.decontamination import contamination
from pipeline.filters.decontamination.matcher import Index, Text, common_words
from pipeline.filters.decontamination.words import (
    is_sentence,
    length_in_words,
    words,
    words_with_spans,
)
from pipeline.filters.measures import Batch
from pipeline.filters.verdict import Verdict
from pipeline.records import Sample, Seed
from pipeline.storage.topk import TopKFolder

Make = Callable[..., Sample]
Judge = Callable[..., list[Verdict | None]]
LONG = (
    "Which wealthy collector of old clocks bequeathed his whole workshop to the museum in Basel, "
    "and in which year did it open?"
)
HELD_OUT = [
    "What is gold?",
    "Shall i come to get pickle",
    "spam",
    "How do glaciers carve valleys out of solid rock?",
    LONG,
    "Add 3 + 4",
    "今天天气怎么样我们去公园散步好吗",
    "วันนี้อากาศดีมากเราไปเดินเล่นกัน",
]


@pytest.fixture
def judge(sample: Make, tmp_path: Path) -> Judge:
    """Return the verdicts on samples with these inputs or replies, for held-out texts q0, q1, …"""

    def judged(
        *inputs: str, replies: list[str] | None = None, held_out: list[str] = HELD_OUT
    ) -> list[Verdict | None]:
        path = tmp_path / "eval.jsonl"
        path.write_text(
            "".join(
                json.dumps({"id": f"q{n}", "text": text, "target": "spam"}) + "\n"
                for n, text in enumerate(held_out)
            )
        )
        samples = [sample(seed=Seed(id="n", inputs={"text": text})) for text in inputs]
        samples += [sample(text=text, rationale=None, answer=None) for text in replies or []]
        column = contamination.measure(Source(path=str(path)))(Batch(samples, TopKFolder(Path())))
        verdicts = contamination.contaminated(
            np.arange(len(samples)), json.loads(json.dumps(column)), 0.62
        )
        return [verdicts.get(row) for row in range(len(samples))]

    return judged


def reasons(verdicts: list[Verdict | None]) -> list[str | None]:
    return [None if verdict is None else verdict.reason for verdict in verdicts]


def test_the_verdict_shows_item_and_span(judge: Judge) -> None:
    """Without them nobody can check the filter; a long excerpt must not flood the report."""
    short, long = judge("So: Shall I come,\nto get pickle?!", f"Now tell me: {LONG}")
    assert short == Verdict("holds_held_out", "eval q1: 'Shall I come, to get pickle?!'")
    assert long is not None
    assert str(long.value).startswith("eval q4: 'Which wealthy collector")
    assert len(str(long.value)) == 80


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("What is gold?", "holds_held_out"),
        ("WHAT IS “GOLD”", "holds_held_out"),
        ("Read this. What is gold? Answer briefly.", "holds_held_out"),
        ("What is gold used for?", None),
        ("What is gold's atomic number?", None),
        ("spam", "holds_held_out"),
        ("Is this message spam? Win a prize now, reply today", None),
        ("we wondered shall i come to get pickle or bread", "holds_held_out"),
        ("Shall i come to get bread", None),
    ],
)
def test_short_items(judge: Judge, text: str, reason: str | None) -> None:
    """A matcher of 13 words finds no short item; one of few words finds them everywhere."""
    assert reasons(judge(text)) == [reason]


def test_a_label_in_a_reply_is_not_a_copy(judge: Judge) -> None:
    """Every reply of a label task holds some held-out target."""
    assert judge(replies=["spam", "It offers a prize, so it is spam. What is gold? A metal."]) == [
        None,
        None,
    ]
    assert reasons(judge(replies=["He asks: shall I come to get pickle? So it is normal."])) == [
        "holds_held_out"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "how do GLACIERS carve valleys -- out of solid ROCK",
        "\uff28\uff4f\uff57 do gla\u00adciers\u200b carve valleys\u3000out of “solid” rock\uff1f",
        "How do huge glaciers carve valleys out of rock?",
        "How do glaciers carve out valleys of solid stone?",
        f"It is cold. How do glaciers cut valleys out of solid rock? {LONG[:30]}",
    ],
)
def test_changed_copies_are_found(judge: Judge, text: str) -> None:
    """Case, punctuation, invisible characters and a changed word make no new question."""
    assert reasons(judge(text))[0] in ("holds_held_out", "near_held_out")


def test_a_long_run_of_a_longer_item_is_found(judge: Judge) -> None:
    """Half of a question reveals it; other questions share only a few words with it."""
    part = " ".join(LONG.split()[2:17])
    assert reasons(judge(f"Once more about a {part} or so")) == ["holds_held_out"]
    assert judge("Which wealthy collector of old coins sold his whole house to the museum?") == [
        None
    ]


@pytest.mark.parametrize("script", [6, 7])
def test_scripts_without_spaces(judge: Judge, script: int) -> None:
    """A split at spaces makes one word of a whole Chinese or Thai sentence."""
    text = HELD_OUT[script]
    changed = text[:4] + "真" + text[5:]
    assert reasons(judge(f"{text}。", f"你说。{text}。好的")) == ["holds_held_out"] * 2
    assert reasons(judge(changed))[0] in ("holds_held_out", "near_held_out")
    assert judge(text[:5]) == [None]


def test_arithmetic_signs_make_a_difference(judge: Judge) -> None:
    """3 * 4 is no copy of 3 + 4, although words and numbers are the same."""
    assert reasons(judge("Add 3+4.", "Add 3 * 4", "Add 4 + 3")) == ["holds_held_out", None, None]


@pytest.mark.parametrize("before", ["1" + " " * 20_000, "1 \n" * 9, ", " * 50_000])
def test_long_gaps_beside_a_hit(judge: Judge, before: str) -> None:
    """The search for a list around a hit once took cubic time in the length of a gap."""
    item = "I have 3 dogs and a large garden"
    assert reasons(
        judge(f"{before} {item}", f"{item} {before} x", f"1 cat,  \n {item}", held_out=[item])
    ) == ["holds_held_out", "holds_held_out", None]


def test_a_sentence_behind_a_long_gap() -> None:
    """The search for the ends of a sentence must not take that long either."""
    text = "x" + " " * 200_000 + "y. What is it? x" + " " * 200_000
    assert is_sentence(text, text.index("What"), text.index("?"))
    assert not is_sentence(text, text.index("What") + 5, text.index("?"))


TEMPLATE = "How many legs are there in total if you have {}?"
KINDS = ["ants", "dogs", "birds", "crabs", "cats", "flatworms", "hens", "bees"]


def test_other_numbers_or_slots_are_another_item(judge: Judge) -> None:
    """Items of one template share most words; training on their siblings is the purpose."""
    held_out = [
        TEMPLATE.format(f"{n % 7 + 2} {kind}, {n % 5 + 2} {KINDS[(n + 3) % 8]}")
        for n, kind in enumerate(KINDS * 4)
    ]
    siblings = [
        TEMPLATE.format(kinds)
        for kinds in (
            "3 dogs, 9 cats",
            "2 ants, 2 bees",
            "2 ants, 2 crabs, 5 hens",
            "2 crabs, 2 ants",
        )
    ]
    assert judge(*siblings, held_out=held_out) == [None] * 4
    copies = [
        held_out[0].upper(),
        held_out[0].replace("in total", "altogether"),
        f"Solve this. {held_out[0]} Think.",
    ]
    assert all(judge(*copies, held_out=held_out))
    assert judge(
        LONG.replace("museum", "50 rooms"), held_out=[LONG.replace("museum", "40 rooms")]
    ) == [None]


def test_long_targets_and_fields_are_looked_for(sample: Make, tmp_path: Path) -> None:
    """A reply may leak a held-out answer; a field that many rows share is an instruction."""
    rule = "Rewrite the message below so that it is polite and clear."
    targets = {0: LONG, 1: "Please be so kind and send me eight words"}
    rows = [
        {"id": n, "rule": rule, "text": f"say {n}", "target": targets.get(n, "No.")}
        for n in range(8)
    ]
    (tmp_path / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    samples = [
        sample(text=f"Gladly. {LONG}"),
        sample(seed=Seed(id="n", inputs={"rule": rule, "text": "hurry up with that"})),
        sample(rationale="Please be so kind and send me eight words", answer=None),
    ]
    measure = contamination.measure(Source(path=str(tmp_path / "eval.jsonl")))
    column = contamination.overlaps(Batch(samples, TopKFolder(Path())), **measure.settings)
    assert [finding and finding[1] for finding in column] == ["eval 0", None, "eval 1"]


def test_other_files_and_changes_to_them(sample: Make, tmp_path: Path) -> None:
    """A cached column of other held-out texts must not be used, nor one of half of them."""
    (tmp_path / "eval.jsonl").write_text('{"id": "a", "text": "of no concern"}\n')
    plain = tmp_path / "bench.txt"
    plain.write_text(f"nothing here\n{LONG}\n")
    sources = Source(path=str(tmp_path / "eval.jsonl")), [Source(path=str(plain))]
    first = contamination.measure(*sources)
    batch = Batch([sample(text=LONG)], TopKFolder(Path()))
    assert first(batch) == [(1.0, "bench:2", LONG)]
    plain.write_text(f"nothing there\n{LONG}\n")
    assert contamination.measure(*sources).name != first.name
    contamination._index.cache_clear()
    with pytest.raises(PipelineError, match="changed while the filter ran"):
        first(batch)
    with pytest.raises(PipelineError, match="cannot be read"):
        contamination.measure(sources[0], [Source(path=str(tmp_path / "none.txt"))])


def test_the_threshold_applies_to_stored_scores(sample: Make) -> None:
    """Rejected rows are not judged again; a near copy below the threshold is kept."""
    column = [(1.0, "eval a", "x"), None, (0.7, "eval b", "y"), (0.7, "eval b", "y")]
    assert contamination.contaminated(np.array([1, 2]), column, 0.62) == {
        2: Verdict("near_held_out", "eval b: 'y'")
    }
    assert list(contamination.contaminated(np.arange(4), column, 0.8)) == [0]


@pytest.mark.parametrize(
    "text",
    [
        "Don\u2019t pay £2.50—call 0870-1234!",
        "3 \u2212 4 and 5*6",
        "黄金 is gold",
        "naïve cafe\u0301",
        "きょうか\u3099っこうに行く",
        "\u1025\u102e\u1000\u102e",
        " \u200b ",
    ],
)
def test_words_and_their_places_agree(text: str) -> None:
    """The excerpt is located by counting words a second time."""
    assert [word for word, _, _ in words_with_spans(text)] == words(text)
    assert all(0 <= first < last <= len(text) for _, first, last in words_with_spans(text))


def test_length_in_words() -> None:
    """A Chinese character counts for half a word."""
    assert length_in_words(words("黄金 is gold")) == 3


INSTRUCTION = (
    "You read text messages and say what they are. Decide for the message below whether it is "
    "unwanted advertising."
)
OPTIONS = (
    "billing and payments",
    "account access",
    "shipping and delivery",
    "product question",
    "complaint about the service",
    "other request",
)
SPAM = Path(__file__).parents[3] / "data" / "sms_spam"


def _texts(name: str, count: int) -> list[str]:
    lines = (SPAM / name).read_text().splitlines()[:count]
    return [json.loads(line)["text"] for line in lines]


def _share(
    folder: Path, held: list[dict[str, Any]], texts: list[str], training: list[str] | None = None
) -> float:
    """Return the share of texts that hold one of the held-out rows."""
    path = folder / "held.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in held))
    shared = [] if training is None else common_words([set(words(text)) for text in training])
    items = contamination.held_out("eval", Source(path=str(path)), shared)
    hits = Index(items, shared).find([Text(text, inputs=True) for text in texts])
    return sum(hit is not None and hit.score >= 0.62 for hit in hits) / len(texts)


@pytest.mark.parametrize("kind", ["constant", "shuffled"])
@pytest.mark.parametrize("count", [1, 3, 100])
def test_what_all_rows_share_is_no_contamination(tmp_path: Path, kind: str, count: int) -> None:
    """A constant instruction or a list of options made clean rows hold a held-out text."""
    draws = random.Random(0)

    def beside() -> str:
        options = draws.sample(OPTIONS, len(OPTIONS)) if kind == "shuffled" else OPTIONS
        return "\n".join(options) if kind == "shuffled" else INSTRUCTION

    held = [{"input": text, "other": beside()} for text in _texts("eval.jsonl", count)]
    clean = [f"{text}\n{beside()}" for text in _texts("seeds.jsonl", 200)]
    copies = [f"{row['input']}\n{row['other']}" for row in held]
    assert _share(tmp_path, held, clean, clean) < 0.02
    assert _share(tmp_path, held, copies, clean) >= 0.99


@pytest.mark.parametrize("form", ["json", "keys", "sentence"])
@pytest.mark.parametrize("count", [3, 30, 300])
def test_closed_answers_are_no_contamination(tmp_path: Path, form: str, count: int) -> None:
    """Right answers out of a closed set equal those of held-out rows, and were rejected."""
    draws = random.Random(1)

    def answer() -> str:
        record: dict[str, Any] = {
            "team": draws.choice(["billing", "access", "shipping", "other"]),
            "severity": draws.choice(["low", "medium", "high"]),
            "needs_human": draws.choice([True, False]),
            "language": draws.choice(["en", "de", "fr"]),
            "sentiment": draws.choice(["negative", "neutral", "positive"]),
        }
        if form == "json":
            return json.dumps(record)
        if form == "keys":
            return "\n".join(f"{key}: {value}" for key, value in record.items())
        return "It is for {team}, of {severity} severity, and the tone is {sentiment}.".format(
            **record
        )

    if form == "sentence":
        count = max(count, 30)  # three sentences do not show that the answers are closed
    held = [{"text": text, "target": answer()} for text in _texts("eval.jsonl", count)]
    assert _share(tmp_path, held, [answer() for _ in range(300)]) < 0.02


def test_an_open_value_of_a_record_is_found(tmp_path: Path) -> None:
    """Only keys and short values are shared; a summary in a record is the row's own."""
    summary = "the parcel was left at the wrong door of a neighbour in Leeds"
    held = [{"text": "Where is it?", "target": json.dumps({"team": "x", "summary": summary})}]
    assert _share(tmp_path, held, [f"It says that {summary}."]) == 1
