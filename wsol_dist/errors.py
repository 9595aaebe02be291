"""The exceptions that a user is meant to read."""


class UserError(Exception):
    """A mistake in what was given: shown as lines without a traceback, exit code 2.

    The message says what was given, what is allowed, and how to fix it. Several independent
    mistakes go into one error, a line each.
    """


class RankError(RuntimeError):
    """One of several processes failed: its rank, and its traceback or what ended it. Shown as it is, exit code 1."""


def did_you_mean(word: str, allowed: list[str]) -> str:
    """The tail of an error message: a suggestion where one is close, and always the allowed words."""
    import difflib

    close = difflib.get_close_matches(word, allowed, n=1, cutoff=0.6)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}allowed: {', '.join(allowed)}"
