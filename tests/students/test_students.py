"""Where students start: which layers and tokens are kept, and that nothing else about the model
changes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import Config, load
from pipeline.data import prompts, seeds
from pipeline.data.vocabulary import Vocabulary
from pipeline.errors import PipelineError
from pipeline.execution import fingerprint, manifest, runner
from pipeline.inspection import validate
from pipeline.models import resolve
from pipeline.models.tokenizer import Tokenizer
from pipeline.models.weights import load_weights
from pipeline.records import Frame, Rendered, Sample
from pipeline.stages import train
from pipeline.storage import topk
from pipeline.storage.files import write_json
from pipeline.storage.shards import write_shards
from pipeline.storage.topk import TopK
from pipeline.students import build, checks, layers, vocabulary_trimming
from tests.support.students import SIZE, TEXTS, bpe, tiny
from tests.support.task import ROOT
from tests.support.topk import header
from tests.support.training import prepared

Make = Callable[..., Sample]
UNSEEN = "héllo 🎉 привет 你好\tfoo  bar\x00"


def built(workshop: Path, *overrides: str) -> tuple[dict[str, Any], str]:
    """Return (counts, folder) of a finished train/init."""
    config = load(workshop / "config.yaml", overrides)
    runner.execute(train, config, ["init"])
    run_dir = Path(config.run_dir)
    counts = manifest.read_manifest(run_dir, "train/init")["counts"]
    return counts, train.student_path(run_dir, "init")


def saved(folder: Path, model: Any) -> Path:
    """Save a model with the fake teacher's tokenizer."""
    from pipeline.models.fake import TOKENIZER

    model.save_pretrained(folder)
    Tokenizer(str(TOKENIZER)).save(folder)
    return folder


@pytest.mark.parametrize(
    ("total", "count", "expected"),
    [(30, 8, [0, 4, 8, 12, 17, 21, 25, 29]), (4, 2, [0, 3]), (4, 4, [0, 1, 2, 3]), (5, 1, [0])],
)
def test_even_layers_keep_first_and_last(total: int, count: int, expected: list[int]) -> None:
    """Rounding must neither repeat a layer nor lose the first or the last."""
    assert layers.even(total, count) == expected


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_cut_model_computes_with_the_kept_layers(workshop: Path, kind: str) -> None:
    """A layer under its old number takes another one's cache, or another kind of attention."""
    whole = tiny(kind).eval()
    counts, path = built(
        workshop, f"student.model={saved(workshop / 'whole', whole)}", "student.layers=2"
    )
    assert counts["layers"] == [0, 3]
    small = load_weights(path, None, torch.float32)
    assert torch.equal(
        small.model.layers[1].mlp.up_proj.weight, whole.model.layers[3].mlp.up_proj.weight
    )
    if kind == "qwen2":
        assert small.config.layer_types == ["full_attention", "sliding_attention"]
    ids = torch.arange(5, 15)[None]
    greedy = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    cached = small.generate(ids, **greedy)
    assert torch.equal(cached, small.generate(ids, **greedy, use_cache=False))


def test_cut_model_that_would_load_otherwise_is_refused(workshop: Path) -> None:
    """In a mixture of experts whose first layer is dense, kept layers were loaded into layers of
    another form, with random weights."""
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    experts = {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "head_dim": 8,
        "mlp_only_layers": [0],
    }
    whole = Qwen3MoeForCausalLM(Qwen3MoeConfig(**{**SIZE, "num_key_value_heads": 2, **experts}))
    model = f"student.model={saved(workshop / 'whole', whole)}"
    with pytest.raises(
        PipelineError,
        match=r"cannot be loaded after the cut: from its config, model\.layers\.0\.mlp\S* "
        r"is missing or has another shape",
    ):
        built(workshop, model, "student.keep_layers=[2, 3]")
    other = f"run_dir={workshop / 'other'}"
    assert built(workshop, model, "student.keep_layers=[0, 3]", other)[0]["layers"] == [0, 3]


def test_importance_drops_the_layer_that_does_nothing(workshop: Path) -> None:
    """Each score must belong to the layer it is stored for."""
    whole = tiny("llama")
    layer = whole.model.layers[2]
    for weight in (layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight):
        torch.nn.init.zeros_(weight)
    model = f"student.model={saved(workshop / 'whole', whole)}"
    counts, path = built(workshop, model, "student.layers=3", "student.choose=importance")
    assert counts["layers"] == [0, 1, 3]
    assert counts["importance"][2] == pytest.approx(0.0, abs=1e-6)
    assert min(counts["importance"][index] for index in (0, 1, 3)) > 1e-4
    assert load_weights(path, None, torch.float32).config.num_hidden_layers == 3


def test_block_influence_is_its_formula() -> None:
    """It is 1 - cosine over all tokens, not a mean of the prompts' means."""
    model = tiny("llama").eval()
    prompts = [[5, 6, 7, 8], [9, 10]]
    distances: list[torch.Tensor] = []
    for prompt in prompts:
        states = model(torch.tensor([prompt]), output_hidden_states=True).hidden_states
        distances.append(1 - torch.cosine_similarity(states[1], states[2], dim=-1)[0])
    assert layers.importance(model, "m", prompts)[1] == pytest.approx(
        torch.cat(distances).mean().item(), abs=2e-6
    )


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("student.layers=5", r"student\.layers: 5 of .*, which has 4"),
        ("student.keep_layers=[4]", r"keep_layers: 4 is not a layer of"),
    ],
)
def test_more_layers_than_there_are(workshop: Path, override: str, expected: str) -> None:
    """validate must say so before the teacher has generated all night."""
    config = load(
        workshop / "config.yaml",
        [f"student.model={saved(workshop / 'whole', tiny('llama'))}", override],
    )
    with pytest.raises(PipelineError, match=expected):
        validate.check_config(config)
    with pytest.raises(PipelineError, match=expected):
        runner.execute(train, config, ["init"])


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback"])
def test_trimmed_tokenizer_makes_the_same_pieces(tmp_path: Path, kind: str) -> None:
    """A missing merge splits a word in two. Text in another script must survive encoding and
    decoding."""
    whole = bpe(tmp_path / "whole", kind)
    used = {token for text in TEXTS for token in whole.encode(Rendered(None, text))}
    kept = vocabulary_trimming.vocabulary(whole, used)
    trimmed = vocabulary_trimming.save_tokenizer(whole, kept, tmp_path / "trimmed")
    assert len(kept.kept) == trimmed.vocab_size < whole.vocab_size
    for text in TEXTS:
        assert trimmed.encode(Rendered(None, text)) == kept.ids(whole.encode(Rendered(None, text)))
    assert trimmed.decode(trimmed.encode(Rendered(None, UNSEEN))) == UNSEEN
    vocabulary_trimming.check_same(whole, trimmed, kept, [Rendered(None, TEXTS[0])], TEXTS)


def test_pieces_on_the_way_to_a_token_are_kept(tmp_path: Path) -> None:
    """ "even" is made from e + v and so on: without these pieces its token is never used."""
    whole = bpe(tmp_path / "whole")
    (token,) = whole.hf(" even", add_special_tokens=False)["input_ids"]
    texts = {number: text for text, number in whole.hf.get_vocab().items()}
    kept = {texts[number] for number in vocabulary_trimming.vocabulary(whole, {token}).kept}
    assert {text for text in kept if len(text) > 1 and not text.startswith("<")} > {texts[token]}


def test_texts_that_change_are_refused(tmp_path: Path) -> None:
    """An unsupported part of a tokenizer must stop trimming, not silently change tokens."""
    whole = bpe(tmp_path / "whole")
    kept = vocabulary_trimming.vocabulary(whole, set())
    trimmed = vocabulary_trimming.save_tokenizer(whole, kept, tmp_path / "trimmed")
    with pytest.raises(
        PipelineError, match=r"trim_vocabulary: .* encodes ' yes, .* into other pieces once trimmed"
    ):
        vocabulary_trimming.check_same(whole, trimmed, kept, [], [TEXTS[1]])


@pytest.mark.parametrize("tied", [True, False])
def test_trimmed_model_has_the_same_logits(tmp_path: Path, tied: bool) -> None:
    """Rows in another order, or an lm_head that was left untrimmed, change the logits."""
    model = tiny(
        "llama", tie_word_embeddings=tied, bos_token_id=7, eos_token_id=[9, 11], pad_token_id=9
    ).eval()
    model.generation_config.eos_token_id = [9, 299]
    kept = Vocabulary("h", (0, 3, 7, 9, 11, 250, 299))
    ids = torch.tensor([[7, 250, 3, 299, 11]])
    before = model(ids).logits[..., list(kept.kept)]
    parameters = model.num_parameters()
    saved = vocabulary_trimming.trim(model, "m", kept)
    assert saved == parameters - model.num_parameters() == 293 * 32 * (1 if tied else 2)
    model.save_pretrained(tmp_path)
    small = load_weights(str(tmp_path), None, torch.float32)
    assert torch.allclose(
        small(torch.tensor([kept.ids(ids[0].tolist())])).logits, before, atol=1e-6
    )
    assert small.config.vocab_size == 7
    assert small.config.bos_token_id == 2
    assert small.config.eos_token_id == [3, 4]
    assert small.config.pad_token_id == 3
    assert small.generation_config.eos_token_id == [3, 6]


def distributions() -> TopK:
    """Return (2, 4) distributions; the draws of the second row are tokens 8 and 9."""
    probability = np.array([[0.5, 0.3, 0.1, 0.05], [0.2, 0.6, 0.1, 0.05]])
    ids = np.array([[1, 2, 3, 4], [2, 1, 8, 9]])
    return TopK(
        ids,
        np.log(probability).astype(np.float32),
        np.log([0.05, 0.05]).astype(np.float32),
        np.array([3, 2]),
    )


def test_mass_of_tokens_that_are_gone_goes_to_the_tail() -> None:
    """Mass that vanishes makes the student too confident; a removed exact entry must not turn a
    draw into an exact one."""
    out = Vocabulary("h", (1, 2, 4, 8)).topk(distributions())
    mass = np.exp(out.logprobs).sum(axis=1) + np.exp(out.tail)
    assert mass == pytest.approx([1.0, 1.0], abs=1e-6)
    assert out.ids.tolist() == [[0, 1, 2], [1, 0, 3]]
    assert out.exact.tolist() == [2, 2]
    assert np.exp(out.tail) == pytest.approx([0.15, 0.10], abs=1e-6)


def test_whole_vocabulary_changes_nothing() -> None:
    """The mapping alone must not move mass or columns; unused entries stay unused."""
    before = distributions()
    before.logprobs[0, 3], before.ids[0, 3] = -np.inf, 0
    out = Vocabulary("h", tuple(range(10))).topk(before)
    for name in ("ids", "logprobs", "tail", "exact"):
        assert np.array_equal(getattr(out, name), getattr(before, name))
    impossible = TopK(
        np.array([[5]]),
        np.full((1, 1), -np.inf, np.float32),
        np.zeros(1, np.float32),
        np.ones(1, np.int64),
    )
    assert Vocabulary("h", (5,)).topk(impossible).ids.tolist() == [[0]]


def test_sampled_token_that_is_gone_is_refused(tmp_path: Path) -> None:
    """A label cannot be left out, and an id beyond the vocabulary has no meaning."""
    vocabulary = Vocabulary("h", (1, 3))
    with pytest.raises(PipelineError, match="token 2 is not among the 2"):
        vocabulary.topk(distributions())
    with pytest.raises(PipelineError, match="token 99 is not among the 2"):
        vocabulary.ids([3, 99])
    vocabulary.write(tmp_path)
    assert Vocabulary.read(tmp_path) == vocabulary
    assert Vocabulary.read(tmp_path / "none") is None


def test_unsupported_tokenizer_is_refused_early(workshop: Path) -> None:
    """Pieces that are not bytes cannot spell text that the data did not contain."""
    from tokenizers import Tokenizer as Raw
    from tokenizers import models
    from transformers import PreTrainedTokenizerFast

    whole = workshop / "whole"
    tiny("llama").save_pretrained(whole)
    PreTrainedTokenizerFast(
        tokenizer_object=Raw(models.WordPiece({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    ).save_pretrained(whole)
    with pytest.raises(
        PipelineError,
        match=r"trim_vocabulary: .* is no byte-level BPE \(WordPiece\).*set it to false",
    ):
        validate.check_config(
            load(
                workshop / "config.yaml", [f"student.model={whole}", "student.trim_vocabulary=true"]
            )
        )


def server_config(workshop: Path, whole: Path, *overrides: str) -> Config:
    """Return a config with a teacher behind a server, with the tokenizer of the student."""
    server = "backend: openai, model: t, base_url: 'http://127.0.0.1:1'"
    teacher = f"teacher={{{server}, tokenizer: {whole}, logprobs: 4}}"
    model = [f"student.model={whole}", "student.trim_vocabulary=true", "evaluate.backend=vllm"]
    return load(workshop / "config.yaml", [teacher, *model, *overrides])


def test_rows_prompts_and_exact_entries_are_kept(workshop: Path, sample: Make) -> None:
    """A likely alternative of the teacher must not end in the tail; draws may."""
    tokenizer = bpe(workshop / "whole")
    tiny("llama", vocab_size=tokenizer.vocab_size + 40).save_pretrained(workshop / "whole")
    ids = tokenizer.encode_reply(" yes, it is even\n")
    exact, drawn = 590, 599
    columns = np.array([[token, exact, drawn] for token in ids])
    logprobs = np.log(np.tile([0.9, 0.08, 0.02], (len(ids), 1)))
    head = header(tokenizer=tokenizer.hash, vocab_size=600, threshold=0.05)
    data = topk.encode(columns, logprobs, head, 0)
    (workshop / "generate").mkdir()
    (workshop / "generate" / "0.topk").write_bytes(head.to_bytes() + data)
    place = Frame(
        file="0.topk", offset=len(head.to_bytes()), nbytes=len(data), crc32=topk.checksum(data, ids)
    )
    write_shards(workshop / "kept", [sample(token_ids=ids, frame=place)])
    write_json(workshop / "kept" / "manifest.json", {"files": {"00000.jsonl.gz": {"records": 1}}})
    config = server_config(workshop, workshop / "whole")
    start = build.build(config, workshop / "out", workshop / "kept", workshop / "generate")
    vocabulary = Vocabulary.read(workshop / "out")
    assert vocabulary is not None
    assert {*ids, exact} <= set(vocabulary.kept)
    assert drawn not in vocabulary.kept
    assert start.counts["tokens"] == len(vocabulary.kept) < start.counts["tokens_before"] == 600
    trimmed = Tokenizer(str(workshop / "out"))
    assert checks.shares_vocabulary(config, "kd", trimmed)
    saved = load_weights(str(workshop / "out"), None, torch.float32)
    assert saved.config.vocab_size == trimmed.vocab_size


def test_student_of_another_tokenizer_can_be_trimmed(workshop: Path) -> None:
    """Under sft its text is retokenised, so the tokens of the text are those it needs."""
    whole = bpe(workshop / "whole")
    tiny("llama", vocab_size=whole.vocab_size).save_pretrained(workshop / "whole")
    config = prepared(
        workshop,
        f"student.model={workshop / 'whole'}",
        "student.trim_vocabulary=true",
        "train.arms={sft: {method: sft}}",
    )
    runner.execute(train, config, ["init"])
    path = train.student_path(Path(config.run_dir), "init")
    vocabulary, trimmed = Vocabulary.read(path), Tokenizer(path)
    assert vocabulary is not None
    assert trimmed.vocab_size < whole.vocab_size
    for text in TEXTS:
        assert trimmed.encode_reply(text) == vocabulary.ids(whole.encode_reply(text))
    assert not checks.shares_vocabulary(config, "sft", trimmed)
    again = load(
        workshop / "config.yaml", [f"student.model={path}", "student.trim_vocabulary=true"]
    )
    with pytest.raises(PipelineError, match="is trimmed already"):
        validate.check_config(again)


def test_first_weights_depend_on_the_data_only_where_they_do(workshop: Path) -> None:
    """A trimmed start must notice other rows; a plain start must not ask for rows that do not
    exist."""
    plain, trimmed = (
        load(workshop / "config.yaml", [f"student.trim_vocabulary={word}"])
        for word in ("false", "true")
    )
    assert train.reads(plain, "init") == []
    assert not any(
        key.startswith(("task", "file", "output"))
        for key in fingerprint.fingerprint(train, plain, "init")
    )
    with pytest.raises(PipelineError, match="init needs generate, which is not finished"):
        fingerprint.fingerprint(train, trimmed, "init")
    prepared(workshop)
    fields = fingerprint.fingerprint(train, trimmed, "init")
    assert {
        "output of filter",
        f"file {workshop / 'seeds.jsonl'}",
        f"file {workshop / 'prompt.md'}",
        "train.rows",
    } <= fields.keys()
    adapted = load(workshop / "config.yaml", ["student.lora.rank=8"])
    unadapted = fingerprint.fingerprint(train, plain, "init")
    assert fingerprint.fingerprint(train, adapted, "init") == unadapted


@pytest.mark.real
def test_packaged_students_vocabulary(workshop: Path) -> None:
    """On the packaged task, the packaged tokenizer must make the same pieces of every seed with one
    token in eight."""
    config = load(
        ROOT / "configs" / "quickstart.yaml",
        [f"task.seeds.path={ROOT / 'data/sms_spam/seeds.jsonl'}"],
    )
    tokenizer = Tokenizer(resolve.model_path(config.teacher.model))
    prompt = prompts.load(ROOT / config.train.prompt)
    asked = [
        prompt.render(seed, tokenizer.control_tokens) for seed in seeds.load(config.task.seeds)
    ]
    used: set[int] = set()
    for rendered in asked:
        used.update(tokenizer.encode(rendered))
    kept = vocabulary_trimming.vocabulary(tokenizer, used)
    trimmed = vocabulary_trimming.save_tokenizer(tokenizer, kept, workshop / "trimmed")
    vocabulary_trimming.check_same(tokenizer, trimmed, kept, asked, [])
    assert trimmed.decode(trimmed.encode(Rendered(None, UNSEEN))) == UNSEEN
    assert len(kept.kept) < tokenizer.vocab_size / 8
