"""The filters that a config turns on, in the order in which they run: what is cheap first, what chooses among good rows last."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config, Filter, Source
from pipeline.data import prompts, seeds
from pipeline.data.prompts import prompt_files
from pipeline.errors import PipelineError
from pipeline.execution import fingerprint
from pipeline.filters import (
    agreement,
    calibration,
    confidence,
    contamination,
    content_free,
    correctness,
    custom,
    form,
    formats,
    giveaways,
    judge,
    language,
    phrases,
    repetition,
    safety,
)
from pipeline.filters.columns import Measure, NamedFilter
from pipeline.filters.measuring import Measured, columns_of, processes
from pipeline.filters.together import CERTAINTY, IDENTITY, SEEDS, answers, choice, copies
from pipeline.filters.verdict import Verdict, objections
from pipeline.models import resolve
from pipeline.models.tokenizer import Tokenizer
from pipeline.records import Seed
from pipeline.storage import soft_labels
from pipeline.storage.files import read_json
from pipeline.verifiers import verify
from pipeline.verifiers.scorers import SCORERS

CALIBRATED, JUDGE = "calibrated", "judge"
NAMES_TOKENIZER = ("backend", "model", "revision", "tokenizer")


def active(config: Config) -> list[NamedFilter]:
    """The filters of a run, of which generate is finished."""
    rooms = (_unseen, _form, _own, _truth, _doubts, _safety, copies, _marks, choice)
    return [one for room in rooms for one in room(config)]


def check(config: Config, found: Sequence[Seed]) -> list[str]:
    """The names of the filters, as far as can be told from config and seeds. Raises PipelineError for what could not be run."""
    names, settings = [one.name for one in active(config)], config.filter
    if settings.judge:
        judge.check(found)
    if settings.calibrated and settings.calibrated.content_free:
        content_free.check(prompts.load(config.generate.prompt[0]), found)
    if settings.language:
        language.check(settings.language.allowed)
    if settings.format and settings.format.pattern is not None:
        formats.check_pattern(settings.format.pattern)
    missing = [path for path in files(config) if not path.is_file()]
    if missing:
        raise PipelineError(f"{missing[0]}: no such file; the filters of the config need it (of another run: a finished stage)")
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
        found += [Path(path) for path in (config.task.eval_seeds.path, *settings.contamination.files) if path]
    if settings.judge:
        found.append(Path(settings.judge.prompt))
    found += [Path(run) / name / "manifest.json" for run in settings.against for name in ("generate", "filter")]
    if settings.teachers_agree:
        found.append(Path(settings.teachers_agree.run) / "generate" / "manifest.json")
    if settings.difficulty and settings.difficulty.losses:
        found.append(Path(settings.difficulty.losses) / "score" / "manifest.json")
    return found


def identities(config: Config) -> dict[str, str]:
    """What tells judge, encoders, the labels' tokenizer and held-out seeds from others of the same name."""
    settings = config.filter
    found = (
        {f"held-out {name}": value for name, value in seeds.identities(config.task.eval_seeds).items()} if settings.contamination else {}
    )
    if settings.judge:
        found["judge"] = judge.Bench(config).identity
    if settings.calibrated:
        found["labels' tokenizer"] = resolve.identity(resolve.tokenizer_of(config.teacher), config.teacher.revision)
    for encoder in (settings.semantic, settings.diversity):
        if encoder:
            found[f"encoder {encoder.model}"] = resolve.identity(encoder.model, encoder.revision)
    return found


def soften(config: Config, measured: Measured, seen: NDArray[np.int64], left: NDArray[np.int64], kept: Path) -> dict[str, Any]:
    """Write the soft labels of the rows `left` into the folder `kept`, calibrated over all those that the filter had `seen`. Returns what
    calibration does to the answers of known truth: shares that are right."""
    ids, labels = _label_tokens(config), {"labels": config.task.labels}
    distribution, places = Measure(calibration.label_distribution, {"labels": ids}), Measure(calibration.label_places, {"labels": ids})
    written, truth = Measure(calibration.written_label, labels), Measure(calibration.true_label, labels)
    measured.find([distribution, places, written, truth], processes(config.filter))
    p, at, said, true = (np.asarray(measured.column(measure))[seen] for measure in (distribution, places, written, truth))
    known = _known(config, ids)
    firsts, logprobs = calibration.soft_labels(p, ids, known)
    mine = np.searchsorted(seen, left)
    names: Any = measured.column(IDENTITY)
    soft_labels.write(kept, firsts, [names[row] for row in left.tolist()], at[mine], logprobs[mine])
    effect = calibration.effect(p, said, true, known)
    return vars(effect) if effect else {}


def agreement_with_truth(config: Config, measured: Measured, marks: NDArray[np.float64]) -> dict[str, Any]:
    """How well the judge's marks (N,) tell right answers from wrong ones, by ground truth; empty where there are not both, or where telling
    takes a process for each answer."""
    if config.task.metric not in SCORERS:
        return {}
    check = _checked(config)
    measured.find([check], processes(config.filter))
    column: Any = measured.column(check)
    right = np.array([np.nan if value is None or why == correctness.NO_TRUTH else value for value, why in column])
    found = judge.agreement(marks, right)
    return {} if found is None else {"rows": int((~np.isnan(marks) & ~np.isnan(right)).sum()), "agreement": found}


def _unseen(config: Config) -> Iterator[NamedFilter]:
    """What must stay unseen, before any other reason: ablate draws from what was turned down for those."""
    settings = config.filter
    if settings.contamination:
        others = [Source(path=path) for path in settings.contamination.files]
        how = partial(contamination.contaminated, near=settings.contamination.near)
        yield NamedFilter("contamination", (contamination.measure(config.task.eval_seeds, others),), how)


def _form(config: Config) -> Iterator[NamedFilter]:
    """What can be seen of a reply by itself."""
    settings, task = config.filter, config.task
    if settings.finished:
        yield NamedFilter("finished", (Measure(form.finished),), objections)
    if settings.min_tokens > 0 or settings.max_tokens is not None:
        bounds = partial(form.length, least=settings.min_tokens, most=settings.max_tokens)
        yield NamedFilter("length", (Measure(form.tokens),), bounds)
    if settings.refusal:
        yield NamedFilter("refusal", (Measure(phrases.found),), partial(phrases.said, reason="refused"))
    if settings.boilerplate:
        yield NamedFilter("boilerplate", (Measure(phrases.found),), partial(phrases.said, reason="boilerplate"))
    if settings.parseable:
        reasoned = [prompts.load(path).wants_rationale for path in prompt_files(config)]
        known = {"metric": task.metric, "labels": task.labels, "reasoned": reasoned}
        yield NamedFilter("parseable", (Measure(form.parseable, known),), objections)
    if settings.format:
        measures = tuple(_formats(settings))
        yield NamedFilter("format", measures, _any)
    if settings.language:
        parts = settings.language.parts
        told = {"allowed": settings.language.allowed, "parts": parts, "min_letters": settings.language.min_letters}
        yield NamedFilter(
            "language", (Measure(language.likelihood, told),), partial(language.other, parts=parts, least=settings.language.least)
        )
    if settings.repetition:
        repeats = settings.repetition
        most = (repeats.lines, repeats.words, repeats.loop, repeats.run)
        yield NamedFilter("repetition", (Measure(repetition.measure),), partial(repetition.repeated, most=most))
    if settings.answer_before_rationale:
        yield NamedFilter("answer_before_rationale", (Measure(giveaways.answered_first),), objections)
    if settings.leak:
        yield NamedFilter("leak", (Measure(giveaways.leaked, {"fields": settings.leak.fields}),), objections)


def _formats(settings: Filter) -> Iterator[Measure]:
    assert settings.format is not None
    if settings.format.pattern is not None:
        yield Measure(formats.matches, {"pattern": settings.format.pattern})
    if settings.format.schema_file is not None:
        yield Measure(formats.valid, {"schema": formats.read_schema(settings.format.schema_file)})
    if settings.format.choices is not None:
        yield Measure(formats.listed, {"choices": settings.format.choices})


def _own(config: Config) -> Iterator[NamedFilter]:
    """Filters of one's own."""
    for name in config.filter.custom:
        yield NamedFilter(f"custom.{name.partition(':')[2]}", (custom.measure(name),), objections)


def _truth(config: Config) -> Iterator[NamedFilter]:
    """Whether the answer is right, by ground truth, by its rationale, and by what others say."""
    settings, task = config.filter, config.task
    said = answers(config)
    if settings.correct:
        how = partial(correctness.judge, threshold=settings.threshold, unknown=settings.unknown)
        yield NamedFilter("correct", (_checked(config),), how)
    if settings.consistent:
        yield NamedFilter("consistent", (Measure(agreement.contradicted, {"metric": task.metric, "labels": task.labels}),), objections)
    if settings.agreement:
        agreed = partial(agreement.agreed, min_vote_share=settings.agreement.min_vote_share, majority=settings.agreement.majority)
        yield NamedFilter("agreement", (SEEDS, said), agreed)
    if settings.prompts_agree:
        same = partial(agreement.prompts_agree, min_share=settings.prompts_agree.min_share)
        yield NamedFilter("prompts_agree", (SEEDS, said, Measure(agreement.prompts)), same)
    if settings.teachers_agree:
        others = settings.teachers_agree

        def same_as_theirs(left: NDArray[np.int64], *columns: Any) -> dict[int, Verdict]:
            theirs = columns_of(Path(others.run), "generate", (SEEDS, said), config.filter)
            return agreement.teachers_agree(left, *columns, other_seeds=theirs[0], other_answers=theirs[1], min_share=others.min_share)

        yield NamedFilter("teachers_agree", (SEEDS, said), same_as_theirs)


def _doubts(config: Config) -> Iterator[NamedFilter]:
    """How sure the teacher was, by its logprobs."""
    settings, labels = config.filter, config.task.labels
    if settings.confidence:
        yield NamedFilter("confidence", (CERTAINTY,), partial(confidence.confident, bounds=confidence.bounds(settings.confidence)))
    if settings.calibrated:
        assert labels is not None  # Config sees to it
        _check_teacher(config)
        ids = _label_tokens(config)
        how = partial(
            calibration.calibrated,
            labels=labels,
            min_confidence=settings.calibrated.min_confidence,
            agree=settings.calibrated.agree,
        )
        measures = (Measure(calibration.label_distribution, {"labels": ids}), Measure(calibration.written_label, {"labels": labels}))

        def calibrated(left: NDArray[np.int64], *columns: Any) -> dict[int, Verdict]:
            return how(left, *columns, known=_known(config, ids))

        yield NamedFilter(CALIBRATED, measures, calibrated)


def _check_teacher(config: Config) -> None:
    """Raise PipelineError if the teacher is not the one that wrote the samples: the tokens of its labels, and what it says to inputs
    without content, would not be those of the samples."""
    generated = Path(config.run_dir) / "generate"
    if not (generated / "manifest.json").exists():
        return
    assert config.filter.calibrated is not None
    counts = ["teacher"] if config.filter.calibrated.content_free else [f"teacher.{name}" for name in NAMES_TOKENIZER]
    mine = fingerprint.settings(config, *counts) | {f"model {name}": found for name, found in resolve.identities(config.teacher).items()}
    begun = read_json(generated / "begun.json")["fingerprint"]
    if changed := fingerprint.differing({name: begun.get(name, "(absent)") for name in mine}, mine):
        raise PipelineError(
            "filter.calibrated: the teacher is not the one that wrote the samples; put it back, or make generate again with --redo\n"
            + "\n".join(changed)
        )


def _known(config: Config, labels: list[list[int]]) -> calibration.Known:
    """What filter.calibrated has to go by. Asks the teacher about inputs without content if that has not been done."""
    calibrated = config.filter.calibrated
    assert calibrated is not None
    return calibration.Known(calibrated.shares, content_free.distributions(config, labels) if calibrated.content_free else None)


def _safety(config: Config) -> Iterator[NamedFilter]:
    """What a student must not learn by heart."""
    settings = config.filter
    if settings.pii:
        told = {"kinds": settings.pii.kinds, "regions": settings.pii.regions, "inputs": settings.pii.inputs}
        yield NamedFilter("pii", (Measure(safety.pii, told),), objections)
    if settings.secrets:
        yield NamedFilter("secrets", (Measure(safety.secrets, {"inputs": settings.secrets.inputs}),), objections)


def _marks(config: Config) -> Iterator[NamedFilter]:
    """What another model thinks of it."""
    if config.filter.judge:
        low = partial(judge.low, least=config.filter.judge.least, drop_unjudged=config.filter.judge.unjudged == "drop")
        yield NamedFilter(JUDGE, (), low, judge.Bench(config).marks)


def _any(left: NDArray[np.int64], *found: Sequence[Any]) -> dict[int, Verdict]:
    """The first objection of several measures."""
    verdicts: dict[int, Verdict] = {}
    for column in found:
        verdicts = objections(left, column) | verdicts
    return verdicts


def _checked(config: Config) -> Measure:
    return Measure(correctness.of, asdict(verify.check(config.task)), slow=config.task.metric not in SCORERS)


def _label_tokens(config: Config) -> list[list[int]]:
    """By which tokens the labels are told apart, spelled behind what the teacher has in front of its answer."""
    tokenizer = Tokenizer(resolve.tokenizer_of(config.teacher), config.teacher.revision)
    front = prompts.load(prompt_files(config)[0]).front
    return calibration.label_tokens(tokenizer, config.task.labels or [], front.answer.start)
