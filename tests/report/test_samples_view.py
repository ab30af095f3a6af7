"""The samples of a report: which are there, with which verdict, score and probabilities.

How they are browsed is tested in test_in_chromium.py.
"""

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
    config = load(workshop / "config.yaml", [f"teacher.replies={REPLIES}"])
    runner.execute(generate, config)
    return config


def read_data(folder: Path, name: str) -> Any:
    """Return what a script hands to the page."""
    text = (folder / "samples" / f"{name}.js").read_text()
    head = f'browse.take("{name}",'
    assert text.startswith(head)
    return json.loads(text.removeprefix(head).removesuffix(")\n"))


def values(index: Any, key: str) -> list[str]:
    """Return the value of each row."""
    facet = next(facet for facet in index["facets"] if facet["key"] == key)
    return [facet["values"][code] for code in facet["codes"]]


def test_every_sample_has_its_verdict(config: Config, tmp_path: Path) -> None:
    """If rows are off by one, kept samples show the reasons of others."""
    runner.execute(filter_stage, config)
    run_dir = Path(config.run_dir)
    assert sample_browser.write(run_dir, tmp_path, 1000) is not None
    index = read_data(tmp_path, "generated/index")
    reasons = {
        rejection.id: f"{rejection.filter}.{rejection.reason}"
        for rejection in read_records(run_dir / "filter" / "rejected", Rejected)
    }
    samples = list(Samples(run_dir / "generate"))
    assert index["ids"] == [sample.id for sample in samples]
    assert values(index, "reason") == [reasons.get(sample.id, "") for sample in samples]
    assert values(index, "verdict") == [
        "rejected" if sample.id in reasons else "kept" for sample in samples
    ]
    assert values(index, "truth") == [
        "right" if sample.answer == sample.seed.target else "wrong" for sample in samples
    ]


def test_an_unfinished_run_shows_what_is_there(config: Config, tmp_path: Path) -> None:
    """Before filter no sample has a verdict, and without samples there is no section.

    Finished shards are shown before generate is finished.
    """
    run_dir = Path(config.run_dir)
    (run_dir / "generate" / "manifest.json").unlink()
    shard = run_dir / "generate" / "00001.jsonl.gz"
    remaining = 60 - len(list(read_lines(shard)))
    shard.unlink()
    assert f"{remaining} samples" in str(sample_browser.write(run_dir, tmp_path, 1000))
    assert set(values(read_data(tmp_path, "generated/index"), "verdict")) == {"not filtered yet"}
    for path in (run_dir / "generate").glob("*.jsonl.gz"):
        path.unlink()
    assert sample_browser.write(run_dir, tmp_path, 1000) is None
    assert list(tmp_path.glob("samples*")) == []


@pytest.mark.parametrize("most", [4, 50])
def test_of_too_many_the_rejected_come_first(config: Config, tmp_path: Path, most: int) -> None:
    """Users look at rejected samples first; the page says that some samples are left out."""
    runner.execute(filter_stage, config)
    run_dir = Path(config.run_dir)
    rejected = [r.id for r in read_records(run_dir / "filter" / "rejected", Rejected)]
    sample_browser.write(run_dir, tmp_path, most)
    index = read_data(tmp_path, "generated/index")
    assert len(index["ids"]) == most
    assert len(set(index["ids"]) & set(rejected)) == min(most, len(rejected))
    assert f"{most} of 60 samples" in index["note"]


def test_probabilities_are_those_of_the_frames(config: Config) -> None:
    """The page has thousandths, the most likely other tokens first, and its own table of texts."""
    folder = Path(config.run_dir) / "generate"
    samples = list(Samples(folder))[:5]
    frames = [TopKFolder(folder).topk_of(sample) for sample in samples]
    tokenizer = load_teacher_tokenizer(Path(config.run_dir))
    page = to_json(
        [pack(sample.token_ids or [], topk) for sample, topk in zip(samples, frames, strict=True)],
        tokenizer,
    )
    for sample, topk, (ids, parts, counts, others, others_parts, whole) in zip(
        samples, frames, page["rows"], strict=True
    ):
        assert (
            parts == np.rint(np.exp(topk.logprobs[:, 0].astype(float)) * PARTS).astype(int).tolist()
        )
        pieces = [page["pieces"][number] for number in ids]
        for place, text in whole:
            pieces[place] = text
        assert "".join(pieces) == sample.text + "<|end|>"
        best = token_probabilities(topk, 1)
        place = int(np.argmax(best.others[:, 0]))
        at = sum(counts[:place])
        assert page["pieces"][others[at]] == tokenizer.piece(int(best.ids[place, 0]))
        assert others_parts[at] == round(float(best.others[place, 0]) * PARTS)


def test_pieces_of_a_character(config: Config) -> None:
    """A snowman of three one-byte tokens is shown at the last; an incomplete one stays broken."""
    tokenizer = load_teacher_tokenizer(Path(config.run_dir))
    ids = tokenizer.encode_reply("a☃b")
    whole = tokenizer.pieces(ids)
    assert "".join(whole) == "a☃b<|end|>"
    assert whole.count("☃") == 1
    cut = tokenizer.pieces(ids[: whole.index("☃")])
    assert BROKEN in "".join(cut)
