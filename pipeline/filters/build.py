"""The filters that a config turns on, in the order in which they run: what is cheap first, what chooses among good rows last."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.config import Config
from pipeline.data import prompts, seeds
from pipeline.errors import PipelineError
from pipeline.filters.confidence import contextual_calibration
from pipeline.filters.confidence import filters as confidence
from pipeline.filters.correctness import filters as correctness
from pipeline.filters.correctness import judge
from pipeline.filters.decontamination import filters as decontamination
from pipeline.filters.dedup import filters as dedup
from pipeline.filters.heuristics import answer_format, custom, language
from pipeline.filters.heuristics import filters as heuristics
from pipeline.filters.measures import NamedFilter
from pipeline.filters.privacy import filters as privacy
from pipeline.filters.selection import filters as selection
from pipeline.models import resolve
from pipeline.records import Seed
from pipeline.verifiers import verify

# Cheap filters first, those that choose among good rows last. Decontamination comes before all
# others, since an ablation draws from what the later ones rejected.
ORDER = (
    decontamination.filters,
    heuristics.filters,
    correctness.filters,
    confidence.filters,
    privacy.filters,
    dedup.filters,
    correctness.judge_filters,
    selection.filters,
)


def active(config: Config) -> list[NamedFilter]:
    """The filters of a run, of which generate is finished."""
    return [named for family in ORDER for named in family(config)]


def check(config: Config, found: Sequence[Seed]) -> list[str]:
    """The names of the filters, as far as can be told from config and seeds. Raises PipelineError for what could not be run."""
    names, settings = [one.name for one in active(config)], config.filter
    if settings.judge:
        judge.check(found)
    if settings.calibrated and settings.calibrated.content_free:
        contextual_calibration.check(prompts.load(config.generate.prompt[0]), found)
    if settings.language:
        language.check(settings.language.allowed)
    if settings.format and settings.format.pattern is not None:
        answer_format.check_pattern(settings.format.pattern)
    missing = [path for path in files(config) if not path.is_file()]
    if missing:
        raise PipelineError(
            f"{missing[0]}: no such file; the filters of the config need it (of another run: a finished stage)"
        )
    return names


def files(config: Config) -> list[Path]:
    """Outside files whose content decides what the filters say."""
    settings = config.filter
    found = [path for name in settings.custom for path in custom.files(name)]
    if settings.correct:
        found += verify.files(config.task)
    if settings.format and settings.format.schema_file:
        found.append(Path(settings.format.schema_file))
    if settings.contamination:
        found += [
            Path(path)
            for path in (config.task.eval_seeds.path, *settings.contamination.files)
            if path
        ]
    if settings.judge:
        found.append(Path(settings.judge.prompt))
    found += [
        Path(run) / name / "manifest.json"
        for run in settings.against
        for name in ("generate", "filter")
    ]
    if settings.teachers_agree:
        found.append(Path(settings.teachers_agree.run) / "generate" / "manifest.json")
    if settings.difficulty and settings.difficulty.losses:
        found.append(Path(settings.difficulty.losses) / "score" / "manifest.json")
    return found


def identities(config: Config) -> dict[str, str]:
    """What tells judge, encoders, the labels' tokenizer and held-out seeds from others of the same name."""
    settings = config.filter
    found = (
        {
            f"held-out {name}": value
            for name, value in seeds.identities(config.task.eval_seeds).items()
        }
        if settings.contamination
        else {}
    )
    if settings.judge:
        found["judge"] = judge.Bench(config).identity
    if settings.calibrated:
        found["labels' tokenizer"] = resolve.identity(
            resolve.tokenizer_of(config.teacher), config.teacher.revision
        )
    for encoder in (settings.semantic, settings.diversity):
        if encoder:
            found[f"encoder {encoder.model}"] = resolve.identity(encoder.model, encoder.revision)
    return found
