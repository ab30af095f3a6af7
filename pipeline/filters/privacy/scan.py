"""Filters on what a student should not learn by heart: personal data, keys and passwords.

They look at what the teacher wrote. What the seed's inputs hold is the task's own (an extraction task repeats it), so it passes unless
`inputs` is set. What decided is shown masked. Insults and the like have no shape; a judge that reads is for those.
"""

from collections.abc import Callable, Iterable, Sequence

from pipeline.filters import sample_text
from pipeline.filters.measures import Batch
from pipeline.filters.privacy import credentials
from pipeline.filters.privacy import pii as personal
from pipeline.filters.verdict import Rejection
from pipeline.records import Sample

SHOWN = 40  # characters of a masked excerpt

Finder = Callable[[str], Iterable[tuple[str, str]]]


def pii(
    batch: Batch, kinds: Sequence[str], regions: Sequence[str], inputs: bool
) -> list[Rejection | None]:
    """holds_pii: an e-mail address, phone number, IBAN, payment card, public IP address or national id. The value: its kind, masked.

    `kinds` are of `personal.KINDS`; `regions`: countries ("US") whose phone numbers are known without their +code.
    """
    return [
        _objection("holds_pii", sample, lambda text: personal.find(text, kinds, regions), inputs)
        for sample in batch.samples
    ]


def secrets(batch: Batch, inputs: bool) -> list[Rejection | None]:
    """holds_secret: a private key, an access token or a password. The value: its kind, masked."""
    return [
        _objection("holds_secret", sample, credentials.find, inputs) for sample in batch.samples
    ]


def masked(text: str) -> str:
    """The text with every letter and digit but the first and the last one starred: enough to find it again, too little to use it."""
    middle = "".join("*" if c.isalnum() else c for c in text[1:-1])
    shown = text[:1] + middle + text[-1:] if len(text) > 4 else "*" * len(text)
    return shown if len(shown) <= SHOWN else f"{shown[: SHOWN - 1]}…"


def _objection(reason: str, sample: Sample, find: Finder, inputs: bool) -> Rejection | None:
    texts = (
        [*sample_text.reply_parts(sample), sample_text.input_text(sample)]
        if inputs
        else sample_text.reply_parts(sample)
    )
    for kind, text in (found for part in texts for found in find(part)):
        if inputs or _plain(text) not in _plain(sample_text.input_text(sample)):
            return reason, f"{kind} {masked(text)}"
    return None


def _plain(text: str) -> str:
    """Letters and digits alone: a number is the same however it is grouped."""
    return "".join(c for c in text.casefold() if c.isalnum())
