"""The figures of results.json as the terminal shows them."""

from collections.abc import Mapping
from typing import Any

from pipeline.evaluation.format import label, probability, shown, signed


def table(found: Mapping[str, Any]) -> str:
    """The results as the terminal shows them. Of the differences only kd - sft; results.json has the others."""
    rows = _rows(found)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    lines.insert(1, "-" * len(lines[0]))
    lines += [_repeats_line(name, group) for name, group in found["repeats"].items()]
    over = f"paired, {found['held_out']} held-out seeds" + (
        ", over repeats" if found["repeats"] else ""
    )
    lines += [
        _difference_line(name, one, over)
        for name, one in found["differences"].items()
        if _kd_and_sft(found, name)
    ]
    if found["note"]:
        lines.append(f"({found['note']})")
    return "\n".join(lines)


def _rows(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Head and one row a model; of the further figures those that some model has."""
    score = f"{found['metric']} [95 %]"
    further = dict.fromkeys(name for model in found["models"].values() for name in _further(model))
    columns = (
        "model",
        score,
        "retained",
        *further,
        "parameters",
        "on disk",
        "answers/s",
        "p95 latency",
    )
    rows = [
        {score: shown(model["score"]), **_cells(name, model), **_further(model)}
        for name, model in found["models"].items()
    ]
    return [columns, *(tuple(cells.get(column, "-") for column in columns) for cells in rows)]


def _further(model: Mapping[str, Any]) -> dict[str, str]:
    """Figures that not every run has: further metrics, calibration, and how near the model is to the teacher."""
    cells = {
        name: f"{interval['mean']:.3f}" for name, interval in (model.get("metrics") or {}).items()
    }
    if model.get("calibration"):
        cells["ece"] = f"{model['calibration']['ece']:.3f}"
    near = model.get("fidelity") or {}
    if near.get("kl"):
        cells |= {"KL": f"{near['kl']['mean']:.3f}", "top-1": f"{near['top1']:.1%}"}
    if near:
        cells["chrF to teacher"] = f"{near['chrf']['mean']:.3f}"
    return cells


def _cells(name: str, model: Mapping[str, Any]) -> dict[str, str]:
    p95_s = (model.get("load") or {}).get("p95_s")
    return {
        "model": label(name),
        "retained": f"{model['retained']:.1%}" if model["retained"] is not None else "-",
        "parameters": f"{model['parameters'] / 1e6:,.1f}M" if model["parameters"] else "-",
        "on disk": f"{model['nbytes'] / 1e6:,.0f} MB" if model["nbytes"] else "-",
        "answers/s": f"{model['answers_per_s']:,.1f}" if model["answers_per_s"] else "-",
        "p95 latency": f"{p95_s:.2f} s" if p95_s is not None else "-",
    }


def _repeats_line(name: str, group: Mapping[str, Any]) -> str:
    each = group["each"]
    kept = f", {group['retained']:.1%} retained" if group["retained"] is not None else ""
    return f"{name}, mean of {len(each)} repeats: {shown(group['score'])}, from {min(each):.3f} to {max(each):.3f}{kept}"


def _kd_and_sft(found: Mapping[str, Any], name: str) -> bool:
    """Whether a difference is that of a kd arm, or group of repeats, and an sft one."""
    methods = {arm: model["method"] for arm, model in found["models"].items()}
    methods |= {group: methods[one["arms"][0]] for group, one in found["repeats"].items()}
    return [methods.get(side) for side in name.split(" - ")] == ["kd", "sft"]


def _difference_line(name: str, one: Mapping[str, Any], over: str) -> str:
    near = f"; KL {signed(one['kl'])}, {probability(one['kl']['p'])}" if one.get("kl") else ""
    return f"{name}: {signed(one)}, {probability(one['p'])}{near}, {over}"
