"""Ask the teacher about inputs without content, to learn what its prompt makes of the labels.

It is asked once, with the prompt of the samples and a text such as "N/A" in place of every input.
RUN/measured/content_free-KEY.json keeps the probabilities.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config
from pipeline.data import prompts, replies
from pipeline.data.prompts import Prompt
from pipeline.errors import PipelineError
from pipeline.filters.confidence import label_calibration
from pipeline.models import resolve
from pipeline.models.backends import open_teacher
from pipeline.models.base import Answer, Completion, Model, Request, Sampling
from pipeline.records import Seed, digest
from pipeline.storage.files import read_json, sha256, write_json
from pipeline.storage.samples import Samples

LabelTokens = Sequence[Sequence[int]]  # from `label_calibration.label_tokens`

log = logging.getLogger(__name__)


def distributions(config: Config, texts: Sequence[str], labels: LabelTokens) -> NDArray[np.float32]:
    """Return the probability of each label for each content-free text, (M, L).

    A row is nan if the teacher's answer holds no label. Raises PipelineError if all rows are, or if
    the teacher gives no logprobs.
    """
    generated = Path(config.run_dir) / "generate"
    path = prompts.stored_files(generated)[0]
    decisive = [
        config.settings("teacher"),
        resolve.identities(config.teacher),
        sha256(path),
        labels,
        texts,
    ]
    stored = Path(config.run_dir) / "measured" / f"content_free-{digest(decisive)}.json"
    if not stored.exists():
        prompt = prompts.load(path)
        example = Samples(generated)[0].seed
        check(prompt, [example])
        stored.parent.mkdir(exist_ok=True)
        seeds = [
            Seed(id=str(number), inputs=dict.fromkeys(example.inputs, text))
            for number, text in enumerate(texts)
        ]
        masses = _ask(config, prompt, seeds, labels, stored.with_suffix(".log"))
        write_json(stored, {"texts": texts, "masses": masses})
    rows = np.array(read_json(stored)["masses"], np.float32)  # null becomes nan
    if not label_calibration.is_readable(rows).any():
        raise PipelineError(
            "filter.calibrated.content_free: the teacher gave none of the labels to any of "
            f"{', '.join(map(repr, texts))}; "
            "choose other texts, or leave content_free out for batch calibration"
        )
    return rows


def check(prompt: Prompt, seeds: Iterable[Seed]) -> None:
    """Raise PipelineError if the prompt names an input with several values, such as a list.

    A text without content cannot replace it.
    """
    for seed in seeds:
        for name, value in seed.inputs.items():
            if name in prompt.names and isinstance(value, list | dict):
                raise PipelineError(
                    f"filter.calibrated.content_free: input '{name}' holds several values, "
                    "which a text without content cannot replace; leave content_free out"
                )


def _ask(
    config: Config, prompt: Prompt, seeds: Sequence[Seed], labels: LabelTokens, engine_log: Path
) -> list[list[float | None]]:
    """Return the label probabilities for each seed, None where they cannot be read."""
    teacher = config.teacher
    log.info(f"filter calibrated: {len(seeds)} inputs without content; loading {teacher.model}")
    model = open_teacher(teacher, engine_log)
    masses = {}
    try:
        sampling = Sampling(teacher.max_tokens, logprobs=teacher.logprobs)
        for answers in model.generate(_requests(prompt, seeds, model), sampling):
            for answer in answers:
                masses[answer.id] = _masses(prompt, answer, model, labels)
    finally:
        model.close()
    return [masses[seed.id] for seed in seeds]


def _requests(prompt: Prompt, seeds: Sequence[Seed], model: Model) -> Iterator[Request]:
    for seed in seeds:
        rendered = prompt.render(seed, model.tokenizer.control_tokens if model.tokenizer else ())
        ids = model.tokenizer.encode(rendered) if model.tokenizer else None
        yield Request(seed.id, rendered, ids, stop=tuple(prompt.front.stop))


def _masses(
    prompt: Prompt, answer: Answer, model: Model, labels: LabelTokens
) -> list[float | None]:
    if not isinstance(answer, Completion):
        raise PipelineError(f"filter.calibrated.content_free: {answer.reason}: {answer.message}")
    if answer.topk is None or answer.token_ids is None:
        raise PipelineError(
            "filter.calibrated.content_free: the teacher gave no logprobs; leave content_free out"
        )
    owners = label_calibration.token_owners(labels)
    span = replies.read(prompt, answer, model.tokenizer).answer_tokens
    place = label_calibration.first_label_token(answer.token_ids, span, owners)
    if place is None:
        return [None] * len(labels)
    probabilities = np.exp(answer.topk.logprobs[place].astype(np.float64)).tolist()
    entries = dict(zip(answer.topk.ids[place].tolist(), probabilities, strict=True))
    tail = max(0.0, 1.0 - sum(entries.values()))
    own = answer.token_ids[place]
    return label_calibration.label_masses(entries, own, tail, owners, len(labels)).tolist()
