"""Whether the end of a command was put into words, as a user should see it."""

from tests.campaigns.process import LIMIT, Outcome

__all__ = ["failure_problems", "foreign_output"]

_FOREIGN = ("Traceback", ".py:", '.py"', "core dumped", "Fatal Python error", "Exception ignored", "weights_only=False")
_LONGEST = 450  # characters


def foreign_output(outcome: Outcome) -> list[str]:
    """What stderr holds that is not meant for users."""
    problems = [f"stderr holds {word!r}: {outcome.sentences[-500:]}" for word in _FOREIGN if word in outcome.err]
    return problems[:1] + ([f"it took {outcome.seconds:.0f} s"] if outcome.seconds >= LIMIT else [])


def failure_problems(outcome: Outcome, *words: str) -> list[str]:
    """What is wrong with the end of a command that must fail with one sentence, which contains all `words`."""
    problems = foreign_output(outcome)
    errors = outcome.sentences.split("Error: ")[1:]
    if outcome.code != 1:
        problems.append(f"exit code {outcome.code}: {outcome.sentences[-300:]}")
    if len(errors) != 1:
        problems.append(f"{len(errors)} errors in stderr: {outcome.sentences[-300:]}")
    elif len(errors[0]) > _LONGEST:
        problems.append(f"an error of {len(errors[0])} characters: {errors[0]}")
    elif missing := [word for word in words if word not in errors[0]]:
        problems.append(f"{missing} not in: {errors[0]}")
    return problems
