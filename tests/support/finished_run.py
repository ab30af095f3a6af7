"""Make a run folder as the stages leave it, with all figures of results.json; they are made up."""

import json
from pathlib import Path
from typing import Any

CONFIG = {
    "run_dir": "runs/demo",
    "task": {
        "seeds": {"path": "seeds.jsonl"},
        "eval_seeds": {"path": "eval.jsonl"},
        "metric": "label",
        "labels": ["yes", "no"],
    },
    "teacher": {"backend": "vllm", "model": "acme/teacher-7b"},
    "generate": {"prompt": ["prompt.md"], "samples": 2},
    "student": {"model": "acme/student-1b"},
    "train": {
        "prompt": "prompt.md",
        "rows": "filter",
        "arms": {"kd": {"method": "kd"}, "sft": {"method": "sft"}, "small": {"method": "sft"}},
    },
    "evaluate": {"gate": {"arm": "kd", "retained": 0.95}},
}
REJECTED = {
    "finished.cut_at_length": 37,
    "correct.wrong_answer": 214,
    "near.near_duplicate": 96,
    "confidence.low_mean": 61,
}


def interval(mean: float, half: float = 0.02) -> dict[str, float]:
    return {"mean": mean, "low": mean - half, "high": mean + half}


def model(
    mean: float, parameters: int, speed: float, method: str | None = None, gap: float = 0.04
) -> dict[str, Any]:
    groups = {
        "short": {**interval(mean + gap / 2), "held_out": 300},
        "long": {**interval(mean - gap / 2, 0.03), "held_out": 200},
    }
    load = {
        "requests": 200,
        "concurrency": 8,
        "p50_s": 1 / speed,
        "p95_s": 2.1 / speed,
        "first_token_p50_s": 0.04,
        "first_token_p95_s": 0.09,
    }
    load |= {
        "tokens_per_s": 31.5 * speed,
        "answers_per_s": speed,
        "peak_bytes": parameters * 3,
        "price_per_1000": 2.4 / speed,
    }
    bins = [
        {
            "low": n / 5,
            "high": (n + 1) / 5,
            "count": 40 * n + 20,
            "confidence": n / 5 + 0.12,
            "accuracy": mean * (n + 1) / 5.5,
        }
        for n in range(5)
    ]
    trained = {"rows": 400, "verbatim": 0.012, "longest": 6}
    return {
        "method": method,
        "score": interval(mean),
        "retained": mean / 0.91,
        "unreadable": 3,
        "agreement": mean,
        "groups": groups,
        "gap": gap,
        "macro_f1": mean - 0.011,
        "metrics": {"rouge_l": interval(mean - 0.2), "chrf": interval(mean - 0.1)},
        "calibration": {"ece": 0.043, "brier": 0.081, "answers": 500, "bins": bins},
        "fidelity": {
            "kl": interval(0.213),
            "top1": 0.874,
            "tokens": 21000,
            "rouge_l": interval(0.5),
            "chrf": interval(0.6),
        },
        "engine": "vllm 1",
        "parameters": parameters,
        "nbytes": 2 * parameters,
        "tokens_per_s": 29.0 * speed,
        "answers_per_s": speed,
        "load": load,
        "memorisation": {
            "trained": trained,
            "unseen": {**trained, "verbatim": 0.004},
            "canaries": [{"text": "the code is 4417", "exposure": 1.7}],
        },
        "lm_eval": {"arc_easy": {"acc": {"value": mean - 0.25, "stderr": 0.011}}},
    }


def results() -> dict[str, Any]:
    return {
        "metric": "label",
        "held_out": 500,
        "models": {
            "teacher": model(0.91, 7_000_000_000, 6.2),
            "base": model(0.41, 1_100_000_000, 41.0, gap=0.02),
            "kd": model(0.887, 1_100_000_000, 41.3, "kd", gap=0.12),
            "sft": model(0.861, 1_100_000_000, 42.0, "sft", gap=0.05),
            "small": model(0.852, 350_000_000, 96.0, "sft", gap=0.001),
        },
        "repeats": {},
        "gate": None,
        "differences": {
            "kd - sft": {**interval(0.026, 0.015), "p": 0.0006},
            "kd - teacher": {**interval(-0.023, 0.016), "p": 0.012},
            "sft - teacher": {**interval(-0.049, 0.019), "p": 0.0003},
            "small - sft": {**interval(-0.009, 0.019), "p": 0.412},
        },
        "verdicts": [
            "gate: kd: its groups are 0.120 apart, more than evaluate.gate.gap=0.1 "
            "(the teacher's: 0.040)"
        ],
        "note": None,
    }


def ablation() -> dict[str, Any]:
    sets = {"curated": 0.887, "random": 0.858, "curated50": 0.861, "curated25": 0.829}
    return {
        "metric": "label",
        "held_out": 500,
        "arm": "kd",
        "repeats": 3,
        "samples": 2000,
        "kept": 1592,
        "sets": {
            name: {"arms": [name], "rows": [1592], "score": interval(mean), "each": [mean]}
            for name, mean in sets.items()
        },
        "curation": interval(0.029, 0.018),
        "curve": {
            "shares": [1.0, 0.5, 0.25],
            "per_doubling": interval(0.029, 0.012),
            "last_step": interval(0.026, 0.021),
        },
        "note": None,
    }


def history(method: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    for step in range(1, 101, 3):
        kd = (
            {
                "loss_ce": 0.2 / step**0.4,
                "loss_kd": 1.9 / step**0.55,
                "kd_gradient_share": 0.8 - 0.001 * step,
            }
            if method == "kd"
            else {}
        )
        entries.append(
            {
                "step": step,
                "loss": sum(v for k, v in kd.items() if "loss" in k) or 2.5 / step**0.5,
                "learning_rate": 2e-4 * (1 - step / 100),
                **kd,
            }
        )
        if step % 15 == 1:
            entries.append(
                {"step": step, "eval_loss": 2.6 / step**0.45, "eval_score": 0.9 - 0.6 / step**0.5}
            )
    return entries


def make(
    run: Path,
    figures: dict[str, Any] | None,
    until: int = 99,
    rejected: dict[str, int] | None = None,
) -> Path:
    """Make a run whose first `until` parts are finished and whose next one is started.

    `figures` becomes its results.json.
    """
    rejected = REJECTED if rejected is None else rejected
    counts: dict[str, dict[str, Any]] = {
        "generate": {"samples": 2000, "failed": 4, "failed_by_reason": {"timed_out": 4}},
        "filter": {"samples": 2000, "kept": 2000 - sum(rejected.values()), "rejected": rejected},
        "train/init": {},
        **{f"train/{arm}": {"rows": 1592} for arm in ("kd", "sft", "small")},
        **{
            f"evaluate/{name}": {"answers": 500}
            for name in ("teacher", "base", "kd", "sft", "small")
        },
    }
    for number, (part, count) in enumerate(list(counts.items())[: until + 1]):
        begun = {
            "begun": f"2026-01-02T03:{number:02d}:00+00:00",
            "config": CONFIG,
            "versions": {"python": "3.11", "platform": "Linux"},
        }
        write(run / part / "begun.json", begun)
        if number < until:
            write(
                run / part / "manifest.json",
                {
                    "finished": "2026-01-02T05:00:00+00:00",
                    "seconds": 61.5,
                    "counts": count,
                    "files": {},
                },
            )
    write(run / "generate" / "work.json", {"seeds": 1002})
    for arm in ("kd", "sft", "small"):
        if (run / "train" / arm / "manifest.json").exists():
            log = history("kd" if arm == "kd" else "sft")
            (run / "train" / arm / "history.jsonl").write_text(
                "".join(json.dumps(entry) + "\n" for entry in log)
            )
    if figures:
        write(run / "evaluate" / "results.json", figures)
        write(run / "ablate" / "results.json", ablation())
    return run


def write(path: Path, tree: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tree))
