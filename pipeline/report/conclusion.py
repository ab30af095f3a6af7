"""The verdict in words that need no statistics: what the gate says, or, without one, what was kept, at what cost, and what is not shown."""

from collections.abc import Iterator

from pipeline.evaluation.format import label, shown
from pipeline.execution.paths import BASE, TEACHER
from pipeline.report.facts import Verdict
from pipeline.report.tables import Found, at, gaps, side, tested, verdict_of


def unfinished(done: int, parts: int) -> Verdict:
    """Of a run that has no results yet."""
    return Verdict(
        None,
        "No verdict yet: this run is not finished",
        (f"{done} of {parts} parts are done; what is there so far is below.",),
    )


def verdict(results: Found, judged: str | None) -> Verdict:
    """`judged` is the arm that the gate is about. Without a gate nothing is said of shipping."""
    best = best_arm(results)
    failed = results.get("verdicts")
    figures = tuple(_figures(results, best)) if best else ()
    if best is None:
        return Verdict(
            None,
            "No student was evaluated",
            (f"The teacher scores {shown(results['models'][TEACHER]['score'])}.",),
        )
    says = tuple(_says(results, best))
    if failed is None:
        return Verdict(None, _title(results, best), says, (), figures)
    about = judged if judged in results["models"] else "the student"
    title = (
        f"Do not ship {about}: it misses the gate"
        if failed
        else f"Ship {about}: it passes the gate"
    )
    return Verdict(not failed, title, (f"{_title(results, best)}.", *says), tuple(failed), figures)


def best_arm(results: Found) -> str | None:
    """The arm with the highest score; the first of equals."""
    arms = [name for name in results["models"] if name not in (TEACHER, BASE)]
    return max(arms, key=lambda name: float(results["models"][name]["score"]["mean"]), default=None)


def _title(results: Found, best: str) -> str:
    model = results["models"][best]
    kept = at(model, "retained")
    first = (
        f"{best} scores {model['score']['mean']:.3f}"
        if kept is None
        else f"{best} keeps {kept:.1%} of the teacher's score"
    )
    size, speed = _share(results, best, "parameters"), _faster(results, best)
    return ", ".join([first, *([f"at {size:.0%} of its size"] if size else [])]) + (
        f" and {speed:.1f} times its speed" if speed else ""
    )


def _says(results: Found, best: str) -> Iterator[str]:
    models = results["models"]
    others = [
        f"{'the untouched student' if name == BASE else f'the {name}'} {shown(models[name]['score'])}"
        for name in (TEACHER, BASE)
        if name in models
    ]
    yield (
        f"On {results['held_out']:,} held-out seeds {best} scores {shown(models[best]['score'])}"
        + "".join(f", {one}" for one in others)
        + "."
    )
    yield from _runners_up(results, best)
    yield from _kd_and_sft(results)
    if against := at(results, "differences", f"{best} - {TEACHER}"):
        yield f"Against the teacher, seed by seed, {best} is {verdict_of(against)}."
    yield from (line for line in gaps(results) if line.startswith(f"{best}: "))


def _runners_up(results: Found, best: str) -> Iterator[str]:
    """Arms that the best one is not shown to be ahead of: by the paired difference where there is one, else by intervals that overlap."""
    models, behind = results["models"], _behind(results, best)
    near = [name for name in models if name not in (TEACHER, BASE, best, *behind)]
    near = [name for name in near if models[name]["score"]["high"] >= models[best]["score"]["low"]]
    if near:
        whose = "interval overlaps with that" if len(near) == 1 else "interval overlaps with those"
        yield f"{best} has the highest score of the arms, but its {whose} of {', '.join(near)}: a lead is not shown by the scores alone."


def _behind(results: Found, best: str) -> list[str]:
    found = [
        (name.partition(" - "), side(one))
        for name, one in (results.get("differences") or {}).items()
    ]
    return [b for (a, _, b), sign in found if a == best and sign > 0] + [
        a for (a, _, b), sign in found if b == best and sign < 0
    ]


def _kd_and_sft(results: Found) -> Iterator[str]:
    """Whether distillation beat plain fine-tuning; said by the interval, not by the mean."""
    for name, one in (results.get("differences") or {}).items():
        left, _, right = name.partition(" - ")
        if (_method(results, left), _method(results, right)) != ("kd", "sft"):
            continue
        said = {
            1: "KD beats SFT, and that is shown",
            0: "That KD beats SFT is not shown",
            -1: "SFT beats KD, and that is shown",
        }[side(one)]
        yield f"{said}: {name} is {tested(one)}, paired by seed."


def _method(results: Found, name: str) -> str | None:
    """An arm's, or that of the arms that are repeats under this name."""
    arms = at(results, "repeats", name, "arms") or [name]
    found: str | None = at(results, "models", arms[0], "method")
    return found


def _figures(results: Found, best: str) -> Iterator[tuple[str, str]]:
    """The few numbers to remember."""
    model, teacher = results["models"][best], results["models"][TEACHER]
    if at(model, "retained") is not None:
        yield (
            f"of the teacher's {results['metric']} score kept by {best}",
            f"{model['retained']:.1%}",
        )
    yield (
        f"{results['metric']} score of {best}, {model['score']['low']:.3f} to {model['score']['high']:.3f}",
        f"{model['score']['mean']:.3f}",
    )
    if size := _share(results, best, "parameters"):
        yield f"of the teacher's {teacher['parameters'] / 1e6:,.1f}M parameters", f"{size:.0%}"
    if speed := _faster(results, best):
        yield "as many answers a second as the teacher", f"{speed:.1f}x"
    if (prices := [at(one, "load", "price_per_1000") for one in (model, teacher)]) and all(prices):
        yield f"is the price of 1,000 answers; the teacher's {prices[1]:,.4f}", f"{prices[0]:,.4f}"
    if at(model, "agreement") is not None:
        yield f"of {label(best)}'s answers are the teacher's", f"{model['agreement']:.1%}"


def _share(results: Found, name: str, *keys: str) -> float | None:
    """A figure of a model as a multiple of the teacher's."""
    own, whole = at(results, "models", name, *keys), at(results, "models", TEACHER, *keys)
    return own / whole if own and whole else None


def _faster(results: Found, name: str) -> float | None:
    return _share(results, name, "load", "answers_per_s") or _share(results, name, "answers_per_s")
