"""Which threshold a split gets: val's, unless another is asked for by name. Nothing falls back in silence."""

from __future__ import annotations

from wsol_dist.data.shards.index import Index
from wsol_dist.errors import UserError
from wsol_dist.evaluator import record
from wsol_dist.evaluator.evaluate import Evaluation
from wsol_dist.evaluator.work import Work
from wsol_dist.metrics import threshold as thresholds
from wsol_dist.metrics.threshold import STEPS, Threshold


def threshold_for(split: str, work: Work, chosen: Threshold | None) -> tuple[Threshold, str]:
    """The threshold that a split gets, and a line that says why.

    Args:
        chosen: what the held-out split chose just now; None looks for its record.

    Raises:
        UserError: it would be val's, and that was not scored at this step, or with other weights, knobs or shards.
    """
    evaluate, given, val = work.config.evaluate, work.threshold, work.config.val.split
    if given == "oracle" or (given is None and split == val):
        why = "it chooses the threshold" if split == val else "an upper bound"
        return thresholds.oracle(), f"its own best threshold (oracle): {why}"
    if given in (None, "val"):
        return _val_threshold(split, work, chosen)
    value, where = (evaluate.threshold, "the recipe's") if given == "fixed" else (float(given), "as given")
    return thresholds.fixed(value), f"fixed threshold {value:.3f}, {where}"


def _val_threshold(split: str, work: Work, chosen: Threshold | None) -> tuple[Threshold, str]:
    val = work.config.val.split
    why_not = f"{val!r} is what is to be scored"
    if split != val:
        if chosen is None:
            chosen, why_not = record.read_threshold(
                work.folder / record.FOLDER,
                val,
                step=work.step,
                select=work.config.evaluate.select,
                identity=work.identity,
            )
        if chosen is not None:
            return chosen, f"threshold {chosen.value:.3f} as chosen on {val}"
    splits = f"{val},{'test' if split == val else split}"
    said = (
        "--threshold val" if work.threshold else f"the threshold of {split!r} is the one that {val!r} chooses"
    )
    cure = work.cure.format(splits=splits)
    raise UserError(f"{said}: {why_not}; {cure}, or say --threshold oracle, fixed or a number")


def check_thresholds(work: Work) -> None:
    """Refuse, before anything is scored, a threshold that no split will have chosen by then.

    Raises:
        UserError: as `threshold_for`; or the held-out split has no boxes or no masks to choose one by.
    """
    val = work.config.val.split
    for position, split in enumerate(work.splits):
        threshold_for(split, work, None)
        if split == val and work.threshold is None:
            if work.splits[position + 1 :]:
                _check_truth(Index.load(work.index), work)
            return


def _check_truth(index: Index, work: Work) -> None:
    """Refuse a held-out split that lacks what the selecting curve is counted on."""
    val, select = work.config.val.split, work.config.evaluate.select
    if index.multi_label and select != "miou":
        raise UserError(
            f"evaluate.select: given {select!r}, but images in {work.index} have several labels, which are scored by "
            "masks; set --evaluate.select miou"
        )
    rows = index.rows(val)
    by_masks = select in STEPS
    what = "masks" if by_masks else "boxes"
    if not (rows.has_mask if by_masks else rows.num_boxes).any():
        raise UserError(
            f"split {val!r} has no {what} to choose a threshold by; "
            f"say --threshold oracle, fixed or a number, or pack it with {what}"
        )


def transferable(evaluation: Evaluation, work: Work) -> Threshold | None:
    """The threshold that a scored held-out split gives to the others; None where it lacks the selecting curve."""
    select = work.config.evaluate.select
    if select not in evaluation.curves:
        return None
    curves = {name: curve.tolist() for name, curve in evaluation.curves.items()}
    origin = f"{record.FOLDER}/{record.stem(evaluation.split, work.step)}.json"
    return thresholds.from_curves(curves, select=select, origin=origin)
