"""Show a sample token by token, coloured by the teacher's token probabilities."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config
from pipeline.execution.console import printable
from pipeline.inspection.lookup import find_samples, unknown_id
from pipeline.models.resolve import tokenizer_path
from pipeline.models.tokenizer import Tokenizer
from pipeline.records import Sample
from pipeline.storage.files import read_object
from pipeline.storage.samples import Samples
from pipeline.storage.topk import TopK, TopKFolder

# (lowest probability, background among the 256 colours of a terminal)
SHADES = ((0.9, 28), (0.5, 100), (0.2, 130), (0.0, 124))
SURE = 0.9  # without colours, only tokens below this probability are marked


@dataclass(frozen=True)
class TokenProbabilities:
    """The teacher's probabilities at each position of its reply of T tokens."""

    written: NDArray[np.float64]  # (T,) probability of the token that the teacher wrote
    ids: NDArray[np.int64]  # (T, K) the most likely alternatives, in falling order
    others: NDArray[np.float64]  # (T, K) their probabilities; 0 where fewer are known
    rest: NDArray[np.float64]  # (T,) probability of all remaining tokens together


def token_probabilities(topk: TopK, top: int) -> TokenProbabilities:
    """Return the probabilities of the written tokens and of `top` alternatives at each position.

    Sampled entries stand for several tokens, so they count as remaining tokens.
    """
    ids, logprobs = topk.ids[:, 1 : top + 1], topk.logprobs.astype(np.float64)
    exact = np.arange(1, ids.shape[1] + 1) < topk.exact[:, None]
    written = np.exp(logprobs[:, 0])
    others = np.where(exact, np.exp(logprobs[:, 1 : top + 1]), 0.0)
    rest = np.maximum(0.0, 1.0 - written - others.sum(axis=1))
    return TokenProbabilities(written, ids, others, rest)


def inspect(run_dir: Path, identifier: str | None, top: int, colours: bool) -> Iterator[str]:
    """Yield the lines that show one sample, or all samples of one example.

    Without `identifier`, they show the first sample of the run. `top` > 0 adds a table with the
    `top` most likely alternatives at each position.
    """
    if identifier:
        samples = [sample for _, sample in find_samples(run_dir, identifier)]
    else:
        samples = list(islice(Samples(run_dir / "generate"), 1))
    if not samples:
        raise unknown_id(run_dir, identifier or "")
    tokenizer = load_teacher_tokenizer(run_dir)
    for sample in samples:
        target = sample.seed.target or "unknown"
        facts = f"{sample.id}: answer {sample.answer!r}, ground truth {target}; "
        yield printable(facts) + _legend(colours)
        if sample.frame is None or sample.token_ids is None:
            yield printable(sample.text) + "  (no logprobs)"
            continue
        topk = TopKFolder(run_dir / "generate").topk_of(sample)
        pieces = [printable(piece) for piece in tokenizer.pieces(sample.token_ids)]
        probabilities = token_probabilities(topk, top)
        pairs = zip(pieces, probabilities.written.tolist(), strict=True)
        yield "".join(_token(piece, probability, colours) for piece, probability in pairs)
        if top:
            yield from _table(sample, probabilities, pieces, tokenizer)
        yield ""


def load_teacher_tokenizer(run_dir: Path) -> Tokenizer:
    """Load the tokenizer of a run's teacher; raise PipelineError if its files are missing."""
    config = Config.model_validate(
        read_object(run_dir / "generate" / "begun.json", "config")["config"]
    )
    return Tokenizer(tokenizer_path(config.teacher), config.teacher.revision)


def _legend(colours: bool) -> str:
    if not colours:
        return f"[0.12] after a token is its probability, shown below {SURE:g}"
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
    """Yield a line per token: its probability, alternatives, and the probability of the rest."""
    for place, piece in enumerate(pieces):
        ids, others = probabilities.ids[place].tolist(), probabilities.others[place].tolist()
        likely = "".join(
            f"{tokenizer.piece(token)!r} {probability:.3f}, "
            for token, probability in zip(ids, others, strict=True)
            if probability
        )
        yield (
            f"  {place:>4} {_part(sample, place):<9} {piece!r:<16} "
            f"{probabilities.written[place]:.3f}  {likely}others {probabilities.rest[place]:.3f}"
        )


def _part(sample: Sample, place: int) -> str:
    """Return the part of the reply to which a token belongs; empty if none."""
    spans = {"rationale": sample.rationale_tokens, "answer": sample.answer_tokens}
    for name, span in spans.items():
        if span is not None and span[0] <= place < span[1]:
            return name
    return ""
