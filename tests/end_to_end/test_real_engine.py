"""The main path with nothing faked: the packaged teacher through vLLM, and all stages."""

import json
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import load
from pipeline.data import prompts
from pipeline.evaluation.results_model import Results
from pipeline.models.backends import open_teacher
from pipeline.models.base import Completion, Request
from pipeline.models.resolve import tokenizer_path
from pipeline.models.tokenizer import Tokenizer
from pipeline.records import Sample
from pipeline.storage.samples import Samples
from pipeline.storage.shards import read_records
from pipeline.storage.topk import TopKFolder
from tests.support.task import ROOT

pytestmark = pytest.mark.real
QUICKSTART = "configs/quickstart.yaml"
TIE = 0.25  # nats; two passes in bfloat16 differ by hundredths on average, by tenths at worst
SMALL = [
    "task.seeds.limit=24",
    "task.eval_seeds.limit=8",
    "generate.shard_size=10",
    "train.report_to=[]",
]
SMALL += ["teacher.logprob_threshold=0.01"]  # so that near ties are among the exact entries


def pipeline(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Run `make bench-quality` on a few examples of the quickstart; run folder and output."""
    runs = tmp_path_factory.mktemp("real")
    options = ["--tasks", "sms_spam", "--parts", "main", "--repeats", "1", "--runs", str(runs)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.quality", *options, *SMALL],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr  # 1: a bar is missed
    return runs / "sms_spam-small" / "student", done.stdout + done.stderr


@pytest.fixture(scope="module")
def run_dir(measured: tuple[Path, str]) -> Path:
    return measured[0]


def test_the_table_of_quality_on_real_models(measured: tuple[Path, str]) -> None:
    """A table that was only ever computed from made-up results."""
    run_dir, output = measured
    results = Results.read(run_dir / "evaluate" / "results.json")
    arms = {name: results.models[name].score.mean for name in ("kd", "sft")}
    short = max(arms.values()) - results.models["teacher"].score.mean
    figure = re.search(r"best student against its teacher +(kd|sft): (\S+)\n", output)
    assert figure is not None, output
    assert figure[2] == f"{short:+.3f}"
    assert re.search(r"rows and steps of all arms +equal +\d+ rows, \d+ steps\n", output)
    assert re.search(r"\d of \d bars met", output)


def test_all_three_products_of_a_real_teacher(run_dir: Path) -> None:
    """Misaligned logprobs, or a greedy token that is not the most likely one."""
    frames = TopKFolder(run_dir / "generate")
    samples = list(read_records(run_dir / "generate", Sample))
    assert len(samples) == 24
    labelled = [sample for sample in samples if sample.answer in ("spam", "normal")]
    assert sum(sample.rationale is not None for sample in labelled) >= 20
    for sample in samples:
        topk = frames.topk_of(sample)
        assert topk.ids[:, 0].tolist() == sample.token_ids
        # a draw stands for others too: its share is not its own probability
        exact = np.arange(topk.ids.shape[1]) < topk.exact[:, None]
        assert (topk.logprobs[:, 0] >= np.where(exact, topk.logprobs, -np.inf).max(axis=1)).all()
        entries = np.where(topk.logprobs == -np.inf, 0, np.exp(topk.logprobs))
        assert np.abs(entries.sum(1) + np.exp(topk.tail) - 1).max() < 2e-3


def test_four_models_were_measured(run_dir: Path) -> None:
    """A model without answers, size or speed in results.json."""
    results = json.loads((run_dir / "evaluate" / "results.json").read_text())
    assert list(results["models"]) == ["teacher", "base", "kd", "sft"]
    assert results["note"] is None
    assert results["models"]["teacher"]["score"]["mean"] >= 0.75
    for model in results["models"].values():
        assert model["tokens_per_s"] > 0
        assert model["parameters"] == results["models"]["teacher"]["parameters"]  # a whole student


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a real vLLM server on loopback, as a user would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = tmp_path_factory.mktemp("server") / "server.log"
    command = [
        sys.executable,
        "-m",
        "pipeline",
        "serve",
        QUICKSTART,
        "--port",
        str(port),
        "teacher.engine.kv_cache_gib=1",
    ]
    with path.open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)
        try:
            wait_for(f"http://127.0.0.1:{port}/health", process, path)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(60)


def asking(server: str) -> list[str]:
    """Return the overrides that make the server the teacher, as pipeline serve prints them."""
    config = load(ROOT / QUICKSTART)
    return [
        "teacher.backend=openai",
        f"teacher.base_url={server}",
        f"teacher.tokenizer={tokenizer_path(config.teacher)}",
    ]


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(240):
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    pytest.fail(log.read_text()[-3000:])


def test_server_and_engine_agree(run_dir: Path, server: str) -> None:
    """Records that depend on the way the teacher is asked, other than by near ties."""
    done = pipeline(
        "generate", QUICKSTART, *SMALL, f"run_dir={run_dir.parent / 'server'}", *asking(server)
    )
    assert done.returncode == 0, done.stderr
    ours = list(read_records(run_dir / "generate", Sample))
    theirs = list(read_records(run_dir.parent / "server" / "generate", Sample))
    assert [sample.prompt_digest for sample in ours] == [sample.prompt_digest for sample in theirs]
    here = TopKFolder(run_dir / "generate")
    by_http = TopKFolder(run_dir.parent / "server" / "generate")
    gaps: list[float] = []
    ties: list[float] = []
    for a, b in zip(ours, theirs, strict=True):
        one, other = here.topk_of(a), by_http.topk_of(b)
        length = min(len(one.ids), len(other.ids))
        apart = np.flatnonzero(one.ids[:length, 0] != other.ids[:length, 0])
        common = apart[0] if len(apart) else length
        gaps += np.abs(one.logprobs[:common, 0] - other.logprobs[:common, 0]).tolist()
        if len(apart):  # only a near tie may be broken otherwise
            theirs_here = one.logprobs[common][one.ids[common] == other.ids[common, 0]]
            ties.append(float(one.logprobs[common, 0] - theirs_here.max(initial=-np.inf)))
        else:
            assert a.token_ids == b.token_ids
    assert np.mean(gaps) < 0.1
    assert all(tie < TIE for tie in ties), ties
    assert len(ties) <= len(ours) // 2


def test_prefill_agrees_with_what_was_stored(run_dir: Path, server: str) -> None:
    """Distributions by prefill, of engine or server, that differ from those of generate."""
    done = pipeline("score", QUICKSTART, *SMALL, f"run_dir={run_dir}")
    assert done.returncode == 0, done.stdout + done.stderr
    made, scored = TopKFolder(run_dir / "generate"), TopKFolder(run_dir / "score")
    samples = list(read_records(run_dir / "score", Sample))
    kept = {sample.id: sample for sample in Samples(run_dir / "filter" / "kept")}
    assert len(samples) == len(kept) > 10
    gaps = [
        made.topk_of(kept[sample.id]).logprobs[:, 0] - scored.topk_of(sample).logprobs[:, 0]
        for sample in samples
    ]
    assert np.abs(np.concatenate(gaps)).mean() < 0.1
    teacher = load(ROOT / QUICKSTART, asking(server)).teacher
    model = open_teacher(teacher, run_dir / "server.log")
    prompt = prompts.load(run_dir / "score" / "prompts" / "0.md")
    assert model.tokenizer is not None
    requests = []
    for sample in samples[:4]:
        rendered = prompt.render(sample.seed, model.tokenizer.control_tokens)
        requests.append(
            Request(
                sample.id, rendered, model.tokenizer.encode(rendered), reply_ids=sample.token_ids
            )
        )
    answers = {answer.id: answer for batch in model.score(iter(requests), 8) for answer in batch}
    for sample in samples[:4]:
        answer = answers[sample.id]
        assert isinstance(answer, Completion)
        assert answer.topk is not None
        gap = answer.topk.logprobs[:, 0] - scored.topk_of(sample).logprobs[:, 0]
        assert np.abs(gap).mean() < 0.1


def test_control_tokens_of_the_real_tokenizer_do_not_act() -> None:
    """<|im_end|> in a message must not end the turn."""
    from pipeline.data.prompts import FrontMatter, Prompt
    from pipeline.records import Seed

    tokenizer = Tokenizer(tokenizer_path(load(ROOT / QUICKSTART).teacher))
    from jinja2 import Template

    prompt = Prompt("p", FrontMatter(format="completion"), Template("{{ text }}"))
    ids = tokenizer.encode(
        prompt.render(Seed(id="1", inputs={"text": "x<|im_end|>"}), tokenizer.control_tokens)
    )
    assert tokenizer.hf.eos_token_id not in ids
