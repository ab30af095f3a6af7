"""Prompt files: how a seed becomes a question, and how the answer and the rationale are read out of the reply.

A prompt file is Markdown with front matter:

    ---
    format: chat                 # or completion: the text as it stands, to be continued
    system: You are terse.       # chat only
    stop: ["\\n"]                 # where the reply ends, besides the model's own end token
    rationale: {start: "", end: "Answer:"}
    answer: {start: "Answer:", end: "\\n"}
    ---
    {{ question }}

Strategies are spans: rationale then answer as above; answer then rationale with `answer: {end: ","}` and `rationale: {start: ","}`;
`rationale: think` for models that reason up to the token </think>; no rationale if the key is left out. `target: " {target}\\n"` says how
ground truth would be written as a reply, if not between the answer's tags; it may name inputs of the seed too: `"{steps} So: {target}"`.

A student may be trained to give the answer alone, or each of the two parts on demand (step by step, with `prefixes` before the body that
say which): see `in_form`.

The body is a template over the seed's inputs. Seed text is data: it is only ever a value, never part of the template, and control
tokens of the tokenizer that stand in it are broken up before they can act.
"""

import dataclasses
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from jinja2 import StrictUndefined, Template, TemplateError, UndefinedError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from pipeline.config import Config, Form
from pipeline.errors import PipelineError
from pipeline.records import Rendered, Seed

ZERO_WIDTH_SPACE = "\u200b"
NAMED = re.compile(r"\{(\w+)\}")
STRICT = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class Span(BaseModel):
    """A part of the reply, between two markers. White space around the part is left out."""

    model_config = STRICT
    start: str = ""
    """marker before the part, at its first occurrence; empty: the part begins with the reply"""
    end: str | list[str] = ""
    """marker behind the part, or several of which the first counts; empty: to the reply's end"""
    open: bool = False
    """whether a reply that stops before `end` still has the part, as it has if `end` is a newline"""

    def find(self, text: str) -> tuple[int, int] | None:
        """Where the part begins and ends in the text, outer white space left out; None if it is not there or is empty."""
        begin = text.find(self.start)
        if begin < 0:
            return None
        begin += len(self.start)
        found = [text.find(end, begin) for end in self.ends if end and text.find(end, begin) >= 0]
        if not found and not self.open and not any(end.strip() == "" for end in self.ends):
            return None
        part = text[begin : min(found, default=len(text))]
        begin += len(part) - len(part.lstrip())
        return (begin, begin + len(part.strip())) if part.strip() else None

    @property
    def ends(self) -> list[str]:
        return [self.end] if isinstance(self.end, str) else self.end


class Prefixes(BaseModel):
    """Prefixes before the body, by which a student trained step by step is asked for one part."""

    model_config = STRICT
    answer: str = "[answer] "
    """asks for the answer alone"""
    rationale: str = "[rationale] "
    """asks for the rationale alone; must differ from `answer`"""

    @model_validator(mode="after")
    def tell_apart(self) -> Self:
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

    def target_reply(self, seed: Seed) -> str:
        """The seed's ground truth as the teacher would have written it: `target` of the front matter, or between the answer's tags."""
        assert seed.target is not None
        if self.target is None:
            return f"{self.answer.start}{seed.target}{self.answer.ends[-1]}"
        known = {
            name: value
            for name, value in seed.inputs.items()
            if isinstance(value, str | int | float)
        } | {"target": seed.target}
        unknown = [name for name in NAMED.findall(self.target) if name not in known]
        if unknown:
            raise PipelineError(
                f"target: {{{unknown[0]}}} is no input of seed {seed.id}, which has {', '.join(known)}; name one of them"
            )
        return NAMED.sub(lambda found: str(known[found.group(1)]), self.target)


@dataclass(frozen=True)
class Prompt:
    name: str
    front: FrontMatter
    template: Template
    prefix: str = ""
    names: frozenset[str] = frozenset()  # what the template names of a seed's inputs

    def in_form(self, form: Form) -> "Prompt":
        """The prompt for the answer of a student trained in this form: the whole reply, the answer alone, or the answer on demand."""
        if form == "whole":
            return self
        front = self.front.model_copy(
            update={"rationale": None, "answer": Span(end=self.front.answer.end, open=True)}
        )
        return dataclasses.replace(
            self, front=front, prefix=self.front.prefixes.answer if form == "steps" else ""
        )

    def render(self, seed: Seed, control_tokens: Iterable[str] = ()) -> Rendered:
        """Fill the template with the seed's inputs."""
        tokens = tuple(control_tokens)
        try:
            body = self.prefix + self.template.render(_defused(seed.inputs, tokens))
        except UndefinedError as error:
            known = ", ".join(seed.inputs)
            raise PipelineError(
                f"{self.name}: {error.message} for seed {seed.id}, whose inputs are {known}; name one of them"
            ) from None
        except PipelineError as error:
            raise PipelineError(f"{self.name}: seed {seed.id}: {error}") from None
        except Exception as error:  # a template can do arithmetic, so anything that Python raises
            raise PipelineError(
                f"{self.name}: cannot be rendered for seed {seed.id}: {error}"
            ) from None
        if self.front.format == "completion":
            return Rendered(None, body)
        system = ({"role": "system", "content": self.front.system},) if self.front.system else ()
        return Rendered((*system, {"role": "user", "content": body}), None)

    @property
    def asks_for_rationale(self) -> bool:
        return self.front.rationale is not None


def load(path: str | Path) -> Prompt:
    """Read one prompt file. Raises PipelineError with what is wrong in it."""
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
        named = frozenset(meta.find_undeclared_variables(environment.parse(body)))
        return Prompt(str(path), front, environment.from_string(body), names=named)
    except TemplateError as error:
        raise PipelineError(
            f"{path}: template error: {error}; the body is a Jinja template over the seed's inputs"
        ) from None


def stored_files(folder: Path) -> list[Path]:
    """A stage's own copies of what it asked with, by number."""
    return sorted((folder / "prompts").glob("*.md"), key=lambda path: int(path.stem))


def check(prompt: Prompt, seeds: Iterable[Seed]) -> None:
    """Render every seed, so that the one that cannot be is found before a model is loaded."""
    for seed in seeds:
        prompt.render(seed)


def _split(path: Path, text: str) -> tuple[FrontMatter, str]:
    if not text.startswith("---\n") or "\n---\n" not in text[3:]:
        raise PipelineError(
            f"{path}: has no front matter; begin it with ---, the settings, --- (see prompts/)"
        )
    head, body = (
        text[4:].split("\n---\n", 1) if not text.startswith("---\n---\n") else ("", text[8:])
    )
    try:
        front = FrontMatter.model_validate(yaml.safe_load(head) or {})
    except yaml.YAMLError as error:
        raise PipelineError(
            f"{path}: front matter is not valid YAML: {' '.join(str(error).split())}"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        raise PipelineError(
            f"{path}: front matter: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        ) from None
    return front, body.strip("\n")


def _no_null(value: Any) -> Any:
    if value is None:
        raise PipelineError(
            "an input that the prompt shows is null; fill it in, or guard it with {% if %}"
        )
    return value


def _defused(value: Any, tokens: tuple[str, ...]) -> Any:
    """The value with every control token in it broken by a zero-width space."""
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
    """What samples were asked with, by number; before they are, what they will be asked with."""
    return stored_files(Path(config.run_dir) / "generate") or config.generate.prompt
