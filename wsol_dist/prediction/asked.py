"""What is asked of a prediction. Free of torch: the command is read without it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from wsol_dist.options import Threshold
from wsol_dist.runs.opening import StepOptions

Which = Literal["largest", "every"]
"""Which boxes of a class: one around the largest region, or one around each."""
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True)
class ModelOptions(StepOptions):
    """Which weights of a run, and how its maps become boxes: what `opening.open_model` takes."""

    threshold: Threshold = None
    """Of the boxes; by default chosen on the run's held-out split, else the recipe's."""

    @property
    def model(self) -> dict[str, Any]:
        """As `open_model` takes them."""
        return {"step": self.step, "threshold": self.threshold, "trust_code": self.trust_code}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """How images are localized."""

    classes: Literal["predicted", "given"] = "predicted"
    """predicted: localize the most probable classes; given: the class that an image's folder or shard says it has, the
    most probable ones where that is no class of the model."""
    top_k: PositiveInt = 1
    """Classes to localize in an image."""
    min_score: Share = 0.0
    """Leave out predicted classes that are less probable."""
    boxes: Which = "largest"
    """largest: one box a class, as the scores count it; every: one for each region above the threshold."""
    min_area: Share = 0.01
    """--boxes every: least share of the image."""
