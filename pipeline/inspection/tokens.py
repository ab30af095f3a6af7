"""A sample token by token, coloured by what the teacher thought of each; and what two runs differ in. Read from files alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config
from pipeline.inspection.lookup import find_samples, unknown_id
from pipeline.models.resolve import tokenizer_path
from pipeline.models.tokenizer import Tokenizer
from pipeline.records import Sample
from pipeline.storage.files import read_json
from pipeline.storage.samples import Samples
from pipeline.storage.topk import TopK, TopKFolder

SHADES = (
    (0.9, 28),
    (0.5, 100),
    (0.2, 130),
    (0.0, 124),
)  # from this probability on, this one of the 256 colours as the background
SURE = 0.9  # without colours, a token is marked that was less likely


@dataclass(frozen=True)
class TokenProbabilities:
    """What the teacher thought of each of T tokens that it wrote, as probabilities."""

    written: NDArray[np.float64]  # (T,) of the token itself
    ids: NDArray[np.int64]  # (T, K) the likeliest others, in falling order
    others: NDArray[np.float64]  # (T, K) theirs; 0 where fewer are known
    rest: NDArray[np.float64]  # (T,) of all that is in neither


def token_probabilities(topk: TopK, top: int) -> TokenProbabilities:
    """The `top` likeliest other tokens at each place. Draws, which stand for many, count as the rest."""
    ids, logprobs = topk.ids[:, 1 : top + 1], topk.logprobs[:, 1 : top + 1].astype(np.float64)
    exact = np.arange(1, ids.shape[1] + 1) < topk.exact[:, None]
    written, others = (
        np.exp(topk.logprobs[:, 0].astype(np.float64)),
        np.where(exact, np.exp(logprobs), 0.0),
    )
    return TokenProbabilities(
        written, ids, others, np.maximum(0.0, 1.0 - written - others.sum(axis=1))
    )


def inspect(run_dir: Path, identifier: str | None, top: int, colours: bool) -> Iterator[str]:
    """The lines that show one sample, or a seed's, or the first of the run; with `top` so many of the likeliest tokens at each place."""
    samples = (
        [sample for _, sample in find_samples(run_dir, identifier)]
        if identifier
        else list(islice(Samples(run_dir / "generate"), 1))
    )
    if not samples:
        raise unknown_id(run_dir, identifier or "")
    tokenizer = load_teacher_tokenizer(run_dir)
    for sample in samples:
        yield f"{sample.id}: answer {sample.answer!r}, ground truth {sample.seed.target or 'unknown'}; {_legend(colours)}"
        if sample.frame is None or sample.token_ids is None:
            yield sample.text + "  (no logprobs)"
            continue
        topk = TopKFolder(run_dir / "generate").of(sample)
        pieces = tokenizer.pieces(sample.token_ids)
        probabilities = token_probabilities(topk, top)
        yield "".join(
            _token(piece, p, colours)
            for piece, p in zip(pieces, probabilities.written.tolist(), strict=True)
        )
        if top:
            yield from _table(sample, probabilities, pieces, tokenizer)
        yield ""


def load_teacher_tokenizer(run_dir: Path) -> Tokenizer:
    """That of the teacher that a run was begun with. Raises PipelineError if it cannot be loaded here."""
    teacher = Config.model_validate(
        read_json(run_dir / "generate" / "begun.json")["config"]
    ).teacher
    return Tokenizer(tokenizer_path(teacher), teacher.revision)


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


def _table(
    sample: Sample, probabilities: TokenProbabilities, pieces: list[str], tokenizer: Tokenizer
) -> Iterator[str]:
    """A line a token: what was written, what else was likely, and all others together."""
    for place, piece in enumerate(pieces):
        part = next(
            (
                name
                for name in ("rationale", "answer")
                if _is_in(place, getattr(sample, f"{name}_tokens"))
            ),
            "",
        )
        likely = zip(
            probabilities.ids[place].tolist(), probabilities.others[place].tolist(), strict=True
        )
        others = "".join(f"{tokenizer.piece(token)!r} {p:.3f}, " for token, p in likely if p)
        yield f"  {place:>4} {part:<9} {piece!r:<16} {probabilities.written[place]:.3f}  {others}others {probabilities.rest[place]:.3f}"


def _is_in(place: int, span: tuple[int, int] | None) -> bool:
    return span is not None and span[0] <= place < span[1]
