"""Write a model that can be shipped: wsol export RUN [--out FOLDER]: weights, labels, card, ONNX, torch.export.

The best checkpoint known is taken, else the newest. `wsol predict FOLDER ...` and wsol_dist.load("FOLDER") read it
again; model.onnx needs onnxruntime only. The card, README.md, says what the run's records say; the license is yours.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from wsol_dist.errors import UserError, did_you_mean
from wsol_dist.options import add_model_options, check_least, check_top_k, names_of

ALL = "onnx,torch"


def main(argv: list[str]) -> int:
    """Entry of `wsol export`."""
    parser = _parser()
    if not argv or argv[0] in ("-h", "--help"):
        parser.print_help()
        return 0 if argv else 2
    own = parser.parse_args(argv)
    check_least(own, {"top_k": 1})
    formats = formats_of(own.formats)
    from wsol_dist.exporting.export import export
    from wsol_dist.prediction.opening import open_model

    opened = open_model(own.run, step=own.step, threshold=own.threshold, trust_code=own.trust_code)
    if not opened.is_run:
        raise UserError(
            f"{own.run}: an exported model already, or a checkpoint out of its run; give a run folder"
        )
    check_top_k(own.top_k, num_classes=len(opened.classes))
    print(
        f"{opened.chosen}; {opened.method_name}, {len(opened.classes)} classes; {opened.threshold_why}",
        flush=True,
    )
    done = export(opened, own.out or opened.path / "exported", formats=formats, top_k=own.top_k)
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wsol export",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", help="run folder, or one checkpoint of it")
    parser.add_argument(
        "--out", type=Path, help="folder that is written, not there yet; default RUN/exported"
    )
    parser.add_argument(
        "--formats", default=ALL, help="graphs beside the weights: onnx, torch, none; default both"
    )
    parser.add_argument(
        "--top-k", type=int, default=1, help="classes whose heat maps a graph gives; default 1"
    )
    add_model_options(parser)
    return parser
