"""Settings of the student: its source, size, vocabulary and adapters."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.config.base import Section


class Shape(Section):
    """Size of a randomly initialised student (for tests of the machinery)."""

    layers: int = Field(2, ge=1, description="transformer blocks", examples=[4])
    hidden: int = Field(64, ge=8, description="width of a token's state", examples=[128])
    heads: int = Field(2, ge=1, description="attention heads", examples=[4])


class Lora(Section):
    """Low-rank adapters (Hu et al. 2021): the model's own weights stay as they are, and the finished student has the adapters merged in."""

    rank: int = Field(16, ge=1, description="rank of each adapter", examples=[8])
    alpha: float = Field(
        32.0, gt=0, description="what an adapter adds is scaled by alpha / rank", examples=[16.0]
    )
    dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of an adapter's inputs that is dropped in training",
        examples=[0.05],
    )
    targets: list[str] | None = Field(
        None,
        min_length=1,
        description="names of the linear layers that get one; null: all but the lm_head",
        examples=[["q_proj", "v_proj"]],
    )
    quantise: Literal["4bit"] | None = Field(
        None,
        description="4bit: the model's own weights as NF4 in training (QLoRA); needs pipeline[qlora]",
        examples=["4bit"],
    )


class Student(Section):
    """Where the student's first weights come from, and which of them are trained."""

    model: str = Field(
        "teacher",
        description="teacher, random, hub id, folder, or package:DISTRIBUTION/FILE.gguf",
        examples=["Qwen/Qwen2.5-0.5B"],
    )
    revision: str | None = Field(None, description="revision on the hub: pin it", examples=["v1.0"])
    layers: int | None = Field(
        None, ge=1, description="how many of that model's layers are kept; null: all", examples=[8]
    )
    choose: Literal["even", "importance"] = Field(
        "even",
        description="which: evenly spaced with first and last, or those that change their input most",
        examples=["importance"],
    )
    keep_layers: list[Annotated[int, Field(ge=0)]] | None = Field(
        None,
        min_length=1,
        description="the layers kept of that model by number, counted from 0; this or layers",
        examples=[[0, 2, 4, 6]],
    )
    trim_vocabulary: bool = Field(
        False,
        description="keep only the tokens that the task's data uses, and those that spell every other text",
        examples=[True],
    )
    shape: Shape = Shape()
    lora: Lora | None = Field(
        None,
        description="adapters are trained instead of the model's own weights; null: all weights are trained",
    )

    @model_validator(mode="after")
    def layers_once(self) -> Self:
        if self.keep_layers is not None and len(set(self.keep_layers)) < len(self.keep_layers):
            raise ValueError("keep_layers names a layer twice")
        if self.keep_layers is not None and self.layers is not None:
            raise ValueError(
                "layers and keep_layers both say which layers are kept; take one of them out"
            )
        if self.choose == "importance" and self.layers is None:
            raise ValueError(
                "choose: importance needs layers, how many are kept; set it, or take choose out"
            )
        if self.model == "random" and (self.keep_layers is not None or self.layers is not None):
            raise ValueError(
                "a random student has as many layers as shape.layers says; set that instead of layers or keep_layers"
            )
        if self.model == "teacher" and self.revision is not None:
            raise ValueError(
                "revision is for a model of its own; that of the teacher is teacher.revision"
            )
        return self
