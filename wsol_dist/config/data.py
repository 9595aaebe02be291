"""What a recipe says about its data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The shards and how training samples are drawn from them."""

    index: str = ""
    """Folder of the packed shards (the one that holds index.json), or its address: https://, s3://, gs://, hf://,
    file://. What is behind an address is fetched into the folder WSOL_CACHE (environment; default
    ~/.cache/wsol_dist), which stays below WSOL_CACHE_GIB if that is set."""
    num_classes: int | None = None
    """Class count that the recipe was made for; shards with another count are refused. None takes the shards'."""
    train_split: str = "train"
    """Split to train on."""
    resize_px: PositiveInt | None = None
    """Side to which a training image is squashed before the random crop; None for 8/7 of the method's input."""
    resize_max_px: int | None = None
    """Draw that side anew for each image, from `resize_px` up to this one; None keeps `resize_px`."""
    flip: bool = True
    """Flip a training image left-right with probability one half."""
    decoder: Literal["scaled", "full"] = "scaled"
    """Of training JPEGs. `scaled` decodes at 1/2, 1/4 or 1/8 what still covers `resize_px` then (libjpeg's reduced
    transform, fast for large photographs); `full` decodes every pixel. Evaluation decodes every pixel."""
    workers: NonNegativeInt = 2
    """Loader processes for each rank; 0 decodes in the training process."""
    lanes: PositiveInt = 64
    """Number of sequential reads that an epoch's order is laid out in. Keep it: another number is another order."""
    window: PositiveInt = 2048
    """Samples that a lane shuffles among: larger mixes better, smaller reads more sequentially."""
    order: Literal["uniform", "class_pairs"] = "uniform"
    """uniform: every image once an epoch. class_pairs: in fours of two images each of two classes, for methods that
    compare images; the batch of each rank and micro-batch is then a multiple of 4."""
    embeddings: str = ""
    """Folder of a column of embeddings of these shards' images or captions (`wsol embed`), for methods that learn from
    them; they come with the images."""
    targets: str = ""
    """Folder of a column of label maps of these shards' images (`wsol pseudo-label`), for methods that learn the class
    of every pixel; they are resized, cropped and flipped with the images."""
    max_bad: Annotated[float, Field(ge=0, le=1)] = 0.001
    """Share of a split's images that may fail to decode before training or evaluation ends with their names; at least
    one image, unless it is 0."""

    def __post_init__(self) -> None:
        if self.resize_max_px is not None and self.resize_max_px < (self.resize_px or math.inf):
            raise ValueError(f"resize_max_px must be resize_px or more, given {self.resize_max_px}; set both")
