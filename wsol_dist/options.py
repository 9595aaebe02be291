"""The command line: one frozen dataclass per command, parsed by tyro and validated by pydantic.

A command module has a dataclass `Options`, whose fields are its flags, and `run(options)`, which returns the exit code.
A field `overrides` receives every flag that is none of the command's own, with its values: overrides of a recipe, say.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union

import pydantic
import tyro
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructTypeInfo

from wsol_dist.errors import UserError, did_you_mean
from wsol_dist.validation import unwrapped, validated

Parsed = TypeVar("Parsed")

Switch = tyro.conf.FlagCreatePairsOff[bool]
"""A flag without a value; there is no --no-FLAG."""
Overrides = Annotated[tuple[str, ...], tyro.conf.Suppress, tyro.conf.Fixed]
"""The type of the field `overrides`."""
FLAT = tyro.conf.arg(name="")
"""Marks a nested dataclass whose flags do not carry the field's name."""
Threshold = Annotated[float | None, pydantic.Field(ge=0, lt=1)]
"""Of a score map, as a part of its range; None where another source gives it."""
_HELP = ("-h", "--help")
_RULE = re.compile(r"^[─╰╯-]+$", re.MULTILINE)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, kw_only=True)
class Argument:
    """A flag or a positional argument of a dataclass."""

    path: tuple[str, ...]
    """Field names from the dataclass down."""
    flags: tuple[str, ...]
    """As they are typed; of a positional argument what the help calls it, with -- in it where that parts groups."""
    annotation: Any
    positional: bool
    required: bool

    @property
    def most(self) -> float:
        """Values it takes at most."""
        kind, _ = unwrapped(self.annotation)
        if kind is bool:
            return 0
        if typing.get_origin(kind) is tuple and ... not in typing.get_args(kind):
            return len(typing.get_args(kind))
        kinds = typing.get_args(kind) if typing.get_origin(kind) in (Union, UnionType) else (kind,)
        single = (str, int, float, bool, Path, type(None), Literal)
        several = any(one not in single and typing.get_origin(one) not in single for one in kinds)
        return float("inf") if several else 1


def arguments_of(
    cls: Any, path: tuple[str, ...] = (), prefix: str = "", *, default: Any = None
) -> Iterator[Argument]:
    """The arguments of a dataclass and of those nested in it.

    Args:
        default: whose values are the defaults, where not those of the class.
    """
    hints = typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        kind, marks = unwrapped(hints[field.name])
        name = prefix + field.name.replace("_", "-")
        if tyro.conf.Suppress in marks or tyro.conf.Fixed in marks:
            continue
        if dataclasses.is_dataclass(kind):
            inner = prefix if FLAT in marks else f"{name}."
            yield from arguments_of(
                kind, (*path, field.name), inner, default=getattr(default, field.name, None)
            )
            continue
        head, _, tail = name.rpartition(".")
        negated = f"--{head}.no-{tail}" if head else f"--no-{tail}"
        pair = kind is bool and tyro.conf.FlagCreatePairsOff not in marks
        positional = tyro.conf.Positional in marks
        called = next((mark.metavar for mark in marks if getattr(mark, "metavar", None)), field.name.upper())
        keys = getattr(default, field.name, None)
        if isinstance(keys, dict) and keys:  # each key of a filled dictionary is a flag
            flags = tuple(f"--{name}.{key.replace('_', '-')}" for key in keys)
        else:
            flags = (called,) if positional else (f"--{name}", *([negated] if pair else []))
        yield Argument(
            path=(*path, field.name),
            flags=flags,
            annotation=hints[field.name],
            positional=positional,
            required=field.default is field.default_factory is dataclasses.MISSING,
        )


def parse(cls: type[Parsed], words: Sequence[str], *, prog: str, description: str | None) -> Parsed:
    """The options of a command from the words after its name.

    With --help among them the command's own flags are printed. A command that takes overrides then gets --help as one
    of them: reading them, which it does first, prints their flags and ends the program.

    Raises:
        UserError: every mistake of the values at once, or the first of the words.
        SystemExit: after the help was printed.
    """
    arguments = list(arguments_of(cls))
    given = split(arguments, words)
    takes_rest = "overrides" in {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    missing = given.missing(arguments)
    if given.help or (not words and (missing or not any(one.positional for one in arguments))):
        print_help(cls, prog=prog, description=description)
        chosen = given.positional or not any(one.positional for one in arguments)
        if not (takes_rest and chosen and given.help):
            raise SystemExit(0 if given.help else 2)
        given.flags = [word for word in given.flags if word not in _HELP]
        given.flags += [word for one in missing for word in (one.flags[0], "-")]
        given.rest.append("--help")
        missing = []
    sections = {flag.rpartition(".")[0] for one in arguments for flag in one.flags if "." in flag}
    # A flag of a section that the command has itself is no override.
    strange = [word for word in given.rest if not takes_rest or word.rpartition(".")[0] in sections]
    mistakes = [_needed(missing, prog=prog)] if missing else []
    mistakes += [_unknown(word, arguments) for word in strange[:1]]
    if mistakes:
        raise UserError("\n".join(mistakes))
    raw = _parsed(cls, [*given.flags, "--", *given.positional], arguments, prog=prog)
    return _checked(cls, raw | ({"overrides": tuple(given.rest)} if takes_rest else {}), arguments)


def parse_knobs(
    cls: type[Parsed],
    words: Sequence[str],
    *,
    prog: str,
    default: Parsed | None = None,
    description: str | None = None,
) -> Parsed:
    """A dataclass of settings from overrides; with `--help` among them its flags are printed, and the program ends.

    Args:
        default: the values of fields without a flag; without it those of the class.
        description: what the help begins with; without it the class's docstring.

    Raises:
        UserError: a flag that there is not, or every value that cannot be.
    """
    arguments = list(arguments_of(cls, default=default))
    given = split(arguments, words)
    if default is None and not given.help and (missing := given.missing(arguments)):
        raise UserError(_needed(missing, prog=prog))
    description = description or cls.__doc__
    raw = _parsed(cls, words, arguments, prog=prog, default=default, description=description)
    return _checked(cls, raw, arguments)


@dataclass(kw_only=True)
class Words:
    """The words of a command line, sorted."""

    positional: list[str]
    flags: list[str]
    """Known flags with their values."""
    rest: list[str]
    """Unknown flags with what follows them, and words that nothing takes."""

    @property
    def help(self) -> bool:
        """Whether the help was asked for."""
        return any(word in _HELP for word in self.flags)

    def missing(self, arguments: Sequence[Argument]) -> list[Argument]:
        """Required arguments that are not given."""
        named = {word.partition("=")[0].replace("_", "-") for word in self.flags}
        positional = [one for one in arguments if one.positional and one.required][len(self.positional) :]
        flags = [
            one for one in arguments if not one.positional and one.required and one.flags[0] not in named
        ]
        return positional + flags


def split(arguments: Sequence[Argument], words: Sequence[str]) -> Words:
    """Sort words by what takes them; flags may stand among positional words, and after -- all words are positional.

    Raises:
        UserError: a flag without a value was given one.
    """
    most = {flag: one.most for one in arguments for flag in one.flags if not one.positional}
    most |= dict.fromkeys(_HELP, 0)
    places = sum(one.most for one in arguments if one.positional)
    groups = any(one.positional and "--" in one.flags[0] for one in arguments)
    found = Words(positional=[], flags=[], rest=[])
    current, room = found.positional, places
    for at, word in enumerate(words):
        if word == "--" and not groups:
            others = words[at + 1 :]
            free = int(min(places - len(found.positional), len(others)))
            found.positional.extend(others[:free])
            found.rest.extend(others[free:])
            break
        if word == "-h" or (word.startswith("--") and word != "--"):
            flag, equals, _ = word.partition("=")
            name = flag.replace("_", "-")
            if equals and most.get(name) == 0:
                raise UserError(f"{flag}: takes no value, given {word!r}; write {flag} alone")
            current = found.flags if name in most else found.rest
            room = 0 if equals else most.get(name, float("inf"))
        elif room > 0:
            room -= 1
        else:  # the flag before it has its values
            current = found.positional if len(found.positional) < places else found.rest
        current.append(word)
    return found


def _checked(cls: type[Parsed], raw: dict[str, Any], arguments: Sequence[Argument]) -> Parsed:
    flags: dict[tuple[str | int, ...], str] = {one.path: one.flags[0] for one in arguments}

    def name(path: tuple[str | int, ...]) -> str:
        """The flag of a field, or of the field that an element is of; of a section what its flags begin with."""
        if flag := flags.get(path) or flags.get(path[:-1]):
            return flag
        inside = next((one for one in arguments if one.path[: len(path)] == path), None)
        return (
            "" if inside is None else ".".join(inside.flags[0][2:].split(".")[: len(path) - len(inside.path)])
        )

    return validated(cls, raw, name=name)


def print_help(cls: Any, *, prog: str, description: str | None) -> None:
    """Print the flags of a command, and what its `epilog()` says."""
    with contextlib.suppress(SystemExit):
        tyro.cli(cls, args=["--help"], prog=prog, description=description)
    if hasattr(cls, "epilog"):
        print(f"\n{cls.epilog()}")


class _AsDict:
    """Have tyro give dataclasses as dictionaries: pydantic alone builds and checks them, all at once."""

    def __init__(self) -> None:
        self._busy = False

    def __call__(self, info: StructTypeInfo) -> StructConstructorSpec | None:
        if self._busy or not dataclasses.is_dataclass(info.type):
            return None
        self._busy = True  # tyro's own rule is asked through the same door
        try:
            spec = ConstructorRegistry.get_struct_spec(info)
        finally:
            self._busy = False
        return replace(spec, instantiate=dict) if isinstance(spec, StructConstructorSpec) else None


_registry = ConstructorRegistry()
_registry.struct_rule(_AsDict())


def _parsed(
    cls: Any, words: Sequence[str], arguments: Sequence[Argument], *, prog: str, **given: Any
) -> dict[str, Any]:
    """The fields of a dataclass, nested ones as dictionaries; values have their types, but no range is checked."""
    given = {key: value for key, value in given.items() if value is not None}
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            raw: dict[str, Any]
            raw, unknown = tyro.cli(
                cls, args=words, prog=prog, registry=_registry, return_unknown_args=True, **given
            )
    except SystemExit as end:
        if not end.code:
            raise
        raise UserError(_out_of_box(said.getvalue())) from None
    if unknown:
        raise UserError(_unknown(unknown[0], arguments))
    return raw


def _out_of_box(box: str) -> str:
    """What tyro draws a box around, as one line: its first paragraph, and how the flag is written.

    Between title and paragraphs are rules, of ASCII where standard output takes nothing else.
    """
    rows = [_COLOUR.sub("", row).strip("│ ") for row in box.splitlines()][1:]
    first, *rest = [part for part in _RULE.split("\n".join(rows)) if part.strip()] or [box]
    message = " ".join(first.split()).removeprefix("Error parsing ").partition(" Got errors:")[0].rstrip(".!")
    rows = [row for part in rest for row in part.splitlines()]
    flag = next((row for row in rows if row.startswith("--") and not row.startswith("--help")), "[")
    # A long flag continues on the next row.
    return f"{message}; write {flag}" if flag.count("[") == flag.count("]") else message


def _needed(missing: Sequence[Argument], *, prog: str) -> str:
    names = " and ".join(one.flags[0].partition(" ")[0] for one in missing)
    return f"{names} {'is' if len(missing) == 1 else 'are'} needed; see {prog} --help"


def _unknown(word: str, arguments: Sequence[Argument]) -> str:
    """A word that is no flag, with the flags of its section, or the nearest of all."""
    if not word.startswith("--"):
        return f"{word!r}: no flag takes this word; --help lists what each takes"
    flags = [flag for one in arguments for flag in one.flags if not one.positional]
    section = word.rpartition(".")[0]
    near = [flag for flag in flags if flag.rpartition(".")[0] == section]
    return f"{word.partition('=')[0]}: unknown flag; {did_you_mean(word, near or flags)}"


def names_of(text: str | None) -> tuple[str, ...]:
    """The names in a list joined by commas, each once, without the blanks around them; none of None.

    Commas alone give the empty name, which is refused wherever names are looked up.
    """
    names = dict.fromkeys(name for part in (text or "").split(",") if (name := part.strip()))
    return tuple(names) or (("",) if text else ())


def part_of(text: str | None) -> tuple[int, int]:
    """The number of a part, counted from 0, of `I/N` with 1 <= I <= N, and N; (0, 1), the whole, for None.

    Raises:
        UserError: anything else.
    """
    if text is None:
        return 0, 1
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count:
        raise UserError(f"--part: {text!r} given; I/N allowed, from 1/N to N/N, say 3/16")
    return number - 1, count


def check_top_k(top_k: int, *, num_classes: int) -> None:
    """Refuse more classes than a model has.

    Raises:
        UserError: with both numbers.
    """
    if top_k > num_classes:
        raise UserError(f"--top-k: given {top_k}, the model has {num_classes} classes")
