"""Latency, speed and price at a stated load: how and when they are measured."""

from pathlib import Path

import pytest

from pipeline.config import Config, Engine, load
from pipeline.errors import PipelineError
from pipeline.evaluation import gate
from pipeline.evaluation.bootstrap import Interval
from pipeline.evaluation.latency import measure, priced
from pipeline.evaluation.results_model import Calibration, Load, ModelFigures, Results
from pipeline.execution import runner
from pipeline.models.base import Request
from pipeline.models.fake import FakeModel
from pipeline.models.memory_usage import peak_of_processes, reset_peak
from pipeline.records import Rendered
from pipeline.stages import evaluate, generate, train
from pipeline.stages import filter as filter_stage

STAGES = (generate, filter_stage, train)
SCORE = Interval(mean=0.5, low=0.4, high=0.6)


def requests(count: int) -> list[Request]:
    return [
        Request(f"r{number}", Rendered(None, f"{number}?"), [number + 1]) for number in range(count)
    ]


def run(workshop: Path, *overrides: str) -> Config:
    config = load(workshop / "config.yaml", ["train.arms={sft: {method: sft}}", *overrides])
    for module in STAGES:
        runner.execute(module, config)
    runner.execute(evaluate, config, prepare=evaluate.reopen)
    evaluate.finish(config)
    return config


def results(config: Config) -> Results:
    return Results.read(Path(config.run_dir) / "evaluate" / "results.json")


def load_of_sft(config: Config) -> Load:
    load = results(config).models["sft"].load
    assert load is not None
    return load


def only_kd(model: ModelFigures) -> Results:
    return Results(metric="label", held_out=9, models={"kd": model})


def test_each_request_is_timed_at_the_load_asked_for() -> None:
    """Another number of requests at once gives other latencies; the first only warms up.

    The model takes 20 ms a batch, so eight requests, four at once, are two batches.
    """
    model = FakeModel("fake", [" yes\n"], Engine(), delay_s=0.02)
    found = measure(model, requests(9), 8, concurrency=4)
    assert (found.requests, found.concurrency) == (8, 4)
    assert found.p50_s is not None
    assert found.p95_s is not None
    assert found.first_token_p50_s is not None
    assert found.answers_per_s is not None
    assert 0.02 <= found.p50_s <= found.p95_s <= 8 / found.answers_per_s
    assert 0 < found.first_token_p50_s < found.p50_s
    assert found.peak_bytes is None


def test_one_held_out_seed_is_enough() -> None:
    """The warm-up must not use up the only request."""
    model = FakeModel("fake", [" yes\n"], Engine())
    assert measure(model, requests(1), 8, concurrency=4).requests == 1


def test_a_request_that_fails_ends_it() -> None:
    """Figures over the requests that worked would flatter the model."""
    with pytest.raises(PipelineError, match=r"failed, refused: .*set evaluate.load=null"):
        measure(FakeModel("fake", ["!refuse"], Engine()), requests(3), 8, concurrency=2)


def test_price_of_a_thousand_requests() -> None:
    """A wrong unit: at 3.60 an hour and 2 requests a second, 7,200 requests cost 3.60."""
    load = Load(answers_per_s=2.0)
    found = priced(load, 3.6)
    assert found is not None
    assert found.price_per_1000 == pytest.approx(0.5)
    without_price = priced(load, None)
    assert without_price is not None
    assert without_price.model_dump(exclude_unset=True) == {
        "answers_per_s": 2.0,
        "price_per_1000": None,
    }


def test_another_load_is_measured_without_asking_again(workshop: Path) -> None:
    """A new load must be measured, the same load not again, and no answer regenerated."""
    found = results(run(workshop, "evaluate.load=null"))
    assert found.models["sft"].load is None
    answers = workshop / "run" / "evaluate" / "sft" / "00000.jsonl.gz"
    before = answers.stat().st_mtime_ns
    assert load_of_sft(run(workshop)).requests == 7
    config = run(
        workshop, "evaluate.load={requests: 3, concurrency: 2}", "evaluate.price_per_hour=1.0"
    )
    figures = load_of_sft(config)
    assert (figures.requests, figures.concurrency) == (3, 2)
    assert figures.price_per_1000 is not None
    assert figures.price_per_1000 > 0
    assert answers.stat().st_mtime_ns == before
    assert not runner.execute(evaluate, config, prepare=evaluate.reopen)


def test_verdicts_stand_with_the_figures(workshop: Path) -> None:
    """The report must know the gate's verdict without reading the config."""
    assert results(run(workshop)).verdicts is None
    assert results(run(workshop, "evaluate.gate={p95_s: 1000}")).verdicts == []
    verdicts = results(run(workshop, "evaluate.gate={p95_s: 1e-9}")).verdicts
    assert verdicts is not None
    assert "p95_s is" in verdicts[0]


@pytest.mark.parametrize(
    ("setting", "missed"),
    [
        ("{p95_s: 0.2}", None),
        ("{p95_s: 0.1}", "p95_s is 0.15, more than evaluate.gate.p95_s=0.1"),
        ("{price_per_1000: 0.4}", "price_per_1000 is 0.5, more than"),
        ("{ece: 0.25}", None),
        ("{ece: 0.1}", "ece is 0.2, more than evaluate.gate.ece=0.1"),
    ],
)
def test_bounds_of_the_gate(workshop: Path, setting: str, missed: str | None) -> None:
    """A bound that never fails, or always does."""
    model = ModelFigures(
        score=SCORE,
        load=Load(p95_s=0.15, price_per_1000=0.5),
        calibration=Calibration(ece=0.2, brier=0.1, answers=9),
    )
    lines = gate.failed(
        load(workshop / "config.yaml", [f"evaluate.gate={setting}"]), only_kd(model)
    )
    assert (not lines) if missed is None else (len(lines) == 1 and missed in lines[0])


@pytest.mark.parametrize(
    ("key", "advice"),
    [
        ("p95_s", "set evaluate.load"),
        ("price_per_1000", "price_per_hour"),
        ("ece", "evaluate it with --redo"),
    ],
)
def test_a_gate_on_a_figure_that_is_not_there(workshop: Path, key: str, advice: str) -> None:
    """The gate must not pass because a figure is missing."""
    with pytest.raises(
        PipelineError, match=rf"evaluate.gate.{key}: was not measured for kd; .*{advice}"
    ):
        gate.failed(
            load(workshop / "config.yaml", [f"evaluate.gate={{{key}: 0.5}}"]),
            only_kd(ModelFigures(score=SCORE)),
        )


def test_peak_is_of_now() -> None:
    """Memory that a process took earlier, for another model, must not count."""
    block = bytearray(200 << 20)
    high = peak_of_processes(exclude=0)
    del block
    reset_peak()
    low = peak_of_processes(exclude=0)
    assert high is not None
    assert low is not None
    assert low < high - (150 << 20)
