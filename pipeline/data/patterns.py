"""Search for the user's regular expressions, with a time limit against endless backtracking."""

from typing import Any

from pipeline.errors import PipelineError

PATTERN_SECONDS = 1.0


def search(pattern: str, text: str, where: str) -> Any:
    """Return the first match of task.seeds.target_pattern in a text, or None.

    Raises PipelineError, which begins with `where`, after PATTERN_SECONDS.
    """
    import regex

    try:
        return regex.search(pattern, text, timeout=PATTERN_SECONDS)
    except TimeoutError:
        raise PipelineError(
            f"{where}: target_pattern {pattern!r} is not matched within {PATTERN_SECONDS:g} s; "
            "write it without a repetition inside a repetition, such as (a+)+"
        ) from None
    except regex.error as error:
        raise PipelineError(
            f"task.seeds.target_pattern: {pattern!r} is not a regular expression ({error}); fix it"
        ) from None
