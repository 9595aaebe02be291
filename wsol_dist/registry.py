"""Names of methods -> where their class and their knobs live. Imported late, so that a name costs nothing until it is
used, and apart: the knobs alone, which every recipe is read with, cost no torch.

Adding a method: one folder in `methods/` and one line here. From outside the package: an entry point in the group
`wsol_dist.methods`, or `name: my_package.foo:Foo` in the recipe; the knobs are then the class's `Config`.
"""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from wsol_dist.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from wsol_dist.methods.base import Method
    from wsol_dist.methods.config import MethodConfig

METHODS = {
    "cam": ("methods.cam.network:CAM", "methods.cam.config:CAMConfig"),
    "mmcst": ("methods.mmcst.network:MMCST", "methods.mmcst.config:MMCSTConfig"),
    "molt": ("methods.molt.network:MOLT", "methods.molt.config:MOLTConfig"),
    "segmenter": ("methods.segmenter.network:Segmenter", "methods.segmenter.config:SegmenterConfig"),
    "ts_cam": ("methods.ts_cam.network:TSCAM", "methods.ts_cam.config:TSCAMConfig"),
    "weight_map": ("methods.weight_map.network:WeightMap", "methods.weight_map.config:WeightMapConfig"),
}
"""Class and knobs, as `module:name` below this package."""


def method_class(name: str) -> type[Method]:
    """The class of a method by its registered name or as `module:Class`.

    Raises:
        UserError: no such method; the message lists the valid ones.
    """
    if name in METHODS:
        return _own(METHODS[name][0])
    outside = {point.name: point.value for point in entry_points(group="wsol_dist.methods")}
    target = outside.get(name, name if ":" in name else None)
    if target is None:
        raise UserError(
            f"method.name: unknown method {name!r}; {did_you_mean(name, sorted({**METHODS, **outside}))}"
        )
    try:
        found = _at(target)
    except (ModuleNotFoundError, AttributeError, ValueError) as error:
        if target == name:
            raise UserError(
                f"method.name: cannot import {name!r}: {error}; write it as module:Class"
            ) from error
        raise
    if not (isinstance(found, type) and hasattr(found, "localize") and hasattr(found, "Config")):
        raise UserError(f"method.name: {name!r} is no method; derive one from wsol_dist.methods.base:Method")
    return found


def config_class(name: str) -> type[MethodConfig]:
    """The dataclass of a method's knobs; of a method of this package without its network, and so without torch.

    Raises:
        UserError: as `method_class`.
    """
    return _own(METHODS[name][1]) if name in METHODS else method_class(name).Config


def _own(place: str) -> Any:
    return _at(f"{__package__}.{place}")


def _at(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
