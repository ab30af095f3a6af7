"""Language, repetition, stock phrases and early answers: what each must find, and must not."""

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline.errors import PipelineError
from pipeline.filters.heuristics import answer_leak, language, phrases, repetition
from pipeline.records import Sample, Seed
from tests.support.filters import batch, reasons

Make = Callable[..., Sample]

GERMAN = "Die Nachricht verspricht einen Gewinn und bittet um einen Anruf."
ENGLISH = "The message promises a prize and asks the reader to call."
SENTENCE = (
    "The shop sold {} red apples on Monday and {} green ones on Tuesday, which makes {} in all, "
    "a good week for it. "
)


def first_phrases(sample: Sample) -> dict[str, str]:
    (by_reason,) = phrases.first_phrases(batch(sample))
    return by_reason or {}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (ENGLISH, None),
        (GERMAN, "other_language"),
        ("这条短信承诺有奖品并要求读者拨打一个号码。", "other_language"),
        ("2 + 2 = 4, so x = 4", None),
        ("", None),
    ],
)
def test_language(sample: Make, text: str, reason: str | None) -> None:
    """A teacher that drifts into another language takes its student along; formulas have none."""
    column = language.likelihood(batch(sample(rationale=text)), ["en"], ["rationale"], 20)
    verdicts = language.other(np.arange(1), column, ["rationale"], 0.02)
    assert [verdict.reason for verdict in verdicts.values()] == ([reason] if reason else [])


def test_language_of_each_part(sample: Make) -> None:
    """The value names the part and its language; rejected rows are not judged again."""
    samples = [
        sample(rationale=ENGLISH, answer=GERMAN),
        sample(rationale=GERMAN, answer="ja"),
        sample(rationale=None, answer=None),
    ]
    column = language.likelihood(batch(*samples), ["en"], ["rationale", "answer"], 20)
    verdicts = language.other(np.arange(3), column, ["rationale", "answer"], 0.02)
    assert {row: str(verdict.value)[:13] for row, verdict in verdicts.items()} == {
        0: "answer: de (a",
        1: "rationale: de",
    }
    assert list(language.other(np.array([1, 2]), column, ["rationale", "answer"], 0.02)) == [1]
    assert language.likelihood(batch(), ["en"], ["answer"], 20).shape == (0, 1)


def test_related_languages_stay_apart_from_others(sample: Make) -> None:
    """Spanish shares its likelihood with similar languages.

    A threshold on the most likely language alone would let it pass as English.
    """
    text = "Primero sumamos los dos números y luego dividimos."
    shares = [
        language.likelihood(batch(sample(answer=text)), [code], ["answer"], 20)["share"][0, 0]
        for code in ("en", "es")
    ]
    assert shares[0] < 0.02 < shares[1]


def test_unknown_language() -> None:
    """'english' would match nothing, so the filter would reject every sample."""
    with pytest.raises(PipelineError, match=r"filter\.language: no language 'english'.* en,"):
        language.check(["de", "english"])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("".join(SENTENCE.format(n, n + 1, 2 * n + 1) for n in range(3)), None),
        ("a story about a story about a story about a story about a story about", "loop"),
        ("愛愛愛愛愛愛愛愛愛愛愛愛愛愛", "loop"),
        ("spam" + "!" * 40, "character_run"),
        ("Ha ha ha, that is 1000000000000000000000000000000.", None),
        ("| a | b |\n|---------------------------------|---|\n| 1 | 2 |", None),
        ("[[0, 0, 0], [0, 0, 0]]", None),
        ("dp = [0, 0, 0, 0, 0, 0, 0, 0]", None),
        ("2 * 2 * 2 * 2 * 2 * 2 * 2 * 2 = 256", None),
        ("| --- | --- | --- | --- | --- | --- | --- |", None),
        ("-> = " * 120, "loop"),
        ("0, " * 8 + "and so on " * 5, "loop"),
        ("\n".join(["it is spam", "it sells a thing"] * 5), "repeated_lines"),
        (SENTENCE.format(1, 2, 3) * 3, "repeated_words"),
        ("", None),
    ],
)
def test_repetition(sample: Make, text: str, reason: str | None) -> None:
    """A student imitates loops; tables, zeros and similar sentences are no loops."""
    column = repetition.measure(batch(sample(text=text)))
    verdicts = repetition.repeated(np.arange(1), column, (0.3, 0.3, 12, 24))
    assert [verdict.reason for verdict in verdicts.values()] == ([reason] if reason else [])


NAMES = ("Ana", "Bo", "Cy", "Di", "Ed", "Flo")
RECORDS = [{"name": name, "type": "PERSON", "confidence": "high"} for name in NAMES]
MARKUP = "<entity>\n  <name>{}</name>\n  <type>PERSON</type>\n  <sure>high</sure>\n</entity>"
CODE = "if {0} in seen:\n    return None\nseen.add({0})\nif not seen:\n    return None"
VERSE = "{}\nRow, row, row your boat\ngently down the stream\n"


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"people": RECORDS}, indent=2),
        f"They are these:\n```json\n{json.dumps(RECORDS, indent=4)}\n```",
        " ".join(["O"] * 14 + ["B-PER", "I-PER"]),
        json.dumps({"tags": ["O"] * 14 + ["B-PER", "I-PER"]}),
        json.dumps([["noun", "verb"]] * 9),
        "\n".join(map(MARKUP.format, NAMES * 2)),
        "\n".join(f"- name: {name}\n  type: PERSON\n  confidence: high" for name in NAMES * 3),
        "| a | b |\n|---|---|\n" + "| not known | none of these at all |\n" * 3 + "| 1 | 2 |",
        "<tr>" + "<td>none</td>" * 6 + "</tr>",
        "\n".join(map(CODE.format, "abcdef")),
        "\n".join(VERSE.format(f"{name} is in the boat today") for name in NAMES[:3]),
    ],
)
def test_a_format_may_repeat(sample: Make, text: str) -> None:
    """Right records, tags, tables, code and verse were rejected as repeated lines or loops."""
    column = repetition.measure(batch(sample(text=text)))
    assert repetition.repeated(np.arange(1), column, (0.3, 0.3, 12, 24)) == {}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"why": "a story about " * 12}),
        '{"tags": ["spam", ' + '"spam", ' * 200,
        "\n".join(["it is spam", "it sells a thing"] * 9),
        "\n".join(f"{n}. {SENTENCE.format(1, 2, 3)}" for n in range(5)),
        "<p>" + "and so on " * 12 + "</p>",
    ],
)
def test_a_loop_in_a_format_is_found(sample: Make, text: str) -> None:
    """What a format excuses must not hide a model that says the same without end."""
    column = repetition.measure(batch(sample(text=text)))
    assert repetition.repeated(np.arange(1), column, (0.3, 0.3, 12, 24))


def test_repetition_is_measured(sample: Make) -> None:
    """Shares count what repeats, not its first occurrence; the unit of a loop is a word."""
    words = [f"w{n}" for n in range(45)]
    texts = ["a\na\nb\nb", " ".join([*words, *words[:15]]), "x y x y x y x y"]
    column = repetition.measure(batch(*(sample(text=text) for text in texts)))
    assert column[:, :3].tolist() == [[0.5, 0.0, 0.0], [0.0, 0.25, 0.0], [0.0, 0.0, 8.0]]


@pytest.mark.parametrize(
    ("key", "expression", "example"),
    [(key, *row) for key, rows in phrases.PHRASES.items() for row in rows.items()],
)
def test_every_phrase_finds_its_example(
    sample: Make, key: tuple[Any, Any], expression: str, example: str
) -> None:
    """An expression that matches nothing would stay in the table unnoticed."""
    assert re.search(
        phrases.PLACES[key[1]].format(expression), example, re.IGNORECASE | re.MULTILINE
    )
    assert key[0] in first_phrases(sample(text=example, rationale=None, answer=None))


@pytest.mark.parametrize(
    "text",
    [
        "I\u2019m sorry, but I can\u2019t help with that.",
        "**I cannot assist with this.**",
        "I'm unable to provide it.",
        "I\u2032m sorry, but I can\u2032t help with that.",
        "I`m sorry, but I can`t assist.",
        "**I'm sorry**, but I can't help with that.",
        "> _I'm sorry_, but I can't assist with that request.",
        "I'm afraid I can't do that.",
        "I don't have the ability to browse the internet.",
        "I don't have access to real-time information.",
        "I must decline this request.",
        "I can't provide instructions for making weapons.",
        "I cannot write malware.",
        "I'm sorry, but I can't help you make a convincing forged passport.",
        "I'm sorry, but I cannot determine the answer from the text.",
        "\u041a \u0441\u043e\u0436\u0430\u043b\u0435\u043d\u0438\u044e, \u044f "
        "\u043d\u0435 \u043c\u043e\u0433\u0443 \u043f\u043e\u043c\u043e\u0447\u044c.",
        "Leider kann ich diese Frage nicht beantworten.",
        "Helaas kan ik u niet helpen.",
    ],
)
def test_refusal(sample: Make, text: str) -> None:
    """Students learn refusals as answers, also with typographic apostrophes and asterisks."""
    assert "refused" in first_phrases(sample(text=text, answer=None))
    assert "refused" in first_phrases(sample(answer=text))


@pytest.mark.parametrize(
    "text",
    [
        "Sorry for the delay, the answer is 4.",
        "I am sorry, but I cannot come on Monday, as I have to work.",
        "I cannot recommend this restaurant highly enough.",
        "I can't help falling in love with you.",
        "Unfortunately, I cannot complete the payment, as my card was declined again.",
        "I apologize, but the order was delayed by the storm.",
        "I don't have access to my account since Monday.",
        "I can't answer the phone right now.",
        "I can't write you the weekly report.",
        "I cannot give a discount on a fake plant.",
        "Es tut mir leid, aber ich kann am Montag nicht kommen.",
        "Je suis désolé, mais je ne peux pas venir lundi.",
        "Lo siento, pero no puedo ir el lunes.",
        "Dear Ana,\n\nWe are open.\nPlease let me know if you have any questions.\n\nYours,\nTom",
        "The model said: I'm sorry, but I can't help with that.",
        "I can see three cats.",
        "I'm sorry for your loss.",
        "I am an AI researcher.",
        "The toy is sold as an AI assistant in the shops.",
        "Sure enough, the answer is 4.",
        "Certainly the answer is 4.",
        "Great questions were asked by all.",
        "Here is a man who runs.",
        "Here are the facts: he lied.",
        "Let me know if the train is late.",
        "It helps, I hope.",
        "She hoped this would help.",
        "Feel free, he said, and left.",
        "If x < 3 and y > |2| then it is <b>bold</b>.",
        "The list is [your, my, his].",
        "In CSS: a {{ color: red }}",
        "The user asked the assistant at the end of the day.",
        "Thank you for the music.",
        "The system is trained by Google engineers.",
        "Based on the number of legs, there are 4 cows.",
    ],
)
def test_plain_words_are_left_alone(sample: Make, text: str) -> None:
    """A filter that matches too much rejects good rows."""
    assert first_phrases(sample(text=text, rationale=None, answer=None)) == {}


def test_phrases_of_the_target_are_the_tasks_own(sample: Make) -> None:
    """A task whose good answers apologise or offer help lost all of them."""
    reply = "I'd be happy to help you. I hope this helps!"
    assert "boilerplate" in first_phrases(sample(text=reply, answer=None))
    target = "I would be glad to send one. Hope this helps."
    good = Seed(id="a", inputs={"text": "q"}, target=target)
    assert first_phrases(sample(text=reply, answer=None, seed=good)) == {}
    refusal = "I'm sorry, but I can't help with that."
    good = Seed(id="a", inputs={"text": "q"}, target="Sorry, but I cannot help with this request.")
    assert first_phrases(sample(text=refusal, answer=None, seed=good)) == {}


@pytest.mark.parametrize("text", ["Dear [Name],", "<|python_tag|>f()", "By [Date]: <|call|>"])
def test_placeholders_and_control_tokens(sample: Make, text: str) -> None:
    """Only the tokens and the placeholders of a list were found."""
    assert "boilerplate" in first_phrases(sample(text=text, answer=None))


def test_phrases_of_the_input_are_the_tasks_own(sample: Make) -> None:
    """A letter to be rewritten may close with "Let me know if you have any questions"."""
    letter = "We open at 9. Let me know if you have any questions."
    assert "boilerplate" in first_phrases(sample(text=letter))
    assert (
        first_phrases(
            sample(text=letter, seed=Seed(id="n", inputs={"mail": [{"body": letter.upper()}]}))
        )
        == {}
    )


def test_a_phrase_of_the_input_hides_no_other(sample: Make) -> None:
    """Only the first phrase was compared with the input, so a chat token after it passed."""
    mail = Seed(id="n", inputs={"mail": "Dear [Your Name], the {{ mail }} of {{ other }}"})
    assert first_phrases(sample(text="Dear [Your Name], we open at 9.<|im_end|>", seed=mail)) == {
        "boilerplate": "<|im_end|>"
    }
    assert first_phrases(
        sample(text="Dear [Your Name], {{ mail }} {{ mail | upper }}", seed=mail)
    ) == {"boilerplate": "{{ mail | upper }}"}


def test_placeholders_of_the_prompt(sample: Make) -> None:
    """A teacher that repeats its template has not seen the input; other braces may be code."""
    assert first_phrases(sample(text="Is {{ number }} even?")) == {"boilerplate": "{{ number }}"}
    assert first_phrases(sample(text="Is {{ other }} even?")) == {}


def test_refused_and_boilerplate_are_told_apart(sample: Make) -> None:
    """Turning one of the two filters off must not hide the other; rejected rows are skipped."""
    column = phrases.first_phrases(
        batch(
            sample(),
            sample(text="I cannot assist with this. Let me know if you need anything else."),
        )
    )
    assert column[0] is None
    assert [
        verdict.reason for verdict in phrases.contains(np.arange(2), column, "refused").values()
    ] == ["refused"]
    assert [
        verdict.reason for verdict in phrases.contains(np.arange(2), column, "boilerplate").values()
    ] == ["boilerplate"]
    assert phrases.contains(np.array([0]), column, "refused") == {}


@pytest.mark.parametrize(
    ("rationale", "answer", "rejected"),
    [
        ("The answer is 36 because 72 / 2 is.", "36", True),
        ("Answer: 36. We halve 72.", "36", True),
        ("This is spam because it sells.", "spam", True),
        ("The message is clearly spam, since it sells.", "spam", True),
        ("**Spam**: it sells.", "spam", True),
        ("36 because 72 / 2 is.", "36", True),
        ("36\nHalf of 72.", "36", True),
        ("36 apples were sold and none came back.", "36", False),
        ("The answer is 3.6 times 10.", "3", False),
        ("The answer is 360 / 10.", "36", False),
        ("Spam messages often promise prizes, and this one does.", "spam", False),
        ("We halve 72, so the answer is 36 because 36 + 36 is 72.", "36", False),
        ("The answer is the half of 72, so it is 36.", "36", False),
        ("", "36", False),
    ],
)
def test_answer_before_rationale(sample: Make, rationale: str, answer: str, rejected: bool) -> None:
    """Reasons after an answer do not lead to it, and a student learns to guess first."""
    made = sample(
        text=f"{rationale} <answer>{answer}</answer>", rationale=rationale or None, answer=answer
    )
    assert reasons(answer_leak.answered_first(batch(made))) == [
        "answer_before_rationale" if rejected else None
    ]


def test_answer_first_prompts_are_meant_so(sample: Make) -> None:
    """If the prompt asks for the label first, the filter would reject every sample."""
    reply = {
        "text": "spam. Spam because it sells",
        "rationale": "Spam because it sells",
        "answer": "spam",
    }
    assert answer_leak.answered_first(
        batch(sample(**reply, rationale_tokens=(2, 6), answer_tokens=(0, 1)))
    ) == [None]
    assert reasons(
        answer_leak.answered_first(
            batch(sample(**reply, rationale_tokens=(0, 4), answer_tokens=(5, 6)))
        )
    ) != [None]


@pytest.mark.parametrize(
    ("inputs", "fields", "reason"),
    [
        ({"q": "What is 6 * 6?", "note": "It is 36, of course."}, None, "answer_in_input"),
        ({"q": "What is 6 * 6?", "note": "It is 36, of course."}, ["q"], None),
        ({"q": "What is 360 / 10?"}, None, None),
        ({"q": "Is 36.5 more?"}, None, None),
        ({"rows": [{"a": 36}]}, None, "answer_in_input"),
    ],
)
def test_answer_in_input(
    sample: Make, inputs: dict[str, Any], fields: list[str] | None, reason: str | None
) -> None:
    """A student copies a solution that was left in a column; 36 is not in 360."""
    made = sample(seed=Seed(id="n", inputs=inputs, target="36"))
    assert reasons(answer_leak.leaked(batch(made), fields)) == [reason]


def test_leak_without_ground_truth(sample: Make) -> None:
    """The teacher's answer is used instead; without it, nothing can leak."""
    seed = Seed(id="n", inputs={"q": "yes or no?"})
    assert reasons(
        answer_leak.leaked(batch(sample(seed=seed), sample(seed=seed, answer=None)), None)
    ) == ["answer_in_input", None]
