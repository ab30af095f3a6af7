"""The samples of a report: which are there, and what is told of them. How they are looked through is in test_report_browser.py."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import Config, load
from pipeline.execution import runner
from pipeline.inspection.tokens import load_teacher_tokenizer, token_probabilities
from pipeline.models.tokenizer import BROKEN
from pipeline.records import Rejected
from pipeline.report import sample_browser
from pipeline.report.token_probabilities import PARTS, pack, to_json
from pipeline.stages import filter as filter_stage
from pipeline.stages import generate
from pipeline.storage.samples import Samples
from pipeline.storage.shards import read_lines, read_records
from pipeline.storage.topk import TopKFolder

REPLIES = json.dumps([" yes, it is even\n", " no, it is odd ☃\n"])


@pytest.fixture
def config(workshop: Path) -> Config:
    found = load(workshop / "config.yaml", [f"teacher.replies={REPLIES}"])
    runner.execute(generate, found)
    return found


def data(folder: Path, name: str) -> Any:
    """What a script hands to the page."""
    text = (folder / "samples" / f"{name}.js").read_text()
    head = f'browse.take("{name}",'
    assert text.startswith(head)
    return json.loads(text.removeprefix(head).removesuffix(")\n"))


def told(index: Any, key: str) -> list[str]:
    """One value for each row."""
    facet = next(facet for facet in index["facets"] if facet["key"] == key)
    return [facet["values"][code] for code in facet["codes"]]


def test_every_sample_has_its_verdict(config: Config, tmp_path: Path) -> None:
    """One off in the rows, and kept samples would bear the reasons of others."""
    runner.execute(filter_stage, config)
    run_dir = Path(config.run_dir)
    assert sample_browser.write(run_dir, tmp_path, 1000) is not None
    index = data(tmp_path, "generated/index")
    reasons = {
        one.id: f"{one.filter}.{one.reason}"
        for one in read_records(run_dir / "filter" / "rejected", Rejected)
    }
    samples = list(Samples(run_dir / "generate"))
    assert index["ids"] == [sample.id for sample in samples]
    assert told(index, "reason") == [reasons.get(sample.id, "") for sample in samples]
    assert told(index, "verdict") == [
        "rejected" if sample.id in reasons else "kept" for sample in samples
    ]
    assert told(index, "truth") == [
        "right" if sample.answer == sample.seed.target else "wrong" for sample in samples
    ]


def test_an_unfinished_run_shows_what_is_there(config: Config, tmp_path: Path) -> None:
    """Before filter nothing is judged; before anything is generated there is no section; without a manifest, finished shards count."""
    run_dir = Path(config.run_dir)
    (run_dir / "generate" / "manifest.json").unlink()
    gone = run_dir / "generate" / "00001.jsonl.gz"
    left = 60 - len(list(read_lines(gone)))
    gone.unlink()
    assert f"{left} samples" in str(sample_browser.write(run_dir, tmp_path, 1000))
    assert set(told(data(tmp_path, "generated/index"), "verdict")) == {"not judged yet"}
    for path in (run_dir / "generate").glob("*.jsonl.gz"):
        path.unlink()
    assert sample_browser.write(run_dir, tmp_path, 1000) is None
    assert list(tmp_path.glob("samples*")) == []


@pytest.mark.parametrize("most", [4, 50])
def test_of_too_many_the_rejected_come_first(config: Config, tmp_path: Path, most: int) -> None:
    """What was thrown away is what one wants to look at; the page says that it is not all."""
    runner.execute(filter_stage, config)
    run_dir = Path(config.run_dir)
    rejected = [one.id for one in read_records(run_dir / "filter" / "rejected", Rejected)]
    sample_browser.write(run_dir, tmp_path, most)
    index = data(tmp_path, "generated/index")
    assert len(index["ids"]) == most
    assert len(set(index["ids"]) & set(rejected)) == min(most, len(rejected))
    assert f"{most} of 60 samples" in index["note"]


def test_probabilities_are_those_of_the_frames(config: Config) -> None:
    """Thousandths, the likeliest others first, by a table of pieces that is the page's own."""
    folder = Path(config.run_dir) / "generate"
    samples = list(Samples(folder))[:5]
    found = [TopKFolder(folder).topk_of(sample) for sample in samples]
    tokenizer = load_teacher_tokenizer(Path(config.run_dir))
    page = to_json(
        [pack(sample.token_ids or [], topk) for sample, topk in zip(samples, found, strict=True)],
        tokenizer,
    )
    for sample, topk, (ids, parts, counts, others, others_parts, mended) in zip(
        samples, found, page["rows"], strict=True
    ):
        assert (
            parts == np.rint(np.exp(topk.logprobs[:, 0].astype(float)) * PARTS).astype(int).tolist()
        )
        pieces = [page["pieces"][number] for number in ids]
        for place, text in mended:
            pieces[place] = text
        assert "".join(pieces) == sample.text + "<|end|>"
        best = token_probabilities(topk, 1)
        place = int(np.argmax(best.others[:, 0]))
        at = sum(counts[:place])
        assert page["pieces"][others[at]] == tokenizer.piece(int(best.ids[place, 0]))
        assert others_parts[at] == round(float(best.others[place, 0]) * PARTS)


def test_pieces_of_a_character(config: Config) -> None:
    """A snowman is three bytes, each a token of its own: it stands at the last, and half of one is not made up."""
    tokenizer = load_teacher_tokenizer(Path(config.run_dir))
    ids = tokenizer.encode_reply("a☃b")
    whole = tokenizer.pieces(ids)
    assert "".join(whole) == "a☃b<|end|>"
    assert whole.count("☃") == 1
    cut = tokenizer.pieces(ids[: whole.index("☃")])
    assert BROKEN in "".join(cut)
