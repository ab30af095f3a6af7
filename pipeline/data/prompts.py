"""Prompt files: they turn an example into a prompt, and say where the answer is in the reply.

A prompt file is Markdown with front matter:

    ---
    format: chat                 # or completion: the model continues the text as it is
    system: You are terse.       # chat only
    stop: ["\\n"]                 # texts that end the reply, besides the model's own end token
    rationale: {start: "", end: "Answer:"}
    answer: {start: "Answer:", end: "\\n"}
    ---
    {{ question }}

The markers of `rationale` and `answer` also decide the order. In this example the rationale comes
first; `answer: {end: ","}` with `rationale: {start: ","}` puts the answer first.
`rationale: think` is for models that reason up to the token </think>. Leave `rationale` out if the
reply has none.

A student can be trained to give the answer alone (`form: answer`), or to give either part when a
prefix before the body asks for it (`form: steps`): see `Prompt.in_form`.

The body is a template over the example's inputs; {{ inputs["Customer Message"] }} shows a column
whose name is not one word. The inputs are only values, never part of the template. Control tokens
that appear in an input are broken up, so that they stay plain text.
"""

import dataclasses
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from jinja2 import StrictUndefined, Template, TemplateError, UndefinedError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ValidationError, model_validator

from pipeline.config import Config, Form, yaml_reading
from pipeline.data.spans import STRICT, Span
from pipeline.errors import PipelineError
from pipeline.records import Rendered, Seed
from pipeline.verifiers import targets

ZERO_WIDTH_SPACE = "\u200b"
WORDS = re.compile(r"\{\{\s*(\w+(?:[ -]+\w+)+)\s*\}\}")  # {{ Customer Message }}
PLACEHOLDER = re.compile(r"\{(\w+)\}")


class Prefixes(BaseModel):
    """Prefixes put before the body to ask a student (`form: steps`) for only one part."""

    model_config = STRICT
    answer: str = "[answer] "
    """asks for the answer alone"""
    rationale: str = "[rationale] "
    """asks for the rationale alone; must differ from `answer`"""

    @model_validator(mode="after")
    def differ(self) -> Self:
        if self.answer == self.rationale:
            raise ValueError(
                "answer and rationale must differ, or one prompt would have two replies"
            )
        return self


class FrontMatter(BaseModel):
    """The keys of a prompt file's front matter."""

    model_config = STRICT
    format: Literal["chat", "completion"] = "chat"
    """chat: the body is the user's turn, through the model's chat template; completion: the model
    continues the body as it is"""
    system: str | None = None
    """system message; only for chat"""
    stop: list[str] = []
    """texts that end the reply, besides the model's own end-of-turn token"""
    rationale: Span | Literal["think"] | None = None
    """where the rationale is in the reply; think: everything before the token </think>; left out:
    there is none"""
    answer: Span = Span()
    """where the answer is in the reply; left out: the whole reply"""
    target: str | None = None
    """how the ground truth would look as a reply, such as " {target}\\n"; may name inputs of the
    example: "{steps} So: {target}"; left out: the target between the answer's markers"""
    prefixes: Prefixes = Prefixes()
    """for train.arms.*.form: steps, where answer and rationale are two tasks"""

    def find_parts(self, text: str) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
        """Return where rationale and answer are in a reply without thoughts, None if missing."""
        rationale = self.rationale.find(text) if isinstance(self.rationale, Span) else None
        if not isinstance(self.rationale, Span):
            return None, self.answer.find(text, last=self.rationale == "think")
        is_first = rationale is None or rationale[0] <= text.find(self.answer.start)
        if self.rationale.start and not is_first:
            return rationale, self.answer.find(text)
        begin = rationale[1] if rationale and self.rationale.start else 0
        answer = self.answer.find(text, begin, last=True) or self.answer.find(text, last=True)
        marker = answer and text.rfind(self.answer.start, 0, answer[0])
        if rationale and marker and self.answer.start and self.answer.start in self.rationale.ends:
            part = text[rationale[0] : marker]  # up to the answer, not to a marker that it quotes
            while part.rstrip().endswith(self.answer.start):  # one box in another
                part = part.rstrip().removesuffix(self.answer.start)
            rationale = (rationale[0], rationale[0] + len(part.rstrip()))
        return rationale, answer

    def target_reply(self, seed: Seed, metric: str = "exact") -> str:
        """Write the ground truth of an example as a reply; of several accepted ones the first.

        The reply follows `target`. If `target` is left out, the ground truth is put between the
        answer's markers. Raises PipelineError if `target` names an input that the example lacks.
        """
        assert seed.target is not None
        truth = targets.accepted(metric, seed.target)[0]
        if self.target is None:
            return f"{self.answer.start}{truth}{self.answer.ends[-1]}"
        values = {
            name: value
            for name, value in seed.inputs.items()
            if isinstance(value, str | int | float)
        }
        values["target"] = truth
        for name in PLACEHOLDER.findall(self.target):
            if name not in values:
                raise PipelineError(
                    f"target: {{{name}}} is no input of seed {seed.id}, "
                    f"which has {', '.join(values)}; name one of them"
                )
        return PLACEHOLDER.sub(lambda match: str(values[match.group(1)]), self.target)


@dataclass(frozen=True)
class Prompt:
    """The content of a prompt file. `names` are the inputs that its template uses."""

    name: str
    front: FrontMatter
    template: Template
    prefix: str = ""
    names: frozenset[str] = frozenset()

    def in_form(self, form: Form) -> "Prompt":
        """Return this prompt as used at evaluation for a student trained in this form.

        whole: the reply is rationale and answer; answer: the reply is the answer alone; steps: the
        same, asked for by a prefix.
        """
        if form == "whole":
            return self
        answer = Span(end=self.front.answer.end, open=True)
        front = self.front.model_copy(update={"rationale": None, "answer": answer})
        prefix = self.front.prefixes.answer if form == "steps" else ""
        return dataclasses.replace(self, front=front, prefix=prefix)

    def render(self, seed: Seed, control_tokens: Iterable[str] = ()) -> Rendered:
        """Fill the template with the example's inputs. Raises PipelineError if that fails."""
        tokens = tuple(control_tokens)
        try:
            inputs = _defused(seed.inputs, tokens)
            body = self.prefix + self.template.render({"inputs": inputs, **inputs})
        except UndefinedError as error:
            raise PipelineError(
                f"{self.name}: {error.message} for seed {seed.id}, "
                f"whose inputs are {', '.join(map(_expression, seed.inputs))}; name one of them"
            ) from None
        except PipelineError as error:
            raise PipelineError(f"{self.name}: seed {seed.id}: {error}") from None
        except Exception as error:  # a template can compute: any Python error is possible
            raise PipelineError(
                f"{self.name}: cannot be rendered for seed {seed.id}: {error}"
            ) from None
        if self.front.format == "completion":
            return Rendered(None, body)
        system = ({"role": "system", "content": self.front.system},) if self.front.system else ()
        return Rendered((*system, {"role": "user", "content": body}), None)

    @property
    def is_chat(self) -> bool:
        """Return True if the model's chat template renders the prompt."""
        return self.front.format == "chat"

    @property
    def asks_for_rationale(self) -> bool:
        """Return True if a reply to this prompt has a rationale."""
        return self.front.rationale is not None


def load(path: str | Path) -> Prompt:
    """Read one prompt file. Raises PipelineError if it is malformed."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise PipelineError(
            f"{path}: prompt cannot be read ({error.strerror}); see prompts/ for examples"
        ) from None
    except UnicodeDecodeError as error:
        raise PipelineError(
            f"{path}: not UTF-8 ({error.reason} at byte {error.start}); save the file as UTF-8"
        ) from None
    front, body = _split(path, text)
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, autoescape=False, finalize=_no_null
    )
    try:
        names = frozenset(meta.find_undeclared_variables(environment.parse(body)))
        return Prompt(str(path), front, environment.from_string(body), names=names)
    except TemplateError as error:
        raise PipelineError(
            f"{path}: template error: {error}; "
            f"the body is a Jinja template over the example's inputs{_hint(body)}"
        ) from None


def _hint(body: str) -> str:
    """Say how to name a column of several words, if the template tries to."""
    if found := WORDS.search(body):
        return f"; a column of that name is written {{{{ {_expression(found[1])} }}}}"
    return ""


def _expression(column: str) -> str:
    """Write a column as a template has to name it."""
    return column if column.isidentifier() else f"inputs[{column!r}]"


def stored_files(folder: Path) -> list[Path]:
    """Return the copies of the prompt files in a stage's folder, sorted by number."""
    return sorted((folder / "prompts").glob("*.md"), key=lambda path: int(path.stem))


def check(prompt: Prompt, seeds: Iterable[Seed]) -> None:
    """Render every example, so that an error is found before a model is loaded."""
    for seed in seeds:
        prompt.render(seed)


def _split(path: Path, text: str) -> tuple[FrontMatter, str]:
    if not text.startswith("---\n") or "\n---\n" not in text[3:]:
        raise PipelineError(
            f"{path}: has no front matter; begin it with ---, the settings, --- (see prompts/)"
        )
    head, _, body = text[3:].partition("\n---\n")
    try:
        front = FrontMatter.model_validate(yaml_reading.parse(head) or {})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise PipelineError(f"{path}: front matter: {key}: {first['msg']}") from None
    except ValueError as error:
        raise PipelineError(f"{path}: front matter is not valid YAML: {error}") from None
    return front, body.strip("\n")


def _no_null(value: Any) -> Any:
    if value is None:
        raise PipelineError(
            "an input that the prompt uses is null; fill it in, or guard it with {% if %}"
        )
    return value


def _defused(value: Any, tokens: tuple[str, ...]) -> Any:
    """Return the value with a zero-width space put into every control token that it contains."""
    if isinstance(value, str):
        for token in tokens:
            if token in value:
                value = value.replace(token, token[0] + ZERO_WIDTH_SPACE + token[1:])
        return value
    if isinstance(value, list):
        return [_defused(item, tokens) for item in value]
    if isinstance(value, dict):
        return {key: _defused(item, tokens) for key, item in value.items()}
    return value


def prompt_files(config: Config) -> Sequence[Path | str]:
    """Return the prompt files, sorted by number.

    They are the copies in the generate folder; before that stage has run, the files that the config
    names.
    """
    return stored_files(Path(config.run_dir) / "generate") or config.generate.prompt
