"""Compiled code where numba works; everything that has it also has a slower way to the same numbers."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any


@cache
def load(module: str) -> ModuleType | None:
    """A module of compiled functions, imported at first use; None where numba is missing or switched off by its
    own NUMBA_DISABLE_JIT=1. The first use of all takes seconds to compile, later processes read it from disk."""
    try:
        import numba
    except (ImportError, OSError) as error:  # OSError: its LLVM library does not load
        warnings.warn(f"numba does not work here, scoring takes ten times as long: {error}", stacklevel=2)
        return None
    return None if getattr(numba.config, "DISABLE_JIT", 0) else importlib.import_module(module)


def compiled(signature: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """numba's `njit` for one signature, kept on disk: beside the source, or in NUMBA_CACHE_DIR or the user's cache
    folder where that is read-only, or not at all where nothing can be written. Ranks may do so at once."""
    from numba import njit

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            return njit(signature, nogil=True, cache=True)(function)
        except (RuntimeError, OSError):  # no folder can be written, or the disk is full
            return njit(signature, nogil=True)(function)

    return decorate
