"""The gate on terms: what passes, what is refused, and that nobody passes it unawares."""

import re
from pathlib import Path

import pytest

from pipeline.config import load
from pipeline.data.licences import KNOWN, TABLE, check
from pipeline.errors import PipelineError
from pipeline.execution import runner
from pipeline.stages import filter as filter_stage
from pipeline.stages import generate, train

ASKED = {
    "apache-2.0",
    "mit",
    "bsd-3-clause",
    "cc0-1.0",
    "cc-by-4.0",
    "cc-by-sa-4.0",
    "cc-by-nc-4.0",
    "cc-by-nd-4.0",
    "odc-by",
    "odbl",
    "gpl-3.0",
    "llama2",
    "llama3",
    "llama3.1",
    "llama3.2",
    "llama3.3",
    "llama4",
    "gemma",
    "qwen",
    "qwen-research",
    "tongyi-qianwen",
    "deepseek",
    "mistral-research",
    "openai-terms",
    "anthropic-terms",
    "google-terms",
    "proprietary",
    "unknown",
}


def test_nothing_declared() -> None:
    """A run without declared licences continues, with a note."""
    report = check(None, None)
    assert report.lines == [
        "licences: licences.teacher and licences.seeds not declared; "
        "check yourself whether training is allowed"
    ]
    assert report.record == {}


def test_one_declared() -> None:
    """A declared licence is checked; a missing one is named."""
    report = check("apache-2.0", None)
    assert [line[:28] for line in report.lines] == [
        "licences: licences.seeds not",
        "licences: teacher: apache-2.",
    ]
    assert report.record["teacher"]["ruling"] == "allowed"


def test_conditions_are_told() -> None:
    """A user who does not hear of attribution does not give it."""
    report = check("llama3.1", "CC-BY-SA-4.0")
    assert "naming" in report.lines[0]
    assert "attribution, share-alike" in report.lines[1]
    assert report.record["seeds"]["conditions"] == ["attribution", "share-alike"]


@pytest.mark.parametrize(
    "name",
    ["llama2", "llama-3", "openai-terms", "anthropic-terms", "google-terms", "tongyi-qianwen"],
)
def test_forbidden(name: str) -> None:
    """A student trained against the teacher's terms may be unusable.

    The message names the key to set.
    """
    with pytest.raises(
        PipelineError,
        match=rf"licences\.teacher: {name} forbids .*licences\.acknowledge=\[{name}\]",
    ):
        check(name, "mit")


@pytest.mark.parametrize("name", ["unknown", "proprietary", "cc-by-nd-4.0", "my-own-licence"])
def test_unknown(name: str) -> None:
    """An unknown licence does not count as allowed."""
    with pytest.raises(
        PipelineError, match=r"licences\.seeds: .* is not known to allow .*take other seeds"
    ):
        check("mit", name)


def test_misspelled() -> None:
    """A misspelt name is refused with a suggestion."""
    with pytest.raises(PipelineError, match=r"did you mean apache-2\.0\?"):
        check("apache2.0", None)


def test_acknowledged() -> None:
    """An acknowledged licence passes with a loud line and a record.

    Acknowledging another name does not help.
    """
    report = check("llama2", "mine", ["LLaMA2", "mine"])
    assert report.lines[0].startswith("licences: !!! teacher: llama2 FORBIDS this training")
    assert report.lines[1].startswith("licences: !!! seeds: mine IS NOT KNOWN")
    assert report.record["teacher"] | {"document": "", "date": ""} == {
        "licence": "llama2",
        "ruling": "forbidden",
        "conditions": [],
        "document": "",
        "date": "",
        "acknowledged": True,
    }
    with pytest.raises(PipelineError, match="openai-terms forbids"):
        check("openai-terms", "mit", ["llama2"])


def test_allowed_is_not_acknowledged() -> None:
    """An acknowledgement that was not needed does no harm."""
    assert check("mit", "mit", ["llama2"]).record["teacher"]["acknowledged"] is False


@pytest.mark.parametrize(
    "name", ["Apache-2.0", "gpl-3.0-only", "GPL-3.0-or-later", "CC BY 4.0", "Llama_3.1"]
)
def test_spellings(name: str) -> None:
    """SPDX writes capitals and suffixes, hubs write small letters."""
    assert check(name, None).record["teacher"]["ruling"] in ("allowed", "with_conditions")


def test_what_is_declared_after_generate_stops_training(workshop: Path) -> None:
    """Only generate and score checked licences, so one declared later stopped nothing."""
    for each in (generate, filter_stage):
        runner.execute(each, load(workshop / "config.yaml"))
    with pytest.raises(PipelineError, match="openai-terms forbids this training"):
        runner.execute(train, load(workshop / "config.yaml", ["licences.teacher=openai-terms"]))


def test_the_table() -> None:
    """Every promised licence is in the table once, with its source and its conditions."""
    assert set(KNOWN) >= ASKED
    assert len(KNOWN) == sum(len(terms.names) for terms in TABLE)
    for terms in TABLE:
        assert (terms.ruling == "with_conditions") <= bool(terms.conditions), terms.names
        assert terms.document, terms.names
        assert re.fullmatch(r"\d{4}(-\d\d(-\d\d)?)?|-", terms.date), terms.names
