"""Dataclasses from plain values, checked by pydantic: every mistake at once, in the words of this project."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

import pydantic

from wsol_dist.errors import UserError, did_you_mean

Checked = TypeVar("Checked")
Path = tuple[str | int, ...]
"""Field names from the outermost dataclass down."""

_RANGES = {
    ("ge",): "{ge} or more",
    ("gt",): "above {gt}",
    ("le",): "up to {le}",
    ("lt",): "below {lt}",
    ("ge", "le"): "{ge} to {le}",
    ("ge", "lt"): "from {ge} to below {lt}",
    ("gt", "le"): "above {gt} and up to {le}",
    ("gt", "lt"): "above {gt} and below {lt}",
}


def validated(
    cls: type[Checked],
    raw: Mapping[str, Any],
    *,
    name: Callable[[Path], str] = lambda path: ".".join(map(str, path)),
    elsewhere: Mapping[str, list[str]] | None = None,
) -> Checked:
    """A dataclass, and those nested in it, from dictionaries.

    Args:
        name: what a user calls the field behind a path.
        elsewhere: for keys that are unknown where they stand: where they belong.

    Raises:
        UserError: every mistake, a line each.
    """
    kind: Any = cls  # mypy takes a dataclass of its own hash for unhashable
    try:
        checked: Checked = _adapter(kind).validate_python(dict(raw), extra="forbid")
        return checked
    except pydantic.ValidationError as error:
        lines = [_line(cls, one, name, elsewhere or {}) for one in error.errors()]
        raise UserError("\n".join(lines)) from None


def unwrapped(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """A type without the metadata of `Annotated`, and that metadata."""
    marks: tuple[Any, ...] = ()
    while typing.get_origin(annotation) is Annotated:
        marks += annotation.__metadata__
        annotation = annotation.__origin__
    return annotation, marks


@functools.cache
def _adapter(cls: Any) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(cls)


def _line(cls: Any, error: Any, name: Callable[[Path], str], elsewhere: Mapping[str, list[str]]) -> str:
    path, given, kind = error["loc"], error["input"], error["type"]
    called = name(path)
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        key = str(path[-1])
        if key in elsewhere:
            return f"{called}: unknown key here; it belongs at {' or '.join(elsewhere[key])}"
        return f"{called}: unknown key; {did_you_mean(key, field_names(unwrapped(_annotation(cls, path[:-1]))[0]))}"
    if kind == "too_short":
        return f"{called}: {error['ctx']['actual_length']} values given; allowed: {error['ctx']['min_length']} or more"
    if bounds := _bounds(_annotation(cls, path), error.get("ctx", {})):
        return f"{called}: given {given!r}; allowed: {bounds}"
    message = error["msg"].removeprefix("Value error, ")
    # A dictionary is a section, whose own check names the values.
    where = [called] if called else []
    what = [] if isinstance(given, dict) else [f"given {given!r} ({type(given).__name__})"]
    return ": ".join([*where, *what, message])


def field_names(cls: Any) -> list[str]:
    """The keys that a dataclass takes; a field with the metadata `key: False` is set otherwise."""
    if not dataclasses.is_dataclass(cls):
        return []
    return [field.name for field in dataclasses.fields(cls) if field.metadata.get("key", True)]


def _annotation(cls: Any, path: Path) -> Any:
    """The annotation of the field behind a path, of an element that of its sequence."""
    for part in path:
        inner, _ = unwrapped(cls)
        if part in field_names(inner):
            cls = typing.get_type_hints(inner, include_extras=True)[str(part)]
    return cls


def _bounds(annotation: Any, broken: Mapping[str, Any]) -> str:
    """The range of a number, where a bound of it is what was broken; else nothing."""
    found = {sign: value for sign, value in broken.items() if sign in ("ge", "gt", "le", "lt")}
    if not found:
        return ""
    for mark in unwrapped(annotation)[1]:
        for one in getattr(mark, "metadata", [mark]):
            found |= {sign: getattr(one, sign) for sign in ("ge", "gt", "le", "lt") if hasattr(one, sign)}
    if "gt" in found and all(isinstance(value, int) for value in broken.values()):  # of an int they are ints
        found["ge"] = found.pop("gt") + 1
    return _RANGES[tuple(sorted(found))].format_map({sign: f"{value:.15g}" for sign, value in found.items()})
