"""Figures of the fidelity stage: how close each student is to the teacher.

Dimension names: I held-out examples, R repeats of a model.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config
from pipeline.evaluation.bootstrap import bootstrap
from pipeline.evaluation.results_model import Fidelity
from pipeline.evaluation.small_samples import POSITIVE, UNIT
from pipeline.records import Faithful
from pipeline.storage.shards import read_records

Readings = Mapping[str, Sequence[Faithful]]  # by model


def readings(config: Config, names: Sequence[str]) -> Readings:
    """Read the fidelity records of each finished model; empty if evaluate.fidelity is not set."""
    if config.evaluate.fidelity is None:
        return {}
    measured: dict[str, Sequence[Faithful]] = {}
    for name in names:
        folder = Path(config.run_dir) / "fidelity" / name
        if (folder / "manifest.json").exists():
            measured[name] = list(read_records(folder, Faithful))
    return {name: records for name, records in measured.items() if records}


def figures(records: Sequence[Faithful]) -> Fidelity:
    """Return forward KL in nats/token, the share of equal top-1 tokens, and text similarity.

    KL is a mean over examples; the top-1 share is taken over all positions. Both skip the examples
    that the student cannot read (counted in `left_out`), and are None if all are skipped. ROUGE-L
    and chrF compare the student's own text with the teacher's.
    """
    readable = [record for record in records if record.tokens]
    tokens = sum(record.tokens for record in readable)
    same = sum(record.same for record in readable)
    nats_per_token = [record.nats / record.tokens for record in readable]
    return Fidelity(
        kl=bootstrap(nats_per_token, scale=POSITIVE) if readable else None,
        top1=same / tokens if readable else None,
        tokens=tokens,
        left_out=len(records) - len(readable),
        rouge_l=bootstrap([record.rouge_l for record in records], scale=UNIT),
        chrf=bootstrap([record.chrf for record in records], scale=UNIT),
    )


def nats(measured: Readings, compared: Sequence[str], names: Sequence[str]) -> NDArray[np.float64]:
    """Return KL in nats/token, (R, I), of the models `names`.

    Only examples that were measured for every model of `compared` count; empty if there is none.
    """
    if not set(compared) <= set(measured):
        return np.empty((0, 0))
    values = {
        name: {record.id: record.nats / record.tokens for record in measured[name] if record.tokens}
        for name in compared
    }
    shared = sorted(set.intersection(*map(set, values.values())))
    if not shared:
        return np.empty((0, 0))
    return np.array([[values[name][example] for example in shared] for name in names])
