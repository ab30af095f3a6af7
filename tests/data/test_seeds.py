"""Examples from every format, and the errors of malformed ones."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from pipeline.config import Source
from pipeline.data import seeds
from pipeline.errors import PipelineError
from pipeline.records import Seed
from tests.support.task import ROOT, write_seeds

ROWS: list[dict[str, Any]] = [
    {"id": "a", "text": "one", "target": "x"},
    {"id": "b", "text": "two, three", "target": "y"},
]


def text(seed: Seed) -> str:
    return str(seed.inputs["q"])


def write(folder: Path, suffix: str) -> Path:
    path = folder / f"seeds.{suffix}"
    if suffix == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif suffix == "csv":
        path.write_text('id,text,target\na,one,x\nb,"two, three",y\n')
    else:
        parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    return path


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_all_formats_give_the_same_seeds(tmp_path: Path, suffix: str) -> None:
    """The format of a file must not change what is learnt."""
    seeds_read = seeds.load(Source(path=str(write(tmp_path, suffix))))
    assert [(s.id, s.inputs, s.target) for s in seeds_read] == [
        ("a", {"text": "one"}, "x"),
        ("b", {"text": "two, three"}, "y"),
    ]


def test_dataset_of_the_hub_is_read_from_a_local_folder(tmp_path: Path) -> None:
    """Read a hub dataset, from the folder that the hub would give."""
    write(tmp_path, "jsonl").rename(tmp_path / "train.jsonl")
    seeds_read = seeds.load(Source(dataset=str(tmp_path), limit=1))
    assert [(s.id, s.inputs, s.target) for s in seeds_read] == [("a", {"text": "one"}, "x")]
    with pytest.raises(PipelineError, match="cannot be loaded"):
        seeds.load(Source(dataset=str(tmp_path / "absent")))


def test_ids_are_made_from_content(tmp_path: Path) -> None:
    """Without ids, the same row must be the same seed wherever it is."""
    (tmp_path / "s.jsonl").write_text('{"q": "1"}\n{"q": "2"}\n')
    (tmp_path / "t.jsonl").write_text('{"q": "2"}\n')
    first, second = (
        seeds.load(Source(path=str(tmp_path / name))) for name in ("s.jsonl", "t.jsonl")
    )
    assert first[1].id == second[0].id != first[0].id


def test_target_is_cut_out_by_its_pattern(tmp_path: Path) -> None:
    """Ground truth is often at the end of a worked solution."""
    (tmp_path / "s.jsonl").write_text('{"q": "1+1", "answer": "1+1 is 2\\n#### 2"}\n')
    source = Source(
        path=str(tmp_path / "s.jsonl"), target_field="answer", target_pattern=r"#### (.+)"
    )
    assert seeds.load(source)[0].target == "2"
    with pytest.raises(PipelineError, match=r"s\.jsonl:1: target_pattern"):
        seeds.load(source.model_copy(update={"target_pattern": r"== (.+)"}))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("s.jsonl", '{"q": 1}\nnot json\n', r"s\.jsonl:2: not a JSON object"),
        ("s.jsonl", '{"q": 1}\n[1]\n', r"s\.jsonl:2: not a JSON object"),
        ("s.jsonl", "", "has no seeds"),
        (
            "s.jsonl",
            '{"id": "a", "q": 1}\n{"id": "a", "q": 2}\n',
            r"s\.jsonl:2: seed id 'a' was given before, at .*s\.jsonl:1",
        ),
        ("s.jsonl", '{"q": 1}\n{"q": 1}\n', r"s\.jsonl:2: seed id .* was given before"),
        ("s.jsonl", '{"id": "a", "target": "x"}\n', r"s\.jsonl:1: has no input columns"),
        ("s.csv", "q,target\n1,2,3\n", r"s\.csv:2: has another number of columns"),
        ("s.txt", "x", r"seeds are read from \.jsonl"),
        ("s.parquet", "x", "not Parquet"),
    ],
)
def test_bad_file_is_named_with_its_line(
    tmp_path: Path, name: str, text: str, expected: str
) -> None:
    """The message says where, what is wrong, and what to do."""
    (tmp_path / name).write_text(text)
    with pytest.raises(PipelineError, match=expected):
        seeds.load(Source(path=str(tmp_path / name)))
    with pytest.raises(PipelineError, match="no such file"):
        seeds.load(Source(path=str(tmp_path / "absent.jsonl")))


def test_held_out_seed_among_the_training_seeds_is_refused(tmp_path: Path) -> None:
    """A student that saw the test measures nothing."""
    (tmp_path / "s.jsonl").write_text('{"q": "1", "target": "a"}\n')
    source = Source(path=str(tmp_path / "s.jsonl"))
    with pytest.raises(PipelineError, match="reads like training seed"):
        seeds.load_eval(seeds.load(source), source, text)


def test_held_out_seed_needs_ground_truth(tmp_path: Path) -> None:
    """An accuracy without ground truth would be made up."""
    (tmp_path / "s.jsonl").write_text('{"q": "1"}\n')
    with pytest.raises(PipelineError, match="evaluate needs the ground truth"):
        seeds.load_eval([], Source(path=str(tmp_path / "s.jsonl")), text)


def test_other_columns_do_not_hide_a_leak(tmp_path: Path) -> None:
    """A row number beside the same text must not make it another seed."""
    (tmp_path / "s.jsonl").write_text('{"q": "One", "row": 1, "target": "a"}\n')
    (tmp_path / "e.jsonl").write_text('{"q": "one ", "row": 2, "target": "a"}\n')
    with pytest.raises(PipelineError, match="reads like training seed"):
        seeds.load_eval(
            seeds.load(Source(path=str(tmp_path / "s.jsonl"))),
            Source(path=str(tmp_path / "e.jsonl")),
            text,
        )


def test_bad_bytes_are_found_on_their_line(tmp_path: Path) -> None:
    """Reading is buffered, and the line must still be right."""
    for name, head in (("s.jsonl", b""), ("s.csv", b"q\n")):
        row = b'{"q": "%d"}\n' if name == "s.jsonl" else b"%d\n"
        (tmp_path / name).write_bytes(
            head + b"".join(row % n for n in range(60)) + b'{"q": "\xe9"}\n'
        )
        with pytest.raises(
            PipelineError, match=rf"{name}:{61 + len(head.splitlines())}: not UTF-8"
        ):
            seeds.load(Source(path=str(tmp_path / name)))


def test_half_a_character_is_refused_with_its_line(tmp_path: Path) -> None:
    """Truncated messages end in half a surrogate pair, which no file can hold."""
    (tmp_path / "s.jsonl").write_text('{"q": "hi \\ud83d"}\n')
    with pytest.raises(PipelineError, match=r"s\.jsonl:1: holds half of a surrogate pair"):
        seeds.load(Source(path=str(tmp_path / "s.jsonl")))


def test_shipped_seeds_share_no_text_with_the_held_out_ones() -> None:
    """Nor do the examples in the teacher's prompt."""
    folder = ROOT / "data" / "sms_spam"
    train, held_out = (
        [s.inputs["text"] for s in seeds.load(Source(path=str(folder / name)))]
        for name in ("seeds.jsonl", "eval.jsonl")
    )
    examples = [
        line[5:]
        for line in (ROOT / "prompts" / "sms_spam_teacher.md").read_text().splitlines()
        if line.startswith("SMS: ")
    ]
    assert len(set(train)) == len(train) == 1000
    assert len(set(held_out)) == len(held_out) == 300
    assert not set(train) & set(held_out)
    assert not set(examples) & (set(train) | set(held_out))


def test_seeds_that_change_under_the_reader_are_refused(tmp_path: Path) -> None:
    """Later shards would silently belong to other seeds.

    A file that is written again unchanged is accepted.
    """
    path = tmp_path / "seeds.jsonl"
    write_seeds(path, range(30))
    pinned = seeds.PinnedSource(Source(path=str(path)))
    cursor = seeds.Cursor(pinned, seeds.survey(pinned, 8))
    assert [seed.id for seed in cursor.take(0, 2)] == ["n0", "n1"]
    before = path.read_text()
    path.with_suffix(".new").write_text(before)
    path.with_suffix(".new").replace(path)
    assert [seed.id for seed in cursor.take(8, 10)] == ["n8", "n9"]
    for change in (lambda: path.write_text(before.replace('"n20"', '"m20"')), path.unlink):
        change()
        with pytest.raises(
            PipelineError, match=r"(?s)seeds\.jsonl: .*put .*back.* and the same command continues"
        ):
            cursor.take(16, 18)


def test_seeds_that_changed_before_they_were_surveyed_are_refused(tmp_path: Path) -> None:
    """A change between fingerprint and first reading would give work.json other seeds for good."""
    path = tmp_path / "seeds.jsonl"
    write_seeds(path, range(30))
    with pytest.raises(PipelineError, match="was changed while the stage is at work on it"):
        seeds.PinnedSource(Source(path=str(path)), "0" * 64)


@pytest.mark.parametrize("pattern", ["((a+)+)$", "^((a|a)*)$", "^((a*)*b)$", r"^((\w+\s?)*)$"])
def test_a_pattern_that_backtracks_without_end_is_stopped(pattern: str, tmp_path: Path) -> None:
    """The pipeline once hung before it had read its seeds."""
    path = tmp_path / "s.jsonl"
    path.write_text(json.dumps({"question": "x", "answer": "a" * 60 + "!"}))
    source = Source(path=str(path), target_field="answer", target_pattern=pattern)
    with pytest.raises(PipelineError, match=r"s\.jsonl:1: target_pattern"):
        seeds.load(source)
