"""Weakly supervised object localization, trained at cluster scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wsol_dist.version import __version__ as __version__

if TYPE_CHECKING:
    from wsol_dist.prediction.localizer import Localizer as Localizer
    from wsol_dist.prediction.localizer import load as load
    from wsol_dist.prediction.results import Box as Box
    from wsol_dist.prediction.results import LocalizedClass as LocalizedClass
    from wsol_dist.prediction.results import LocalizedImage as LocalizedImage

_FROM = {
    "load": "wsol_dist.prediction.localizer",
    "Localizer": "wsol_dist.prediction.localizer",
    "Box": "wsol_dist.prediction.results",
    "LocalizedClass": "wsol_dist.prediction.results",
    "LocalizedImage": "wsol_dist.prediction.results",
}
"""What is importable from here and where it is: torch takes seconds to import, this package nothing."""


def __getattr__(name: str) -> Any:
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_FROM[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_FROM])
