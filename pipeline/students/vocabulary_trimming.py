"""Students with fewer tokens: those that their task's data uses, and single bytes for other text.

A byte-level BPE tokenizer without some of its tokens still encodes a text into the same pieces if
every merge that the text needs remains: merges are tried in a fixed order, so removing one that was
never used changes nothing. Therefore all pieces that a used token is merged from are kept. The
argument is in docs/decisions/0007.
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
    """Return the vocabulary to keep: the tokens `used`, the pieces they are merged from, single
    bytes, added and special tokens."""
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
    """Write the tokenizer with the kept tokens under their new ids, otherwise unchanged. Returns it
    as read back from `folder`."""
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
    """Raise PipelineError if the trimmed tokenizer encodes one of the texts into other pieces."""
    pairs = itertools.chain(
        ((str(prompt), before.encode(prompt), after.encode(prompt)) for prompt in prompts),
        ((reply, before.encode_reply(reply), after.encode_reply(reply)) for reply in replies),
    )
    for text, old, new in pairs:
        if [vocabulary.kept[token] for token in new] != old:
            raise PipelineError(
                f"student.trim_vocabulary: {before.name} encodes {text[:60]!r} into other pieces "
                "once trimmed; its tokenizer has an unsupported part: set it to false"
            )


def special_ids(model: Any) -> set[int]:
    """Return the ids that the model's configs name: begin, end, padding."""
    return set(itertools.chain.from_iterable(ids for _, _, ids in _special(model)))


def trim(model: Any, name: str, vocabulary: Vocabulary) -> int:
    """Keep only the rows of the kept tokens in the model's embeddings and lm_head. Returns how many
    parameters that saves."""
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
            f"student.trim_vocabulary: {name} also has {others[0]} per token, which is not "
            "supported; set it to false"
        )
    if vocabulary.kept[-1] >= rows:
        raise PipelineError(
            f"student.trim_vocabulary: token {vocabulary.kept[-1]} of {name} has no row in its "
            f"{rows:,} embeddings; set it to false"
        )
    kept = torch.tensor(vocabulary.kept)
    tied = head.weight is embeddings.weight
    embeddings.weight = nn.Parameter(embeddings.weight.data[kept])
    head.weight = embeddings.weight if tied else nn.Parameter(head.weight.data[kept])
    if getattr(head, "bias", None) is not None:
        head.bias = nn.Parameter(head.bias.data[kept])
    embeddings.num_embeddings = head.out_features = len(kept)
    new = {old: token for token, old in enumerate(vocabulary.kept)}
    for config, name, tokens in _special(model):
        ids = [new[token] for token in tokens if token in new]  # some name ids that no token has
        is_list = isinstance(getattr(config, name), list)
        setattr(config, name, ids if is_list else next(iter(ids), None))
    model.config.get_text_config().vocab_size = len(kept)
    return int(before - model.num_parameters())


def _read(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return tokenizer.json of a byte-level BPE tokenizer. Raises PipelineError for any other."""
    backend = getattr(tokenizer.hf, "backend_tokenizer", None)
    tree: dict[str, Any] = json.loads(backend.to_str()) if backend is not None else {}
    model = tree.get("model", {})
    byte_parts = [json.dumps(tree.get(part)) for part in ("pre_tokenizer", "normalizer")]
    has_bytes = model.get("byte_fallback") or any("ByteLevel" in part for part in byte_parts)
    extras = ("continuing_subword_prefix", "end_of_word_suffix", "dropout")
    if model.get("type") != "BPE" or not has_bytes or any(model.get(name) for name in extras):
        kind = model.get("type") or "not of the tokenizers library"
        raise PipelineError(
            f"student.trim_vocabulary: the tokenizer of {tokenizer.name} is no byte-level BPE "
            f"({kind}), and only those can be trimmed; set it to false, or choose another student"
        )
    return tree


def _merges(tree: Mapping[str, Any]) -> list[Pair]:
    """Return the merges, which older files write as one text each."""
    merges = tree["model"]["merges"]
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in merges)
    return [(left, right) for left, right in pairs]


def _bytes(ids: Mapping[str, int]) -> list[str]:
    """Return the tokens that stand for one byte each, in either notation."""
    from tokenizers.pre_tokenizers import ByteLevel

    hexadecimal = [f"<0x{byte:02X}>" for byte in range(256)]
    return [text for text in (*ByteLevel.alphabet(), *hexadecimal) if text in ids]


def _pieces(text: str, ranks: Mapping[Pair, int]) -> set[str]:
    """Return every piece that byte-pair encoding makes on its way to the token `text`, characters
    first."""
    parts = list(text)
    pieces = set(parts)
    while True:
        pairs = enumerate(itertools.pairwise(parts))
        merges = [(ranks[pair], place) for place, pair in pairs if pair in ranks]
        if not merges:
            return pieces
        place = min(merges)[1]
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
        pieces.add(parts[place])


def _renumber(processor: Any, new: Mapping[int, int]) -> None:
    """Replace the ids that a post-processor adds to every text."""
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
    """Return (config, name, ids) of every field …_token_id in the model's configs."""
    configs = [model.config, model.config.get_text_config(), model.generation_config]
    distinct = {id(config): config for config in configs if config}
    fields = []
    for config in distinct.values():
        for name, value in vars(config).items():
            if name.endswith("_token_id") and value is not None:
                fields.append((config, name, list(value) if isinstance(value, list) else [value]))
    return fields
