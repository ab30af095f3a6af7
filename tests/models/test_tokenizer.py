"""Chat templates: what they refuse, what they drop, and what ends a turn."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pipeline.errors import PipelineError
from pipeline.models import saving
from pipeline.models.fake import TOKENIZER
from pipeline.models.tokenizer import Tokenizer
from pipeline.records import Rendered

TURNS = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>\n{% endfor %}"
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}" + TURNS
)
DROPS_SYSTEM = TURNS.replace("%}<|", "%}{% if m['role'] != 'system' %}<|", 1).replace(
    "{% endfor", "{% endif %}{% endfor"
)
SYSTEM = Rendered(
    ({"role": "system", "content": "Be terse. "}, {"role": "user", "content": "2 + 2"}), None
)


def tokenizer(folder: Path, template: str | None, **settings: object) -> Tokenizer:
    """Return the fake tokenizer with another chat template and other settings."""
    shutil.copytree(TOKENIZER, folder / "tok")
    (folder / "tok/chat_template.jinja").unlink()
    if template is not None:
        (folder / "tok/chat_template.jinja").write_text(template)
    path = folder / "tok/tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return Tokenizer(str(folder / "tok"))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (NO_SYSTEM, r"refuses a chat of system, user \(System role not supported\); move the text"),
        (DROPS_SYSTEM, "drops the system message; move the text of 'system:'"),
        (None, "has no chat template; set 'format: completion'"),
    ],
)
def test_chat_that_the_template_does_not_take(
    tmp_path: Path, template: str | None, message: str
) -> None:
    """Gemma's template gave a traceback; one that skips the system text lost it in silence."""
    with pytest.raises(PipelineError, match=message):
        tokenizer(tmp_path, template).check(SYSTEM)


def test_chat_that_the_template_takes(tmp_path: Path) -> None:
    """A check that is too strict would refuse templates that trim."""
    trims = TURNS.replace("m['content']", "m['content'] | trim")
    tokenizer(tmp_path, trims).check(SYSTEM)


def test_end_of_turn_is_what_the_template_writes_behind_a_reply(tmp_path: Path) -> None:
    """Gemma and Phi end turns by a token that is not eos; a student taught eos runs on in chat."""
    other = tokenizer(tmp_path, TURNS, eos_token="<|pad|>")
    end, pad = other.hf.convert_tokens_to_ids(["<|end|>", "<|pad|>"])
    assert other.encode_reply("4", in_chat=True)[-1] == other.end_of_turn == end
    assert other.encode_reply("4")[-1] == pad
    assert other.end_ids == {end, pad}
    shutil.rmtree(tmp_path / "tok")
    assert tokenizer(tmp_path, None).end_ids == {end}


def test_tokenizer_without_an_end_is_one_error(tmp_path: Path) -> None:
    """None among the token ids failed much later, inside torch."""
    with pytest.raises(PipelineError, match="has no eos_token"):
        tokenizer(tmp_path, None, eos_token=None).encode_reply("4")


def test_a_saved_student_stops_at_the_end_of_turn(tmp_path: Path) -> None:
    """Whoever serves a student that learned another end than its base got endless replies."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=300, num_hidden_layers=1, **sizes))
    model.generation_config.eos_token_id = 2
    saving.save(model, tmp_path, {2, 7})
    saved = json.loads((tmp_path / "generation_config.json").read_text())
    assert saved["eos_token_id"] == [2, 7]
