"""A sample token by token, coloured by what the teacher thought of each; and what two runs differ in. Read from files alone."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.execution.fingerprint import differing
from pipeline.explain import found, unknown
from pipeline.models.resolve import tokenizer_of
from pipeline.models.tokenizer import Tokenizer
from pipeline.records import Sample
from pipeline.storage.files import read_json
from pipeline.storage.samples import Samples
from pipeline.storage.topk import TopK, TopKFolder

SHADES = ((0.9, 28), (0.5, 100), (0.2, 130), (0.0, 124))  # from this probability on, this one of the 256 colours as the background
SURE = 0.9  # without colours, a token is marked that was less likely


@dataclass(frozen=True)
class Thought:
    """What the teacher thought of each of T tokens that it wrote, as probabilities."""

    written: NDArray[np.float64]  # (T,) of the token itself
    ids: NDArray[np.int64]  # (T, K) the likeliest others, in falling order
    others: NDArray[np.float64]  # (T, K) theirs; 0 where fewer are known
    rest: NDArray[np.float64]  # (T,) of all that is in neither


def thought(topk: TopK, top: int) -> Thought:
    """The `top` likeliest other tokens at each place. Draws, which stand for many, count as the rest."""
    ids, logprobs = topk.ids[:, 1 : top + 1], topk.logprobs[:, 1 : top + 1].astype(np.float64)
    exact = np.arange(1, ids.shape[1] + 1) < topk.exact[:, None]
    written, others = np.exp(topk.logprobs[:, 0].astype(np.float64)), np.where(exact, np.exp(logprobs), 0.0)
    return Thought(written, ids, others, np.maximum(0.0, 1.0 - written - others.sum(axis=1)))


def inspect(run_dir: Path, identifier: str | None, top: int, colours: bool) -> Iterator[str]:
    """The lines that show one sample, or a seed's, or the first of the run; with `top` so many of the likeliest tokens at each place."""
    samples = [sample for _, sample in found(run_dir, identifier)] if identifier else list(islice(Samples(run_dir / "generate"), 1))
    if not samples:
        raise unknown(run_dir, identifier or "")
    tokenizer = teachers_tokenizer(run_dir)
    for sample in samples:
        yield f"{sample.id}: answer {sample.answer!r}, ground truth {sample.seed.target or 'unknown'}; {_legend(colours)}"
        if sample.frame is None or sample.token_ids is None:
            yield sample.text + "  (no logprobs)"
            continue
        topk = TopKFolder(run_dir / "generate").of(sample)
        pieces = tokenizer.pieces(sample.token_ids)
        thoughts = thought(topk, top)
        yield "".join(_token(piece, p, colours) for piece, p in zip(pieces, thoughts.written.tolist(), strict=True))
        if top:
            yield from _table(sample, thoughts, pieces, tokenizer)
        yield ""


def teachers_tokenizer(run_dir: Path) -> Tokenizer:
    """That of the teacher that a run was begun with. Raises PipelineError if it cannot be loaded here."""
    teacher = Config.model_validate(read_json(run_dir / "generate" / "begun.json")["config"]).teacher
    return Tokenizer(tokenizer_of(teacher), teacher.revision)


def _legend(colours: bool) -> str:
    if not colours:
        return f"[0.12] behind a token is its probability, where that is below {SURE:g}"
    return "probability " + " ".join(_shaded(f" {least:g}+ ", shade) for least, shade in SHADES)


def _token(piece: str, probability: float, colours: bool) -> str:
    if not colours:
        return piece if probability >= SURE else f"{piece}[{probability:.2f}]"
    shade = next(shade for least, shade in SHADES if probability >= least)
    return "\n".join(_shaded(part, shade) if part else "" for part in piece.split("\n"))


def _shaded(text: str, shade: int) -> str:
    return f"\x1b[48;5;{shade}m\x1b[97m{text}\x1b[0m"


def _table(sample: Sample, thoughts: Thought, pieces: list[str], tokenizer: Tokenizer) -> Iterator[str]:
    """A line a token: what was written, what else was likely, and all others together."""
    for place, piece in enumerate(pieces):
        part = next((name for name in ("rationale", "answer") if _is_in(place, getattr(sample, f"{name}_tokens"))), "")
        likely = zip(thoughts.ids[place].tolist(), thoughts.others[place].tolist(), strict=True)
        others = "".join(f"{tokenizer.piece(token)!r} {p:.3f}, " for token, p in likely if p)
        yield f"  {place:>4} {part:<9} {piece!r:<16} {thoughts.written[place]:.3f}  {others}others {thoughts.rest[place]:.3f}"


def _is_in(place: int, span: tuple[int, int] | None) -> bool:
    return span is not None and span[0] <= place < span[1]


def differences(one: Path, other: Path) -> Iterator[str]:
    """Stage by stage what two runs differ in: settings and inputs, versions, what came out. Raises PipelineError if one is no run."""
    for run in (one, other):
        if not any(run.glob("*/**/begun.json")):
            raise PipelineError(f"{run}: no stage was begun here; give a run folder, such as runs/quickstart")
    stages = {path.parent.relative_to(run): None for run in (one, other) for path in sorted(run.glob("*/**/begun.json"))}
    for stage in stages:
        if stage.parts[0] not in ("replaced", "ablate"):
            yield from _changed(str(stage), _facts(one / stage), _facts(other / stage))
    if _results(one) or _results(other):
        yield from _changed("results", _results(one), _results(other))


def _facts(folder: Path) -> dict[str, str]:
    """What decided a part, and what came of it, flat."""
    if not (folder / "begun.json").exists():
        return {}
    begun, manifest = read_json(folder / "begun.json"), folder / "manifest.json"
    counts = read_json(manifest)["counts"] if manifest.exists() else {"finished": False}
    return {**begun["fingerprint"], **_flat(begun["versions"], "version of "), **_flat(counts, "")}


def _results(run: Path) -> dict[str, str]:
    path = run / "evaluate" / "results.json"
    return _flat(read_json(path), "") if path.exists() else {}


def _flat(tree: Mapping[str, Any], prefix: str) -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": json.dumps(value, ensure_ascii=False)}
    return flat


def _changed(stage: str, one: Mapping[str, str], other: Mapping[str, str]) -> Iterator[str]:
    if not one or not other:
        yield f"{stage}: only in the {'first' if one else 'second'} run"
    elif lines := differing(one, other):
        yield f"{stage}:"
        yield from lines
