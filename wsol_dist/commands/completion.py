"""Print what completes commands and flags in a shell: wsol completion bash|zsh|fish.

For this session: eval "$(wsol completion bash)". For all: put it into the file
~/.local/share/bash-completion/completions/wsol; zsh and fish have such folders too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import io
import operator
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from wsol_dist.cli import COMMANDS, PACKAGE, commands_in


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The flags of `wsol completion`."""

    shell: Annotated[Literal["bash", "zsh", "fish"], tyro.conf.Positional, tyro.conf.arg(metavar="SHELL")]
    """One of bash, zsh and fish."""


def run(options: Options) -> int:
    """Have tyro write it."""
    written = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(written):
        tyro.cli(_tree(COMMANDS, PACKAGE), args=["--tyro-print-completion", options.shell], prog="wsol")
    for line in written.getvalue().splitlines():
        # A help of two lines would be taken for two words.
        print(line.replace("\\n", " ") if line.startswith("COMPLETION_SPEC") else line)
    return 0


def _tree(folder: Path, package: str) -> Any:
    """The union of the options of all commands below a folder."""
    members = []
    for name, module in commands_in(folder).items():
        inner = folder / module
        options: Any
        if inner.is_dir():
            tree = _tree(inner, f"{package}.{module}")
            # Without a name the field does not stand before each of its flags.
            actions = Annotated[tree, tyro.conf.arg(name="")]  # type: ignore[valid-type]
            options = dataclasses.make_dataclass("Actions", [("action", actions)])
        else:
            options = importlib.import_module(f"{package}.{module}").Options
        members.append(Annotated[options, tyro.conf.subcommand(name)])
    return functools.reduce(operator.or_, members)
