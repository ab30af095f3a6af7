"""Rules that span sections: each refuses its own mistake, and says what to do."""

import re

import pytest

from pipeline.config import load
from pipeline.config.rules import RULES
from pipeline.errors import PipelineError
from tests.support.task import ROOT

TINY = ROOT / "configs" / "tiny.yaml"
CODE = ["task.metric=code", "task.labels=null"]
SERVER = ["teacher.backend=openai", "teacher.base_url=http://localhost:1"]
VLLM = ["teacher.backend=vllm", "teacher.replies=null", "evaluate.backend=vllm"]
JUDGE = "filter.judge={model: other, backend: %s}"
CASES = {  # the rule, what breaks it, what the message says
    "samples_differ": (
        ["teacher.temperature=0", "generate.samples=2"],
        "generate.samples above 1",
    ),
    "fake_student_has_replies": (
        ["teacher.backend=vllm", "teacher.replies=null", "evaluate.backend=fake"],
        "evaluate.backend fake answers with teacher.replies",
    ),
    "kd_has_logprobs": (["teacher.logprobs=0"], "arm kd is kd and needs teacher.logprobs"),
    "mse_has_logits": (
        ["train.arms.kd.divergence=mse"],
        "arm kd has divergence: mse, which needs the whole top k",
    ),
    "soft_labels_have_labels": (
        ["task.metric=exact", "task.labels=null", "train.arms.kd.soft_labels=true"],
        "arm kd has soft_labels, which need a label task",
    ),
    "white_box_has_weights": (
        ["train.arms.kd.hidden={}"],
        "arm kd has hidden, which needs the teacher's weights, and teacher.backend fake has none",
    ),
    "soft_labels_are_calibrated": (
        ["train.arms.kd.soft_labels=true", "train.rows=score"],
        "arm kd has soft_labels: it must be kd on kept rows",
    ),
    "wrong_answers_reach_correction": (
        ["train.arms.kd.corrected=true", "filter.correct=true"],
        "arm kd is corrected, but filter.correct rejects",
    ),
    "random_rows_come_from_filter": (
        ["train.arms.kd.selection=random", "train.rows=score"],
        "arm kd draws from all samples",
    ),
    "fidelity_has_token_ids": (
        ["evaluate.fidelity={}", "teacher.logprobs=0", "train.rows=score", *SERVER],
        "evaluate.fidelity needs the teacher's token ids",
    ),
    "code_has_no_text_metrics": (
        [*CODE, "evaluate.also=[rouge_l]"],
        "evaluate.also: under metric code",
    ),
    "memorisation_has_rows": (
        ["evaluate.memorisation.rows=0"],
        "evaluate.memorisation.rows=0 leaves only the canaries",
    ),
    "calibration_has_labels": (
        ["task.metric=exact", "task.labels=null", "filter.calibrated={}"],
        "filter.calibrated needs a label task",
    ),
    "calibration_has_one_method": (
        ["filter.calibrated={content_free: [N/A], shares: [1.0, 1.0]}"],
        "two ways to calibrate; leave one out",
    ),
    "content_free_has_one_prompt": (
        ["filter.calibrated={content_free: [N/A]}", "generate.prompt=[a.md, b.md]"],
        "filter.calibrated.content_free is for one prompt",
    ),
    "every_label_has_a_share": (
        ["filter.calibrated={shares: [1.0, 1.0, 1.0]}"],
        "filter.calibrated.shares has 3 numbers for 2 labels",
    ),
    "confidence_has_logprobs": (
        ["filter.near.best_by=mean_logprob", "teacher.logprobs=0", "train.rows=score"],
        "confidence, calibrated and best_by read logprobs",
    ),
    "custom_filters_have_names": (
        ["filter.custom=[a:short, b:short]"],
        "two functions have the same name",
    ),
    "earlier_runs_are_compared": (
        ["filter.against=[runs/other]", "filter.duplicate=false"],
        "filter.against is for duplicate, near and semantic",
    ),
    "judge_has_server": (
        [JUDGE % "openai"],
        "filter.judge.backend openai needs base_url",
    ),
    "judge_has_replies": (
        [*VLLM, JUDGE % "fake"],
        "filter.judge.backend fake needs replies",
    ),
    "code_tests_are_not_taught": (
        [*CODE, "train.arms.sft.text=truth"],
        "arm sft: under metric code the ground truth is tests",
    ),
    "consistency_compares_text": (
        ["task.metric=json", "task.labels=null", "filter.consistent=true"],
        "filter.consistent compares texts with one another, which says nothing under metric json",
    ),
    "votes_need_samples": (
        ["filter.agreement={}", "generate.samples=1"],
        "filter.agreement counts votes",
    ),
    "prompts_are_compared": (
        ["filter.prompts_agree={}"],
        "filter.prompts_agree needs several prompts",
    ),
    "gate_names_models": (
        ["evaluate.gate={over: sfft}"],
        "evaluate.gate.over: there is no model 'sfft'; there are teacher, base, kd, sft",
    ),
}


@pytest.mark.parametrize("rule", CASES)
def test_rule_refuses_its_mistake(rule: str) -> None:
    """A combination that cannot work must be refused before anything runs."""
    overrides, message = CASES[rule]
    with pytest.raises(PipelineError, match=re.escape(message)):
        load(TINY, overrides)


def test_every_rule_has_a_case_and_a_docstring() -> None:
    """A rule without a case could be broken unnoticed."""
    assert [rule.__name__ for rule in RULES] == list(CASES)
    assert [rule.__name__ for rule in RULES if not (rule.__doc__ or "").strip()] == []
