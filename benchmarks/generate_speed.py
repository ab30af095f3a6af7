"""Measures output tokens/s of `pipeline generate` against raw `LLM.generate`.

    .venv/bin/python benchmarks/generate_speed.py [k …]

Both sides use one engine, with the same prompts and sampling, in one process. One side is vLLM
alone: a list of prompts in, all outputs in memory. The other adds everything that generate does:
feeding, decoding, rationale and answer, top-k frames, fsynced shards. Rounds alternate after a
warm-up of both, and each round gives a ratio. The default is k = 0 and k = 20. PROMPTS and TOKENS
in the environment make larger runs.
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
PROMPTS = int(os.environ.get("PROMPTS", "256"))
TOKENS = int(os.environ.get("TOKENS", "64"))
PROMPT = """---
format: chat
rationale: {start: '', end: '.'}
---
Explain in a few sentences what this text message is about.

{{ text }}"""


def main(ks: list[int]) -> dict[int, list[float]]:
    """Return the sorted ratios for each k."""
    folder = Path(tempfile.mkdtemp(prefix="generate_speed."))
    ratios = {}
    (folder / "prompt.md").write_text(PROMPT)
    for k in ks:
        options = [
            f"teacher.logprobs={k}",
            "teacher.temperature=0.8",
            f"teacher.max_tokens={TOKENS}",
            f"task.seeds.limit={PROMPTS}",
            f"generate.prompt={folder / 'prompt.md'}",
            "generate.shard_size=64",
            "train.arms={sft: {method: sft}}",
        ]
        config = load("configs/quickstart.yaml", options)
        model = VllmModel(
            config.teacher.model, None, config.teacher.engine, k, folder / "engine.log"
        )
        try:
            ratios[k] = compare(config, model, folder / str(k))
        finally:
            model.close()
    return ratios


def compare(config: Config, model: VllmModel, folder: Path) -> list[float]:
    """Run both sides in turns, print their rates, and return the sorted ratios."""
    rates: dict[str, list[float]] = {"raw LLM.generate": [], "pipeline generate": []}
    for number in range(ROUNDS + 1):
        for name, side in (("raw LLM.generate", raw), ("pipeline generate", ours)):
            seeded = config.generate.model_copy(update={"seed": number})
            started = time.perf_counter()
            tokens = side(
                config.model_copy(update={"generate": seeded}), model, folder / str(number)
            )
            if number:  # the first round warms the prefix cache of both
                rates[name].append(tokens / (time.perf_counter() - started))
    pairs = zip(rates["pipeline generate"], rates["raw LLM.generate"], strict=True)
    ratios = sorted(our_rate / raw_rate for our_rate, raw_rate in pairs)
    k = config.teacher.logprobs
    print(f"k = {k}, {PROMPTS} prompts, up to {TOKENS} tokens each, {ROUNDS} rounds")
    for name, values in rates.items():
        middle = statistics.median(values)
        print(f"  {name}: {middle:,.0f} tokens/s ({min(values):,.0f} to {max(values):,.0f})")
    middle = statistics.median(ratios)
    print(f"  ratio {middle:.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})", flush=True)
    return ratios


def raw(config: Config, model: VllmModel, folder: Path) -> int:
    """Run vLLM alone, with the sampling parameters of generate. Returns the output tokens."""
    prompt = prompts.load(config.generate.prompt[0])
    teacher = config.teacher
    sampling = Sampling(
        teacher.max_tokens, teacher.temperature, teacher.top_p, teacher.top_k, teacher.logprobs
    )
    stops = model._stops(tuple(prompt.front.stop))
    inputs: list[Any] = []
    parameters: list[Any] = []
    for seed in seeds.load(config.task.seeds):
        rendered = prompt.render(seed, model.tokenizer.control_tokens)
        inputs.append({"prompt_token_ids": model.tokenizer.encode(rendered)})
        random_seed = hash((config.generate.seed, seed.id)) & 0x7FFFFFFF
        parameters.append(sampling_params(sampling, stops, random_seed))
    outputs = model._llm.generate(inputs, parameters, use_tqdm=False)
    return sum(len(output.outputs[0].token_ids) for output in outputs)


def ours(config: Config, model: VllmModel, folder: Path) -> int:
    """Run everything that `generate.run` does once its model is loaded. Returns the tokens."""
    folder.mkdir(parents=True)
    with open(os.devnull, "w") as silence:
        progress = Progress("generate", PROMPTS, stream=silence)
        keep_prompts(config.generate.prompt, folder)
        generate.capturing(Job(config, "generate", "", folder)).process_shards(model, progress)
    return progress.tokens


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]] or [0, 20])
