"""Filters that reject what a student should not memorise: personal data, keys and passwords.

They check what the teacher wrote. A match that the inputs contain belongs to the task (an
extraction task repeats it), so the filters ignore it unless `inputs` is set. Reports show matches
masked. No pattern finds insults and the like; use a judge for those.
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
    """Reject samples with personal data, with the reason holds_pii.

    The rejection's value holds the kind of the match and its masked text. `kinds` are some of
    `personal.KINDS`. `regions` are countries ("US") whose phone numbers are found without a
    country code.
    """

    def find(text: str) -> Iterable[tuple[str, str]]:
        return personal.find(text, kinds, regions)

    return [_reject("holds_pii", sample, find, inputs) for sample in batch.samples]


def secrets(batch: Batch, inputs: bool) -> list[Rejection | None]:
    """Reject samples with a key, access token or password, with the reason holds_secret.

    The rejection's value holds the kind of the match and its masked text.
    """
    find = credentials.find
    return [_reject("holds_secret", sample, find, inputs) for sample in batch.samples]


def masked(text: str) -> str:
    """Replace letters and digits by stars, except the first and the last character."""
    if len(text) <= 4:
        return "*" * len(text)
    middle = "".join("*" if char.isalnum() else char for char in text[1:-1])
    excerpt = text[0] + middle + text[-1]
    return excerpt if len(excerpt) <= SHOWN else f"{excerpt[: SHOWN - 1]}…"


def _reject(reason: str, sample: Sample, find: Finder, inputs: bool) -> Rejection | None:
    """Return a rejection for the first match in the reply, or in the inputs if `inputs` is set."""
    texts = sample_text.reply_parts(sample)
    if inputs:
        texts.append(sample_text.input_text(sample))
    for text in texts:
        for kind, match in find(text):
            if inputs or not _is_in_inputs(sample, match):
                return reason, f"{kind} {masked(match)}"
    return None


def _is_in_inputs(sample: Sample, text: str) -> bool:
    return _plain(text) in _plain(sample_text.input_text(sample))


def _plain(text: str) -> str:
    """Return letters and digits only, so that a number compares equal however it is grouped."""
    return "".join(char for char in text.casefold() if char.isalnum())
