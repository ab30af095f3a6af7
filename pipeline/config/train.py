"""Settings of `train`: the arms, and what they share."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.config.base import Section, one_error, runtime
from pipeline.config.white_box import TERMS, Attention, Hidden, Relation

ROWS_OF_AN_ANGLE = 3  # a batch with fewer has no angles between its rows

Form = Literal["whole", "answer", "steps"]
Divergence = Literal[
    "forward_kl", "cross_entropy", "mse", "reverse_kl", "jsd", "skew_kl", "total_variation"
]
Share = Annotated[float, Field(ge=0, le=1)]
Alpha = Annotated[
    Share | Literal["answer", "confidence", "entropy"],
    one_error("must be a number from 0 to 1, answer, confidence or entropy"),
]

RationaleWeight = Annotated[
    Annotated[float, Field(ge=0)] | Literal["balanced"],
    one_error("must be a number of 0 or more, or balanced"),
]


class Arm(Section):
    """One training method, compared with the others on the same rows."""

    method: Literal["sft", "kd"] = Field("kd", examples=["sft"])
    """Cross-entropy on the teacher's text, or divergence from its distributions."""
    text: Literal["teacher", "truth"] = Field("teacher", examples=["truth"])
    """Replies to learn: the teacher's kept ones, or the ground truth (sft)."""
    limit: int | None = Field(None, ge=1, examples=[200])
    """Only the first N samples or examples."""
    selection: Literal["kept", "random"] = Field("kept", examples=["random"])
    """Samples that filter kept, or as many drawn from all, except those with held-out text."""
    share: float = Field(1.0, gt=0, le=1, examples=[0.5])
    """Share of these samples, drawn at random. A smaller share is a subset of a larger one."""
    epochs: float | None = Field(None, gt=0, examples=[3.0])
    """Passes over the arm's rows. null: train.epochs."""
    learning_rate: float | None = Field(None, gt=0, examples=[1e-4])
    """Peak learning rate. null: train.learning_rate."""
    seed: int | None = Field(None, ge=0, examples=[1])
    """Random seed of the row order. null: train.seed. Arms that differ only in seed are repeats."""
    form: Form = Field("whole", examples=["steps"])
    """Learn the whole reply, only its answer, or (steps) answer and rationale as two tasks."""
    rationale_weight: RationaleWeight = Field(1.0, examples=["balanced"])
    """Weight of a rationale's tokens in the loss; an answer's tokens have 1. balanced: in each
    reply, all tokens of the rationale together weigh as much as those of the answer."""
    corrected: bool = Field(False, examples=[True])
    """Replace wrong replies by the ground truth, written as `target` in the prompt file says."""
    soft_labels: bool | None = Field(None, examples=[True])
    """kd: at the answer, learn one calibrated probability for each label, with alpha 0 there.
    null: only if calibration shows that the prompt favours some labels."""
    alpha: Alpha = Field("answer", examples=[0.5])
    """kd: weight of the cross-entropy; the divergence has 1 - alpha. answer: 1 at the tokens of a
    short answer that is right or wrong (metrics label, exact, numeric, math), 0.5 elsewhere.
    confidence: the teacher's probability of the written token. entropy: exp(-H), with H of the
    teacher's distribution."""
    alpha_end: float | None = Field(None, ge=0, le=1, examples=[0.0])
    """kd: alpha at the end of training, reached linearly. null: constant."""
    temperature: float = Field(1.0, gt=0, le=10, examples=[2.0])
    """kd: softens both distributions. Approximate if not 1, as the shape of the tail is unknown."""
    temperature_end: float | None = Field(None, gt=0, le=10, examples=[1.0])
    """kd: temperature at the end of training, reached linearly. null: constant."""
    divergence: Divergence = Field("forward_kl", examples=["reverse_kl"])
    """kd: how the student's distribution is compared with the teacher's. mse compares the logits of
    the stored tokens."""
    beta: float = Field(0.5, gt=0, lt=1, examples=[0.1])
    """kd: the teacher's share of the mixture in jsd and skew_kl."""
    tail: Literal["bucket", "renormalise"] = Field("bucket", examples=["renormalise"])
    """kd: tokens that are not stored count as one entry (bucket), or are left out."""
    hidden: Hidden | None = None
    attention: Attention | None = None
    relation: Relation | None = None

    @property
    def white_box(self) -> list[str]:
        """Name the terms of the loss that need the teacher's weights."""
        return [term for term in TERMS if getattr(self, term) is not None]

    @model_validator(mode="after")
    def schedule_is_of_numbers(self) -> Self:
        if self.alpha_end is not None and self.alpha in ("confidence", "entropy"):
            raise ValueError(
                f"alpha_end changes a number, and alpha is {self.alpha}; "
                "leave alpha_end out, or set alpha to a number"
            )
        return self

    @model_validator(mode="after")
    def truth_is_text(self) -> Self:
        if self.text == "truth" and (self.method == "kd" or self.corrected):
            raise ValueError(
                "text: truth has no logprobs and nothing to correct; "
                "use method: sft without corrected, or text: teacher"
            )
        if self.text == "truth" and (self.selection == "random" or self.share < 1):
            raise ValueError(
                "text: truth reads seeds, and selection and share are for samples; "
                "use limit, or text: teacher"
            )
        return self


class Train(Section):
    """How the student is trained."""

    prompt: str = Field(examples=["prompts/word_problem.md"])
    """The student's prompt file, the same as in later use."""
    rows: Literal["filter", "score"] = Field("filter", examples=["score"])
    """Stage whose rows and logprobs the student learns from."""
    arms: dict[str, Arm] = Field({"kd": Arm(), "sft": Arm(method="sft")}, min_length=1)
    """Settings of each arm, by its name."""
    epochs: float | None = Field(None, gt=0, examples=[2.0])
    """Passes over the kept rows. null: one, or up to four if the steps would be few."""
    learning_rate: float | None = Field(None, gt=0, examples=[1e-4])
    """Peak learning rate, reached after the warm-up. null: by the student's width."""
    schedule: Literal["linear", "cosine", "constant"] = Field("cosine", examples=["linear"])
    """Learning rate after the warm-up."""
    warmup: float = Field(0.05, ge=0, lt=1, examples=[0.1])
    """Share of the steps over which the learning rate rises."""
    weight_decay: float = Field(0.0, ge=0, examples=[0.01])
    """Each step subtracts weight times this times the learning rate."""
    batch_size: int | None = Field(None, ge=1, examples=[8])
    """Rows per device and step. null: 16, or 8 for fewer than 1,000 rows."""
    accumulate: int = Field(1, ge=1, examples=[4])
    """Batches per optimiser step."""
    max_length: int = Field(1024, ge=8, examples=[512])
    """Longest row, in tokens. Longer ones are left out and counted; above 5 % is an error."""
    packing: bool = Field(False, examples=[True])
    """Pack several samples into a row of max_length. They do not see one another."""
    group_by_length: bool | None = Field(None, examples=[False])
    """Batches of rows of similar length, with less padding. null: yes, unless packing."""
    dtype: Literal["auto", "bfloat16", "float32"] = Field("auto", examples=["float32"])
    """Precision. auto: bfloat16 autocast on a GPU, and on a CPU with instructions for it."""
    gradient_checkpointing: bool = runtime(False, examples=[True])
    """Compute activations again in the backward pass: less memory, more time."""
    processes: int | None = Field(None, ge=1, examples=[2])
    """Training processes, each with its own batch and GPU. null: one per GPU, or 1 without."""
    holdout: float = Field(0.0, ge=0, lt=1, examples=[0.05])
    """Share of the examples whose rows are the validation split of every arm."""
    eval_steps: int = Field(100, ge=1, examples=[25])
    """Optimiser steps between evaluations on the validation split."""
    patience: int | None = Field(None, ge=1, examples=[3])
    """Stop after N evaluations without improvement, and keep the best weights.
    null: all epochs, the last weights."""
    canaries: int = Field(0, ge=0, le=1000, examples=[8])
    """How many made-up secrets every arm learns. evaluate.memorisation tests if they are known."""
    best_by: Literal["loss", "score"] = Field("loss", examples=["score"])
    """Value that patience watches: the validation loss, or the score of the student's own
    answers to validation examples (at most 200)."""
    show: int = runtime(0, ge=0, examples=[4])
    """Validation examples that the student answers at every evaluation, for samples.jsonl."""
    seed: int = Field(0, ge=0, examples=[7])
    """Random seed of the row order and of all other draws."""
    save_steps: int = runtime(200, ge=1, examples=[50])
    """Optimiser steps between checkpoints. Ctrl-C writes one too."""
    keep_checkpoints: bool = runtime(False, examples=[True])
    """Keep the checkpoints of a finished arm, with its optimiser's state."""
    log_steps: int = runtime(5, ge=1, examples=[1])
    """Optimiser steps between logged lines."""
    report_to: list[str] = runtime(["tensorboard"], examples=[["wandb"]])
    """Trackers, by their names in transformers."""

    @model_validator(mode="after")
    def one_order(self) -> Self:
        if self.packing and self.group_by_length:
            raise ValueError(
                "packing leaves nothing to group: set either packing or group_by_length"
            )
        return self

    @model_validator(mode="after")
    def rows_relate(self) -> Self:
        if self.packing or (self.batch_size or ROWS_OF_AN_ANGLE) >= ROWS_OF_AN_ANGLE:
            return self
        for name, arm in self.arms.items():
            if arm.relation:
                raise ValueError(
                    f"arm {name} has relation, which compares {ROWS_OF_AN_ANGLE} rows or more of "
                    f"a batch; raise batch_size, got {self.batch_size}, or leave relation out"
                )
        return self

    @model_validator(mode="after")
    def something_held_out(self) -> Self:
        if not self.holdout and (self.patience or self.show):
            name = "patience" if self.patience else "show"
            raise ValueError(f"{name} needs held-out rows; set holdout, such as 0.05")
        if self.best_by == "score" and not self.patience:
            raise ValueError(
                "best_by: score chooses nothing without patience; "
                "set patience, such as 3, or leave best_by out"
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
                    f"'{name}' cannot name an arm; use letters, digits, - and _, "
                    "and not init, teacher or base"
                )
        return self
