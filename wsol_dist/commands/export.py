"""Write a model that can be shipped: wsol export RUN [--out FOLDER]: weights, labels, card, ONNX, torch.export.

The best checkpoint known is taken, else the newest. `wsol predict FOLDER ...` and wsol_dist.load("FOLDER") read it
again; model.onnx needs onnxruntime only. The card, README.md, says what the run's records say; the license is yours.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import PositiveInt

from wsol_dist.errors import UserError, did_you_mean
from wsol_dist.options import check_top_k, names_of
from wsol_dist.prediction.asked import ModelOptions

ALL = "onnx,torch"


@dataclass(frozen=True, kw_only=True)
class Options(ModelOptions):
    """The flags of `wsol export`."""

    folder: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder, or one checkpoint of it."""
    out: Path | None = None
    """Folder that is written, not there yet; by default RUN/exported."""
    formats: str = ALL
    """Graphs beside the weights, joined by commas: onnx, torch, none."""
    top_k: PositiveInt = 1
    """Classes whose heat maps a graph gives."""


def run(options: Options) -> int:
    """Write the exported model."""
    formats = formats_of(options.formats)
    from wsol_dist.exporting.export import export
    from wsol_dist.prediction.opening import open_model

    opened = open_model(options.folder, **options.model)
    if not opened.is_run:
        raise UserError(
            f"{options.folder}: an exported model already, or a checkpoint out of its run; give a run folder"
        )
    check_top_k(options.top_k, num_classes=len(opened.classes))
    print(
        f"{opened.chosen}; {opened.method_name}, {len(opened.classes)} classes; {opened.threshold_why}",
        flush=True,
    )
    done = export(opened, options.out or opened.path / "exported", formats=formats, top_k=options.top_k)
    for name, difference in done.differences.items():
        print(f"{name}: class probabilities within {difference:.1e} of the live model's")
    print(f"{done.folder}: {', '.join(done.files)}")
    print(
        f"sha256 of SHA256SUMS: {done.sums_sha256}; README.md is the card, its license is left for you to fill in"
    )
    return 0


def formats_of(text: str) -> tuple[str, ...]:
    """`onnx,torch` in parts; `none` is none.

    Raises:
        UserError: anything else.
    """
    allowed = names_of(ALL)
    names = tuple(name for name in names_of(text) if name != "none")
    for name in names:
        if name not in allowed:
            raise UserError(f"--formats: no format {name!r}; {did_you_mean(name, [*allowed, 'none'])}")
    return names
