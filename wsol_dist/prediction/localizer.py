"""`wsol_dist.load(path).localize(images)`: a trained model as an object."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from wsol_dist.data.images.decode import DecodeError, decode_rgb, to_rgb
from wsol_dist.data.images.transforms import normalise, squash
from wsol_dist.errors import UserError
from wsol_dist.methods.base import Localization
from wsol_dist.prediction.asked import Which
from wsol_dist.prediction.boxes import BoxRule, find_boxes
from wsol_dist.prediction.opening import OpenedModel, build, class_number, open_model
from wsol_dist.prediction.results import LocalizedClass, LocalizedImage
from wsol_dist.regions.boxes import NonFiniteMapError

AnyImage = str | Path | Image.Image | np.ndarray
"""A path; a PIL image; (H, W, 3) RGB, (H, W, 4) RGBA or (H, W) grey, uint8."""


def load(
    path: str | Path,
    *,
    step: str | None = None,
    threshold: float | None = None,
    device: str | torch.device | None = None,
    trust_code: bool = False,
) -> Localizer:
    """A trained model from a run folder or a folder of `wsol export`. Runs no code from there.

    Args:
        step: of a run: the number of a checkpoint, `best` or `last`; None for the best that is known, else the newest.
        threshold: of boxes and masks, in [0, 1); None for the one that the held-out split chose.
        device: None for the GPU where there is one.
        trust_code: allow the configuration to name a method outside of the registry, which is imported.

    Raises:
        UserError: no such model; damaged or changed files; an unknown method.
    """
    opened = open_model(path, step=step, threshold=threshold, trust_code=trust_code)
    return Localizer(opened, device=torch.device(device) if device is not None else default_device())


def default_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Localizer:
    """Images in; classes, boxes, masks and heat maps out.

    `classes` are the names by number, `threshold` is what boxes and masks are made with and where it comes from.
    """

    def __init__(self, opened: OpenedModel, *, device: torch.device) -> None:
        self.opened, self.device = opened, device
        self.classes, self.threshold = opened.classes, opened.threshold
        self.method = build(opened, device)
        self.image_px = self.method.image_px

    def localize(
        self,
        images: AnyImage | Sequence[AnyImage],
        *,
        top_k: int = 1,
        min_score: float = 0.0,
        boxes: Which = "largest",
        min_area: float = 0.01,
        classes: Sequence[str | int] | None = None,
        batch_size: int = 32,
    ) -> list[LocalizedImage]:
        """What is where, an entry for each image in their order.

        Args:
            images: one or several; paths and PIL images are turned upright as their EXIF orientation says, and the
                boxes are in that frame: pixels from 0 at the left and upper edge, x1 and y1 behind the last pixel.
            top_k: how many of the most probable classes to localize.
            min_score: leave out classes that are less probable.
            boxes: largest: one box a class, as the scores count it; every: one for each region above the threshold.
            min_area: every: regions behind the largest must have this share of the image.
            classes: localize this class of each image, a name or number for each, instead of the most probable ones.
            batch_size: images per forward pass.

        Raises:
            UserError: an image that cannot be read, an unknown class, numbers out of range.
        """
        given = [images] if isinstance(images, str | Path | Image.Image | np.ndarray) else list(images)
        labels = None if classes is None else [self._label(one) for one in classes]
        if labels is not None and len(labels) != len(given):
            raise UserError(f"classes: {len(labels)} given for {len(given)} images; give one for each")
        self.check(top_k=top_k, min_score=min_score, min_area=min_area, batch_size=batch_size)
        found: list[LocalizedImage] = []
        for at in range(0, len(given), batch_size):
            rgb = [read_image(one) for one in given[at : at + batch_size]]
            found += self.localize_batch(
                torch.stack([squash(one, self.image_px) for one in rgb]),
                [(one.shape[1], one.shape[0]) for one in rgb],
                labels=None if labels is None else labels[at : at + batch_size],
                top_k=top_k,
                min_score=min_score,
                rule=self.rule(boxes, min_area),
            )
        return found

    def localize_batch(
        self,
        image_BCHW: Tensor,
        sizes_wh: Sequence[tuple[int, int]],
        *,
        rule: BoxRule,
        labels: Sequence[int] | None = None,
        top_k: int = 1,
        min_score: float = 0.0,
    ) -> list[LocalizedImage]:
        """The same for images that were squashed already.

        Args:
            image_BCHW: uint8, at `image_px` a side.
            sizes_wh: of the images themselves.
            labels: the class to localize in each; None for the `top_k` most probable ones.
        """
        wanted = top_k if labels is None else torch.tensor(labels, device=self.device)[:, None]
        image_BCHW = normalise(image_BCHW.to(self.device), self.method.mean, self.method.std)
        with torch.inference_mode():
            found = self.method.localize(image_BCHW, wanted)
        return self._results(found, sizes_wh, rule=rule, min_score=min_score)

    def rule(self, which: Which = "largest", min_area: float = 0.01) -> BoxRule:
        """How this model's maps become boxes."""
        evaluate = self.opened.config.evaluate
        return BoxRule(
            level=self.threshold.level,
            size_px=evaluate.size_px,
            normalise=evaluate.normalise,
            which=which,
            min_area=min_area,
        )

    def check(self, *, top_k: int, min_score: float, min_area: float, batch_size: int) -> None:
        """Refuse numbers that cannot be.

        Raises:
            UserError: the first of them.
        """
        if not 1 <= top_k <= len(self.classes):
            raise UserError(
                f"top_k: given {top_k}; the model has {len(self.classes)} classes, allowed is 1 to that"
            )
        for name, share in (("min_score", min_score), ("min_area", min_area)):
            if not 0 <= share <= 1:
                raise UserError(f"{name}: given {share:g}, allowed is 0 to 1")
        if batch_size < 1:
            raise UserError(f"batch_size: given {batch_size}, at least 1 is needed")

    def _results(
        self, found: Localization, sizes_wh: Sequence[tuple[int, int]], *, rule: BoxRule, min_score: float
    ) -> list[LocalizedImage]:
        prob_BC = found.prob_BC.float().cpu().numpy()
        class_BK = found.class_BK.cpu().numpy()
        map_BKhw = found.map_BKhw.float().cpu().numpy()
        results = []
        for prob_C, class_K, map_Khw, size_wh in zip(prob_BC, class_BK, map_BKhw, sizes_wh, strict=True):
            localized = [
                self._class(int(label), float(prob_C[label]), map_hw, size_wh, rule)
                for label, map_hw in zip(class_K, map_Khw, strict=True)
                if prob_C[label] >= min_score
            ]
            results.append(LocalizedImage(size_wh=size_wh, prob_C=prob_C, classes=tuple(localized)))
        return results

    def _class(
        self, label: int, score: float, map_hw: np.ndarray, size_wh: tuple[int, int], rule: BoxRule
    ) -> LocalizedClass:
        try:
            boxes = find_boxes(map_hw, size_wh, rule)
        except NonFiniteMapError as error:
            raise UserError(f"{self.opened.weights}: {error}; the weights are broken, take others") from error
        return LocalizedClass(
            label=label,
            name=self.classes[label],
            score=score,
            boxes=boxes,
            map_hw=map_hw,
            size_wh=size_wh,
            level=rule.level,
            normalise=rule.normalise,
        )

    def _label(self, given: str | int) -> int:
        if isinstance(given, str):
            return class_number(self.classes, given)
        if not 0 <= given < len(self.classes):
            raise UserError(f"classes: given {given}; the model has classes 0 to {len(self.classes) - 1}")
        return int(given)


def read_image(given: AnyImage) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an image in any of the allowed forms, upright.

    Raises:
        UserError: it cannot be read, or is no image.
    """
    if isinstance(given, np.ndarray):
        return _from_array(given)
    if isinstance(given, Image.Image):
        return to_rgb(ImageOps.exif_transpose(given))
    try:
        return decode_rgb(Path(given).read_bytes())
    except OSError as error:
        raise UserError(f"{given}: cannot read this image: {error.strerror}") from error
    except DecodeError as error:
        raise UserError(
            f"{given}: does not decode: {error}; give a JPEG, PNG, WebP, BMP, GIF or TIFF"
        ) from error


def _from_array(given: np.ndarray) -> np.ndarray:
    right: Any = given.ndim == 2 or (given.ndim == 3 and given.shape[2] in (3, 4))
    if given.dtype != np.uint8 or not right or 0 in given.shape:
        raise UserError(
            f"images: an array of {given.dtype} and shape {given.shape} given; allowed: uint8 of shape (H, W, 3) RGB, "
            "(H, W, 4) RGBA or (H, W) grey"
        )
    return to_rgb(Image.fromarray(given))
