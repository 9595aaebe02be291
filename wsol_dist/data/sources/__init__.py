"""Data sets in their original layouts: a module each, found by its file name (underscores as dashes).

Only the command `shards` and `fitting` import them: training reads shards, whose index describes itself.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from wsol_dist.errors import UserError, did_you_mean


def source_names() -> list[str]:
    """The names that `pack` takes, sorted."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def source_module(name: str) -> ModuleType:
    """The module of a source; it has `Options` and `Source`.

    Raises:
        UserError: no such source; the message lists those there are.
    """
    if name not in source_names():
        raise UserError(f"unknown source {name!r}; {did_you_mean(name, source_names())}")
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")


def summary(name: str) -> str:
    """The first line of a source's docstring."""
    return (source_module(name).__doc__ or "").strip().partition("\n")[0]
