"""The table by which `fit` chooses a recipe: rows of conditions, the first row whose conditions all hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from wsol_dist.fitting.weights import Weights
from wsol_dist.recipe import Config, from_dict, load, to_dict

MANY_IMAGES_CPU = 3_000
"""More than this, and three scales behind a frozen CNN take hours on two cores (measured: 8 minutes for 1,000)."""
MANY_IMAGES_GPU = 50_000
SMALL_PX = 96
MANY_CLASSES = 50
FIXED_EPOCHS_PASS = 42_000
"""Images that a network from scratch sees at least, over all epochs: what `quickstart` takes to learn 8 classes."""
MOST_EPOCHS = 100


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the choice is made by."""

    num_images: int
    """To train on."""
    image_px: int
    """Median of the shorter side."""
    num_classes: int
    gpu: bool
    weights: Weights | None = None


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A question to what was seen, in words."""

    words: str
    holds: Callable[[Seen], bool]


Changes = dict[str, Any]
"""Values of a recipe by dotted key."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    name: str
    conditions: tuple[Condition, ...]
    recipe: str
    changes: Callable[[Seen], Changes]
    why: str

    def fits(self, seen: Seen) -> bool:
        return all(condition.holds(seen) for condition in self.conditions)


NO_WEIGHTS = Condition(words="no weights", holds=lambda seen: seen.weights is None)
CNN = Condition(
    words="weights of a CNN", holds=lambda seen: seen.weights is not None and seen.weights.family == "cnn"
)
TRANSFORMER = Condition(
    words="weights of a transformer",
    holds=lambda seen: seen.weights is not None and seen.weights.family == "transformer",
)
GPU = Condition(words="a GPU", holds=lambda seen: seen.gpu)
NO_GPU = Condition(words="no GPU", holds=lambda seen: not seen.gpu)
SMALL = Condition(words=f"images of at most {SMALL_PX} px", holds=lambda seen: seen.image_px <= SMALL_PX)
MANY_ON_CPU = Condition(
    words=f"over {MANY_IMAGES_CPU:,} images", holds=lambda seen: seen.num_images > MANY_IMAGES_CPU
)
MANY_ON_GPU = Condition(
    words=f"at least {MANY_IMAGES_GPU:,} images", holds=lambda seen: seen.num_images >= MANY_IMAGES_GPU
)
CLASSES = Condition(words=f"over {MANY_CLASSES} classes", holds=lambda seen: seen.num_classes > MANY_CLASSES)


def _transformer(seen: Seen) -> Changes:
    assert seen.weights is not None
    return {
        "method.backbone.arch": seen.weights.arch,
        "method.backbone.pretrained": False,
        "method.backbone.checkpoint": str(seen.weights.path.resolve()),
        "method.mean": list(seen.weights.mean),
        "method.std": list(seen.weights.std),
        "train.epochs": _between(5, 40_000 / seen.num_images, 60) if seen.gpu else 5,
        "train.schedule": "cosine",
        "train.warmup_epochs": 0.5,
    }


def _stem(seen: Seen, *, threshold: float) -> Changes:
    assert seen.weights is not None
    kwargs: dict[str, Any] = {"output_stride": 16} | ({"pad_type": "same"} if seen.weights.folded else {})
    return {
        "method.backbone.stem": seen.weights.arch,
        "method.backbone.stem_kwargs": kwargs,
        "method.backbone.stem_checkpoint": str(seen.weights.path.resolve()),
        "method.mean": list(seen.weights.mean),
        "method.std": list(seen.weights.std),
        # As many steps for fewer images: five epochs of 1,000 images are what was measured.
        "train.epochs": _between(5, 5_000 / seen.num_images, 40),
        "evaluate.threshold": threshold,
    }


def _scratch(seen: Seen, *, epochs: float, threshold: float) -> Changes:
    return {
        "train.epochs": _between(epochs, FIXED_EPOCHS_PASS / seen.num_images, MOST_EPOCHS),
        "evaluate.threshold": threshold,
    }


def _scratch_wide(seen: Seen) -> Changes:
    wide = {"method.backbone.width": 192, "method.backbone.depth": 3}
    return _scratch(seen, epochs=14, threshold=0.60) | wide


def _scratch_gpu(seen: Seen) -> Changes:
    return {"train.epochs": 60, "evaluate.size_px": 224, "evaluate.threshold": 0.60}


TABLE: tuple[Row, ...] = (
    Row(
        name="transformer",
        conditions=(TRANSFORMER,),
        recipe="ts-cam-cub",
        changes=_transformer,
        why="TS-CAM on your transformer as its paper does it; the threshold is the paper's, 0.10",
    ),
    Row(
        name="cnn, small images",
        conditions=(CNN, SMALL),
        recipe="molt-tiny-imagenet-20-hybrid",
        changes=lambda seen: _stem(seen, threshold=0.62),
        why="three scales of at most 160 px behind the first layers of your CNN: small images hold no more",
    ),
    Row(
        name="cnn, many images",
        conditions=(CNN, NO_GPU, MANY_ON_CPU),
        recipe="ts-cam-caltech-hybrid",
        changes=lambda seen: _stem(seen, threshold=0.55),
        why="one scale behind your CNN: three would take over half an hour on two cores",
    ),
    Row(
        name="cnn",
        conditions=(CNN,),
        recipe="molt-caltech-hybrid",
        changes=lambda seen: _stem(seen, threshold=0.55),
        why="three scales behind the first layers of your CNN: the best measured here on few images",
    ),
    Row(
        name="scratch, GPU, many images",
        conditions=(NO_WEIGHTS, GPU, MANY_ON_GPU),
        recipe="molt-tiny-imagenet",
        changes=_scratch_gpu,
        why="so many images teach a network of full width from nothing; bring --weights for better boxes",
    ),
    Row(
        name="scratch, small images",
        conditions=(NO_WEIGHTS, SMALL),
        recipe="ts-cam-tiny-imagenet-20",
        changes=lambda seen: _scratch(seen, epochs=10, threshold=0.09),
        why="a small transformer from nothing at 96 px; bring --weights for better boxes",
    ),
    Row(
        name="scratch, many classes",
        conditions=(NO_WEIGHTS, CLASSES),
        recipe="quickstart",
        changes=_scratch_wide,
        why="three small scales from nothing, twice as wide for many classes; bring --weights for better boxes",
    ),
    Row(
        name="scratch",
        conditions=(NO_WEIGHTS,),
        recipe="quickstart",
        changes=lambda seen: _scratch(seen, epochs=14, threshold=0.60),
        why="three small scales from nothing, no download, minutes on two cores; bring --weights for better boxes",
    ),
)
"""The last row of weights or none has no further condition: something is always chosen."""


def choose(seen: Seen) -> Row:
    """The first row that fits."""
    return next(row for row in TABLE if row.fits(seen))


def configure(row: Row, seen: Seen, *, name: str, index: str, seed: int) -> tuple[Config, Changes]:
    """The row's recipe for these images, and what was changed of it."""
    config = load(row.recipe)
    changes: Changes = {"name": name, "seed": seed, "data.index": index, "data.num_classes": None}
    changes |= row.changes(seen) | _batch(config, seen.num_images)
    changes["train.checkpoint_every_epochs"] = max(1, math.ceil(changes["train.epochs"] / 4))
    tree = to_dict(config)
    for key, value in changes.items():
        *path, last = key.split(".")
        place = tree
        for part in path:
            place = place[part]
        place[last] = value
    return from_dict(tree, origin=f"{row.recipe} for {name}"), changes


def _batch(config: Config, num_images: int) -> Changes:
    """A batch that leaves at least eight steps an epoch; the learning rate falls with its root."""
    batch = config.train.global_batch
    while batch > 8 and batch * 8 > num_images:
        batch //= 2
    if batch == config.train.global_batch:
        return {}
    return {
        "train.global_batch": batch,
        "train.lr": config.train.lr * math.sqrt(batch / config.train.global_batch),
    }


def _between(least: float, value: float, most: float) -> float:
    return float(round(min(most, max(least, value))))


def explain(seen: Seen) -> Iterator[str]:
    """The table as lines: of each row its conditions, held or not, and the one that is taken."""
    taken = choose(seen)
    weights = "none" if seen.weights is None else f"{seen.weights.arch} ({seen.weights.path})"
    yield (
        f"seen: {seen.num_images:,} images to train on, {seen.image_px} px (median of the shorter side), "
        f"{seen.num_classes} classes, {'a' if seen.gpu else 'no'} GPU, weights: {weights}"
    )
    yield "the first row whose conditions all hold (+ holds, - does not):"
    width = max(len(row.name) for row in TABLE)
    for row in TABLE:
        said = ", ".join(f"{'+' if one.holds(seen) else '-'} {one.words}" for one in row.conditions)
        yield f"{'->' if row is taken else '  '} {row.name:<{width}}  {row.recipe:<28}  {said}"
    yield f"chosen: {taken.name}: {taken.why}"
