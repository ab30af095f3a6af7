"""Students with fewer tokens: what their task's data uses, and what spells every other text byte by byte.

A byte-level BPE tokenizer without some of its tokens encodes a text into the same pieces as before if every merge that the text needs is
still there: merges are tried in a fixed order, and one that was never used takes nothing away by being gone. So with a token that the data
uses, all pieces that it is merged from stay. docs/decisions/0007 has the argument.
"""

import itertools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.data.vocabulary import Vocabulary
from pipeline.errors import PipelineError
from pipeline.models.tokenizer import Tokenizer
from pipeline.records import Rendered
from pipeline.storage.files import write_atomic

Pair = tuple[str, str]


def check(tokenizer: Tokenizer) -> None:
    """Raise PipelineError if the tokenizer is of a kind that cannot be trimmed."""
    _read(tokenizer)


def vocabulary(tokenizer: Tokenizer, used: Iterable[int]) -> Vocabulary:
    """What is kept: the tokens `used`, the pieces they are merged from, single bytes, added and special tokens."""
    tree = _read(tokenizer)
    ids: dict[str, int] = tree["model"]["vocab"]
    texts = {token: text for text, token in ids.items()}
    ranks = {pair: rank for rank, pair in enumerate(_merges(tree))}
    added = {token["id"] for token in tree["added_tokens"]}
    kept = added | {ids[text] for text in _bytes(ids)}
    kept |= {ids[text] for text in [tree["model"].get("unk_token")] if text in ids}
    for token in set(used) & texts.keys():
        kept.add(token)
        kept |= {ids[piece] for piece in _pieces(texts[token], ranks) if piece in ids}
    return Vocabulary(tokenizer.hash, tuple(sorted(kept)))


def save_tokenizer(tokenizer: Tokenizer, vocabulary: Vocabulary, folder: Path) -> Tokenizer:
    """Write the tokenizer with the kept tokens under their new ids; everything else about it stays. Returns it as it is read back."""
    tree = _read(tokenizer)
    new = {old: token for token, old in enumerate(vocabulary.kept)}
    model = tree["model"]
    model["vocab"] = {text: new[old] for text, old in model["vocab"].items() if old in new}
    known = model["vocab"]
    model["merges"] = [
        [a, b] for a, b in _merges(tree) if a in known and b in known and a + b in known
    ]
    for token in tree["added_tokens"]:
        token["id"] = new[token["id"]]
    if tree.get("padding"):
        tree["padding"]["pad_id"] = new[tree["padding"]["pad_id"]]
    _renumber(tree.get("post_processor"), new)
    tokenizer.save(folder)
    write_atomic(folder / "tokenizer.json", json.dumps(tree, ensure_ascii=False))
    return Tokenizer(str(folder))


def check_same(
    before: Tokenizer,
    after: Tokenizer,
    vocabulary: Vocabulary,
    prompts: Iterable[Rendered],
    replies: Iterable[str],
) -> None:
    """Raise PipelineError if the trimmed tokenizer breaks one of the texts into other pieces."""
    pairs = itertools.chain(
        ((str(prompt), before.encode(prompt), after.encode(prompt)) for prompt in prompts),
        ((reply, before.encode_reply(reply), after.encode_reply(reply)) for reply in replies),
    )
    for text, old, new in pairs:
        if [vocabulary.kept[token] for token in new] != old:
            raise PipelineError(
                f"student.trim_vocabulary: {before.name} encodes {text[:60]!r} into other pieces once trimmed; "
                "its tokenizer has a part that is not known here: set it to false"
            )


def special_ids(model: Any) -> set[int]:
    """The ids that the model's configs name: begin, end, padding."""
    return {token for _, _, tokens in _special(model) for token in tokens}


def trim(model: Any, name: str, vocabulary: Vocabulary) -> int:
    """Leave the model only the rows of the kept tokens in its embeddings and lm_head. Returns how many parameters that saves."""
    import torch
    from torch import nn

    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    before, rows = model.num_parameters(), embeddings.weight.shape[0]
    known = {id(parameter) for module in (embeddings, head) for parameter in module.parameters()}
    others = [
        path
        for path, parameter in model.named_parameters()
        if parameter.shape[:1] == (rows,) and id(parameter) not in known
    ]
    if others:
        raise PipelineError(
            f"student.trim_vocabulary: {name} also has {others[0]} a token, which is not known here; set it to false"
        )
    if vocabulary.kept[-1] >= rows:
        raise PipelineError(
            f"student.trim_vocabulary: token {vocabulary.kept[-1]} of {name} has no row in its {rows:,} embeddings; set it to false"
        )
    kept, tied = torch.tensor(vocabulary.kept), head.weight is embeddings.weight
    embeddings.weight = nn.Parameter(embeddings.weight.data[kept])
    head.weight = embeddings.weight if tied else nn.Parameter(head.weight.data[kept])
    if getattr(head, "bias", None) is not None:
        head.bias = nn.Parameter(head.bias.data[kept])
    embeddings.num_embeddings = head.out_features = len(kept)
    new = {old: token for token, old in enumerate(vocabulary.kept)}
    for config, name, tokens in _special(model):
        ids = [
            new[token] for token in tokens if token in new
        ]  # some configs name ids that no token has
        setattr(
            config, name, ids if isinstance(getattr(config, name), list) else next(iter(ids), None)
        )
    model.config.get_text_config().vocab_size = len(kept)
    return int(before - model.num_parameters())


def _read(tokenizer: Tokenizer) -> dict[str, Any]:
    """tokenizer.json of a byte-level BPE tokenizer. Raises PipelineError for any other."""
    backend = getattr(tokenizer.hf, "backend_tokenizer", None)
    tree: dict[str, Any] = json.loads(backend.to_str()) if backend is not None else {}
    model = tree.get("model", {})
    whole = model.get("byte_fallback") or any(
        "ByteLevel" in json.dumps(tree.get(part)) for part in ("pre_tokenizer", "normalizer")
    )
    plain = not any(
        model.get(name) for name in ("continuing_subword_prefix", "end_of_word_suffix", "dropout")
    )
    if model.get("type") != "BPE" or not whole or not plain:
        kind = model.get("type") or "not of the tokenizers library"
        raise PipelineError(
            f"student.trim_vocabulary: the tokenizer of {tokenizer.name} is no byte-level BPE ({kind}), and only those can be trimmed; "
            "set it to false, or choose another student"
        )
    return tree


def _merges(tree: Mapping[str, Any]) -> list[Pair]:
    return [
        (a, b)
        for a, b in (
            merge.split(" ") if isinstance(merge, str) else merge
            for merge in tree["model"]["merges"]
        )
    ]


def _bytes(ids: Mapping[str, int]) -> list[str]:
    """The tokens that stand for one byte each, by either convention."""
    from tokenizers.pre_tokenizers import ByteLevel

    return [
        text
        for text in (*ByteLevel.alphabet(), *(f"<0x{byte:02X}>" for byte in range(256)))
        if text in ids
    ]


def _pieces(text: str, ranks: Mapping[Pair, int]) -> set[str]:
    """Every piece that byte-pair encoding makes on its way to the token `text`, characters first."""
    parts = list(text)
    seen = set(parts)
    while True:
        found = [
            (ranks[pair], at) for at, pair in enumerate(itertools.pairwise(parts)) if pair in ranks
        ]
        if not found:
            return seen
        at = min(found)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
        seen.add(parts[at])


def _renumber(processor: Any, new: Mapping[int, int]) -> None:
    """Put new ids into what a post-processor adds to every text."""
    if not processor:
        return
    for inner in processor.get("processors", ()):
        _renumber(inner, new)
    if processor["type"] == "TemplateProcessing":
        for special in processor["special_tokens"].values():
            special["ids"] = [new[token] for token in special["ids"]]
    for side in ("sep", "cls"):
        if side in processor:
            text, token = processor[side]
            processor[side] = [text, new[token]]


def _special(model: Any) -> list[tuple[Any, str, list[int]]]:
    """(config, name, ids) of everything called …_token_id in the model's configs."""
    configs = {
        id(config): config
        for config in (model.config, model.config.get_text_config(), model.generation_config)
        if config
    }
    return [
        (config, name, list(value) if isinstance(value, list) else [value])
        for config in configs.values()
        for name, value in vars(config).items()
        if name.endswith("_token_id") and value is not None
    ]
