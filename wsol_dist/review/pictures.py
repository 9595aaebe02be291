"""The images behind the cards as small JPEGs, upright; nothing outside of the reviewed folder is read."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from wsol_dist.data.decode import DecodeError, decode_rgb
from wsol_dist.errors import UserError
from wsol_dist.prediction.record import ImageBytes
from wsol_dist.review.cards import Cards

SIDES_PX = (320, 1280)
"""Longest sides that are made: of a card, and of the editor."""
QUALITY = 85
KEPT_BYTES = 64 * 2**20


class Outside(Exception):
    """An image whose path, or what it points at, leaves the folder that was predicted on."""


class Pictures:
    """Encodes on request and keeps the latest ones."""

    def __init__(self, cards: Cards) -> None:
        self.cards = cards
        root = cards.predictions.about.get("root")
        self.root = None if root is None else Path(root).resolve()
        self.images = ImageBytes(cards.predictions)
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._num_bytes = 0

    def jpeg(self, card: int, side_px: int) -> bytes:
        """The image of a card, its longest side at most `side_px`.

        Raises:
            Outside: the predictions name a file elsewhere.
            UserError: the image is gone, or does not decode.
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
        """Links are followed first: the predictions may come from anywhere."""
        if self.root is not None and not (self.root / image).resolve().is_relative_to(self.root):
            raise Outside(f"{image!r} leaves {self.root}")

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
