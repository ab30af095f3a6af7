"""A run as a dataset, for torch, datasets and worker processes; seeds by their number."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

from pipeline.config import Source, load
from pipeline.data import seeds
from pipeline.errors import PipelineError
from pipeline.execution import runner
from pipeline.records import Sample
from pipeline.stages import filter as filter_stage
from pipeline.stages import generate
from pipeline.storage.samples import Captured, Samples
from pipeline.storage.shards import read_records


@pytest.fixture
def folder(workshop: Path) -> Path:
    config = load(workshop / "config.yaml")
    runner.execute(generate, config)
    runner.execute(filter_stage, config)
    return workshop / "run"


def test_any_sample_by_its_number(folder: Path) -> None:
    """Samples are in input order, across shards and at both ends."""
    samples = Samples(folder / "generate")
    assert [samples[number] for number in range(len(samples))] == list(
        read_records(folder / "generate", Sample)
    )
    assert samples.take(58, 99) == [samples[58], samples[59]]
    for number in (-1, 60):
        with pytest.raises(IndexError, match="of 60"):
            samples[number]


def test_items_hold_text_and_distributions(folder: Path) -> None:
    """Kept rows find their frames in generate's folder."""
    item = Captured(folder / "filter" / "kept", folder / "generate")[0]
    assert (
        item["topk_ids"].shape
        == item["topk_logprobs"].shape
        == (len(item["token_ids"]), item["topk_ids"].shape[1])
    )
    assert item["topk_ids"][:, 0].tolist() == item["token_ids"]
    total = np.exp(item["topk_logprobs"]).sum(1) + np.exp(item["topk_tail"])
    assert np.abs(total - 1).max() < 1e-4


def test_torch_and_datasets_take_it(folder: Path) -> None:
    """Worker processes get the dataset by pickle, and an mmap cannot be pickled."""
    from datasets import Dataset

    captured = Captured(folder / "generate")
    loader = DataLoader(captured, batch_size=None, num_workers=2)  # type: ignore[arg-type]
    ids = [item["id"] for item in loader]
    assert ids == [captured[number]["id"] for number in range(60)]
    rows = Dataset.from_generator(captured.rows, cache_dir=str(folder / "cache"))
    assert rows["id"] == ids


def test_a_run_made_again_is_not_taken_for_the_old_one(workshop: Path, folder: Path) -> None:
    """Caches use the pickled object as their key, and took a regenerated run for the old one."""
    before = pickle.dumps(Captured(folder / "generate"))
    runner.execute(
        generate, load(workshop / "config.yaml", ["generate.seed=3"]), prepare=runner.archive
    )
    assert pickle.dumps(Captured(folder / "generate")) != before


def test_unfinished_stage_is_no_dataset(folder: Path) -> None:
    """The length of an unfinished stage would change while it is read."""
    (folder / "generate" / "manifest.json").unlink()
    with pytest.raises(PipelineError, match="is not finished"):
        Samples(folder / "generate")


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_seeds_by_their_number(tmp_path: Path, suffix: str) -> None:
    """A byte order mark or an umlaut must not shift the offset of a seed."""
    rows = [{"id": f"s{n}", "text": f"ä {n}"} for n in range(50)]
    path = tmp_path / f"seeds.{suffix}"
    if suffix == "jsonl":
        path.write_text(
            "\ufeff" + "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        )
    else:
        path.write_text("id,text\n" + "".join(f"{row['id']},{row['text']}\n" for row in rows))
    source = Source(path=str(path), limit=45)
    pinned = seeds.PinnedSource(source)
    found = seeds.survey(pinned, 8)
    assert found.seeds == 45
    assert len(found.offsets) == (6 if suffix == "jsonl" else 0)
    cursor = seeds.Cursor(pinned, found)
    for first, last in ((0, 8), (8, 16), (40, 48), (3, 5), (5, 6), (44, 45)):
        assert [seed.id for seed in cursor.take(first, last)] == [
            f"s{n}" for n in range(first, min(last, 45))
        ]
