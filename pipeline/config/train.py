"""The sections on the student and how it learns."""

from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.config.base import Section, runtime

Form = Literal["whole", "answer", "steps"]


class Arm(Section):
    """One way of training, compared with the others on identical rows."""

    method: Literal["sft", "kd"] = Field(
        "kd",
        description="cross-entropy on the teacher's text, or with its distributions",
        examples=["sft"],
    )
    text: Literal["teacher", "truth"] = Field(
        "teacher",
        description="whose replies it learns: the teacher's kept ones, or the seeds' ground truth (sft)",
        examples=["truth"],
    )
    limit: int | None = Field(
        None, ge=1, description="only the first so many samples or seeds", examples=[200]
    )
    selection: Literal["kept", "random"] = Field(
        "kept",
        description="the samples that filter kept, or as many drawn from all by the seed, good and bad, but none with held-out text",
        examples=["random"],
    )
    share: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of these, drawn by the seed; of one seed the smaller lies in the larger",
        examples=[0.5],
    )
    epochs: float | None = Field(
        None, gt=0, description="passes over its rows; null: train.epochs", examples=[3.0]
    )
    learning_rate: float | None = Field(
        None, gt=0, description="highest step size; null: train.learning_rate", examples=[1e-4]
    )
    seed: int | None = Field(
        None,
        ge=0,
        description="order of the rows; null: train.seed. Arms that differ in it alone are repeats",
        examples=[1],
    )
    form: Form = Field(
        "whole",
        description="the reply as it stands, its answer alone, or step by step: answer and rationale as two tasks",
        examples=["steps"],
    )
    rationale_weight: float = Field(
        1.0, ge=0, description="weight of a rationale's tokens; an answer's have 1", examples=[0.5]
    )
    corrected: bool = Field(
        False,
        description="where the teacher is wrong, the ground truth stands in, as the prompt's target: writes it",
        examples=[True],
    )
    soft_labels: bool = Field(
        False,
        description="kd: at the answer, the labels as filter.calibrated has them instead of what the teacher thought",
        examples=[True],
    )
    alpha: float = Field(
        0.1,
        ge=0,
        le=1,
        description="kd: weight of the cross-entropy; 1 - alpha is that of the divergence",
        examples=[0.5],
    )
    alpha_end: float | None = Field(
        None,
        ge=0,
        le=1,
        description="kd: alpha at the end of training, reached in a straight line; null: constant",
        examples=[0.0],
    )
    temperature: float = Field(
        1.0,
        gt=0,
        le=10,
        description="kd: softens both distributions; exact only at 1",
        examples=[2.0],
    )
    temperature_end: float | None = Field(
        None,
        gt=0,
        le=10,
        description="kd: temperature at the end of training, reached in a straight line; null: constant",
        examples=[1.0],
    )
    divergence: Literal["forward_kl", "reverse_kl", "jsd", "skew_kl", "total_variation"] = Field(
        "forward_kl",
        description="kd: how the student's distribution is held against the teacher's",
        examples=["reverse_kl"],
    )
    beta: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="kd: the teacher's share of the mixture of jsd and skew_kl",
        examples=[0.1],
    )
    tail: Literal["bucket", "renormalise"] = Field(
        "bucket",
        description="kd: what lies outside the stored entries counts as one entry, or is left out",
        examples=["renormalise"],
    )

    @model_validator(mode="after")
    def truth_is_text(self) -> Self:
        if self.text == "truth" and (self.method == "kd" or self.corrected):
            raise ValueError(
                "text: truth has no logprobs and nothing to correct; use method: sft without corrected, or text: teacher"
            )
        if self.text == "truth" and (self.selection == "random" or self.share < 1):
            raise ValueError(
                "text: truth is of seeds, and selection and share are of samples; use limit, or text: teacher"
            )
        return self


class Train(Section):
    """How the student learns."""

    prompt: str = Field(
        description="the student's prompt file: what it will see in use",
        examples=["prompts/word_problem.md"],
    )
    rows: Literal["filter", "score"] = Field(
        "filter", description="which stage's rows and logprobs it learns from", examples=["score"]
    )
    arms: dict[str, Arm] = Field(
        {"kd": Arm(), "sft": Arm(method="sft")},
        min_length=1,
        description="settings of each arm, by its name",
    )
    epochs: float = Field(1.0, gt=0, description="passes over the kept rows", examples=[2.0])
    learning_rate: float = Field(
        2e-4, gt=0, description="highest step size, reached after the warm-up", examples=[1e-4]
    )
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "cosine", description="learning rate after the warm-up", examples=["linear"]
    )
    warmup: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="share of the steps over which the learning rate rises",
        examples=[0.1],
    )
    weight_decay: float = Field(
        0.0,
        ge=0,
        description="share of a weight taken off each step, times the learning rate",
        examples=[0.01],
    )
    batch_size: int = Field(16, ge=1, description="rows a device and step", examples=[8])
    accumulate: int = Field(1, ge=1, description="batches an optimiser step", examples=[4])
    max_length: int = Field(
        1024,
        ge=8,
        description="longest row, tokens; a longer one is refused, not cut",
        examples=[512],
    )
    packing: bool = Field(
        False,
        description="fill rows of max_length with several samples (best fit decreasing) that do not see one another",
        examples=[True],
    )
    group_by_length: bool = Field(
        False, description="batches of rows of about one length: less padding", examples=[True]
    )
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        "auto",
        description="precision; auto is bfloat16 autocast on a GPU, float32 on a CPU",
        examples=["float32"],
    )
    gradient_checkpointing: bool = runtime(
        False, description="less memory, more time", examples=[True]
    )
    processes: int | None = Field(
        None,
        ge=1,
        description="training processes, each with its own batch and GPU; null: one a GPU, or 1 without",
        examples=[2],
    )
    holdout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the seeds whose rows are held out of every arm, to watch the loss on",
        examples=[0.05],
    )
    eval_steps: int = Field(
        100, ge=1, description="optimiser steps between looks at the held-out rows", examples=[25]
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="stop after so many looks without improvement, and keep the best weights; null: all epochs, the last weights",
        examples=[3],
    )
    canaries: int = Field(
        0,
        ge=0,
        le=1000,
        description="made-up secrets among every arm's rows; evaluate.memorisation says what is known of them",
        examples=[8],
    )
    best_by: Literal["loss", "score"] = Field(
        "loss",
        description="what patience watches: the held-out loss, or the score of the student's own answers to held-out seeds (up to 200)",
        examples=["score"],
    )
    show: int = runtime(
        0,
        ge=0,
        description="held-out seeds that the student answers at every look, for samples.jsonl",
        examples=[4],
    )
    seed: int = Field(
        0, ge=0, description="order of the rows, and whatever else is drawn", examples=[7]
    )
    save_steps: int = runtime(
        200, ge=1, description="optimiser steps between checkpoints", examples=[50]
    )
    log_steps: int = runtime(
        5, ge=1, description="optimiser steps between logged lines", examples=[1]
    )
    report_to: list[str] = runtime(
        ["tensorboard"], description="trackers, as transformers names them", examples=[["wandb"]]
    )

    @model_validator(mode="after")
    def one_order(self) -> Self:
        if self.packing and self.group_by_length:
            raise ValueError(
                "packing leaves nothing to group: set either packing or group_by_length"
            )
        return self

    @model_validator(mode="after")
    def something_held_out(self) -> Self:
        if not self.holdout and (self.patience or self.show):
            raise ValueError(
                f"{'patience' if self.patience else 'show'} needs held-out rows; set holdout, such as 0.05"
            )
        if self.best_by == "score" and not self.patience:
            raise ValueError(
                "best_by: score chooses nothing without patience; set patience, such as 3, or leave best_by out"
            )
        return self

    @model_validator(mode="after")
    def arm_names(self) -> Self:
        for name in self.arms:
            if (
                name in ("init", "teacher", "base")
                or not name.replace("-", "").replace("_", "").isalnum()
            ):
                raise ValueError(
                    f"'{name}' cannot name an arm; use letters, digits, - and _, and not init, teacher or base"
                )
        return self
