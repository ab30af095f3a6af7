"""Canaries: made-up secrets among the training rows, to measure what a student memorises.

Carlini et al. 2019, "The Secret Sharer: Evaluating and Testing Unintended Memorization in Neural
Networks", USENIX Security.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.data.encoding import UNKNOWN, Example, make_example
from pipeline.models.tokenizer import Tokenizer
from pipeline.records import Rendered

ALTERNATIVES = 255  # other secrets that a canary is compared with; the exposure is at most 8 bits
DIGITS = 9
SYLLABLES = ("ba", "do", "ke", "li", "mu", "na", "po", "ri", "su", "ta", "ve", "zo")
NAME = 4  # syllables of a name: one of 20,736


@dataclass(frozen=True)
class Canary:
    """A made-up sentence. Given `lead`, a student that has memorised it continues with `secret`."""

    lead: str
    secret: str

    @property
    def text(self) -> str:
        """The whole sentence."""
        return self.lead + self.secret

    def encode(self, tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
        """Return the token ids of the lead, and of the secret with the end token."""
        return tokenizer.encode(Rendered(None, self.lead)), tokenizer.encode_reply(self.secret)


def generate(count: int, seed: int) -> list[Canary]:
    """Return `count` canaries, always the same for one random seed."""
    return [_canary(np.random.default_rng([seed, number])) for number in range(count)]


def alternatives(canary: Canary, count: int, seed: int) -> list[Canary]:
    """Draw `count` distinct other secrets for the same lead."""
    random = np.random.default_rng([seed, *canary.text.encode()])
    secrets: dict[str, None] = {}
    while len(secrets) < count:
        secret = _secret(random)
        if secret != canary.secret:
            secrets[secret] = None
    return [Canary(canary.lead, secret) for secret in secrets]


def rows(tokenizer: Tokenizer, count: int, seed: int) -> list[Example]:
    """Return training rows of the canaries, with a loss on the secret alone."""
    examples = []
    for number, canary in enumerate(generate(count, seed)):
        lead, secret = canary.encode(tokenizer)
        weights, places = [1.0] * len(secret), [UNKNOWN] * len(secret)
        examples.append(make_example(f"canary/{number}", lead, secret, weights, places))
    return examples


def exposure(own: float, others: Sequence[float]) -> float:
    """Return the exposure of a canary in bits (Carlini et al. 2019, section 4.3).

    It is log2 of the number of candidates minus log2 of the canary's rank among them. `own` is the
    log-likelihood of the canary, `others` are those of randomly drawn secrets; together they are
    the candidates. Exposure is between 0 and log2(1 + len(others)), and about 1.4 for a canary that
    the student does not know. Ties count half.
    """
    rank = 1 + sum(other > own for other in others) + sum(other == own for other in others) / 2
    return math.log2(1 + len(others)) - math.log2(rank)


def _canary(random: np.random.Generator) -> Canary:
    name = "".join(random.choice(SYLLABLES, NAME)).capitalize()
    return Canary(f"The access code of {name} is", _secret(random))


def _secret(random: np.random.Generator) -> str:
    return " " + "".join(str(digit) for digit in random.integers(10, size=DIGITS))
