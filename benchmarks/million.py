"""Measures the driver of generate over a million samples, with an engine that only pretends.

    .venv/bin/python benchmarks/million.py [SAMPLES]

It measures memory with top-20 logprobs, the cores that 10,000 tokens/s take, and the time until a
run with a million finished samples sends its next request. The pretended engine hands out
ready-made completions in vLLM's own form, as flat lists. All else is what `pipeline generate` runs:
examples from a file, prompts rendered and tokenised, frames, fsynced journals, sealed shards.
"""

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil

from pipeline.config import Config, load
from pipeline.execution.contract import Job
from pipeline.execution.progress import Progress
from pipeline.inference.teacher_samples import keep_prompts
from pipeline.models.base import Answer, Completion, Facts, NothingToRelease, Request, Sampling
from pipeline.models.fake import TOKENIZER
from pipeline.models.tokenizer import Tokenizer
from pipeline.models.vllm_outputs import unflatten
from pipeline.records import Usage
from pipeline.stages import generate

K = 20
TEXT = " spam, it promises a prize to whoever calls a number"  # a token a character
BATCH = 32  # completions returned together
SECONDS = 30.0  # how long cores are measured
PROMPT = r"""---
format: completion
stop: ["\n"]
answer: {end: [",", "\n"]}
rationale: {start: ",", end: "\n"}
---
{{ text }}
Label:"""


class Pretended(NothingToRelease):
    """Gives completions of `tokens` tokens, at most `rate` tokens/s.

    It calls `asked` before each batch.
    """

    def __init__(
        self, tokens: int, rate: float = float("inf"), asked: Callable[[], None] = lambda: None
    ):
        self.facts = Facts("pretended", None, "raw_logprobs", "float32", "none")
        self.tokenizer = Tokenizer(str(TOKENIZER))
        self._rate = rate
        self._asked = asked
        random = np.random.default_rng(0)
        self._ids = self.tokenizer.encode_reply((TEXT * tokens)[: tokens - 1])
        assert len(self._ids) == tokens
        logits = np.sort(random.normal(0, 3, (tokens, 263)))[:, ::-1]
        logprobs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        order = random.permuted(np.tile(np.arange(263), (tokens, 1)), axis=1)[:, :K]
        self._flat = SimpleNamespace(  # lists, as vLLM's FlatLogprobs
            token_ids=np.concatenate([np.array(self._ids)[:, None], order], axis=1)
            .flatten()
            .tolist(),
            logprobs=np.concatenate([logprobs[:, 3:4], logprobs[:, :K]], axis=1).flatten().tolist(),
        )

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[list[Answer]]:
        waiting = iter(requests)
        started = time.perf_counter()
        made = 0
        while batch := list(islice(waiting, BATCH)):
            self._asked()
            made += len(batch) * len(self._ids)
            time.sleep(max(0.0, started + made / self._rate - time.perf_counter()))
            yield [self._completion(request) for request in batch]

    def score(self, requests: Iterable[Request], k: int) -> Iterator[list[Answer]]:
        raise NotImplementedError

    def _completion(self, request: Request) -> Completion:
        ids = list(self._ids)
        usage = Usage(prompt_tokens=len(request.token_ids or ()), completion_tokens=len(ids))
        return Completion(
            request.id,
            self.tokenizer.decode(ids),
            ids,
            "stop",
            usage,
            unflatten(self._flat, len(ids)),
        )


def prepare(folder: Path, samples: int, tokens: int) -> Config:
    """Write examples and a prompt, and return a config whose run folder is folder/run."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prompt.md").write_text(PROMPT)
    with (folder / "seeds.jsonl").open("w") as file:
        for number in range(samples):
            text = f"message {number} of a long night"
            example = {"id": f"seed-{number}", "text": text, "target": "spam"}
            file.write(json.dumps(example) + "\n")
    return configure(folder, tokens)


def configure(folder: Path, tokens: int) -> Config:
    """Return the config of a prepared folder."""
    options = [
        f"task.seeds={folder / 'seeds.jsonl'}",
        f"generate.prompt={folder / 'prompt.md'}",
        f"run_dir={folder / 'run'}",
        "teacher.backend=fake",
        "teacher.model=pretended",
        "teacher.replies=[x]",
        f"teacher.logprobs={K}",
        "student={model: random}",
        f"teacher.max_tokens={tokens}",
        "generate.shard_size=512",
        "teacher.temperature=1",
    ]
    return load("configs/quickstart.yaml", options)


def job_of(config: Config) -> Job:
    """Return the job of the generate stage."""
    folder = Path(config.run_dir) / "generate"
    folder.mkdir(parents=True, exist_ok=True)
    return Job(config, "generate", "", folder)


def work(config: Config, model: Pretended, progress: Progress) -> None:
    """Generate all samples."""
    keep_prompts(config.generate.prompt, job_of(config).folder)
    generate.capturing(job_of(config)).process_shards(model, progress)


def cores(folder: Path, rate: float = 10_000.0, tokens: int = 100) -> float:
    """Return the CPU seconds a second that all but the engine takes at `rate` tokens/s."""
    config = prepare(folder, int(SECONDS * rate / tokens), tokens)
    model = Pretended(tokens, rate)
    with open(os.devnull, "w") as silence:
        started = time.perf_counter()
        cpu_started = time.process_time()
        work(config, model, Progress("generate", 1, stream=silence))
        return (time.process_time() - cpu_started) / (time.perf_counter() - started)


def memory(folder: Path, samples: int, tokens: int = 12) -> tuple[float, float]:
    """Return this process's peak in GiB, and its growth in MiB after a quarter of the samples."""
    config = prepare(folder, samples, tokens)
    sizes: list[int] = []
    asked = 0

    def record_size() -> None:
        nonlocal asked
        asked += BATCH
        if asked % (BATCH * 256) == 0:
            sizes.append(psutil.Process().memory_info().rss)

    with open(os.devnull, "w") as silence:
        work(
            config,
            Pretended(tokens, asked=record_size),
            Progress("generate", samples, stream=silence),
        )
    quarter = sizes[len(sizes) // 4] if sizes else 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return peak / 2**30, (sizes[-1] - quarter) / 2**20 if sizes else 0.0


def finish(config: Config) -> None:
    """Make a finished run at once: generate its first shard, and link all others to it."""
    folder = job_of(config).folder
    capturing = generate.capturing(job_of(config))
    claim = capturing.worker.claim

    def claim_first(header: bytes) -> Iterator[Any]:
        return islice(claim(header), 1)

    capturing.worker.claim = claim_first  # type: ignore[method-assign]
    with open(os.devnull, "w") as silence:
        keep_prompts(config.generate.prompt, folder)
        capturing.process_shards(
            Pretended(config.teacher.max_tokens), Progress("generate", 1, stream=silence)
        )
    for number in range(1, capturing.worker.work.shards):
        for suffix in ("jsonl.gz", "topk"):
            os.link(folder / f"00000.{suffix}", folder / f"{number:05d}.{suffix}")


def resume(config: Config, rounds: int = 5) -> list[float]:
    """Return the seconds from the start of a process to its first request, sorted.

    Only the middle shard of the run is missing. The time to open the model does not count.
    """
    folder = job_of(config).folder
    shards = sorted(folder.glob("0*.jsonl.gz"))
    middle = shards[len(shards) // 2]
    for path in (middle, middle.with_name(middle.name.replace("jsonl.gz", "topk"))):
        path.unlink()
    prepared = str(folder.parent.parent)
    code = (
        "from benchmarks import million; "
        f"million.first_request({prepared!r}, {config.teacher.max_tokens})"
    )
    times = []
    for _ in range(rounds):
        started = time.time()
        process = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        asked, opening = map(float, process.stdout.split()[-2:])
        times.append(asked - started - opening)
    return sorted(times)


def first_request(folder: str, tokens: int) -> None:
    """Print the time of the first request and how long the model took to open, then exit."""
    from pipeline.execution import fingerprint

    config = configure(Path(folder), tokens)
    fingerprint.fingerprint(generate, config, "")
    capturing = generate.capturing(job_of(config))
    capturing.worker.count_stored()
    opened = time.time()
    model = Pretended(tokens, asked=lambda: _report(seconds))
    seconds = time.time() - opened
    with open(os.devnull, "w") as silence:
        capturing.process_shards(model, Progress("generate", 1, stream=silence))


def _report(opening: float) -> None:
    print(time.time(), opening, flush=True)
    os._exit(0)


def main(samples: int) -> None:
    """Measure and print all three figures."""
    folder = Path(tempfile.mkdtemp(prefix="million."))
    try:
        print(f"cores at 10,000 tokens/s with top-{K}: {cores(folder / 'cores'):.2f}", flush=True)
        started = time.perf_counter()
        peak, growth = memory(folder / "memory", samples)
        seconds = time.perf_counter() - started
        print(
            f"{samples:,} samples in {seconds:,.0f} s: peak {peak:.2f} GiB, "
            f"growth from a quarter on {growth:+.0f} MiB",
            flush=True,
        )
        config = prepare(folder / "resume", samples, 12)
        finish(config)
        times = resume(config)
        middle = times[len(times) // 2]
        print(f"resume: first request after {middle:.2f} s ({times[0]:.2f} to {times[-1]:.2f})")
    finally:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
