"""What a recipe says about its data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The shards and how training samples are drawn from them."""

    index: str = ""
    """Folder of the packed shards (the one that holds index.json)."""
    num_classes: int | None = None
    """Class count that the recipe was made for; shards with another count are refused. None takes the shards'."""
    train_split: str = "train"
    """Split to train on."""
    resize_px: int | None = None
    """Side to which a training image is squashed before the random crop; None for 8/7 of the method's input."""
    flip: bool = True
    """Flip a training image left-right with probability one half."""
    workers: int = 2
    """Loader processes for each rank; 0 decodes in the training process."""
    lanes: int = 64
    """Number of sequential reads that an epoch's order is laid out in. Keep it: another number is another order."""
    window: int = 2048
    """Samples that a lane shuffles among: larger mixes better, smaller reads more sequentially."""
    max_bad: float = 0.001
    """Share of the split's images that may fail to decode in training before the run ends with their names."""

    def __post_init__(self) -> None:
        if self.workers < 0 or self.lanes < 1 or self.window < 1:
            raise ValueError("workers must be 0 or more, lanes and window 1 or more")
        if self.resize_px is not None and self.resize_px < 1:
            raise ValueError(f"resize_px must be 1 or more, given {self.resize_px}")
        if not 0 <= self.max_bad <= 1:
            raise ValueError(f"max_bad is a share from 0 to 1, given {self.max_bad}")
