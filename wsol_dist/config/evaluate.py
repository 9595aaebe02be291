"""The evaluator's knobs."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

Normalise = Literal["min_max", "max"]
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_GUARD = re.compile(r"([A-Za-z0-9_/@.]+)\s*(<=|>=|<|>)\s*(-?[0-9.]+(?:[eE]-?[0-9]+)?)")


@dataclass(frozen=True, kw_only=True)
class Guard:
    """A condition that a checkpoint must meet to be chosen: a score alone can be fooled, by a map of ones say."""

    name: str
    sign: str
    bound: float

    @classmethod
    def parse(cls, text: str) -> Guard:
        """`step>=500`, `mean_map <= 0.9`.

        Raises:
            ValueError: something else.
        """
        match = _GUARD.fullmatch(text.strip())
        if match is None:
            raise ValueError(
                f"a guard is NAME, one of <= >= < >, and a number, as in cls_top1>=50; got {text!r}"
            )
        return cls(name=match[1], sign=match[2], bound=float(match[3]))

    def refusal(self, values: Mapping[str, float]) -> str | None:
        """Why a checkpoint of these values may not be chosen; None if it may."""
        value = values.get(self.name)
        if value is None:
            return f"has no {self.name}, which a guard asks for"
        if not _OPERATORS[self.sign](value, self.bound):
            return f"{self.name} {value:g} is not {self.sign} {self.bound:g}"
        return None


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """How checkpoints are scored."""

    threshold: float = 0.12
    """The fixed threshold of `--threshold fixed`, as a part of the map's maximum, from 0 to below 1."""
    select: Literal["gt_known", "top1_loc", "miou", "piou"] = "gt_known"
    """The curve whose best level becomes the threshold, on a held-out split; the others' own best come with it. miou:
    for masks of several classes, the background score; piou: for masks of one object."""
    size_px: int = 224
    """Side of the square on which maps are thresholded and boxes compared: 224, for Tiny-ImageNet 64."""
    normalise: Normalise = "min_max"
    """What a threshold of topk_loc is a part of: min_max of the map's range, max of its maximum alone, as the weight
    map has it (equation 5). The other protocols say min_max themselves."""
    box_mass: bool = False
    """Also S of the weight map (equation 6), the maps' mean and the boxes' area; for maps of weights in 0..1."""
    strict_gt_known: bool = False
    """GT-known counts an IoU above 0.5 only, as MOLT and the weight map write; TS-CAM counts 0.5 too."""
    batch_size: int = 32
    """Images per forward pass on one rank."""
    workers: int = 1
    """Processes per rank that read and decode images; 0 reads in the rank's own process."""
    cases: int = 12
    """Number of pictures with boxes and heat map, on the report page and in W&B: the same images of a split for
    every checkpoint and run."""
    cases_best: int = 12
    """Pictures of the best boxes of each scoring, besides: the highest IoUs, of every class in turn."""
    cases_worst: int = 24
    """Pictures of the worst boxes of each scoring, besides: the lowest IoUs, of every kind of error in turn."""
    cases_seed: int = 0
    """Another seed picks other pictures."""

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 1:
            raise ValueError(f"threshold must be in [0, 1), got {self.threshold}")
        least_of = {
            "size_px": 2,
            "batch_size": 1,
            "workers": 0,
            "cases": 0,
            "cases_best": 0,
            "cases_worst": 0,
        }
        for name, least in least_of.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class RefineConfig:
    """Refinement of the score maps by pixel clusters, after any method."""

    labels: str | None = None
    """Folder of label maps that wsol cluster made of the very shards that are scored; None: maps stay as they are."""
    alpha: float = 0.5
    """Share of a cluster's mean in the refined map, from 0 (the map as it is) to 1 (clusters only)."""

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must be from 0 to 1, got {self.alpha}")


@dataclass(frozen=True, kw_only=True)
class ValConfig:
    """Choosing on a held-out split: the threshold of every checkpoint, and the best of the checkpoints."""

    split: str = "val"
    """The held-out split."""
    every_epochs: float = 0.0
    """Score it inside training this often, behind a checkpoint written then, and at the end; for small splits. 0
    leaves it to the evaluator's own job."""
    metric: str = "gt_known"
    """The number that is highest at the best checkpoint."""
    guards: tuple[str, ...] = ()
    """Conditions that the best checkpoint must meet, such as cls_top1>=50 or step>=1000."""
    look_every_s: float = 10.0
    """How often the evaluator that follows a run looks for a new checkpoint."""
    silence_minutes: float = 60.0
    """The evaluator that follows a run takes its training for dead when it wrote nothing for this long."""

    def __post_init__(self) -> None:
        if self.every_epochs < 0:
            raise ValueError(f"every_epochs must be 0 or above, got {self.every_epochs}")
        if self.look_every_s <= 0 or self.silence_minutes <= 0:
            raise ValueError("look_every_s and silence_minutes must be above 0")
        for guard in self.guards:
            Guard.parse(guard)
