"""Filter on the scores of a judge: a model that reads replies and scores them by a rubric.

RUN/measured/judge-KEY/ keeps the scores in shards, so that no reply is judged twice. A command that
sends more replies to the judge, such as a looser threshold of an earlier filter, adds a shard with
the new ones. A score belongs to the content of a sample: other samples may be generated later.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config, Judge, Teacher
from pipeline.data import prompts, replies
from pipeline.data.prompts import Prompt
from pipeline.errors import PipelineError
from pipeline.execution.progress import Progress
from pipeline.filters.measure_cache import MeasureCache, worker_count
from pipeline.filters.measures import Batch, Measure
from pipeline.filters.verdict import Verdict
from pipeline.inference.collector import Collector, Question
from pipeline.models import resolve
from pipeline.models.backends import open_teacher
from pipeline.models.base import Completion, Failure, Model, Request, Sampling
from pipeline.records import Failed, Identified, Sample, Seed, digest
from pipeline.storage.files import sha256
from pipeline.storage.journal import Shard, read_failures, sweep
from pipeline.storage.samples import Samples
from pipeline.storage.shards import read_records

SHARD_SIZE = 8192
MAX_CHARACTERS = 80  # of an opinion without a score
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")
ID = re.compile(r'^\{"id":"([0-9a-f]+)"', re.MULTILINE)  # at the start of a journal's line
# What a rubric may name besides the example's inputs.
RUBRIC_NAMES = ("reply", "reply_answer", "reply_rationale", "ground_truth")

log = logging.getLogger(__name__)


class Opinion(Identified):
    """What the judge wrote about a sample; `mark` is the first number in the answer span."""

    text: str
    mark: float | None = None


@dataclass(frozen=True)
class Scores:
    """The judge's scores (N,), nan where there is none, and by row the reason for a missing one."""

    values: NDArray[np.float64]
    missing: Mapping[int, str]


def opinion_ids(batch: Batch) -> list[str]:
    """Return the id of each sample's opinion, a digest of the sample's content."""
    return [
        digest(sample.id, sample.seed.inputs, sample.seed.target, sample.text)
        for sample in batch.samples
    ]


OPINION_IDS = Measure(opinion_ids)


@dataclass(frozen=True)
class ReplyJudge:
    """A judge with its settings; it asks only for the scores that are not stored yet."""

    settings: Judge
    config: Config

    @property
    def model(self) -> Teacher:
        """Return the model's settings: those of the teacher, except what the judge sets itself."""
        teacher = self.config.teacher
        judge = self.settings
        if judge.model is None:
            return teacher.model_copy(update={"logprobs": 0})
        other_model = {
            "model": judge.model,
            "revision": judge.revision,
            "tokenizer": None,
            "logprobs": 0,
        }
        optional = {
            "backend": judge.backend,
            "base_url": judge.base_url,
            "api_key_env": judge.api_key_env,
            "replies": judge.replies,
        }
        chosen = {name: value for name, value in optional.items() if value is not None}
        return Teacher.model_validate({**teacher.model_dump(), **other_model, **chosen})

    @property
    def identity(self) -> str:
        """Return a digest of everything that can change a score."""
        model = self.model
        engine = self.model.engine
        named = [
            model.backend,
            model.model,
            model.revision,
            model.replies,
            engine.dtype,
            engine.fp32_head,
            engine.max_model_len,
        ]
        rubric = sha256(Path(self.settings.prompt))
        return digest(named, self.settings.max_tokens, resolve.identities(model), rubric)

    def score(self, run_dir: Path, rows: NDArray[np.int64]) -> Scores:
        """Return the scores of all samples, after asking for those of `rows` that have none."""
        cache = MeasureCache(run_dir)
        cache.fill([OPINION_IDS], worker_count(self.config.filter))
        ids: Any = cache.column(OPINION_IDS)
        folder = run_dir / "measured" / f"judge-{self.identity}"
        folder.mkdir(parents=True, exist_ok=True)
        opinions = _stored_opinions(folder)
        row_of = {ids[row]: row for row in rows.tolist() if ids[row] not in opinions}
        failed: dict[str, str] = {}
        if row_of:
            failed = self._ask(folder, Samples(run_dir / "generate"), row_of)
            opinions = _stored_opinions(folder)
        values = np.full(len(ids), np.nan)
        missing = {}
        for row, id_ in enumerate(ids):
            score, text = opinions.get(id_, (None, failed.get(id_, "")))
            if score is not None and self.settings.lowest <= score <= self.settings.highest:
                values[row] = score
            elif text:
                missing[row] = text
        return Scores(values, missing)

    def _ask(self, folder: Path, samples: Samples, row_of: Mapping[str, int]) -> dict[str, str]:
        """Ask for the opinions on these rows, by opinion id.

        Returns for each failed id why. The next command asks for it again.
        """
        prompt = prompts.load(self.settings.prompt)
        first_row = next(iter(row_of.values()))
        prompts.check(prompt, [_rubric_seed(samples[first_row])])
        shards = list(_new_shards(folder, list(row_of)))
        log.info(f"filter judge: {len(row_of):,} samples to score; loading {self.model.model}")
        model = open_teacher(self.model, folder / "engine.log")
        try:
            collector = Collector(
                partial(self._question, model, samples, prompt, row_of),
                _failed,
                Progress("filter judge", len(row_of), unit="scores"),
                self.config.generate.max_error_rate,
                "fix that, and give the same command again",
            )
            sampling = Sampling(self.settings.max_tokens)
            collector.run(lambda requests: model.generate(requests, sampling), shards)
        finally:
            model.close()
        reasons = {}
        for shard in shards:
            for failure in read_failures(shard.errors_path):
                reasons[failure.id] = f"{failure.reason}: {failure.message}"[:MAX_CHARACTERS]
            shard.errors_path.unlink(missing_ok=True)
        return reasons

    def _question(
        self,
        model: Model,
        samples: Samples,
        prompt: Prompt,
        row_of: Mapping[str, int],
        id_: str,
    ) -> Question[Opinion]:
        tokenizer = model.tokenizer
        control_tokens = tokenizer.control_tokens if tokenizer else ()
        rendered = prompt.render(_rubric_seed(samples[row_of[id_]]), control_tokens)
        token_ids = tokenizer.encode(rendered) if tokenizer else None
        request = Request(id_, rendered, token_ids, stop=tuple(prompt.front.stop))

        def record(completion: Completion) -> tuple[Opinion, None]:
            answer = replies.read(prompt, completion, tokenizer).answer
            number = NUMBER.search(answer or "")  # "4/5" and "4 out of 5" are 4
            mark = float(number.group()) if number else None
            return Opinion(id=id_, text=completion.text, mark=mark), None

        return Question(request, record)


def _stored_opinions(folder: Path) -> dict[str, tuple[float | None, str]]:
    """Return score and text of each stored opinion. Seals shards that a killed process left."""
    sweep(folder)
    for path in folder.glob("*.journal.jsonl"):
        shard = Shard(folder, _shard_number(path), Opinion)
        if shard.claim():
            shard.recover(ID.findall(path.read_text(encoding="utf-8", errors="replace")))
            shard.order = list(shard.done)
            shard.seal()
    return {
        opinion.id: (opinion.mark, opinion.text[:MAX_CHARACTERS])
        for opinion in read_records(folder, Opinion)
    }


def _new_shards(folder: Path, ids: Sequence[str]) -> Iterator[Shard[Opinion]]:
    """Claim new shards, numbered after the stored ones."""
    last = max(map(_shard_number, folder.glob("*.jsonl.gz")), default=-1)
    for number, begin in enumerate(range(0, len(ids), SHARD_SIZE), start=last + 1):
        shard = Shard(folder, number, Opinion)
        if shard.claim():
            shard.recover(ids[begin : begin + SHARD_SIZE])
            yield shard


def _shard_number(path: Path) -> int:
    return int(path.name.split(".")[0])


def _rubric_seed(sample: Sample) -> Seed:
    """Return the inputs that the rubric may name: the example's own, and RUBRIC_NAMES."""
    check([sample.seed])
    values = (
        sample.text,
        sample.answer or "",
        sample.rationale or "",
        sample.seed.target or "",
    )
    inputs = sample.seed.inputs | dict(zip(RUBRIC_NAMES, values, strict=True))
    return Seed(id=sample.id, inputs=inputs)


def check(seeds: Iterable[Seed]) -> None:
    """Raise PipelineError for an example with an input whose name the rubric uses itself."""
    for seed in seeds:
        for name in RUBRIC_NAMES:
            if name in seed.inputs:
                raise PipelineError(
                    f"filter.judge: seed {seed.id} has an input '{name}', "
                    "a name that the rubric uses itself; rename the input"
                )


def _failed(failure: Failure) -> Failed:
    return Failed(id=failure.id, number=0, index=0, reason=failure.reason, message=failure.message)


def reject_low_scores(
    rows: NDArray[np.int64], scores: Scores, least: float, drop_unjudged: bool
) -> dict[int, Verdict]:
    """Reject scores below `least` as low_mark, and with `drop_unjudged` rows without a score.

    Their reason is unjudged, and the value is what the judge wrote.
    """
    values = scores.values[rows]
    verdicts = {}
    for row in rows[values < least].tolist():
        verdicts[row] = Verdict("low_mark", float(scores.values[row]))
    if drop_unjudged:
        for row in rows[np.isnan(values)].tolist():
            verdicts[row] = Verdict("unjudged", scores.missing.get(row, ""))
    return verdicts


def roc_auc(scores: NDArray[np.float64], correctness: NDArray[np.float64]) -> float | None:
    """Return how often a right answer (1) has a higher score than a wrong one (below 1).

    This is the area under the ROC curve; a tie counts half (Mann & Whitney 1947). Rows (N,) that
    are nan in either argument are left out. None if one of the two kinds is missing.
    """
    known = ~np.isnan(scores) & ~np.isnan(correctness)
    right = np.sort(scores[known & (correctness == 1.0)])
    wrong = scores[known & (correctness < 1.0)]
    if not len(right) or not len(wrong):
        return None
    lower = np.searchsorted(right, wrong, side="left")
    lower_or_equal = np.searchsorted(right, wrong, side="right")
    higher = len(right) - lower_or_equal
    ties = lower_or_equal - lower
    return float((higher + 0.5 * ties).sum() / (len(right) * len(wrong)))
