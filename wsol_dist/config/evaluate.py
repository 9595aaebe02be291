"""The evaluator's knobs."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

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

    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.12
    """The fixed threshold of `--threshold fixed`, as a part of the map's maximum, from 0 to below 1."""
    select: Literal["gt_known", "top1_loc", "miou", "piou"] = "gt_known"
    """The curve whose best level becomes the threshold, on a held-out split; the others' own best come with it. miou:
    for masks of several classes, the background score; piou: for masks of one object."""
    size_px: Annotated[int, Field(ge=2)] = 224
    """Side of the square on which maps are thresholded and boxes compared: 224, for Tiny-ImageNet 64."""
    normalise: Normalise = "min_max"
    """What a threshold of topk_loc is a part of: min_max of the map's range, max of its maximum alone, as the weight
    map has it (equation 5). The other protocols say min_max themselves."""
    box_mass: bool = False
    """Also S of the weight map (equation 6), the maps' mean and the boxes' area; for maps of weights in 0..1."""
    strict_gt_known: bool = False
    """GT-known counts an IoU above 0.5 only, as MOLT and the weight map write; TS-CAM counts 0.5 too."""
    batch_size: PositiveInt = 32
    """Images per forward pass on one rank."""
    workers: NonNegativeInt = 1
    """Processes per rank that read and decode images; 0 reads in the rank's own process."""
    cases: NonNegativeInt = 12
    """Number of pictures with boxes and heat map, on the report page and in W&B: the same images of a split for
    every checkpoint and run."""
    cases_best: NonNegativeInt = 12
    """Pictures of the best boxes of each scoring, besides: the highest IoUs, of every class in turn."""
    cases_worst: NonNegativeInt = 24
    """Pictures of the worst boxes of each scoring, besides: the lowest IoUs, of every kind of error in turn."""
    cases_seed: int = 0
    """Another seed picks other pictures."""


@dataclass(frozen=True, kw_only=True)
class RefineConfig:
    """Refinement of the score maps by pixel clusters, after any method."""

    labels: str | None = None
    """Folder of label maps that wsol cluster made of the very shards that are scored; None: maps stay as they are."""
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of a cluster's mean in the refined map, from 0 (the map as it is) to 1 (clusters only)."""


@dataclass(frozen=True, kw_only=True)
class ValConfig:
    """Choosing on a held-out split: the threshold of every checkpoint, and the best of the checkpoints."""

    split: str = "val"
    """The held-out split."""
    every_epochs: NonNegativeFloat = 0.0
    """Score it inside training this often, behind a checkpoint written then, and at the end; for small splits. 0
    leaves it to the evaluator's own job."""
    metric: str = "gt_known"
    """The number that is highest at the best checkpoint."""
    guards: tuple[str, ...] = ()
    """Conditions that the best checkpoint must meet, such as cls_top1>=50 or step>=1000."""
    look_every_s: PositiveFloat = 10.0
    """How often the evaluator that follows a run looks for a new checkpoint."""
    silence_minutes: PositiveFloat = 60.0
    """The evaluator that follows a run takes its training for dead when it wrote nothing for this long."""

    def __post_init__(self) -> None:
        for guard in self.guards:
            Guard.parse(guard)
