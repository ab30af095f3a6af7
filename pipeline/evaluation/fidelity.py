"""What the readings of stages/fidelity.py come to.

Dimension names: I held-out seeds, R repeats of a model.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config
from pipeline.evaluation.bootstrap import bootstrap
from pipeline.records import Faithful
from pipeline.storage.shards import read_records

Readings = Mapping[str, Sequence[Faithful]]  # by model


def readings(config: Config, names: Sequence[str]) -> Readings:
    """Of those models that were measured; nothing where evaluate.fidelity is not set."""
    if config.evaluate.fidelity is None:
        return {}
    folders = {name: Path(config.run_dir) / "fidelity" / name for name in names}
    found = {
        name: list(read_records(folder, Faithful))
        for name, folder in folders.items()
        if (folder / "manifest.json").exists()
    }
    return {name: one for name, one in found.items() if one}


def figures(found: Sequence[Faithful]) -> dict[str, Any]:
    """Forward KL in nats a token, the mean over seeds with its interval; the share of all positions with the same likeliest token; ROUGE-L
    and chrF of the student's text to the teacher's. `left_out` seeds are not in the first two, which are None if that leaves none."""
    there = [one for one in found if one.tokens]
    tokens = sum(one.tokens for one in there)
    return {
        "kl": dataclasses.asdict(bootstrap([one.nats / one.tokens for one in there]))
        if there
        else None,
        "top1": sum(one.same for one in there) / tokens if there else None,
        "tokens": tokens,
        "left_out": len(found) - len(there),
        **{
            name: dataclasses.asdict(bootstrap([getattr(one, name) for one in found]))
            for name in ("rouge_l", "chrf")
        },
    }


def nats(found: Readings, compared: Sequence[str], names: Sequence[str]) -> NDArray[np.float64]:
    """(R, I): nats a token of these models on every seed that all of the `compared` were measured on; empty if there is none."""
    if not set(compared) <= set(found):
        return np.empty((0, 0))
    values = {
        name: {one.id: one.nats / one.tokens for one in found[name] if one.tokens}
        for name in compared
    }
    shared = sorted(set.intersection(*(set(of_one) for of_one in values.values())))
    return (
        np.array([[values[name][seed] for seed in shared] for name in names])
        if shared
        else np.empty((0, 0))
    )
