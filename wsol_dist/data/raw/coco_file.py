"""A JSON file in COCO's format: images, categories, annotations with boxes and masks."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsol_dist.data.images.decode import check_pixels
from wsol_dist.data.raw.archive import Place
from wsol_dist.data.raw.masks import segmentation_mask
from wsol_dist.data.shards.sample import IGNORE
from wsol_dist.errors import UserError


@dataclass(frozen=True, kw_only=True, slots=True)
class CocoImage:
    """One image with its annotations."""

    file_name: str
    size_wh: tuple[int, int]
    annotations: tuple[dict[str, Any], ...]


class CocoFile:
    """The images of a file by id, and its categories; classes are numbered by ascending category id."""

    def __init__(self, path: Place) -> None:
        self.path = path
        content = read_json(path)
        try:
            names = {int(one["id"]): str(one["name"]) for one in content["categories"]}
            self.classes = tuple(names[number] for number in sorted(names))
            self.labels = {number: label for label, number in enumerate(sorted(names))}
            self.images = self._images(content)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"{path}: not a file of COCO's format: {error!r}; images (id, file_name, width, height), "
                "annotations (image_id, category_id, bbox) and categories (id, name) expected"
            ) from error

    def _images(self, content: Any) -> dict[int, CocoImage]:
        by_image: dict[int, list[dict[str, Any]]] = {int(one["id"]): [] for one in content["images"]}
        for one in content["annotations"]:
            if one["image_id"] not in by_image or one["category_id"] not in self.labels:
                raise ValueError(f"annotation {one.get('id')}: no image or category of its number")
            kept = ("category_id", "bbox", "area", "iscrowd", "segmentation")
            by_image[one["image_id"]].append({key: one[key] for key in kept if key in one})
        for one in content["images"]:
            check_pixels(int(one["width"]), int(one["height"]))  # masks are drawn in this size
        return {
            int(one["id"]): CocoImage(
                file_name=str(one["file_name"]),
                size_wh=(int(one["width"]), int(one["height"])),
                annotations=tuple(by_image[int(one["id"])]),
            )
            for one in content["images"]
        }

    def image_labels(self, number: int) -> tuple[int, ...]:
        """The classes in an image, those of crowds too."""
        return tuple(sorted({self.labels[one["category_id"]] for one in self.images[number].annotations}))

    def boxes(self, number: int, *, crowd: bool = False) -> tuple[np.ndarray | None, tuple[int, ...] | None]:
        """(n, 4) [x, y, x + width, y + height] of the single objects and the class of each; None without any.

        Args:
            crowd: those of the crowds instead.

        Raises:
            UserError: a box that is none.
        """
        annotations = self.images[number].annotations
        wanted = [one for one in annotations if bool(one.get("iscrowd")) == crowd and "bbox" in one]
        if not wanted:
            return None, None
        try:
            boxes = np.array([one["bbox"] for one in wanted], dtype=np.float64).reshape(-1, 4)
        except (TypeError, ValueError) as error:
            raise UserError(f"{self.path}: image {number}: a bbox that is not x, y, width, height") from error
        boxes[:, 2:] += boxes[:, :2]
        return boxes, tuple(self.labels[one["category_id"]] for one in wanted)

    def has_masks(self, number: int) -> bool:
        """Whether every annotation of an image has a mask."""
        annotations = self.images[number].annotations
        return bool(annotations) and all("segmentation" in one for one in annotations)

    def semantic_mask(self, number: int) -> np.ndarray:
        """(H, W) uint8: class + 1, 0 where nothing is, 255 in crowds.

        Where objects overlap the smaller one is seen, as it is in front more often; an object in a crowd stays.

        Raises:
            UserError: a mask that does not parse.
        """
        image = self.images[number]
        mask = np.zeros(image.size_wh[::-1], np.uint8)
        try:
            for one, inside in _back_to_front(image.annotations, mask.shape):
                mask[inside] = IGNORE if one.get("iscrowd") else self.labels[one["category_id"]] + 1
        except ValueError as error:
            raise UserError(f"{self.path}: image {number}: segmentation: {error}") from error
        return mask


def _back_to_front(
    annotations: Iterable[dict[str, Any]], size_hw: tuple[int, ...]
) -> list[tuple[dict[str, Any], np.ndarray]]:
    drawn = [(one, segmentation_mask(one["segmentation"], (size_hw[0], size_hw[1]))) for one in annotations]
    return sorted(drawn, key=lambda pair: (not pair[0].get("iscrowd"), -int(pair[1].sum())))


def read_json(path: Place) -> Any:
    """What is in a JSON file.

    Raises:
        UserError: missing or no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot read this JSON file: {error}") from error
