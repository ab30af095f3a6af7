"""Targets that are no text, and files that people really have."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from pipeline.config import Source
from pipeline.data import prompts, seeds
from pipeline.data.rows import target_text
from pipeline.errors import PipelineError
from pipeline.records import Seed


def read(folder: Path, name: str, text: str) -> list[tuple[dict[str, Any], str | None]]:
    (folder / name).write_text(text)
    return [(seed.inputs, seed.target) for seed in seeds.load(Source(path=str(folder / name)))]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"gift": True, "note": None}, '{"gift": true, "note": null}'),
        (["a", "é"], '["a", "é"]'),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (1.0, "1"),
        (0.5, "0.5"),
        (float("nan"), None),
        ("", None),
    ],
)
def test_targets_that_are_no_text_become_json(value: Any, text: str | None) -> None:
    """They became Python's repr: every right answer was wrong or unknown."""
    assert target_text(value, "here") == text


@pytest.mark.parametrize("value", [{"a": float("nan")}, [float("inf")], float("-inf")])
def test_targets_that_json_cannot_write_are_refused(value: Any) -> None:
    """A target 'inf' or NaN inside an object is equal to no answer."""
    with pytest.raises(PipelineError, match="here: holds NaN or an infinity"):
        target_text(value, "here")


def test_parquet_targets_may_be_structs_and_floats_with_gaps(tmp_path: Path) -> None:
    """A label column with a gap is float in pandas: '1.0' was never the answer '1'."""
    for rows, expected in (
        ([{"text": "a", "target": {"n": 1}}], ['{"n": 1}']),
        ([{"text": "a", "target": 1.0}, {"text": "b", "target": None}], ["1", None]),
    ):
        parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "s.parquet")
        found = seeds.load(Source(path=str(tmp_path / "s.parquet")))
        assert [seed.target for seed in found] == expected


@pytest.mark.parametrize("as_dataset", [True, False])
def test_class_labels_are_read_by_name_and_images_by_hash(tmp_path: Path, as_dataset: bool) -> None:
    """Labels were numbers, and ids held the memory address of an image."""
    from datasets import ClassLabel, Dataset, Features, Image, Value
    from PIL import Image as Picture

    features = Features(
        {"text": Value("string"), "target": ClassLabel(names=["neg", "pos"]), "picture": Image()}
    )
    pictures = [Picture.new("RGB", (4, 4), color) for color in ("red", "blue")]
    data = Dataset.from_dict(
        {"text": ["a", "b"], "target": [0, 1], "picture": pictures}, features=features
    )
    path = tmp_path / "data" / "train.parquet"
    path.parent.mkdir()
    data.to_parquet(str(path))
    source = Source(dataset=str(path.parent)) if as_dataset else Source(path=str(path))
    first, again = seeds.load(source), seeds.load(source)
    assert [seed.target for seed in first] == ["neg", "pos"]
    assert first == again
    assert "sha256:" in str(first[0].inputs["picture"])
    assert first[0].inputs["picture"] != first[1].inputs["picture"]


def test_saved_datasets_are_read(tmp_path: Path) -> None:
    """The message said to call load_from_disk, which a config cannot."""
    from datasets import Dataset, DatasetDict

    data = Dataset.from_dict({"q": ["a"], "target": ["x"]})
    data.save_to_disk(str(tmp_path / "one"))
    DatasetDict({"train": data, "test": data}).save_to_disk(str(tmp_path / "two"))
    for source in (
        Source(dataset=str(tmp_path / "one")),
        Source(dataset=str(tmp_path / "two"), split="test"),
    ):
        assert [seed.target for seed in seeds.load(source)] == ["x"]
    with pytest.raises(PipelineError, match="no split 'dev', only train, test"):
        seeds.load(Source(dataset=str(tmp_path / "two"), split="dev"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("blank.jsonl", '{"text": "a", "target": "x"}\n\n'),
        ("spaces.jsonl", '\n  \n{"text": "a", "target": "x"}\n'),
        ("blank.csv", "\ntext,target\n\na,x\n  \n"),
        ("semicolon.csv", "text;target\na;x\n"),
        ("tab.tsv", "text\ttarget\na\tx\n"),
        ("header.csv", "text, target\na,x\n"),
    ],
)
def test_blank_lines_delimiters_and_spaces_in_headers(tmp_path: Path, name: str, text: str) -> None:
    """Files that spreadsheets and editors write were refused, or lost their target."""
    assert read(tmp_path, name, text) == [({"text": "a"}, "x")]


def test_blank_lines_keep_the_line_of_an_error_and_of_a_jump(tmp_path: Path) -> None:
    """Lines are counted with the blank ones, and a cursor may begin at one."""
    text = "".join(f'{{"text": "{number}", "target": "x"}}\n\n' for number in range(9))
    path = tmp_path / "s.jsonl"
    path.write_text(text)
    pinned = seeds.PinnedSource(Source(path=str(path)))
    cursor = seeds.Cursor(pinned, seeds.survey(pinned, 2))
    assert [seed.inputs["text"] for seed in cursor.take(5, 7)] == ["5", "6"]
    with pytest.raises(PipelineError, match=r"s\.jsonl:19: not a JSON object"):
        read(tmp_path, "s.jsonl", text + "no\n")


def test_long_csv_cells_are_read(tmp_path: Path) -> None:
    """A cell above 128 KiB was 'not CSV'."""
    (inputs, target) = read(tmp_path, "s.csv", f"text,target\n{'x' * 200_000},spam\n")[0]
    assert (len(inputs["text"]), target) == (200_000, "spam")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("s.csv", "text,text,target\na,b,c\n", "s.csv:1: more than one column is named 'text'"),
        ("s.csv", "text, text,target\na,b,c\n", "s.csv:1: more than one column is named 'text'"),
        (
            "s.jsonl",
            '{"text": "a"}\n{"text": "a", "text": "b"}\n',
            "s.jsonl:2: not a JSON object .*the key 'text' is given twice",
        ),
        (
            "s.jsonl",
            '{"text": {"a": 1, "a": 2}}\n',
            "s.jsonl:1: not a JSON object .*the key 'a' is given twice",
        ),
    ],
)
def test_names_given_twice_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    """The last one won without a word."""
    with pytest.raises(PipelineError, match=message):
        read(tmp_path, name, text)


def test_equal_rows_are_counted(tmp_path: Path) -> None:
    """The message spoke of ids that nobody gave, one pair at a time."""
    lines = [json.dumps({"text": text, "target": "x"}) for text in "aabba"]
    with pytest.raises(PipelineError, match=r"has the same inputs as .*:1 .*3 rows in all"):
        read(tmp_path, "s.jsonl", "\n".join(lines))


def test_columns_of_several_words_can_be_shown(tmp_path: Path) -> None:
    """No prompt could show a column named 'Customer Message' or 'label-coarse'."""
    seed = Seed(id="a", inputs={"Customer Message": "hello", "label-coarse": "b"})
    path = tmp_path / "p.md"

    def prompt(body: str) -> prompts.Prompt:
        path.write_text(f"---\nformat: completion\n---\n{body}\n")
        return prompts.load(path)

    good = prompt("{{ inputs['Customer Message'] }} {{ inputs['label-coarse'] }}")
    assert str(good.render(seed)) == "hello b"
    with pytest.raises(PipelineError, match=r"is written \{\{ inputs\['Customer Message'\] \}\}"):
        prompt("{{ Customer Message }}")
    with pytest.raises(PipelineError, match=r"inputs\['label-coarse'\]"):
        prompt("{{ label-coarse }}").render(seed)
