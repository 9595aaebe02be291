"""A validation split held out of another one, where a data set has none of its own."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

from wsol_dist.data.shards.sample import Item
from wsol_dist.errors import UserError, did_you_mean


def hold_out_val(
    splits: dict[str, list[Item]],
    *,
    origin: str | None,
    fraction: float,
    seed: int,
    classes: Sequence[str],
) -> dict[str, list[Item]]:
    """The splits with a `val` chosen by a hash of id and seed: an image keeps its side when others are added.

    Args:
        splits: by name; come back as they are where there is a `val`, or nothing to hold out of.
        origin: the split that loses images; None for train.
        fraction: how much is held out; 0 for nothing.
        seed: of the choice.
        classes: names, for messages.

    Raises:
        UserError: an origin that is not there; nothing held out, or a class without images left in train.
    """
    if origin is not None and "val" in splits:
        raise UserError("--val-from: this source has a val split of its own; leave the option out")
    if origin is not None and origin not in splits:
        raise UserError(f"--val-from: no split {origin!r}; {did_you_mean(origin, list(splits))}")
    origin = origin or "train"
    if "val" in splits or origin not in splits or fraction == 0:
        return splits
    held = {item.id for item in splits[origin] if hash_fraction(item.id, seed) < fraction}
    parts = dict(splits)
    parts[origin] = [item for item in splits[origin] if item.id not in held]
    parts["val"] = [dataclasses.replace(item, split="val") for item in splits[origin] if item.id in held]
    _check(parts, origin, fraction, classes)
    return parts


def hash_fraction(sample_id: str, seed: int) -> float:
    """A number in [0, 1) that only depends on id and seed."""
    digest = hashlib.sha256(f"{seed}/{sample_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _check(parts: dict[str, list[Item]], origin: str, fraction: float, classes: Sequence[str]) -> None:
    cure = "give another --val-fraction or --seed, or --val-fraction 0 for no val split"
    for name in (origin, "val"):
        if not parts[name]:
            raise UserError(f"--val-fraction: {fraction} leaves no image for {name}; {cure}")
    kept = {label for item in parts[origin] for label in item.labels}
    lost = sorted({label for item in parts["val"] for label in item.labels} - kept)
    if lost and origin == "train":
        raise UserError(
            f"--val-fraction: {fraction} leaves class {classes[lost[0]]!r} without images in train; {cure}"
        )
