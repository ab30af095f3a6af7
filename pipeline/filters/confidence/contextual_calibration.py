"""What the teacher's prompt makes of the labels whatever the input: its distribution over them for inputs without content.

The teacher is asked once, with the prompt that the samples were made with and one text, such as "N/A", in the place of every input.
RUN/measured/content_free-KEY.json keeps what it said.
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

log = logging.getLogger(__name__)


def distributions(config: Config, labels: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """(M, L): the mass of each label (of its tokens, as from `calibration.label_tokens`) for each of filter.calibrated.content_free.

    A row is nan where the answer held none. Raises PipelineError if all are, or if the teacher gives no logprobs.
    """
    calibrated, generated = config.filter.calibrated, Path(config.run_dir) / "generate"
    assert calibrated is not None
    assert calibrated.content_free is not None
    path = prompts.stored_files(generated)[0]
    asked = [
        config.settings("teacher"),
        resolve.identities(config.teacher),
        sha256(path),
        labels,
        calibrated.content_free,
    ]
    kept = Path(config.run_dir) / "measured" / f"content_free-{digest(asked)}.json"
    if not kept.exists():
        prompt, example = prompts.load(path), Samples(generated)[0].seed
        check(prompt, [example])
        kept.parent.mkdir(exist_ok=True)
        seeds = [
            Seed(id=str(number), inputs=dict.fromkeys(example.inputs, text))
            for number, text in enumerate(calibrated.content_free)
        ]
        write_json(
            kept,
            {"texts": calibrated.content_free, "masses": _ask(config, prompt, seeds, labels, kept)},
        )
    masses = np.array(
        [[np.nan if mass is None else mass for mass in row] for row in read_json(kept)["masses"]],
        np.float32,
    )
    if not label_calibration.readable(masses).any():
        texts = ", ".join(map(repr, calibrated.content_free))
        raise PipelineError(
            f"filter.calibrated.content_free: the teacher gave none of the labels to any of {texts}; "
            "choose other texts, or leave content_free out for batch calibration"
        )
    return masses


def check(prompt: Prompt, seeds: Iterable[Seed]) -> None:
    """Raise PipelineError for a seed with an input that the prompt names and no text can stand for."""
    for seed in seeds:
        many = [
            name
            for name, value in seed.inputs.items()
            if name in prompt.names and isinstance(value, list | dict)
        ]
        if many:
            raise PipelineError(
                f"filter.calibrated.content_free: input '{many[0]}' holds several values, and no text can stand for them; leave it out"
            )


def _ask(
    config: Config,
    prompt: Prompt,
    seeds: Sequence[Seed],
    labels: Sequence[Sequence[int]],
    kept: Path,
) -> list[list[float | None]]:
    """A row for each seed, of None where it cannot be read."""
    teacher = config.teacher
    log.info(f"filter calibrated: {len(seeds)} inputs without content; loading {teacher.model}")
    model = open_teacher(teacher, kept.with_suffix(".log"))
    try:
        sampling = Sampling(teacher.max_tokens, logprobs=teacher.logprobs)
        answers = [
            one
            for batch in model.generate(_requests(prompt, seeds, model), sampling)
            for one in batch
        ]
        found = {answer.id: _masses(prompt, answer, model, labels) for answer in answers}
    finally:
        model.close()
    return [found[seed.id] for seed in seeds]


def _requests(prompt: Prompt, seeds: Sequence[Seed], model: Model) -> Iterator[Request]:
    for seed in seeds:
        rendered = prompt.render(seed, model.tokenizer.control_tokens if model.tokenizer else ())
        ids = model.tokenizer.encode(rendered) if model.tokenizer else None
        yield Request(seed.id, rendered, ids, stop=tuple(prompt.front.stop))


def _masses(
    prompt: Prompt, answer: Answer, model: Model, labels: Sequence[Sequence[int]]
) -> list[float | None]:
    if not isinstance(answer, Completion):
        raise PipelineError(f"filter.calibrated.content_free: {answer.reason}: {answer.message}")
    if answer.topk is None or answer.token_ids is None:
        raise PipelineError(
            "filter.calibrated.content_free: the teacher gave no logprobs; leave content_free out"
        )
    owner = label_calibration.owners(labels)
    place = label_calibration.first_label(
        answer.token_ids, replies.read(prompt, answer, model.tokenizer).answer_tokens, owner
    )
    if place is None:
        return [None] * len(labels)
    entries = dict(
        zip(
            answer.topk.ids[place].tolist(),
            np.exp(answer.topk.logprobs[place].astype(np.float64)).tolist(),
            strict=True,
        )
    )
    own, tail = answer.token_ids[place], max(0.0, 1.0 - sum(entries.values()))
    return label_calibration.masses(entries, own, tail, owner, len(labels)).tolist()
