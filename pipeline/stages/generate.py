"""generate: ask the teacher; responses, rationales and top-k logprobs, durable as they come."""

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pipeline import prompts, replies, seeds, topk
from pipeline.collect import Question, collect, plan
from pipeline.config import Config, Teacher
from pipeline.errors import PipelineError
from pipeline.models import Completion, Model, Request, Sampling, locate, open_teacher
from pipeline.progress import Progress
from pipeline.prompts import Prompt
from pipeline.records import Sample, Seed, digest
from pipeline.stage import Job, read_manifest
from pipeline.store import read_records, write_atomic

NAME = "generate"
SEED_BITS = 8  # hex digits of a hash that make a sampling seed


def parts(config: Config) -> list[str]:
    return [""]


def sections(config: Config, part: str) -> list[str]:
    return ["task.seeds", "teacher", "generate"]


def reads(config: Config, part: str) -> list[str]:
    return []


def files(config: Config, part: str) -> list[Path]:
    source = [Path(config.task.seeds.path)] if config.task.seeds.path else []
    return [*source, Path(config.generate.prompt)]


def identities(config: Config, part: str) -> Mapping[str, str]:
    teacher = {"teacher": locate.identity(config.teacher.model, config.teacher.revision)} if config.teacher.backend == "vllm" else {}
    return {**teacher, **seeds.identities(config.task.seeds)}


def run(job: Job) -> dict[str, Any]:
    """Ask for every sample that is not there yet, then count what is."""
    config = job.config
    prompt = prompts.load(config.generate.prompt)
    wanted = {_sample_id(config, seed, index): (seed, index) for seed, index in _samples(config)}
    shards = plan(job.folder, list(wanted), Sample, config.generate.shard_size * config.generate.samples)
    there = sum(len(shard.done) for shard in shards)
    write_atomic(job.folder / "prompt.md", Path(config.generate.prompt).read_bytes())
    if there == 0:
        prompts.check(prompt, (seed for seed, index in wanted.values() if index == 0))
    if there < len(wanted):
        print(f"generate: {there:,} of {len(wanted):,} samples are there; loading {config.teacher.model}", flush=True)
        model = open_teacher(config.teacher, job.engine_log)
        try:
            header = _header(config.teacher, model)
            for shard in shards:
                if header and not shard.complete:
                    shard.begin(header.to_bytes())
            ask = partial(_question, config, prompt, model, header, wanted)
            collect(model, _sampling(config, prompt), shards, ask, Progress("generate", len(wanted), there))
        finally:
            model.close()
    return count(job.folder)


def count(folder: Path) -> dict[str, Any]:
    """What a generate folder holds, from its files."""
    finish: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for sample in read_records(folder, Sample):
        finish[sample.finish_reason] += 1
        total["samples"] += 1
        total["prompt_tokens"] += sample.usage.prompt_tokens
        total["completion_tokens"] += sample.usage.completion_tokens
        total["with_answer"] += sample.answer is not None
        total["with_rationale"] += sample.rationale is not None
    nbytes = {suffix: sum(path.stat().st_size for path in folder.glob(f"*.{suffix}")) for suffix in ("jsonl", "topk")}
    return {**total, "finish_reason": dict(finish), "jsonl_bytes": nbytes["jsonl"], "topk_bytes": nbytes["topk"]}


def summary(config: Config) -> str:
    counts = read_manifest(Path(config.run_dir), NAME)["counts"]
    tokens = max(counts["completion_tokens"], 1)
    return (
        f"generate: {counts['samples']:,} samples, {counts['completion_tokens']:,} tokens; {counts['with_answer']:,} with an answer, "
        f"{counts['with_rationale']:,} with a rationale; logprobs {counts['topk_bytes'] / tokens:.1f} B a token, "
        f"text {counts['jsonl_bytes'] / tokens:.1f} B a token"
    )


def _samples(config: Config) -> Iterator[tuple[Seed, int]]:
    for seed in seeds.load(config.task.seeds):
        for index in range(config.generate.samples):
            yield seed, index


def _sample_id(config: Config, seed: Seed, index: int) -> str:
    return digest(config.teacher.model, seed.id, index)


def _sampling(config: Config, prompt: Prompt) -> Sampling:
    teacher = config.teacher
    return Sampling(teacher.max_tokens, teacher.temperature, teacher.top_p, teacher.top_k, teacher.logprobs, tuple(prompt.front.stop))


def _header(teacher: Teacher, model: Model) -> topk.Header | None:
    if not teacher.logprobs:
        return None
    assert model.tokenizer is not None
    return topk.Header(
        teacher=model.facts.name,
        revision=model.facts.revision,
        tokenizer=model.tokenizer.hash,
        chat_template=model.tokenizer.template_hash,
        vocab_size=model.tokenizer.vocab_size,
        k=teacher.logprobs,
        mass=teacher.logprob_mass,
        logprobs_mode=model.facts.logprobs_mode,
        head_dtype=model.facts.head_dtype,
        engine=model.facts.engine,
    )


def _question(
    config: Config, prompt: Prompt, model: Model, header: topk.Header | None, wanted: Mapping[str, tuple[Seed, int]], identifier: str
) -> Question[Sample]:
    seed, index = wanted[identifier]
    sampling_seed = (
        int(digest("sampling", config.generate.seed, seed.id, index, length=SEED_BITS), 16) if config.teacher.temperature else None
    )
    rendered = prompt.render(seed, model.tokenizer.control_tokens if model.tokenizer else ())
    token_ids = model.tokenizer.encode(rendered) if model.tokenizer else None
    fields = {
        "id": identifier,
        "seed": seed,
        "index": index,
        "teacher": config.teacher.model,
        "prompt_digest": digest(token_ids if token_ids is not None else str(rendered)),
        "sampling_seed": sampling_seed,
    }
    return Question(Request(identifier, rendered, token_ids, sampling_seed), partial(_record, prompt, model, header, fields))


def _record(
    prompt: Prompt, model: Model, header: topk.Header | None, fields: dict[str, Any], completion: Completion
) -> tuple[Sample, bytes | None]:
    rationale, answer = replies.read(prompt, completion, model.tokenizer)
    sample = Sample(
        **fields,
        token_ids=completion.token_ids,
        text=completion.text,
        rationale=rationale,
        answer=answer,
        finish_reason=completion.finish_reason,
        usage=completion.usage,
    )
    if header is None:
        return sample, None
    if completion.topk is None:
        raise PipelineError(f"{fields['teacher']}: gave no logprobs; set teacher.logprobs: 0 and train sft arms only")
    return sample, topk.encode(completion.topk.ids, completion.topk.logprobs, header.mass, header.id_dtype)
