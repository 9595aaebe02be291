"""The `wsol` command: `wsol NAME ...` runs `commands/NAME.py`, or of a folder `commands/NAME/ACTION.py`.

A command is imported only when it is called.
"""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from wsol_dist.errors import RankError, UserError, as_user_error, did_you_mean
from wsol_dist.processes.environment import is_first_rank
from wsol_dist.processes.stop import held

COMMANDS = Path(__file__).parent / "commands"
PACKAGE = "wsol_dist.commands"


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 fine, 1 a failure, 2 a mistake in what was given."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] != ["train"]:
        return caught(lambda: execute(argv))
    with held():  # it is told to stop by signals, and what it imports takes seconds
        return caught(lambda: execute(argv))


def execute(argv: Sequence[str]) -> int:
    """Run a command; returns its exit code.

    Raises:
        UserError: there is no such command, or what the command raises.
    """
    folder, package, prog, words = COMMANDS, PACKAGE, "wsol", list(argv)
    while True:
        names = commands_in(folder)
        if not words or words[0] in ("-h", "--help", "help"):
            print(_help(folder, names, prog))
            return 0 if words or prog == "wsol" else 2
        name = words.pop(0)
        if name not in names:
            what = "unknown command" if prog == "wsol" else f"{prog}: unknown action"
            raise UserError(f"{what} {name!r}; {did_you_mean(name, list(names))}")
        package, prog, folder = f"{package}.{names[name]}", f"{prog} {name}", folder / names[name]
        if not folder.is_dir():
            return call(package, words, prog=prog)


def call(module: str, words: Sequence[str], *, prog: str) -> int:
    """Run a command's module with the words after its name; returns its exit code."""
    from wsol_dist.options import parse

    command = importlib.import_module(module)
    try:
        try:
            options = parse(command.Options, words, prog=prog, description=command.__doc__)
        except UserError:
            if is_first_rank():
                raise
            return 2  # all ranks were given the same words, so one says what is wrong; what `run` finds may differ
        return int(command.run(options))
    except SystemExit as end:  # after the help, or of a rank that has said why
        return int(end.code or 0)


def run(module: str, words: Sequence[str], *, prog: str) -> int:
    """`call` for a script: a user's mistake becomes lines on stderr and code 2."""
    return caught(lambda: call(module, words, prog=prog))


def caught(work: Callable[[], int]) -> int:
    """Do the work of a program; a user's mistake becomes lines on stderr and code 2."""
    os.umask(os.umask(0o077) | 0o002)  # whatever it was, other users may not write what we write
    try:
        return work()
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except RankError as error:  # it holds the rank's traceback; that of the waiting parent says nothing
        print(error, file=sys.stderr)
        return 1
    except Exception as error:
        mistake = as_user_error(error)
        if mistake is None:
            raise
        print("\n".join(f"error: {line}" for line in str(mistake).splitlines()), file=sys.stderr)
        _free_frames(error)
        return 2


def _free_frames(error: BaseException | None) -> None:
    """Free the DataLoaders that the frames of an error and of its causes hold.

    Their processes end in order only now: at interpreter exit torch no longer shuts them down.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def commands_in(folder: Path) -> dict[str, str]:
    """The commands of a folder -> their modules; a folder of its own has a command's actions."""
    return {info.name.replace("_", "-"): info.name for info in pkgutil.iter_modules([str(folder)])}


def _help(folder: Path, names: dict[str, str], prog: str) -> str:
    what = "COMMAND" if prog == "wsol" else "ACTION"
    lines = [f"usage: {prog} {what} ...    ({prog} {what} --help lists its flags)", ""]
    for name, module in names.items():
        # Read, not imported: importing every command for one line of help would take seconds.
        path = folder / module
        text = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(
            encoding="utf-8"
        )
        doc = ast.get_docstring(ast.parse(text)) or ""
        lines.append(f"  {name:<12} {doc.splitlines()[0] if doc else ''}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
