"""The knobs of the CRF. Free of torch, so that recipes are read without it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class CRFConfig:
    """The two kernels of the paper's equation 3, and how far they are summed."""

    iterations: int = 0
    """Mean-field steps; 0 is off, 10 the field's."""
    smooth: float = 3.0
    """Weight of the smoothness kernel, which knows positions only."""
    smooth_px: float = 3.0
    """Its standard deviation."""
    appearance: float = 10.0
    """Weight of the appearance kernel, which knows positions and colours."""
    appearance_px: float = 80.0
    """Its standard deviation over positions; the field's 80 is for images of about 500 pixels."""
    colour: float = 13.0
    """Its standard deviation over red, green and blue, which go from 0 to 255."""
    radius: int = 5
    """Neighbours to either side that are summed, in both directions."""
    step_px: int = 4
    """Pixels from one neighbour of the appearance kernel to the next: it reaches radius * step_px."""

    def __post_init__(self) -> None:
        for name, least in (("iterations", 0), ("radius", 1), ("step_px", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"crf.{name} must be {least} or more, given {getattr(self, name)}")
        for name in ("smooth_px", "appearance_px", "colour"):
            if getattr(self, name) <= 0:
                raise ValueError(f"crf.{name} must be above 0, given {getattr(self, name)}")
        if self.smooth < 0 or self.appearance < 0:
            raise ValueError("crf.smooth and crf.appearance are weights of 0 or more")
