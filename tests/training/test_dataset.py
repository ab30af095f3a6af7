"""The training rows of an arm."""

import json
from pathlib import Path

from pipeline.models.fake import TOKENIZER
from pipeline.models.tokenizer import Tokenizer
from pipeline.training import dataset
from tests.support.training import prepared


def test_a_row_that_is_too_long_is_left_out_and_counted(workshop: Path) -> None:
    """One of them refused the whole arm, after the teacher had answered everything."""
    long = {"id": "long", "number": "7" * 100, "target": "no"}
    with (workshop / "seeds.jsonl").open("a") as file:
        file.write(json.dumps(long) + "\n")
    settings = ["generate.samples=1", "train.max_length=100", "filter.correct=false"]
    config = prepared(workshop, *settings)
    tokenizer = Tokenizer(str(TOKENIZER))
    rows = dataset.load(config, "kd", tokenizer, tokenizer.vocab_size)
    assert rows.too_long == 1
    assert rows.long is not None
    assert "rows are longer than train.max_length=100: long/0 (" in rows.long
    assert max(len(row.input_ids) for row in rows.train) <= 100
