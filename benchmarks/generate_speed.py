"""Output tokens/s of `pipeline generate` against raw `LLM.generate`: the same engine, prompts and sampling, in one process.

    .venv/bin/python benchmarks/generate_speed.py [k …]

One side is vLLM alone: a list of prompts in, all outputs in memory. The other is everything that generate does besides: feed, decode,
rationale and answer, top-k frames, fsynced shards. Rounds go raw, ours, raw, ours, … after a warm-up of both; a ratio is taken round by
round. The default is k = 0 and k = 20. Set PROMPTS or TOKENS in the environment for larger runs.
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pipeline.config import Config, load
from pipeline.data import prompts, seeds
from pipeline.execution.contract import Job
from pipeline.execution.progress import Progress
from pipeline.inference.teacher_samples import keep_prompts
from pipeline.models.base import Sampling
from pipeline.models.vllm_engine import VllmModel, sampling_params
from pipeline.stages import generate

ROUNDS = 5
PROMPTS, TOKENS = int(os.environ.get("PROMPTS", "256")), int(os.environ.get("TOKENS", "64"))
PROMPT = "---\nformat: chat\nrationale: {start: '', end: '.'}\n---\nExplain in a few sentences what this text message is about.\n\n{{ text }}"


def main(ks: list[int]) -> dict[int, list[float]]:
    """The ratios of each k, in rising order."""
    folder = Path(tempfile.mkdtemp(prefix="generate_speed."))
    found = {}
    (folder / "prompt.md").write_text(PROMPT)
    for k in ks:
        options = [
            f"teacher.logprobs={k}",
            "teacher.temperature=0.8",
            f"teacher.max_tokens={TOKENS}",
            f"task.seeds.limit={PROMPTS}",
        ]
        options += [
            f"generate.prompt={folder / 'prompt.md'}",
            "generate.shard_size=64",
            "train.arms={sft: {method: sft}}",
        ]
        config = load("configs/quickstart.yaml", options)
        model = VllmModel(
            config.teacher.model, None, config.teacher.engine, k, folder / "engine.log"
        )
        try:
            found[k] = compare(config, model, folder / str(k))
        finally:
            model.close()
    return found


def compare(config: Config, model: VllmModel, folder: Path) -> list[float]:
    rates: dict[str, list[float]] = {"raw LLM.generate": [], "pipeline generate": []}
    for number in range(ROUNDS + 1):
        for name, side in (("raw LLM.generate", raw), ("pipeline generate", ours)):
            began = time.perf_counter()
            tokens = side(
                config.model_copy(
                    update={"generate": config.generate.model_copy(update={"seed": number})}
                ),
                model,
                folder / str(number),
            )
            if number:  # the first round warms the prefix cache for both
                rates[name].append(tokens / (time.perf_counter() - began))
    ratios = sorted(
        mine / theirs
        for mine, theirs in zip(rates["pipeline generate"], rates["raw LLM.generate"], strict=True)
    )
    print(
        f"k = {config.teacher.logprobs}, {PROMPTS} prompts, up to {TOKENS} tokens each, {ROUNDS} rounds"
    )
    for name, values in rates.items():
        print(
            f"  {name}: {statistics.median(values):,.0f} tokens/s ({min(values):,.0f} to {max(values):,.0f})"
        )
    print(
        f"  ratio {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})", flush=True
    )
    return ratios


def raw(config: Config, model: VllmModel, folder: Path) -> int:
    """vLLM alone, with the very sampling parameters that generate uses."""
    prompt = prompts.load(config.generate.prompt[0])
    teacher = config.teacher
    sampling = Sampling(
        teacher.max_tokens, teacher.temperature, teacher.top_p, teacher.top_k, teacher.logprobs
    )
    inputs: list[Any] = []
    parameters: list[Any] = []
    for seed in seeds.load(config.task.seeds):
        inputs.append(
            {
                "prompt_token_ids": model.tokenizer.encode(
                    prompt.render(seed, model.tokenizer.control_tokens)
                )
            }
        )
        parameters.append(
            sampling_params(
                sampling,
                model._stops(tuple(prompt.front.stop)),
                hash((config.generate.seed, seed.id)) & 0x7FFFFFFF,
            )
        )
    outputs = model._llm.generate(inputs, parameters, use_tqdm=False)
    return sum(len(output.outputs[0].token_ids) for output in outputs)


def ours(config: Config, model: VllmModel, folder: Path) -> int:
    """Everything that `generate.run` does once its model is there."""
    folder.mkdir(parents=True)
    with open(os.devnull, "w") as silence:
        progress = Progress("generate", PROMPTS, stream=silence)
        keep_prompts(config.generate.prompt, folder)
        generate.capturing(Job(config, "generate", "", folder)).process_shards(model, progress)
    return progress.tokens


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]] or [0, 20])
