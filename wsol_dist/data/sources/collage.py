"""Objects cut out of scikit-image's photographs, pasted over backgrounds that all classes share; no download.

An image has one object, or with `multi_label` two to four of different classes, of which the later may hide a part of
the earlier. Every image is a pure function of (collage seed, split, number). Boxes are [x0, y0, x1, y1] in pixels
from 0, the last pixel included (as in ILSVRC's XML); masks are exact at the image's own size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import simplejpeg
from pydantic import NonNegativeInt

from wsol_dist.data.raw.collage_shapes import COINS, OUTLINES
from wsol_dist.data.shards.sample import Item, Sample
from wsol_dist.errors import UserError

CLASSES = tuple(sorted([*OUTLINES, "coin"]))
BACKGROUNDS = {
    "brick": (0, 0, 512, 512),
    "cell": (0, 390, 550, 660),  # without the cell, which looks like a coin
    "grass": (0, 0, 512, 512),
    "gravel": (0, 0, 512, 512),
    "hubble_deep_field": (0, 0, 1000, 872),
    "immunohistochemistry": (0, 0, 512, 512),
    "moon": (0, 0, 512, 512),
    "page": (0, 0, 384, 191),
    "retina": (260, 260, 1150, 1150),
    "text": (0, 0, 448, 172),
}
"""A function of `skimage.data` -> the part that is used: x0, y0, x1, y1, end excluded."""
SIDE_FRACTION = (0.25, 0.70)
"""Range of the longer side of an object over the side of the image."""
SIDE_FRACTION_OF_SEVERAL = (0.25, 0.50)
"""The same where an image has several."""
NUM_SEVERAL = (2, 4)
"""Fewest and most objects of a multi-label image."""
LEAST_VISIBLE = 0.6
"""Part of each object that the later ones leave."""
SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class Options:
    """How many images, and how large."""

    num_train: int = 3000
    """Training images; a multiple of the 8 classes, so that the classes are balanced exactly."""
    num_val: int = 400
    """Validation images."""
    num_test: int = 600
    """Test images."""
    multi_label: bool = False
    """Two to four objects of different classes in an image, masks with the class of every pixel; else one object."""
    image_px: int = 128
    """Side of the square images in pixels."""
    jpeg_quality: int = 90
    """JPEG quality of the images, 1 to 100."""
    collage_seed: NonNegativeInt = 0
    """Seed of the pictures themselves; the order in the shards has its own."""


class Source:
    """The collage; see the module."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.classes = CLASSES
        self.known_counts: dict[str, int] = {}
        for name in ("num_train", "num_val", "num_test"):
            count = getattr(options, name)
            if count < 0 or count % len(CLASSES):
                raise UserError(f"{name}: {count} given; a multiple of the {len(CLASSES)} classes is needed")
        if options.image_px < 32:
            raise UserError(f"image_px: {options.image_px} given; at least 32 pixels are needed")
        if not 1 <= options.jpeg_quality <= 100:
            raise UserError(f"jpeg_quality: {options.jpeg_quality} given; allowed: 1 to 100")

    def items(self) -> Iterator[Item]:
        """Classes take turns, so every class has the same number of images in every split."""
        for split in SPLITS:
            for number in range(getattr(self.options, f"num_{split}")):
                labels = self._labels(split, number)
                name = f"{split}/{'+'.join(CLASSES[label] for label in labels)}/{number:06d}"
                yield Item(id=name, split=split, labels=labels, where=number)

    def _labels(self, split: str, number: int) -> tuple[int, ...]:
        """One class in turn; of several the others are drawn, so only the first are balanced exactly."""
        first = number % len(CLASSES)
        if not self.options.multi_label:
            return (first,)
        rng = self._rng(split, number, "labels")
        num_others = int(rng.integers(NUM_SEVERAL[0], NUM_SEVERAL[1] + 1)) - 1
        others = rng.permutation([label for label in range(len(CLASSES)) if label != first])[:num_others]
        return tuple(sorted([first, *others.tolist()]))

    def read(self, item: Item) -> Sample:
        """Paint one image."""
        return self._read_several(item) if self.options.multi_label else self._read_one(item)

    def _read_several(self, item: Item) -> Sample:
        """Objects in a drawn order, painted over each other."""
        rng = self._rng(item.split, int(item.where), "object")
        order = rng.permutation(item.labels).tolist()
        placed = self._placed(order, rng)
        image, mask = self.background(item), np.zeros((self.options.image_px,) * 2, np.uint8)
        for label, (alpha_HW, rgb_HWC) in zip(order, placed, strict=True):
            image = image * (1 - alpha_HW[..., None]) + rgb_HWC
            mask[alpha_HW >= 0.5] = label + 1
        boxes = [_extent(mask == label + 1) for label in item.labels]
        return self._sample(item, image, mask, boxes, semantic=True, box_labels=item.labels)

    def _placed(self, order: list[int], rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
        """Alpha and colours of each object, each of which the later ones leave enough of."""
        while True:
            placed = [
                self._place(_pick_cutout(label, rng), rng, sides=SIDE_FRACTION_OF_SEVERAL) for label in order
            ]
            solid = [alpha_HW >= 0.5 for alpha_HW, _ in placed]
            if all(
                (one & ~np.any(solid[at + 1 :], axis=0)).sum() >= LEAST_VISIBLE * one.sum()
                for at, one in enumerate(solid[:-1])
            ):
                return placed

    def _read_one(self, item: Item) -> Sample:
        rng = self._rng(item.split, int(item.where), "object")
        alpha_HW, rgb_HWC = self._place(_pick_cutout(item.labels[0], rng), rng, sides=SIDE_FRACTION)
        image = self.background(item) * (1 - alpha_HW[..., None]) + rgb_HWC
        mask = (alpha_HW >= 0.5).astype(np.uint8)
        return self._sample(item, image, mask, [_extent(mask == 1)])

    def _sample(
        self,
        item: Item,
        image: np.ndarray,
        mask: np.ndarray,
        boxes: list[list[int]],
        *,
        semantic: bool = False,
        box_labels: tuple[int, ...] | None = None,
    ) -> Sample:
        image_u8 = np.ascontiguousarray(np.clip(np.rint(image), 0, 255).astype(np.uint8))
        return Sample(
            id=item.id,
            image=simplejpeg.encode_jpeg(image_u8, quality=self.options.jpeg_quality),
            extension="jpg",
            labels=item.labels,
            boxes_xyxy=np.array(boxes, dtype=np.float64),
            box_frame_wh=(self.options.image_px, self.options.image_px),
            box_labels=box_labels,
            mask=mask,
            semantic=semantic,
        )

    def background(self, item: Item) -> np.ndarray:
        """The picture before anything is pasted: (H, W, 3) float32, 0..255; the class has no say in it."""
        rng = self._rng(item.split, int(item.where), "background")
        photo = _background(list(BACKGROUNDS)[rng.integers(len(BACKGROUNDS))])
        height, width = photo.shape[:2]
        side = int(rng.integers(min(height, width, self.options.image_px), min(height, width) + 1))
        y, x = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        crop = _flip(photo[y : y + side, x : x + side], rng)
        px = self.options.image_px
        interpolation = cv2.INTER_AREA if side >= px else cv2.INTER_CUBIC
        return np.clip(cv2.resize(crop, (px, px), interpolation=interpolation) * _light(rng), 0, 255)

    def _rng(self, split: str, number: int, part: str) -> np.random.Generator:
        # Separate streams: what is pasted cannot influence the background.
        stream = ("background", "object", "labels").index(part)
        return np.random.default_rng([self.options.collage_seed, SPLITS.index(split), number, stream])

    def _place(
        self, rgba_HW4: np.ndarray, rng: np.random.Generator, *, sides: tuple[float, float]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Alpha (H, W) and premultiplied colours (H, W, 3) of the object somewhere in the image."""
        px = self.options.image_px
        height, width = rgba_HW4.shape[:2]
        scale = px * rng.uniform(*sides) / max(height, width)
        w, h = max(1, round(width * scale)), max(1, round(height * scale))
        small = cv2.resize(
            _flip(rgba_HW4, rng), (w, h), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        )
        y, x = int(rng.integers(px - h + 1)), int(rng.integers(px - w + 1))
        canvas = np.zeros((px, px, 4), np.float32)
        canvas[y : y + h, x : x + w] = small
        alpha = canvas[..., 3] / 255
        return alpha, np.clip(canvas[..., :3] * _light(rng), 0, 255 * alpha[..., None])


def _extent(mask_HW: np.ndarray) -> list[int]:
    """The box of a mask, its last pixel included."""
    ys, xs = np.nonzero(mask_HW.any(axis=1))[0], np.nonzero(mask_HW.any(axis=0))[0]
    return [int(xs[0]), int(ys[0]), int(xs[-1]), int(ys[-1])]


def _light(rng: np.random.Generator) -> np.ndarray:
    """A gain for each colour: brightness over a factor of two, and a slight tint."""
    return (rng.uniform(0.7, 1.4) * rng.uniform(0.85, 1.15, size=3)).astype(np.float32)


def _flip(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return image[:, ::-1] if rng.random() < 0.5 else image


def _pick_cutout(label: int, rng: np.random.Generator) -> np.ndarray:
    choices = cutouts(CLASSES[label])
    return choices[rng.integers(len(choices))]


@cache
def cutouts(name: str) -> tuple[np.ndarray, ...]:
    """The objects of a class, made once in a process.

    Each (h, w, 4) uint8: red, green, blue, alpha; all zero outside the object, alpha 255 inside.
    """
    if name == "coin":
        photo = _photo("coins")
        return tuple(_cut(photo, _ellipse(photo.shape[:2], box)) for box in COINS)
    photo_name, points = OUTLINES[name]
    photo = _photo(photo_name)
    polygon = np.array([point.split(",") for point in points.split()], dtype=np.int32)
    mask = np.zeros(photo.shape[:2], np.uint8)
    cv2.fillPoly(mask, [polygon], 1)
    return (_cut(photo, mask),)


def _ellipse(shape_hw: tuple[int, ...], box: tuple[int, int, int, int]) -> np.ndarray:
    x0, y0, x1, y1 = box
    ys, xs = np.mgrid[: shape_hw[0], : shape_hw[1]]
    across, down = (xs - (x0 + x1) / 2) / ((x1 - x0 + 1) / 2), (ys - (y0 + y1) / 2) / ((y1 - y0 + 1) / 2)
    return (across**2 + down**2 <= 1).astype(np.uint8)


def _cut(photo: np.ndarray, mask: np.ndarray) -> np.ndarray:
    ys, xs = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    part = (slice(ys[0], ys[-1] + 1), slice(xs[0], xs[-1] + 1))
    # Colours are zero outside before resizing, or the old surroundings would bleed in at the edge.
    return np.dstack([photo[part], np.full_like(mask[part], 255)]) * mask[part][..., None]


@cache
def _background(name: str) -> np.ndarray:
    x0, y0, x1, y1 = BACKGROUNDS[name]
    return np.ascontiguousarray(_photo(name)[y0:y1, x0:x1])


def _photo(name: str) -> np.ndarray:
    """One of scikit-image's photographs as (H, W, 3) uint8, grey ones too."""
    import skimage.data

    photo = getattr(skimage.data, name)()
    photo = photo[0] if isinstance(photo, tuple) else photo
    return np.repeat(photo[..., None], 3, axis=2) if photo.ndim == 2 else photo
