"""The `wsol` command: `wsol NAME ...` runs `commands/NAME.py`, imported only then."""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import sys
import traceback
from pathlib import Path

from wsol_dist.errors import RankError, as_user_error, did_you_mean
from wsol_dist.processes.stop import held

COMMANDS = Path(__file__).parent / "commands"


def main(argv: list[str] | None = None) -> int:
    """Run a subcommand; returns the exit code: 0 fine, 1 a failure, 2 a mistake in what was given."""
    argv = sys.argv[1:] if argv is None else argv
    names = {info.name.replace("_", "-"): info.name for info in pkgutil.iter_modules([str(COMMANDS)])}
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_help(names))
        return 0
    if argv[0] not in names:
        print(f"error: unknown command {argv[0]!r}; {did_you_mean(argv[0], sorted(names))}", file=sys.stderr)
        return 2
    module = f"wsol_dist.commands.{names[argv[0]]}"
    if argv[0] != "train":
        return run(module, argv[1:])
    with held():  # it is told to stop by signals, and what it imports takes seconds
        return run(module, argv[1:])


def run(module: str, argv: list[str]) -> int:
    """Call a command module's `main(argv)`; a user's mistake becomes lines on stderr and code 2."""
    os.umask(os.umask(0o077) | 0o002)  # whatever it was, other users may not write what we write
    try:
        return importlib.import_module(module).main(argv)
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


def _help(names: dict[str, str]) -> str:
    lines = ["usage: wsol COMMAND ...    (wsol COMMAND --help tells more)", ""]
    for name, module in names.items():
        # Read, not imported: importing every command for one line of help would take seconds.
        text = (COMMANDS / f"{module}.py").read_text(encoding="utf-8")
        doc = ast.get_docstring(ast.parse(text)) or ""
        lines.append(f"  {name:<12} {doc.splitlines()[0] if doc else ''}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
