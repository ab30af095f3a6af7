"""Configs: every shipped one loads, every mistake is named."""

import ast
import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from pipeline.cli.main import cli
from pipeline.config import load, loading, reference
from pipeline.config.white_box import Attention, Hidden, Relation
from pipeline.errors import PipelineError
from tests.support.task import ROOT


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_shipped_config_loads_and_says_what_it_is_for(path: Path) -> None:
    """A shipped config that went stale, or that opens without its purpose."""
    load(path)
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize(
    "where",
    [
        "",
        "teacher",
        "teacher.engine",
        "generate",
        "filter",
        "student",
        "train",
        "train.arms.kd",
        "evaluate",
        "task",
    ],
)
def test_unknown_key_is_refused_everywhere(workshop: Path, where: str) -> None:
    """A typo that is silently ignored costs a night."""
    key = f"{where}.nonsense" if where else "nonsense"
    with pytest.raises(PipelineError, match=re.escape(f"{key}: unknown key")):
        load(workshop / "config.yaml", [f"{key}=1"])


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("teacher.temprature=1", "did you mean teacher.temperature?"),
        ("student.lora.rnak=4", "did you mean student.lora.rank?"),
        ("train.arms.kd.aplha=0.5", "did you mean train.arms.kd.alpha?"),
        ("teacher.engine.max_inflight=3", "did you mean teacher.engine.max_in_flight?"),
    ],
)
def test_typo_gets_a_suggestion(workshop: Path, override: str, expected: str) -> None:
    """The suggestion must name the whole key, also below arms and engines."""
    with pytest.raises(PipelineError, match=re.escape(expected)):
        load(workshop / "config.yaml", [override])


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("teacher.temperature=3", "less than or equal to 2"),
        ("teacher.logprobs=5000", "less than or equal to 4096"),
        (
            "train.arms.kd.alpha=1.5",
            "alpha: must be a number from 0 to 1, answer, confidence or entropy",
        ),
        ("train.arms.kd={alpha: entropy, alpha_end: 0.0}", "alpha_end changes a number"),
        ("generate.samples=two", "valid integer"),
        ("teacher.temperature=0", "generate.samples above 1"),
        ("teacher.logprobs=0", "needs teacher.logprobs"),
        ("teacher.backend=openai", "needs base_url"),
        ("task.metric=exact", "belong together"),
        ("train.arms.init={method: sft}", "cannot name an arm"),
        ("teacher", "is not key.sub=value"),
        ("task.labels=[yes, no]", "got True; put it in quotes"),
        ("task.labels=[us, US]", "labels must differ in more than case"),
        ("student.keep_layers=[0, 1, 1]", "names a layer twice"),
        ("student.keep_layers=[-1]", "greater than or equal to 0"),
        ("student={model: teacher, layers: 2, keep_layers: [0]}", "both say which layers"),
        ("student={model: teacher, choose: importance}", "needs layers"),
        ("student={model: teacher, revision: v1}", "that of the teacher is teacher.revision"),
        ("train.arms={kd: {corrected: true}}", "filter.correct rejects the wrong answers before"),
        ("student.layers=2", "a random student has as many layers as shape.layers says"),
        ("task.seeds.target_pattern=(", "is no regular expression with a group"),
        ("train.patience=3", "patience needs held-out rows; set holdout"),
        ("train.show=2", "show needs held-out rows; set holdout"),
        ("train.best_by=score", "chooses nothing without patience"),
        ("run_dir=2024-13-45", "is not a YAML value"),
        ("filter.prompts_agree={}", "filter.prompts_agree needs several prompts"),
        ("filter.judge.api_key_env=MINE", "api_key_env is for a judge other than the teacher"),
    ],
)
def test_bad_value_is_refused_with_its_key(workshop: Path, override: str, expected: str) -> None:
    """Bounds and combinations are checked before anything runs."""
    with pytest.raises(PipelineError, match=re.escape(expected)):
        load(workshop / "config.yaml", [override])


@pytest.mark.parametrize(
    ("overrides", "refused"),
    [
        (["filter.consistent=true", "task.metric=json"], "says nothing under metric json"),
        (["filter.consistent=true", "task.metric=math"], "says nothing under metric math"),
        (["filter.consistent=true", "task.metric=exact"], None),
        (
            ["filter.agreement={}", "generate.samples=1"],
            "filter.agreement counts votes, and a seed has one sample",
        ),
        (
            ["filter.difficulty={lowest: 0.5}", "generate.samples=1"],
            "filter.difficulty counts votes",
        ),
        (["filter.difficulty={lowest: 0.5, losses: runs/other}", "generate.samples=1"], None),
        (["filter.agreement={}", "generate.samples=1", "generate.prompt=[a.md, b.md]"], None),
    ],
)
def test_filters_that_would_take_all_or_nothing(
    workshop: Path, overrides: list[str], refused: str | None
) -> None:
    """Such a filter did nothing, or rejected right answers, without a word."""
    if refused is None:
        load(workshop / "config.yaml", ["task.labels=null", "task.metric=exact", *overrides])
    else:
        with pytest.raises(PipelineError, match=refused):
            load(workshop / "config.yaml", ["task.labels=null", "task.metric=exact", *overrides])


def test_override_wins_and_its_origin_is_told(workshop: Path) -> None:
    """The origin of every value must be traceable."""
    origins = {
        key: (value, origin)
        for key, value, origin in loading.describe(workshop / "config.yaml", ["teacher.top_p=0.5"])
    }
    assert origins["teacher.top_p"] == (0.5, "command line")
    assert origins["teacher.logprobs"] == (4, "file")
    assert origins["teacher.max_tokens"] == (512, "default")


def test_override_of_one_default_arm_leaves_the_others(workshop: Path) -> None:
    """Overriding one key of one arm once dropped the SFT control and trained sft as kd."""
    config = load(
        workshop / "config.yaml", ["train.arms.kd.alpha=0.5", "train.arms.sft.temperature=2"]
    )
    assert {name: arm.method for name, arm in config.train.arms.items()} == {
        "kd": "kd",
        "sft": "sft",
    }
    assert config.train.arms["kd"].alpha == 0.5


@pytest.mark.parametrize("text", ["1e-5", "1.0e-5", "1E-5", "0.00001"])
def test_small_numbers_as_people_write_them(workshop: Path, text: str) -> None:
    """YAML 1.1 reads 1e-5 as a word."""
    assert (
        load(workshop / "config.yaml", [f"train.learning_rate={text}"]).train.learning_rate == 1e-5
    )


def test_runtime_settings_stay_out_of_fingerprints(workshop: Path) -> None:
    """Another concurrency must not make a half-done run be refused."""
    plain = load(workshop / "config.yaml")
    busy = load(workshop / "config.yaml", ["teacher.engine.max_in_flight=99"])
    assert plain.settings("teacher") == busy.settings("teacher")
    assert plain.settings("teacher") != load(
        workshop / "config.yaml", ["teacher.top_p=0.5"]
    ).settings("teacher")


def test_broken_yaml_names_the_place(tmp_path: Path) -> None:
    """A YAML mistake must not be a traceback."""
    (tmp_path / "bad.yaml").write_text("teacher: [1,\n")
    with pytest.raises(PipelineError, match=r"bad\.yaml: not valid YAML: .*line 2"):
        load(tmp_path / "bad.yaml")
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(PipelineError, match="has no sections"):
        load(tmp_path / "empty.yaml")


def test_shipped_files_hold_only_what_differs() -> None:
    """A default that is written down again drifts from the one that counts."""
    for path in (ROOT / "configs").glob("*.yaml"):
        for key, value, origin in loading.describe(path):
            default = default_of(key)
            assert origin == "default" or value != default, f"{path.name}: {key} is the default"


def default_of(key: str) -> object:
    field = KEYS.get(re.sub(r"^train\.arms\.\w+", "train.arms.NAME", key))
    return (
        ... if field is None or field.is_required() else field.default
    )  # None: a section that is off


def test_yaml_round_trip_of_the_resolved_config(workshop: Path) -> None:
    """What begun.json holds can be read back as a config."""
    config = load(workshop / "config.yaml")
    (workshop / "again.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert load(workshop / "again.yaml") == config


TINY = ROOT / "configs" / "tiny.yaml"
KEYS = dict(reference.keys())
ASKING = {
    "format": "pattern: a",
    "confidence": "max_entropy: 1",
    "difficulty": "lowest: 0.1",
    "balance": "factor: 2",
    "diversity": "number: 9",
    "budget": "number: 9",
}
BARE = (
    "language",
    "leak",
    "calibrated",
    "agreement",
    "prompts_agree",
    "teachers_agree",
    "pii",
    "near",
    "semantic",
    "judge",
)
VLLM = ["teacher.backend=vllm", "teacher.replies=null", "evaluate.backend=vllm"]
WHOLE = [  # sections that are left out by default, and what they need
    "generate.prompt=[a.md, b.md]",
    "student={model: teacher, layers: 8, heal: {}, lora: {}}",
    "evaluate.gate={}",
    "evaluate.fidelity={}",
    "evaluate.memorisation={}",
    "evaluate.lm_eval={tasks: [arc_easy]}",
    "train.arms={kd: {hidden: {}, attention: {}, relation: {}}}",
    *VLLM,
    *(f"filter.{name}={{}}" for name in BARE),
    *(f"filter.{name}={{{needed}}}" for name, needed in ASKING.items()),
]
WHITE_BOX = {
    "hidden": Hidden.model_fields,
    "attention": Attention.model_fields,
    "relation": Relation.model_fields,
}
NEEDS = {  # what tiny.yaml lacks for the example of a key
    "task.metric": ["task.labels=null"],
    "task.verifier.json_schema": ["task.labels=null", "task.metric=json"],
    "task.seeds.dataset": ["task.seeds.path=null"],
    "task.eval_seeds.dataset": ["task.eval_seeds.path=null"],
    "train.arms.NAME.text": ["train.arms.mine.method=sft"],
    "train.arms.NAME.corrected": ["filter.correct=false"],
    "train.arms.NAME.soft_labels": [
        "filter.calibrated={}",
        "task.metric=label",
        "task.labels=[a, b]",
    ],
    "student.layers": ["student.model=teacher"],
    "student.revision": ["student.model=gpt2"],
    "student.choose": ["student.model=teacher", "student.layers=8"],
    "student.keep_layers": ["student.model=teacher"],
    **{
        f"student.heal.{key}": ["student.model=teacher", "student.layers=8"]
        for key in ("tokens", "text", "rounds", "learning_rate")
    },
    **{
        f"filter.judge.{key}": [
            "filter.judge.model=other",
            "filter.judge.base_url=http://127.0.0.1:1",
        ]
        for key in ("revision", "backend", "base_url", "api_key_env", "replies")
    },
    "filter.prompts_agree.min_share": ["generate.prompt=[a.md, b.md]"],
    "filter.format.schema_file": ["filter.format.pattern=a"],
    "filter.calibrated.shares": ["filter.calibrated={}"],
    "filter.calibrated.content_free": ["filter.calibrated={}"],
    **{
        f"filter.{name}.{key}": [f"filter.{name}={{{needed}}}"]
        for name, needed in ASKING.items()
        for key in ("by", "best_by", "of", "model")
    },
    "filter.difficulty.losses": ["filter.difficulty.lowest=0.1"],
    "train.patience": ["train.holdout=0.1"],
    "train.best_by": ["train.holdout=0.1", "train.patience=3"],
    "train.show": ["train.holdout=0.1"],
    **{
        f"evaluate.lm_eval.{key}": ["evaluate.lm_eval={tasks: [a]}"]
        for key in ("limit", "examples", "include_path", "batch_size")
    },
    **{f"train.arms.NAME.{term}.{key}": VLLM for term, keys in WHITE_BOX.items() for key in keys},
    "teacher.backend": ["teacher.base_url=http://127.0.0.1:8000/v1", "teacher.tokenizer=gpt2"],
}


@pytest.mark.parametrize("key", KEYS)
def test_the_example_of_every_key_loads(key: str) -> None:
    """An example that is refused, or read as something else, is worse than none."""
    override = reference.example_of(key, KEYS[key])
    values = {
        name: value for name, value, _ in loading.describe(TINY, [*NEEDS.get(key, []), override])
    }
    assert values[override.partition("=")[0]] == (KEYS[key].examples or [...])[0]


def test_every_key_has_a_meaning_and_an_example_that_is_no_default() -> None:
    """A new key without a word on it, or whose example shows what holds anyway."""
    assert [key for key, field in KEYS.items() if not field.description] == []
    assert [
        key
        for key, field in KEYS.items()
        if not field.examples or field.examples[0] == field.default
    ] == []


def test_schema_has_a_line_for_every_key() -> None:
    """A key of a resolved config that the schema hides, or the other way round."""
    resolved = {
        re.sub(r"^train\.arms\.\w+", "train.arms.NAME", key)
        for key, _, _ in loading.describe(TINY, WHOLE)
    }
    assert {line.split()[0] for line in reference.lines()} == resolved


@pytest.mark.parametrize(
    "line",
    [
        "teacher.temperature  number in [0, 2], default 1.0: Sampling temperature. 0 is greedy. "
        "Example: teacher.temperature=0.7",
        "teacher.model  text, required: Hub id, local folder, or package:DISTRIBUTION/FILE.gguf. "
        "Example: ",
        "train.warmup  number in [0, 1), default 0.05: ",
        "train.epochs  number > 0, default null: ",
        "train.arms.NAME.method  sft | kd, default kd: ",
        "train.arms.NAME.alpha  number in [0, 1] | answer | confidence | entropy, default answer: ",
        "task.labels  [text, ...] of 2 or more, default null: ",
        "student.keep_layers  [whole number >= 0, ...] of 1 or more, default null: ",
        "evaluate.engine.enforce_eager  true | false, default false: "
        "Do not compile the model: faster to start, but slower on long runs. "
        "Does not change the result.",
        "run_dir  text, default runs/CONFIG: ",
    ],
)
def test_schema_line_says_values_and_default(line: str) -> None:
    """Bounds, choices, lists and required keys are read from the models; each kind once."""
    assert next(reference.lines(line.split()[0])).startswith(line)


def test_schema_takes_a_section_an_arm_or_refuses() -> None:
    """An unknown name must not print nothing."""
    assert {line.split(".")[1] for line in reference.lines("teacher.engine")} == {"engine"}
    assert [line.split()[0] for line in reference.lines("train.arms.kd.alpha")] == [
        "train.arms.NAME.alpha"
    ]
    for typo, meant in (
        ("temprature", "teacher.temperature"),
        ("teacher.engin", "teacher.engine"),
        ("train.arms.kd.aplha", "NAME.alpha"),
    ):
        with pytest.raises(
            PipelineError, match=rf"no such key or section; did you mean .*{re.escape(meant)}\?"
        ):
            list(reference.lines(typo))


def test_docs_of_the_keys_are_fresh() -> None:
    """A page that is written once goes stale."""
    printed = CliRunner().invoke(cli, ["schema", "--markdown"]).output
    page = ROOT / "docs" / "reference" / "config.md"
    assert page.read_text() == printed, (
        "docs/reference/config.md is stale; "
        "run: pipeline schema --markdown > docs/reference/config.md"
    )


def test_every_key_is_read_from_its_own_section() -> None:
    """A dead key was hidden by a key of the same name in another section, or by a comment."""
    code = [
        ast.parse(path.read_text())
        for path in (ROOT / "pipeline").rglob("*.py")
        if path.parent.name != "config" and path.name != "schema.py"
    ]
    reads = {
        ast.unparse(node)
        for tree in code
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
    }
    tails = {".".join(read.split(".")[-2:]).lstrip("_") for read in reads}
    named = {  # what the code calls a section, beside its own name and "settings"
        "licences": {"declared"},
        "seeds": {"source"},
        "eval_seeds": {"source"},
        "NAME": {"arm"},
        "diversity": {"encoder"},
        "semantic": {"encoder"},
        "confidence": {"bounds"},
        "repetition": {"limits"},
        "load": {"wanted"},
    }
    dead = []
    for key in KEYS:
        *_, section, name = ["config", *key.split(".")]
        owners = {section, "settings"} | named.get(section, set())
        is_handed_on = f"{section}.model_dump" in tails  # with all its keys
        if not is_handed_on and not {f"{owner}.{name}" for owner in owners} & tails:
            dead.append(key)
    assert dead == [], "read a key as section.key, or name here what the section is called"
