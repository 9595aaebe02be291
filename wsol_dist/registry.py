"""Names of methods -> where their class lives. Imported late, so that a name costs nothing until it is used.

Adding a method: one file in `methods/` and one line here. From outside the package: an entry point in the group
`wsol_dist.methods`, or `name: my_package.foo:Foo` in the recipe.
"""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from wsol_dist.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from wsol_dist.methods.base import Method

METHODS = {
    "cam": "wsol_dist.methods.cam:CAM",
    "mmcst": "wsol_dist.methods.mmcst:MMCST",
    "molt": "wsol_dist.methods.molt:MOLT",
    "segmenter": "wsol_dist.methods.segmenter:Segmenter",
    "ts_cam": "wsol_dist.methods.ts_cam:TSCAM",
    "weight_map": "wsol_dist.methods.weight_map:WeightMap",
}


def method_class(name: str) -> type[Method]:
    """The class of a method by its registered name or as `module:Class`.

    Raises:
        UserError: no such method; the message lists the valid ones.
    """
    known = METHODS | {point.name: point.value for point in entry_points(group="wsol_dist.methods")}
    target = known.get(name, name if ":" in name else None)
    if target is None:
        raise UserError(f"method.name: unknown method {name!r}; {did_you_mean(name, sorted(known))}")
    module_name, _, class_name = target.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ModuleNotFoundError, AttributeError, ValueError) as error:
        if target == name:
            raise UserError(
                f"method.name: cannot import {name!r}: {error}; write it as module:Class"
            ) from error
        raise
    if not (isinstance(found, type) and hasattr(found, "localize") and hasattr(found, "Config")):
        raise UserError(f"method.name: {name!r} is no method; derive one from wsol_dist.methods.base:Method")
    return found
