"""Pseudo labels: a run's score maps turned into label maps of a whole data set, as a derived column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from wsol_dist.columns.config import LabelConfig
from wsol_dist.columns.fill import ColumnTask, Values, fill_column
from wsol_dist.data.images.decode import DecodeError
from wsol_dist.data.shards.columns import About
from wsol_dist.data.shards.index import Index
from wsol_dist.data.shards.label_maps import MOST_CLASSES, NAME, LabelMaps
from wsol_dist.data.shards.sample import IGNORE
from wsol_dist.data.stream.stream import EvaluationBatch, ShardReader, evaluation_batches
from wsol_dist.errors import UserError
from wsol_dist.evaluator.localize import localize_every_class
from wsol_dist.evaluator.refined import Refiner, open_refiner
from wsol_dist.evaluator.scoring import load_method
from wsol_dist.evaluator.work import Work
from wsol_dist.log.table import print_scores
from wsol_dist.methods.base import Method
from wsol_dist.metrics.seg_miou import confusion, miou_record
from wsol_dist.metrics.threshold import Threshold
from wsol_dist.processes.ranks import Ranks
from wsol_dist.regions.label_maps import label_maps


@dataclass(frozen=True, kw_only=True)
class PseudoLabelling:
    """What the ranks are to do; picklable."""

    work: Work
    """Whose maps, and of which splits."""
    out: Path
    threshold: Threshold
    config: LabelConfig
    command: str
    workers: int = 1
    """Loader processes of a rank; 0 reads in its own."""

    @property
    def size_px(self) -> int:
        """Side of the label maps."""
        return self.config.size_px or int(self.work.config.method.image_px)

    @property
    def thresholds(self) -> tuple[float, float]:
        """Up to the lower a pixel is background, above the higher it is of a class."""
        value, margin = self.threshold.value, self.config.ignore_margin
        return max(0.0, value - margin), min(1.0, value + margin)

    @property
    def made_by(self) -> str:
        """In words, for logs."""
        low, high = self.thresholds
        at = f"threshold {low:.3f}" if low == high else f"thresholds {low:.3f} and {high:.3f}"
        parts = [
            f"maps of {self.work.config.name}, {self.work.checkpoint}",
            f"{at} ({self.threshold.source})",
        ]
        if self.work.config.refine.labels and self.work.config.refine.alpha:
            parts.append(f"refined by clusters of {self.work.config.refine.labels}")
        if self.config.crf.iterations:
            parts.append(f"CRF of {self.config.crf.iterations} steps")
        return ", ".join(parts)

    def about(self, index: Index) -> About:
        """What the column is: everything that decides a label."""
        settings = {
            "size_px": self.size_px,
            "threshold": self.threshold.to_json(),
            "ignore_margin": self.config.ignore_margin,
            "crf": asdict(self.config.crf) if self.config.crf.iterations else None,
            "weights": self.work.identity.weights,
            "scored_as": self.work.identity.settings,
            "made_by": self.made_by,
        }
        return About(
            name=NAME,
            extension="png",
            splits=self.work.splits,
            source=index.sha256,
            settings=settings,
            command=self.command,
        )

    def column(self, index: Index) -> ColumnTask:
        """What is filled."""
        return ColumnTask(
            out=self.out, about=self.about(index), value="label map", made_by=f"from {self.made_by}"
        )


def check_labelling(work: Work, index: Index) -> None:
    """Refuse methods and data sets that give no label map.

    Raises:
        UserError: one map for all classes of an image, or more classes than a byte holds.
    """
    from wsol_dist.registry import method_class

    if index.multi_label and method_class(work.config.method_name).class_agnostic:
        raise UserError(
            f"{work.config.method_name!r} has one map whatever the class, images in {work.index} have several classes: "
            "give a run of a method with a map for each, or shards with one label an image"
        )
    if len(index.classes) > MOST_CLASSES:
        raise UserError(
            f"{work.index}: {len(index.classes)} classes; a label map holds {MOST_CLASSES}, one byte a pixel"
        )


def write_labels(ranks: Ranks, task: PseudoLabelling) -> None:
    """Make the missing label maps, and score them where masks say the class of every pixel. All ranks call it.

    Raises:
        UserError: the folder holds another column, or cannot be written; weights that do not fit.
    """
    index = Index.load(task.work.index)

    def open_values() -> Values:
        method, _ = load_method(task.work, ranks)

        def values(split: str, shards: Sequence[range]) -> Iterator[np.ndarray | None]:
            refiner = open_refiner(task.work.config.refine, index, split)
            for rows in shards:
                for batch in _batches(task, index, split, rows, method):
                    labels = label_batch(method, batch, task, ranks.device, refiner=refiner)
                    for label_HW, decoded in zip(labels, batch.decoded_B.tolist(), strict=True):
                        yield label_HW if decoded else None

        return values

    fill_column(ranks, index, task.column(index), open_values)
    for split in task.work.splits:
        score_labels(task.out, index, split, ranks)


def _batches(
    task: PseudoLabelling, index: Index, split: str, positions: range, method: Method
) -> Iterator[EvaluationBatch]:
    return evaluation_batches(
        index,
        split=split,
        rank=0,
        world=1,
        batch_size=task.work.config.evaluate.batch_size,
        workers=task.workers,
        image_px=method.image_px,
        positions=positions,
    )


def label_batch(
    method: Method,
    batch: EvaluationBatch,
    task: PseudoLabelling,
    device: torch.device,
    *,
    refiner: Refiner | None,
) -> np.ndarray:
    """The label maps of a batch: (B, size_px, size_px) uint8."""
    found = localize_every_class(method, batch, device, refiner=refiner)
    image_BCHW = batch.image_BCHW.to(device)
    if image_BCHW.shape[2:] != (task.size_px, task.size_px):
        size = (task.size_px, task.size_px)
        image_BCHW = F.interpolate(image_BCHW.float(), size=size, mode="bilinear", antialias=True)
    evaluate = task.work.config.evaluate
    labels = label_maps(
        torch.from_numpy(found.map_BKhw).to(device),
        torch.from_numpy(found.class_BK).to(device),
        image_BCHW,
        num_own=[len(truth.labels) for truth in batch.truths],
        thresholds=task.thresholds,
        crf=task.config.crf,
        # As the curve is counted that the threshold was chosen on.
        from_zero=evaluate.normalise == "max" and evaluate.select in ("gt_known", "top1_loc"),
    )
    return labels.cpu().numpy()


def score_labels(folder: Path, index: Index, split: str, ranks: Ranks) -> float | None:
    """Print the mIoU of a column of label maps against the masks of a split. All ranks call it.

    Returns:
        Percent; None where the split has no masks with the class of every pixel.
    """
    if not index.multi_label or not index.rows(split).has_mask.any():
        return None
    reader, maps = ShardReader(index, split), LabelMaps.open(folder, index, split)
    counts = np.zeros((3, len(index.classes) + 1), np.int64)
    seen = np.zeros(2, np.int64)
    for row in range(ranks.rank, len(reader), ranks.world):
        try:
            sample = reader.truth(row)
        except DecodeError:
            continue
        if sample.mask is None or not sample.semantic:
            continue
        height, width = sample.mask.shape
        label_HW = cv2.resize(maps.read(row), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        counts += confusion(label_HW, sample.mask, num_classes=len(index.classes))
        seen += [label_HW.size, (label_HW == IGNORE).sum()]
    counts, seen = ranks.all_sum(counts), ranks.all_sum(seen)
    if not counts.any():
        return None
    note = f"; {100 * seen[1] / seen[0]:.1f} % of the pixels are unknown and not counted"
    made = maps.column.about.settings["threshold"]
    found = replace(
        miou_record("seg_miou", counts, note=note),
        threshold=made["value"],
        threshold_source=made["source"],
    )
    if ranks.is_main:
        print_scores([found.to_json()], title=f"{folder} · label maps · {split}")
        print(f"seg_miou: {found.note}; image-level labels were given")
    return found.value
