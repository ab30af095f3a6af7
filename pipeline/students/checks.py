"""Checks of a student against the teacher and the config, without its weights."""

from typing import Any

from pipeline.config import Config
from pipeline.data.vocabulary import Vocabulary
from pipeline.errors import PipelineError
from pipeline.models.resolve import tokenizer_path
from pipeline.models.tokenizer import Tokenizer
from pipeline.students import layers, lora, vocabulary_trimming


def shares_vocabulary(config: Config, arm: str, student: Tokenizer) -> bool:
    """Return True if student and teacher share a tokenizer. Trimming is not a difference.

    For an arm that compares the two token by token, raise PipelineError instead of returning False.
    """
    same = same_tokenizer(config, student)
    settings = config.train.arms[arm]
    kinds = [*(["kd"] if settings.method == "kd" else []), *settings.white_box]
    if not same and kinds:
        needs = "needs" if len(kinds) == 1 else "need"
        remedy = " without these terms" if settings.white_box else ""
        raise PipelineError(
            f"train {arm}: the tokenizer of {student.name} differs from that of the teacher "
            f"{config.teacher.model}; {' and '.join(kinds)} {needs} the same vocabulary. Choose a "
            f"student of the teacher's family, or train this one with method: sft{remedy}"
        )
    return same


def check_fidelity(config: Config, student: Tokenizer) -> None:
    """Raise PipelineError if evaluate.fidelity is on and student and teacher do not share a
    tokenizer. A trimmed vocabulary counts as the same."""
    if config.evaluate.fidelity and not same_tokenizer(config, student):
        raise PipelineError(
            f"evaluate.fidelity: the tokenizer of {student.name} differs from that of the teacher "
            f"{config.teacher.model}, so their distributions cannot be compared; leave it out, or "
            "choose a student of the teacher's family"
        )


def check(config: Config, name: str, model_config: Any, tokenizer: Tokenizer) -> None:
    """Raise PipelineError for the first key of `student` that does not fit the model `name`."""
    student = config.student
    total = model_config.get_text_config().num_hidden_layers
    layers.check(name, total, student.layers, student.keep_layers)
    if student.heal is not None:
        layers.check_cut(name, total, student.layers or len(student.keep_layers or ()))
    if student.trim_vocabulary:
        check_untrimmed(tokenizer)
        vocabulary_trimming.check(tokenizer)
    if student.lora is not None:
        lora.check_quantise(student.lora)
        lora.check_targets(meta_model(model_config), student.lora)


def same_tokenizer(config: Config, student: Tokenizer) -> bool:
    """Return True if the student's tokenizer is the teacher's, or was before it was trimmed.

    Returns False for a server without teacher.tokenizer, because its tokenizer is unknown.
    """
    teacher = config.teacher
    if teacher.backend == "openai" and teacher.tokenizer is None:
        return False
    trimmed = Vocabulary.read(student.name)
    expected = trimmed.tokenizer if trimmed else student.hash
    return Tokenizer(tokenizer_path(teacher), teacher.revision).hash == expected


def meta_model(model_config: Any) -> Any:
    """Make the model on torch's meta device, which gives its weights shapes but no memory."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(model_config, trust_remote_code=False)


def check_untrimmed(tokenizer: Tokenizer) -> None:
    """Raise PipelineError if the tokenizer is trimmed already."""
    if Vocabulary.read(tokenizer.name) is not None:
        raise PipelineError(
            f"student.trim_vocabulary: {tokenizer.name} is trimmed already; set it to false, or "
            "start from the model before it was trimmed"
        )
