"""The exceptions that a user is meant to read, and which failures of a machine are told in their words."""

import errno
import re

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
MOST_NAMED = 100
"""Allowed words that a message still lists one by one."""
NUM_NEAREST = 8


class UserError(Exception):
    """A mistake in what was given: shown as lines without a traceback, exit code 2.

    The message says what was given, what is allowed, and how to fix it. Several independent
    mistakes go into one error, a line each.
    """


class RankError(RuntimeError):
    """One of several processes failed: its rank, and its traceback or what ended it. Shown as it is, exit code 1."""


def did_you_mean(word: str, allowed: list[str]) -> str:
    """The tail of an error message: a suggestion, and the allowed words; of very many the nearest."""
    import difflib

    close = difflib.get_close_matches(word, allowed, n=1, cutoff=0.6)
    hint = f"did you mean {close[0]!r}? " if close else ""
    if len(allowed) <= MOST_NAMED:
        return f"{hint}allowed: {', '.join(allowed)}"
    nearest = difflib.get_close_matches(word, allowed, n=NUM_NEAREST, cutoff=0.0)
    return f"{hint}allowed are {len(allowed)} names, the nearest: {', '.join(nearest)}"


def as_user_error(error: BaseException) -> UserError | None:
    """What a person can mend, in words that say how: memory, disk, permissions, a loader that was killed.

    Libraries raise these as bare RuntimeErrors, so they are known by their text.

    Returns:
        None for everything else, whose traceback is then needed.
    """
    if isinstance(error, UserError):
        return _from_loader(error)
    text = str(error)
    if type(error).__name__ == "OutOfMemoryError":
        return UserError(
            f"out of GPU memory: {_sentence(text, 'Tried to allocate')}; lower train.global_batch or "
            "evaluate.batch_size, raise train.accumulation (smaller micro-batches, the same result), or take more GPUs"
        )
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in text:
        return UserError(
            f"out of memory: {_sentence(text, 'you tried to allocate') or 'the machine gave no more'}; lower "
            "train.global_batch or evaluate.batch_size, raise train.accumulation, or run fewer processes here"
        )
    if killed := re.match(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (?:is killed|exited)", text):
        return UserError(
            f"a data loader process (pid {killed[1]}) was killed: the machine, or its /dev/shm, may be out of memory; "
            "lower data.workers (evaluate.workers), or give the job more memory"
        )
    return _of_disk(error) if isinstance(error, OSError) else None


def _from_loader(error: UserError) -> UserError:
    """Torch puts the traceback of a loader process into the message; the last line is ours."""
    text = str(error)
    if not text.startswith("Caught UserError in DataLoader worker"):
        return error
    return UserError(text.rpartition("UserError: ")[2].strip())


def _of_disk(error: OSError) -> UserError | None:
    where = error.filename or "a file"
    if error.errno in DISK_FULL:
        return UserError(
            f"{where}: cannot be written ({error.strerror}); free space there, or choose another folder"
        )
    if error.errno in NOT_WRITABLE:
        return UserError(f"{where}: {error.strerror}; choose a folder that you may read and write")
    return None


def _sentence(text: str, start: str) -> str:
    """From some words of a message to the end of their sentence."""
    at = text.find(start)
    return "" if at < 0 else text[at:].split(". ")[0].splitlines()[0].rstrip(".")
