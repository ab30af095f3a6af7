"""Data that a program writes or collects: orders, routing, summaries."""

import json
from pathlib import Path

import pytest

from data.orders import make as orders
from data.routing import make as routing
from data.summaries import make as summaries
from pipeline.config import load
from pipeline.data import prompts
from pipeline.data.replies import read
from pipeline.models.base import Completion
from pipeline.records import Seed, Usage
from tests.support.task import ROOT


def test_no_order_is_in_two_files_whatever_the_sizes() -> None:
    """A student is scored on an order that its teacher was trained on, in other words."""
    targets = {name: [row["target"] for row in orders.part(name, 60)] for name in orders.SIZES}
    flat = [target for part in targets.values() for target in part]
    assert len(set(flat)) == len(flat) == 240
    assert [row["target"] for row in orders.part("eval", 30)] == targets["eval"][:30]


def test_held_out_orders_have_layouts_of_their_own() -> None:
    """Held-out messages that are training messages with another name measure copying."""
    for kind in ("layouts", "distractors", "closings", "greetings"):
        training, held_out = (set(orders.TEXTS[name][kind]) for name in ("training", "held_out"))
        assert training & held_out <= {""}


def test_an_order_holds_all_that_its_message_says() -> None:
    """A target that cannot be read from the message is noise, and caps every score."""
    for row in orders.part("seeds", 50):
        order = json.loads(row["target"])
        assert order["name"] in row["text"]
        assert all(item in row["text"] for item in order["items"])


def test_the_prompt_reads_the_target_of_an_order() -> None:
    """The first brace or line of the JSON cut off by the answer's markers."""
    prompt = prompts.load(ROOT / "prompts/orders.md")
    target = orders.part("seeds", 1)[0]["target"]
    text = prompt.front.target_reply(Seed(id="a", inputs={"text": "x"}, target=target))
    usage = Usage(prompt_tokens=1, completion_tokens=1)
    assert read(prompt, Completion("a", text, None, "stop", usage), None).answer == target


def test_routing_labels_are_the_desks() -> None:
    """A desk that the config does not name can never be right."""
    for name in ("routing", "routing_teacher"):
        assert load(ROOT / f"configs/{name}.yaml").task.labels == routing.DESKS
    shared = [desks for part in routing.TEXTS["ambiguous"].values() for desks in part.values()]
    assert {desk for desks in shared for desk in desks} <= set(routing.DESKS)


def test_routing_phrasings_are_held_out() -> None:
    """Held-out messages must be new wordings; slots and typos alone would not make them so."""
    for desk, parts in routing.TEXTS["phrasings"].items():
        assert set(parts["training"]).isdisjoint(parts["held_out"]), desk
    seen: set[str] = set()
    rows = [row for name in routing.SIZES for row in routing.messages(name, 60, seen)]
    assert len({row["text"] for row in rows}) == 240


DOCSTRINGS = '''
def fill():
    """Wrap a text into lines of a width.

    The lines are joined by line breaks and have no more characters than the
    width allows. Long words are cut.

    A third paragraph is left out.
    """

def short():
    """Do nothing at all in here."""
'''


def test_a_docstring_is_split_into_text_and_reference(tmp_path: Path) -> None:
    """The summary line inside the text would make a summary a copy."""
    (tmp_path / "module.py").write_text(DOCSTRINGS)
    (tmp_path / "broken.py").write_text("def (")
    assert list(summaries.read(tmp_path / "broken.py")) == []
    (row,) = summaries.read(tmp_path / "module.py")
    assert row["target"] == "Wrap a text into lines of a width."
    assert row["text"].startswith("The lines are joined")
    assert row["text"].endswith("are cut.")


def test_a_long_paragraph_ends_with_a_whole_sentence() -> None:
    """A text cut in the middle of a word."""
    text = "A first sentence. " + "x" * 400 + ". The end."
    assert summaries.first_sentences(text) == "A first sentence."


def test_parts_of_the_summaries_share_no_module() -> None:
    """Neighbouring docstrings repeat one another's sentences."""
    modules = {f"{name}.py": [{"text": f"{name}{n}"} for n in range(3)] for name in "abc"}
    parts = summaries.split(modules, {"eval": 2, "seeds": 4})
    assert {row["text"][0] for row in parts["eval"]} == {"a"}
    assert {row["text"][0] for row in parts["seeds"]} == {"b", "c"}
    with pytest.raises(SystemExit, match="wanted"):
        summaries.split(modules, {"eval": 10})
