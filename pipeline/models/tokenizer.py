"""A tokenizer: text to ids, ids to text, and a hash that tells two tokenizers apart."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from pipeline.errors import PipelineError
from pipeline.models.weights import not_loaded
from pipeline.records import Rendered, digest

PROBE = "the reply"  # content of a turn, to see what a template writes behind it
REMEDIES = {  # by the role of a message that a template does not take
    "system": "move the text of 'system:' to the beginning of the prompt's body",
}
BROKEN = "\ufffd"  # a part of a character is decoded to this


class Tokenizer:
    """Wraps a transformers tokenizer."""

    def __init__(self, name: str, revision: str | None = None):
        from transformers import AutoTokenizer

        try:
            self.hf: Any = AutoTokenizer.from_pretrained(
                name, revision=revision, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            raise not_loaded(name, "tokenizer cannot be loaded", error) from None
        self.name = name
        self._decoded: dict[int, str] = {}
        self._pieces: dict[int, str] = {}

    @cached_property
    def hash(self) -> str:
        """Return the digest of the map from token to id, which stored ids depend on."""
        return digest(self.hf.get_vocab())

    @cached_property
    def template_hash(self) -> str | None:
        """Return the digest of the chat template, None if there is none."""
        return digest(self.hf.chat_template) if self.hf.chat_template else None

    @cached_property
    def control_tokens(self) -> tuple[str, ...]:
        """Return the texts that the tokenizer turns into control tokens, the longest first."""
        special = {str(token) for token in self.hf.added_tokens_decoder.values() if token.special}
        return tuple(sorted(special, key=len, reverse=True))

    @property
    def vocab_size(self) -> int:
        """Return the largest id plus one."""
        return max(self.hf.get_vocab().values()) + 1

    @property
    def pad_id(self) -> int:
        """Return the id that pads rows: the end token if there is no padding token."""
        return self.eos_id if self.hf.pad_token_id is None else int(self.hf.pad_token_id)

    def encode(self, rendered: Rendered) -> list[int]:
        """Return the token ids of a prompt.

        A chat is rendered by the model's chat template. Plain text gets the tokens that the
        tokenizer puts before every input. Raises PipelineError for a chat without a template.
        """
        if rendered.text is not None:
            return list(self.hf(rendered.text)["input_ids"])
        return self._ids(self._chat_text(rendered.messages or (), add_generation_prompt=True))

    def check(self, rendered: Rendered) -> None:
        """Raise PipelineError if the chat template refuses a prompt, or drops one of its turns."""
        if rendered.messages is None:
            return
        text = self._chat_text(rendered.messages, add_generation_prompt=True)
        for message in rendered.messages:
            if message["content"].strip() not in text:
                raise PipelineError(
                    f"{self.name}: its chat template drops the {message['role']} message; "
                    f"{REMEDIES.get(message['role'], 'use another model')}"
                )

    def _chat_text(self, messages: Sequence[dict[str, str]], **options: Any) -> str:
        """Render a chat by the model's template. Raises PipelineError if that fails."""
        if not self.hf.chat_template:
            raise PipelineError(
                f"{self.name}: has no chat template; "
                "set 'format: completion' in the prompt's front matter"
            )
        try:
            return str(self.hf.apply_chat_template(list(messages), tokenize=False, **options))
        except (TemplateError, ValueError, TypeError, KeyError) as error:
            roles = [message["role"] for message in messages]
            raise PipelineError(
                f"{self.name}: its chat template refuses a chat of {', '.join(roles)} ({error}); "
                f"{REMEDIES.get(roles[0] if roles else '', 'use another model')}"
            ) from None

    @cached_property
    def eos_id(self) -> int:
        """Return the id that ends a text. Raises PipelineError if the tokenizer has none."""
        if self.hf.eos_token_id is None:
            raise PipelineError(
                f"{self.name}: its tokenizer has no eos_token, so no reply could end; "
                "set eos_token in its tokenizer_config.json"
            )
        return int(self.hf.eos_token_id)

    @cached_property
    def end_of_turn(self) -> int:
        """Return the id that ends a reply in a chat: what the template writes behind a reply.

        Gemma, Phi and base models with a template end turns by another token than `eos_id`, which
        is returned if the template writes no control token there.
        """
        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": PROBE}]
        try:
            after = self._ids(self._chat_text(turns).rpartition(PROBE)[2])
        except PipelineError:
            return self.eos_id
        control = {id_ for id_, token in self.hf.added_tokens_decoder.items() if token.special}
        return next((token for token in after if token in control), self.eos_id)

    @property
    def end_ids(self) -> set[int]:
        """Return the ids at which generation stops."""
        return {self.eos_id, self.end_of_turn}

    def encode_reply(self, text: str, in_chat: bool = False) -> list[int]:
        """Return the token ids of a reply that is only known as text, with the end token."""
        return [*self._ids(text), self.end_of_turn if in_chat else self.eos_id]

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of a reply, without control tokens."""
        return self._text(token_ids, skip_special_tokens=True)

    def piece(self, token: int) -> str:
        """Return the text that one token adds after others; control tokens by their names.

        A token that is part of a character gives U+FFFD.
        """
        if token not in self._pieces:
            # decoded after an "a", because some tokenizers drop a space at the beginning of a text
            before = self._ids("a")
            whole = self._text([*before, token])
            self._pieces[token] = whole[len(self._text(before)) :]
        return self._pieces[token]

    def pieces(self, token_ids: Sequence[int]) -> list[str]:
        """Return the text that each token adds.

        If a character is split over several tokens, the last of them has the character and the
        others are empty.
        """
        pieces = [self.piece(token) for token in token_ids]
        first = None  # first token of a character that is split over several
        for place, piece in enumerate(pieces):
            if BROKEN not in piece:
                first = None
                continue
            if first is None:
                first = place
            whole = self._text(token_ids[first : place + 1])
            if BROKEN not in whole:
                pieces[first : place + 1] = [*[""] * (place - first), whole]
                first = None
        return pieces

    def tokens_containing(self, text: str) -> list[int]:
        """Return the ids of all tokens whose text contains `text`."""
        pieces = self.hf.batch_decode(
            [[token] for token in range(self.vocab_size)], clean_up_tokenization_spaces=False
        )
        return [token for token, piece in enumerate(pieces) if text in piece]

    def token_range(
        self, token_ids: Sequence[int], text: str, begin: int, end: int
    ) -> tuple[int, int]:
        """Return the tokens (first, last + 1) of the characters `begin` to `end` - 1 of a reply.

        `text` is the decoded reply.
        """
        decoded = [self._decode_one(token) for token in token_ids]
        lengths = [0, *accumulate(map(len, decoded))]
        whole = lengths[-1] == len(text) and not any(BROKEN in piece for piece in decoded)

        def length(count: int) -> int:
            """Return the length of the first tokens' text; decode it if characters are split."""
            return lengths[count] if whole else len(self.decode(token_ids[:count]))

        counts = range(len(token_ids) + 1)
        first = bisect_right(counts, begin, key=length) - 1
        last = bisect_left(counts, end, key=length)
        while not whole and last < len(token_ids) and self.decode(token_ids[:last]) != text[:end]:
            last += 1  # half a character decodes to U+FFFD, which is as long as the character
            if length(last) > end:
                return first, last - 1
        return first, last

    @cached_property
    def end_of_thinking(self) -> int:
        """Return the id of a reasoning model's </think>. Raises PipelineError if there is none."""
        end = self.hf.convert_tokens_to_ids("</think>")
        if end is None or end == self.hf.unk_token_id:
            raise PipelineError(
                f"{self.name}: has no </think> token; "
                "give tags under 'rationale:' in the prompt's front matter"
            )
        return int(end)

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files into a model's folder."""
        self.hf.save_pretrained(folder)

    def _ids(self, text: str) -> list[int]:
        return list(self.hf(text, add_special_tokens=False)["input_ids"])

    def _text(self, token_ids: Sequence[int], **options: Any) -> str:
        ids = list(token_ids)
        return str(self.hf.decode(ids, clean_up_tokenization_spaces=False, **options))

    def _decode_one(self, token: int) -> str:
        if token not in self._decoded:
            self._decoded[token] = self.decode([token])
        return self._decoded[token]
