"""What was scored: weights, shards, and the knobs that shape a score map. Thresholds pass between equals only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsol_dist.config.evaluate import EvaluateConfig
from wsol_dist.data.shards.index import Index
from wsol_dist.evaluator.refined import refine_settings
from wsol_dist.files import sha256_of
from wsol_dist.recipe import Config, to_dict


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Two evaluations of equal identity differ in the split only."""

    weights: str | None
    """sha256 of the weight file; None where the weights are those that the recipe itself names."""
    index_name: str
    """Name of the folder of shards; for people, two folders of one content are the same."""
    index_sha256: str
    """Of `index.json`, which names every tar's checksum."""
    settings: dict[str, Any]
    """Plain JSON: the method's resolved knobs, those of the evaluator that change its curves, and what fills
    tensors that the weight file may lack. `evaluate.select` is not among them: it is applied to stored curves."""

    def to_json(self) -> dict[str, Any]:
        """The part of a record that says what was scored."""
        return {
            "weights": self.weights,
            "index": {"name": self.index_name, "sha256": self.index_sha256},
            "scored_as": self.settings,
        }

    def differences(self, record: dict[str, Any]) -> list[str]:
        """What a stored record was scored with and this is not, a phrase each; empty where all is the same."""
        if not {"weights", "index", "scored_as"} <= record.keys():
            return ["it does not say what was scored"]
        mine, theirs = dict(_flat(self.to_json())), dict(_flat(record))
        # The rest of the record is its result, and the name is for people.
        parts = [
            name for name in mine | theirs if name.split(".")[0] in self.to_json() and name != "index.name"
        ]
        return [
            f"{_title(name)} {_short(name, theirs)} there, {_short(name, mine)} here"
            for name in parts
            if mine.get(name) != theirs.get(name)
        ]


def identify(config: Config, index: str, *, weights: Path | None, whole: bool) -> Identity:
    """Read what is needed to tell this evaluation from others; reads every byte of the weight file.

    Args:
        index: folder of the shards.
        weights: None for those that the recipe itself names, or, of a whole checkpoint, for one yet to come.
        whole: the file holds every tensor of the method.
    """
    plain = to_dict(config)
    settings = {"method": plain["method"], "evaluate": curve_knobs(config.evaluate)}
    settings |= refine_settings(config.refine, index)
    if not whole:
        settings["seed"] = config.seed
    if weights is None and not whole:
        named = {name: value for name, value in _flat(plain["method"]) if isinstance(value, str)}
        settings["files"] = {
            name: sha256_of(Path(value)) for name, value in named.items() if Path(value).is_file()
        }
    return Identity(
        weights=None if weights is None else sha256_of(weights),
        index_name=Path(index).absolute().name,
        index_sha256=Index.load(index, check_files=False).sha256,
        settings=json.loads(json.dumps(settings)),
    )


def curve_knobs(config: EvaluateConfig) -> dict[str, Any]:
    """The evaluator's knobs that change its curves."""
    return {name: getattr(config, name) for name in ("size_px", "normalise", "strict_gt_known")}


def _flat(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, dict):
            yield from _flat(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def _title(name: str) -> str:
    return name.removeprefix("scored_as.").removesuffix(".sha256")


def _short(name: str, flat: dict[str, Any]) -> str:
    """A value as a message shows it; of a checksum the first digits."""
    value = flat.get(name)
    is_sha256 = name in ("weights", "index.sha256") or name.startswith("scored_as.files.")
    if not is_sha256:
        return repr(value)
    return "none" if value is None else f"sha256 {str(value)[:12]}"
