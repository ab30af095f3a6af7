"""Rules that span sections of a config. Each returns what is wrong and what to do, or None."""

from collections.abc import Callable

from pipeline.config.sections import Sections
from pipeline.config.train import Arm

Rule = Callable[[Sections], str | None]


def samples_differ(config: Sections) -> str | None:
    """Refuse several samples at temperature 0, which would all be the same text."""
    if config.teacher.temperature > 0 or config.generate.samples == 1:
        return None
    return (
        "generate.samples above 1 at teacher.temperature 0 would give the same text again; "
        "raise teacher.temperature, or set generate.samples: 1"
    )


def fake_student_has_replies(config: Sections) -> str | None:
    """Refuse fake students without the fake teacher's replies."""
    if config.evaluate.backend != "fake" or config.teacher.replies is not None:
        return None
    return "evaluate.backend fake answers with teacher.replies, and they are not set; set them"


def kd_has_logprobs(config: Sections) -> str | None:
    """Refuse a kd arm without stored logprobs of the teacher."""
    arm = _first_arm(config, lambda arm: arm.method == "kd")
    if arm is None or config.teacher.logprobs > 0 or config.train.rows == "score":
        return None
    return (
        f"arm {arm} is kd and needs teacher.logprobs of 1 or more; "
        "set it, set train.rows: score, or train sft arms only"
    )


def mse_has_logits(config: Sections) -> str | None:
    """Refuse divergence mse if only the most likely tokens are stored exactly.

    With the defaults most tokens have a single exact entry, and the loss of one entry is 0.
    """
    arm = _first_arm(config, lambda arm: arm.method == "kd" and arm.divergence == "mse")
    teacher = config.teacher
    stores_all = teacher.logprob_threshold == 0 and teacher.logprob_mass == 1
    if arm is None or (stores_all and teacher.logprobs > 1):
        return None
    return (
        f"arm {arm} has divergence: mse, which needs the whole top k, got "
        f"teacher.logprobs={teacher.logprobs}, logprob_threshold={teacher.logprob_threshold:g} "
        f"and logprob_mass={teacher.logprob_mass:g}; "
        "set them to 2 or more, 0 and 1, or use another divergence"
    )


def soft_labels_have_labels(config: Sections) -> str | None:
    """Refuse an arm with soft_labels if the task has no labels."""
    arm = _first_arm(config, lambda arm: bool(arm.soft_labels))
    if arm is None or config.task.labels is not None:
        return None
    return (
        f"arm {arm} has soft_labels, which need a label task; "
        "set task.metric: label and task.labels, or leave them out"
    )


def white_box_has_weights(config: Sections) -> str | None:
    """Refuse white-box terms of an arm if the teacher's weights are not here."""
    arm = _first_arm(config, lambda arm: bool(arm.white_box))
    if arm is None or config.teacher.backend == "vllm":
        return None
    term = config.train.arms[arm].white_box[0]
    return (
        f"arm {arm} has {term}, which needs the teacher's weights, and teacher.backend "
        f"{config.teacher.backend} has none here; leave {term} out, or set teacher.backend: vllm"
    )


def soft_labels_are_calibrated(config: Sections) -> str | None:
    """Refuse an arm with soft_labels if the filter does not write them for its rows."""
    if config.train.rows != "filter":
        arm = _first_arm(config, lambda arm: bool(arm.soft_labels))
    else:
        arm = _first_arm(config, _has_useless_soft_labels)
    if arm is None:
        return None
    return f"arm {arm} has soft_labels: it must be kd on kept rows of train.rows: filter"


def wrong_answers_reach_correction(config: Sections) -> str | None:
    """Refuse a corrected arm if filter.correct rejects the wrong answers that it would replace."""
    arm = _first_arm(config, lambda arm: arm.corrected)
    reads_kept = config.train.rows == "filter" or config.score.source == "kept"
    if arm is None or not config.filter.correct or not reads_kept:
        return None
    return (
        f"arm {arm} is corrected, but filter.correct rejects the wrong answers before; "
        "set filter.correct: false"
    )


def random_rows_come_from_filter(config: Sections) -> str | None:
    """Refuse a random draw from the rows of score, which has only some of the samples."""
    arm = _first_arm(config, lambda arm: arm.selection == "random")
    if arm is None or config.train.rows != "score":
        return None
    return (
        f"arm {arm} draws from all samples, and score has only some; "
        "set train.rows: filter, or the arm's selection: kept"
    )


def fidelity_has_token_ids(config: Sections) -> str | None:
    """Refuse fidelity without the teacher's tokenizer, since it compares token by token."""
    teacher = config.teacher
    if not config.evaluate.fidelity or teacher.backend != "openai" or teacher.tokenizer:
        return None
    return (
        "evaluate.fidelity needs the teacher's token ids and logprobs; "
        "set teacher.tokenizer, or leave evaluate.fidelity out"
    )


def code_has_no_text_metrics(config: Sections) -> str | None:
    """Refuse text metrics under metric code, where the ground truth is tests and not a text."""
    if config.task.metric != "code" or not config.evaluate.also:
        return None
    return (
        "evaluate.also: under metric code the ground truth is tests, "
        "which no answer can be compared with as text; leave it out"
    )


def memorisation_has_rows(config: Sections) -> str | None:
    """Refuse memorisation with neither training rows nor canaries."""
    memorisation = config.evaluate.memorisation
    if memorisation is None or memorisation.rows or config.train.canaries:
        return None
    return (
        "evaluate.memorisation.rows=0 leaves only the canaries, and there are none; "
        "set train.canaries, or raise rows"
    )


def calibration_has_labels(config: Sections) -> str | None:
    """Refuse calibration without the labels of a label task."""
    if not config.filter.calibrated or config.task.labels is not None:
        return None
    return (
        "filter.calibrated needs a label task; leave it out, or set task.metric: label and "
        "task.labels"
    )


def calibration_has_one_method(config: Sections) -> str | None:
    """Refuse calibration by known shares and by content-free inputs at once."""
    calibrated = config.filter.calibrated
    if not calibrated or not calibrated.content_free or not calibrated.shares:
        return None
    return "filter.calibrated.shares and content_free are two ways to calibrate; leave one out"


def content_free_has_one_prompt(config: Sections) -> str | None:
    """Refuse content-free inputs for several prompts, since each prompt has its own bias."""
    calibrated, prompts = config.filter.calibrated, config.generate.prompt
    if not calibrated or not calibrated.content_free or len(prompts) == 1:
        return None
    return (
        "filter.calibrated.content_free is for one prompt, and generate.prompt has several; "
        "leave it out"
    )


def every_label_has_a_share(config: Sections) -> str | None:
    """Refuse shares whose number is not that of the labels."""
    shares = config.filter.calibrated.shares if config.filter.calibrated else None
    labels = config.task.labels or []
    if shares is None or isinstance(shares, str) or len(shares) == len(labels):
        return None
    return (
        f"filter.calibrated.shares has {len(shares)} numbers for {len(labels)} labels; "
        "give one for each"
    )


def confidence_has_logprobs(config: Sections) -> str | None:
    """Refuse filters on the teacher's confidence without stored logprobs."""
    filters = config.filter
    choosers = (filters.near, filters.semantic, filters.balance, filters.budget)
    best_by = {chooser.best_by for chooser in choosers if chooser}
    reads = filters.confidence or filters.calibrated or best_by & {"mean_logprob", "answer_margin"}
    if not reads or config.teacher.logprobs > 0:
        return None
    return (
        "filter: confidence, calibrated and best_by read logprobs; "
        "set teacher.logprobs to 1 or more, or leave them out"
    )


def custom_filters_have_names(config: Sections) -> str | None:
    """Refuse custom filters of the same name. A filter is named after its function."""
    names = [name.partition(":")[2] for name in config.filter.custom]
    if len(set(names)) == len(names):
        return None
    return "filter.custom: two functions have the same name; rename one"


def earlier_runs_are_compared(config: Sections) -> str | None:
    """Refuse filter.against if no filter looks for duplicates."""
    filters = config.filter
    if not filters.against or filters.duplicate or filters.near or filters.semantic:
        return None
    return (
        "filter.against is for duplicate, near and semantic; turn one of them on, or leave it out"
    )


def judge_has_server(config: Sections) -> str | None:
    """Refuse a judge on a server if neither the judge nor the teacher has a base_url."""
    judge = config.filter.judge
    if not judge or not judge.model or (judge.backend or config.teacher.backend) != "openai":
        return None
    if judge.base_url or config.teacher.base_url:
        return None
    return "filter.judge.backend openai needs base_url; set filter.judge.base_url"


def judge_has_replies(config: Sections) -> str | None:
    """Refuse a fake judge if neither the judge nor the teacher has replies."""
    judge = config.filter.judge
    if not judge or not judge.model or (judge.backend or config.teacher.backend) != "fake":
        return None
    if judge.replies or config.teacher.replies:
        return None
    return "filter.judge.backend fake needs replies; set filter.judge.replies"


def code_tests_are_not_taught(config: Sections) -> str | None:
    """Refuse arms that would teach a student to write the tests of metric code."""
    arm = _first_arm(config, lambda arm: arm.corrected or arm.text == "truth")
    if arm is None or config.task.metric != "code":
        return None
    return (
        f"arm {arm}: under metric code the ground truth is tests, which a student should not "
        "learn to write; use text: teacher without corrected"
    )


def consistency_compares_text(config: Sections) -> str | None:
    """Refuse filter.consistent under metrics whose equal answers can differ as texts."""
    metric = config.task.metric
    if not config.filter.consistent or metric not in ("math", "json", "code"):
        return None
    return (
        "filter.consistent compares texts with one another, which says nothing "
        f"under metric {metric}; leave it out"
    )


def votes_need_samples(config: Sections) -> str | None:
    """Refuse filters that count votes if each example has one sample."""
    filters = config.filter
    if config.generate.samples * len(config.generate.prompt) > 1:
        return None
    if filters.agreement:
        name = "agreement"
    elif filters.difficulty and filters.difficulty.losses is None:
        name = "difficulty"
    else:
        return None
    return (
        f"filter.{name} counts votes, and a seed has one sample; "
        "raise generate.samples, or leave it out"
    )


def prompts_are_compared(config: Sections) -> str | None:
    """Refuse filter.prompts_agree if there is only one prompt."""
    if not config.filter.prompts_agree or len(config.generate.prompt) > 1:
        return None
    return "filter.prompts_agree needs several prompts, and generate.prompt is one; leave it out"


def gate_names_models(config: Sections) -> str | None:
    """Refuse a gate on an arm or a model that will not be evaluated, or on an arm over itself."""
    gate, arms = config.evaluate.gate, list(config.train.arms)
    if gate is None:
        return None
    if gate.arm is not None and gate.arm not in arms:
        return f"evaluate.gate.arm: there is no arm '{gate.arm}'; there are {', '.join(arms)}"
    models = ["teacher", "base", *arms]
    if gate.over is not None and gate.over not in models:
        return f"evaluate.gate.over: there is no model '{gate.over}'; there are {', '.join(models)}"
    if gate.over == (gate.arm or arms[0]):
        return (
            f"evaluate.gate.over: {gate.over} is the arm that is checked, and nothing is better "
            "than itself; name another model, or another evaluate.gate.arm"
        )
    return None


RULES: tuple[Rule, ...] = (
    samples_differ,
    fake_student_has_replies,
    kd_has_logprobs,
    mse_has_logits,
    soft_labels_have_labels,
    white_box_has_weights,
    soft_labels_are_calibrated,
    wrong_answers_reach_correction,
    random_rows_come_from_filter,
    fidelity_has_token_ids,
    code_has_no_text_metrics,
    memorisation_has_rows,
    calibration_has_labels,
    calibration_has_one_method,
    content_free_has_one_prompt,
    every_label_has_a_share,
    confidence_has_logprobs,
    custom_filters_have_names,
    earlier_runs_are_compared,
    judge_has_server,
    judge_has_replies,
    code_tests_are_not_taught,
    consistency_compares_text,
    votes_need_samples,
    prompts_are_compared,
    gate_names_models,
)


def _has_useless_soft_labels(arm: Arm) -> bool:
    return bool(arm.soft_labels) and (arm.method != "kd" or arm.selection == "random")


def _first_arm(config: Sections, fits: Callable[[Arm], bool]) -> str | None:
    return next((name for name, arm in config.train.arms.items() if fits(arm)), None)
