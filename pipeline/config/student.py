"""Settings of the student: its source, size, vocabulary and adapters."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.config.base import Section


class Shape(Section):
    """Size of a randomly initialised student, for tests of the machinery."""

    layers: int = Field(2, ge=1, examples=[4])
    """Transformer layers."""
    hidden: int = Field(64, ge=8, examples=[128])
    """Width of the hidden states."""
    heads: int = Field(2, ge=1, examples=[4])
    """Attention heads."""


class Lora(Section):
    """Train low-rank adapters (Hu et al. 2021) instead of the model's own weights.

    The adapters are merged into the finished student.
    """

    rank: int = Field(16, ge=1, examples=[8])
    """Rank of each adapter."""
    alpha: float = Field(32.0, gt=0, examples=[16.0])
    """An adapter's output is scaled by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1, examples=[0.05])
    """Share of an adapter's inputs that is dropped in training."""
    targets: list[str] | None = Field(None, min_length=1, examples=[["q_proj", "v_proj"]])
    """Names of the linear layers with an adapter. null: all but the lm_head."""
    quantise: Literal["4bit"] | None = Field(None, examples=["4bit"])
    """4bit: in training, the frozen weights have 4 bits (NF4, QLoRA). Needs pipeline[qlora]."""


class Heal(Section):
    """Distil a cut student from its own model before the cut, before any arm is trained."""

    tokens: int = Field(1_000_000, ge=1, examples=[200_000])
    """Tokens to learn in all. A shorter text is learned in several passes."""
    text: str = Field("samples", examples=["inputs"])
    """samples (the teacher's replies behind the student's prompt), inputs (this prompt alone), or a
    file or folder of .txt files and .jsonl files with a field `text`."""
    rounds: int | None = Field(None, ge=1, examples=[2])
    """Cut and distil in N rounds. null: as many as it takes to remove at most a third in each."""
    learning_rate: float | None = Field(None, gt=0, examples=[3e-4])
    """Peak learning rate of a round. null: by the width of the model."""

    @property
    def path(self) -> str | None:
        """Return the path of the text; None for text that the run itself has."""
        return None if self.text in ("samples", "inputs") else self.text


class Student(Section):
    """Where the student's first weights come from, and which of them are trained."""

    model: str = Field("teacher", examples=["Qwen/Qwen2.5-0.5B"])
    """teacher, random, hub id, folder, or package:DISTRIBUTION/FILE.gguf."""
    revision: str | None = Field(None, examples=["v1.0"])
    """Revision on the hub; pin it."""
    layers: int | None = Field(None, ge=1, examples=[8])
    """How many layers of the model are kept. null: all."""
    choose: Literal["even", "importance"] = Field("even", examples=["importance"])
    """Keep evenly spaced layers, with first and last, or those that change their input most."""
    keep_layers: list[Annotated[int, Field(ge=0)]] | None = Field(
        None, min_length=1, examples=[[0, 2, 4, 6]]
    )
    """Numbers of the layers that are kept, counted from 0. Set this or layers, not both."""
    trim_vocabulary: bool = Field(False, examples=[True])
    """Keep only the tokens that the task's data uses, and single bytes for any other text."""
    heal: Heal | None = None
    shape: Shape = Shape()
    lora: Lora | None = None

    @model_validator(mode="after")
    def layers_once(self) -> Self:
        if self.keep_layers is not None and len(set(self.keep_layers)) < len(self.keep_layers):
            raise ValueError("keep_layers names a layer twice")
        if self.keep_layers is not None and self.layers is not None:
            raise ValueError("layers and keep_layers both say which layers are kept; leave one out")
        if self.choose == "importance" and self.layers is None:
            raise ValueError(
                "choose: importance needs layers, the number to keep; set it, or leave choose out"
            )
        if self.model == "random" and (self.keep_layers is not None or self.layers is not None):
            raise ValueError(
                "a random student has as many layers as shape.layers says; "
                "set that instead of layers or keep_layers"
            )
        if self.heal is not None and self.layers is None and self.keep_layers is None:
            raise ValueError(
                "heal distils a student without some layers from the whole one, and this one has "
                "all; set layers or keep_layers, or leave heal out"
            )
        if self.model == "teacher" and self.revision is not None:
            raise ValueError(
                "revision is for a model other than the teacher; "
                "that of the teacher is teacher.revision"
            )
        return self
