"""The evaluator's knobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """How checkpoints are scored."""

    threshold: float = 0.12
    """The fixed threshold of `--threshold fixed`, as a part of the map's maximum, from 0 to below 1."""
    select: Literal["gt_known", "top1_loc"] = "gt_known"
    """The curve whose best level becomes the threshold, on a held-out split."""
    size_px: int = 224
    """Side of the square on which maps are thresholded and boxes compared: 224, for Tiny-ImageNet 64."""
    strict_gt_known: bool = False
    """GT-known counts an IoU above 0.5 only, as MOLT and the weight map write; TS-CAM counts 0.5 too."""
    batch_size: int = 32
    """Images per forward pass on one rank."""
    workers: int = 1
    """Processes per rank that read and decode images; 0 reads in the rank's own process."""
    cases: int = 12
    """Number of pictures with boxes and heat map, on the report page and in W&B: the same images of a split for
    every checkpoint and run."""
    cases_seed: int = 0
    """Another seed picks other pictures."""

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 1:
            raise ValueError(f"threshold must be in [0, 1), got {self.threshold}")
        for name, least in (("size_px", 2), ("batch_size", 1), ("workers", 0), ("cases", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
