"""Pictures of chosen images: superpixels, clusters and, of a run, the score map before and after refinement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from wsol_dist.columns.clusters import PreparingSet, labels_of
from wsol_dist.columns.patch_embeddings import PatchEmbedder
from wsol_dist.data.shards.index import Index
from wsol_dist.data.stream.stream import ShardReader, evaluation_batches
from wsol_dist.errors import UserError
from wsol_dist.evaluator.cases import boxes_on
from wsol_dist.evaluator.localize import localize_true_class
from wsol_dist.evaluator.refined import Unrefined, open_labels, shown_superpixels
from wsol_dist.evaluator.scoring import load_method
from wsol_dist.evaluator.work import Work
from wsol_dist.processes.ranks import Ranks
from wsol_dist.regions.boxes import level_of
from wsol_dist.regions.cluster import ClusterConfig, backend_class
from wsol_dist.regions.refine import refine
from wsol_dist.report.draw_clusters import MapBox, draw_clusters

SIZE_PX = 224


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which pictures, and of what."""

    index: Index
    ids: Sequence[str]
    out: Path
    backend: str
    config: ClusterConfig
    labels: Path | None
    """Label maps that are there; None clusters anew."""
    embeddings: Work | None = None
    """The localizer whose patch embeddings the backend gets."""
    work: Work | None
    """The run or recipe whose maps are shown; None: no maps."""
    alpha: float
    threshold: float
    """Of the boxes."""


def show(wanted: Wanted) -> list[Path]:
    """Draw them: `OUT/ID.png`, with `_` for what a file's name should not have.

    Raises:
        UserError: no such image, or label maps that do not cover it.
    """
    wanted.out.mkdir(parents=True, exist_ok=True)
    maps = Maps(wanted) if wanted.work else None
    paths = []
    for one in wanted.ids:
        split, row = find(wanted.index, one)
        picture = draw(wanted, split, row, maps)
        paths.append(wanted.out / f"{''.join(c if c.isalnum() or c in '-.' else '_' for c in one)}.png")
        cv2.imwrite(str(paths[-1]), picture[..., ::-1])
    return paths


def find(index: Index, image_id: str) -> tuple[str, int]:
    """The split and row of an image.

    Raises:
        UserError: no split has it.
    """
    for split in index.splits:
        ids = index.rows(split).ids
        row = pc.index_in(pa.array([image_id], ids.type), value_set=ids)[0].as_py()
        if row is not None:
            return split, row
    raise UserError(f"--show: no image {image_id!r} in {index.place}; `wsol shards ls` lists them")


def draw(wanted: Wanted, split: str, row: int, maps: Maps | None) -> np.ndarray:
    """One picture: (H, W, 3) uint8 RGB."""
    reader = ShardReader(wanted.index, split)
    item = PreparingSet(reader, backend_class(wanted.backend)(wanted.config))[row]
    if not item.decoded:
        raise UserError(
            f"--show: {reader.id(row)} does not decode; `wsol shards verify --deep` lists all such"
        )
    label_HW, settings = _labels(wanted, split, row)
    image_HWC = cv2.resize(item.image_HWC, (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_CUBIC)
    return draw_clusters(
        image_HWC,
        segment_HW=shown_superpixels(item.image_HWC, settings),
        label_HW=label_HW,
        gt_boxes=boxes_on(reader.truth(row), image_HWC),
        maps=maps.before_and_after(split, row, label_HW) if maps else (),
        size_px=SIZE_PX,
    )


def _labels(wanted: Wanted, split: str, row: int) -> tuple[np.ndarray, dict[str, object]]:
    """The image's clusters and how they were made."""
    if wanted.labels is None:
        backend = backend_class(wanted.backend)(wanted.config)
        item = PreparingSet(ShardReader(wanted.index, split), backend)[row]
        embedder = PatchEmbedder(wanted.embeddings, Ranks()) if wanted.embeddings else None
        return labels_of([item], backend, embedder)[0], asdict(wanted.config)
    column = open_labels(wanted.labels, wanted.index, (split,))
    found = column.value(split, row)
    if found is None:
        raise UserError(f"{wanted.labels}: no label map for row {row} of {split}; make the column again")
    return found, column.about.settings


class Maps:
    """The method of a run, and its maps before and after refinement, with boxes at a fixed threshold."""

    def __init__(self, wanted: Wanted) -> None:
        assert wanted.work
        self.work, self.index, self.alpha = wanted.work, wanted.index, wanted.alpha
        self.level = level_of(wanted.threshold)
        self.method, _ = load_method(self.work, Ranks())

    def before_and_after(self, split: str, row: int, label_HW: np.ndarray) -> tuple[MapBox, ...]:
        """The true class's map, and the same refined."""
        (batch,) = evaluation_batches(
            self.index,
            split=split,
            rank=0,
            world=1,
            batch_size=1,
            workers=0,
            image_px=self.method.image_px,
            positions=[row],
        )
        _, before_Bhw = localize_true_class(self.method, batch, torch.device("cpu"))
        after_BKHW = refine(
            torch.from_numpy(before_Bhw)[:, None], torch.from_numpy(label_HW)[None], alpha_B=self.alpha
        )
        return tuple(self._boxed(map_hw, label_HW) for map_hw in (before_Bhw[0], after_BKHW[0, 0].numpy()))

    def _boxed(self, map_hw: np.ndarray, label_HW: np.ndarray) -> MapBox:
        config = self.work.config.evaluate
        shown = Unrefined(map_hw=map_hw, label_HW=label_HW, segment_HW=label_HW, normalise=config.normalise)
        box = shown.box_at(self.level, size_px=config.size_px)
        return MapBox(map_hw=map_hw, box=box * (SIZE_PX / config.size_px))
