"""The images behind the cards as small JPEGs, upright; nothing is read but what was predicted."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from wsol_dist.data.images.decode import DecodeError, decode_rgb
from wsol_dist.data.raw.files import inside
from wsol_dist.errors import UserError
from wsol_dist.prediction.record import ImageBytes
from wsol_dist.review.cards import Cards

SIDES_PX = (320, 1280)
"""Longest sides that are made: of a card, and of the editor."""
QUALITY = 85
KEPT_BYTES = 64 * 2**20


class Outside(Exception):
    """An image whose path leaves the folder that was predicted on, or is a link to what was not predicted."""


class Pictures:
    """Encodes on request and keeps the latest ones."""

    def __init__(self, cards: Cards) -> None:
        self.cards = cards
        root = cards.predictions.about.get("root")
        self.root = None if root is None else Path(root).resolve()
        self.images = ImageBytes(cards.predictions)
        rows = cards.predictions.table().select(["image", "num_bytes", "modified_ns"]).to_pydict()
        self._stamps = {image: stamp for image, *stamp in zip(*rows.values(), strict=True)}
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._num_bytes = 0

    def jpeg(self, card: int, side_px: int) -> bytes:
        """The image of a card, its longest side at most `side_px`.

        Raises:
            Outside: a link leads to a file elsewhere that was not predicted.
            UserError: the path itself leaves the folder; the image does not decode.
            OSError: it is gone.
        """
        image = self.cards.image[card]
        self._check_inside(image)
        with self._lock:
            if (image, side_px) in self._kept:
                self._kept.move_to_end((image, side_px))
                return self._kept[image, side_px]
        data = encode(self.images.read(image), side_px, name=image)
        with self._lock:
            self._keep((image, side_px), data)
        return data

    def _check_inside(self, image: str) -> None:
        """Links are followed first: the predictions may come from anywhere.

        A folder of links is a common way to sort images, so a link may lead elsewhere, but only to the very file that
        was predicted: who made up a record to see others' files does not know their sizes and times.
        """
        if self.root is None or (self.root / image).resolve().is_relative_to(self.root):
            return
        now = os.stat(inside(self.root, image))
        if [now.st_size, now.st_mtime_ns] != self._stamps[image]:
            raise Outside(f"{image!r} leaves {self.root} for a file that was not predicted")

    def _keep(self, key: tuple[str, int], data: bytes) -> None:
        if key not in self._kept:
            self._kept[key] = data
            self._num_bytes += len(data)
        while self._num_bytes > KEPT_BYTES:
            _, dropped = self._kept.popitem(last=False)
            self._num_bytes -= len(dropped)


def encode(data: bytes, side_px: int, *, name: str) -> bytes:
    """An encoded image as an upright JPEG.

    Raises:
        UserError: it does not decode.
    """
    try:
        image_HWC = decode_rgb(data, cover_px=side_px)
    except DecodeError as error:
        raise UserError(f"{name}: does not decode: {error}") from error
    height, width = image_HWC.shape[:2]
    scale = side_px / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image_HWC = cv2.resize(image_HWC, size, interpolation=cv2.INTER_AREA)
    return simplejpeg.encode_jpeg(np.ascontiguousarray(image_HWC), quality=QUALITY)
