"""Retired keys: what was written before they went must still load and continue."""

from pathlib import Path

import pytest

from pipeline.config import Config, load, retired
from pipeline.config.retired import RETIRED
from pipeline.errors import PipelineError
from pipeline.execution import fingerprint, runner
from pipeline.stages import filter as filter_stage
from pipeline.stages import generate
from pipeline.storage.files import read_json, write_json
from tests.support.task import ROOT

TINY = ROOT / "configs" / "tiny.yaml"


def with_retired(config: Config) -> dict[str, object]:
    """Return the config's tree as it was when all retired keys still existed."""
    tree = config.model_dump(mode="json")
    for key, entry in RETIRED.items():
        *sections, name = key.split(".")
        section = tree
        for part in sections:
            section = section.setdefault(part, {}) or {}
        section[name] = entry.default
    return tree


@pytest.mark.parametrize("key", RETIRED)
def test_former_default_is_accepted(key: str) -> None:
    """A config that spells out a default must not break when its key goes."""
    section = key.rpartition(".")[0]
    value = "null" if RETIRED[key].default is None else RETIRED[key].default
    extra = {"filter.diversity": ["filter.diversity.number=9"]}.get(section, [])
    load(TINY, [*extra, f"{key}={value}"])


@pytest.mark.parametrize("key", RETIRED)
def test_another_value_is_refused_with_what_to_do(key: str) -> None:
    """A setting that is ignored in silence costs a night."""
    with pytest.raises(PipelineError, match=rf"{key}: this key is gone; .*; leave {key} out"):
        load(TINY, [f"{key}=77"])


def test_retired_keys_are_gone() -> None:
    """A key that is both a setting and retired would be dropped in silence."""
    overrides = ["filter.near={}", "filter.semantic={}", "filter.language={}"]
    overrides += ["evaluate.fidelity={}", "evaluate.memorisation={}"]
    known = load(TINY, overrides).settings(*(key.partition(".")[0] for key in RETIRED))
    assert set(RETIRED) & set(known) == set()


def test_stored_config_may_have_retired_keys() -> None:
    """`explain`, `tokens` and `verify --recheck` read the config of an older run."""
    overrides = ["filter.near={}", "filter.language={}", "evaluate.memorisation={}"]
    overrides += ["filter.semantic={}", "filter.diversity={number: 9}", "evaluate.fidelity={}"]
    config = load(TINY, overrides)
    tree = with_retired(config)
    assert Config.model_validate(tree) == config
    assert set(retired.pop(tree)) == set(RETIRED)


@pytest.mark.parametrize(
    ("stored", "changed"),
    [
        ("24", []),
        ("40", ["  filter.repetition.run: 40 -> (absent): this key is gone; it is always 24 now"]),
    ],
)
def test_difference_ignores_only_the_former_default(stored: str, changed: list[str]) -> None:
    """A run folder is the same run only if the constant has the value that it was made with."""
    old = {"filter.seed": "0", "filter.repetition.run": stored}
    lines = fingerprint.differing(old, {"filter.seed": "0"})
    assert [line.partition(" (MAX_RUN")[0] for line in lines] == changed
    assert fingerprint.differing(old, old) == []


def test_older_run_continues(workshop: Path) -> None:
    """Run folders that were made before a key went must be done, or continue."""
    config = load(workshop / "config.yaml")
    runner.execute(generate, config)
    runner.execute(filter_stage, config)
    for name in ("generate", "filter"):
        path = Path(config.run_dir) / name / "begun.json"
        begun = read_json(path)
        begun["config"] = with_retired(config)
        begun["fingerprint"] |= {
            "task.verifier.memory_mib": "1024",
            "filter.repetition.loop": "12",
            "filter.repetition.run": "24",
        }
        write_json(path, begun)
    assert runner.is_done(generate, config)
    (Path(config.run_dir) / "filter" / "manifest.json").unlink()
    assert runner.execute(filter_stage, config)
    begun["fingerprint"]["filter.repetition.loop"] = "13"
    write_json(path, begun)
    with pytest.raises(PipelineError, match=r"filter.repetition.loop: 13 .*this key is gone"):
        runner.is_done(filter_stage, config)
