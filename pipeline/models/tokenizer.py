"""A tokenizer and what the project asks of it: ids in, ids out, and a hash that tells two apart."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.records import Rendered, digest

BROKEN = "\ufffd"  # what a part of a character is decoded to


class Tokenizer:
    """Wraps a transformers tokenizer."""

    def __init__(self, name: str, revision: str | None = None):
        from transformers import AutoTokenizer

        try:
            self.hf: Any = AutoTokenizer.from_pretrained(
                name, revision=revision, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            first = str(error).strip().splitlines()[0]
            raise PipelineError(
                f"{name}: its tokenizer cannot be loaded ({first}); check the name, or fetch it to a folder first"
            ) from None
        self.name = name
        self._pieces: dict[int, str] = {}
        self._shown: dict[int, str] = {}

    @cached_property
    def hash(self) -> str:
        """Of the map from token to id, which is what stored ids depend on."""
        return digest(self.hf.get_vocab())

    @cached_property
    def template_hash(self) -> str | None:
        return digest(self.hf.chat_template) if self.hf.chat_template else None

    @cached_property
    def control_tokens(self) -> tuple[str, ...]:
        """Texts that would become a control token if they stood in a prompt."""
        return tuple(
            sorted(
                {str(token) for token in self.hf.added_tokens_decoder.values() if token.special},
                key=len,
                reverse=True,
            )
        )

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return max(self.hf.get_vocab().values()) + 1

    @property
    def pad_id(self) -> int:
        """The id that fills rows up: the tokenizer's own, or its end token."""
        return int(self.hf.eos_token_id if self.hf.pad_token_id is None else self.hf.pad_token_id)

    def encode(self, rendered: Rendered) -> list[int]:
        """Token ids of a prompt: a chat by the model's own template, plain text with whatever the model begins with."""
        if rendered.text is not None:
            return list(self.hf(rendered.text)["input_ids"])
        if not self.hf.chat_template:
            raise PipelineError(
                f"{self.name}: has no chat template; set 'format: completion' in the prompt's front matter"
            )
        text = self.hf.apply_chat_template(
            list(rendered.messages or ()), tokenize=False, add_generation_prompt=True
        )
        return list(self.hf(text, add_special_tokens=False)["input_ids"])

    def encode_reply(self, text: str) -> list[int]:
        """Token ids of a reply that is only known as text, with the model's end token."""
        return [*self.hf(text, add_special_tokens=False)["input_ids"], self.hf.eos_token_id]

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of a reply, without control tokens."""
        return str(
            self.hf.decode(
                list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )

    def piece(self, token: int) -> str:
        """The text of one token as it stands behind others, control tokens by their names; U+FFFD where it is a part of a character."""
        if token not in self._shown:
            before = self.hf("a", add_special_tokens=False)[
                "input_ids"
            ]  # at the beginning some tokenizers take a space off
            head, whole = (
                self.hf.decode(ids, clean_up_tokenization_spaces=False)
                for ids in (before, [*before, token])
            )
            self._shown[token] = str(whole)[len(head) :]
        return self._shown[token]

    def pieces(self, token_ids: Sequence[int]) -> list[str]:
        """What each token adds to the text. A character that is spread over several stands at its last, and the others are empty."""
        found = [self.piece(token) for token in token_ids]
        first = None  # of the tokens that a character is spread over
        for place, piece in enumerate(found):
            if BROKEN not in piece:
                first = None
                continue
            first = place if first is None else first
            whole = str(
                self.hf.decode(
                    list(token_ids[first : place + 1]), clean_up_tokenization_spaces=False
                )
            )
            if BROKEN not in whole:
                found[first : place + 1] = [*[""] * (place - first), whole]
                first = None
        return found

    def tokens_containing(self, text: str) -> list[int]:
        """The ids of all tokens whose text holds `text`."""
        pieces = self.hf.batch_decode(
            [[token] for token in range(self.vocab_size)], clean_up_tokenization_spaces=False
        )
        return [token for token, piece in enumerate(pieces) if text in piece]

    def token_range(
        self, token_ids: Sequence[int], text: str, begin: int, end: int
    ) -> tuple[int, int]:
        """The tokens (first, last + 1) that hold the characters `begin` to `end` - 1 of their `text`."""
        lengths = [0, *accumulate(len(self._piece(token)) for token in token_ids)]
        whole = lengths[-1] == len(text) and not any(
            BROKEN in self._piece(token) for token in token_ids
        )

        def length(count: int) -> int:
            """Of the text of the first tokens. Where a character is spread over several, it has to be decoded."""
            return lengths[count] if whole else len(self.decode(token_ids[:count]))

        counts = range(len(token_ids) + 1)
        first, last = (
            bisect_right(counts, begin, key=length) - 1,
            bisect_left(counts, end, key=length),
        )
        while not whole and last < len(token_ids) and self.decode(token_ids[:last]) != text[:end]:
            last += 1  # half a character looks like a whole one
            if length(last) > end:
                return first, last - 1
        return first, last

    @cached_property
    def end_of_thinking(self) -> int:
        """The id of a reasoning model's end-of-thinking token."""
        end = self.hf.convert_tokens_to_ids("</think>")
        if end is None or end == self.hf.unk_token_id:
            raise PipelineError(
                f"{self.name}: has no </think> token; give tags under 'rationale:' in the prompt's front matter"
            )
        return int(end)

    def _piece(self, token: int) -> str:
        if token not in self._pieces:
            self._pieces[token] = self.decode([token])
        return self._pieces[token]

    def save(self, folder: Path) -> None:
        self.hf.save_pretrained(folder)
