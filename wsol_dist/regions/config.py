"""The knobs of pixel clustering and of the CRF. Free of torch: commands and recipes are read without it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

MAX_LABELS = 256
"""Labels of an image, at most: they are stored as uint8."""


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """What every backend's knobs share. A backend derives its own `Config` from it."""

    size_px: PositiveInt = 224
    """Side of the label maps in pixels; the whole image is squashed to it."""
    seed: NonNegativeInt = 0
    """Everything random of an image follows from this and its id."""
    batch: PositiveInt = 8
    """Images at once; never of two shards, so that labels do not depend on the number of processes."""

    @property
    def needs_embeddings(self) -> bool:
        """Whether nothing but patch embeddings is left to cluster by."""
        return False

    def check_count(self, name: str) -> None:
        """There are no more clusters or segments than pixels."""
        number, pixels = getattr(self, name), self.size_px**2
        if number > pixels:
            raise ValueError(
                f"{name}: {number} given, but an image of size_px {self.size_px} has {pixels} pixels; lower {name} "
                "or raise size_px"
            )


@dataclass(frozen=True, kw_only=True)
class KMeansConfig(ClusterConfig):
    """Clusters of colour and position."""

    clusters: Annotated[int, Field(ge=1, le=MAX_LABELS)] = 16
    """Clusters of an image, at most."""
    color: NonNegativeFloat = 1.0
    """Weight of the colour: CIE Lab over 100."""
    position: NonNegativeFloat = 0.5
    """Weight of x and y, both from 0 to 1."""
    embedding: NonNegativeFloat = 1.0
    """Weight of the patch embeddings, where some are given; each pixel's then has length 1."""
    embedding_dims: PositiveInt = 16
    """Dimensions that patch embeddings are brought to by a random projection, the same for all images."""
    iterations: PositiveInt = 20
    """Of Lloyd's algorithm."""
    samples_per_cluster: PositiveInt = 128
    """Pixels that the centres are fitted on; all pixels get a label."""
    batch: PositiveInt = 32

    def __post_init__(self) -> None:
        self.check_count("clusters")
        if max(self.color, self.position, self.embedding) == 0:
            raise ValueError("one of color, position and embedding must be above 0")

    @property
    def needs_embeddings(self) -> bool:
        return max(self.color, self.position) == 0


@dataclass(frozen=True, kw_only=True)
class SLICConfig(ClusterConfig):
    """Superpixels as they are."""

    segments: Annotated[int, Field(ge=1, le=200)] = 100
    """Superpixels asked for; there may be some fewer or more."""
    compactness: PositiveFloat = 10.0
    """Weight of the position against the colour; larger ones make squarer superpixels."""
    batch: PositiveInt = 32

    def __post_init__(self) -> None:
        self.check_count("segments")


@dataclass(frozen=True, kw_only=True)
class DICConfig(ClusterConfig):
    """Deep image clustering in superpixels."""

    fit_px: int | None = None
    """Side of the square that the networks see, at most size_px, which it is by default; labels are enlarged from
    it to size_px."""
    channels: Annotated[int, Field(ge=1, le=256)] = 100
    """Labels that an image may start with, at most."""
    centres: PositiveInt = 32
    """Fixed random centres of the expectation-maximisation."""
    em_steps: PositiveInt = 3
    """Steps of it."""
    iterations: PositiveInt = 100
    """Gradient steps of an image, unless it stops before."""
    min_labels: PositiveInt = 4
    """An image stops with the first iteration that leaves fewer labels than this."""
    lr: PositiveFloat = 0.05
    """Of plain SGD."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of plain SGD."""
    segments: Annotated[int, Field(ge=1, le=100_000)] = 300
    """SLIC superpixels asked for, in which labels are voted."""
    compactness: PositiveFloat = 10.0
    """SLIC's weight of the position against the colour."""
    batch: PositiveInt = 4

    def __post_init__(self) -> None:
        self.check_count("channels")
        self.check_count("segments")
        side = self.side_px
        if not 2 <= side <= self.size_px:
            raise ValueError(f"fit_px must be from 2 to size_px ({self.size_px}), got {side}")
        if self.segments > side**2:
            raise ValueError(
                f"segments: {self.segments} given, but an image of fit_px {side} has {side**2} pixels; "
                "lower segments or raise fit_px"
            )

    @property
    def side_px(self) -> int:
        """Side of the square that the networks see."""
        return self.size_px if self.fit_px is None else self.fit_px


@dataclass(frozen=True, kw_only=True)
class CRFConfig:
    """The two kernels of the paper's equation 3, and how far they are summed."""

    iterations: NonNegativeInt = 0
    """Mean-field steps; 0 is off, 10 the field's."""
    smooth: NonNegativeFloat = 3.0
    """Weight of the smoothness kernel, which knows positions only."""
    smooth_px: PositiveFloat = 3.0
    """Its standard deviation."""
    appearance: NonNegativeFloat = 10.0
    """Weight of the appearance kernel, which knows positions and colours."""
    appearance_px: PositiveFloat = 80.0
    """Its standard deviation over positions; the field's 80 is for images of about 500 pixels."""
    colour: PositiveFloat = 13.0
    """Its standard deviation over red, green and blue, which go from 0 to 255."""
    radius: PositiveInt = 5
    """Neighbours to either side that are summed, in both directions."""
    step_px: PositiveInt = 4
    """Pixels from one neighbour of the appearance kernel to the next: it reaches radius * step_px."""
