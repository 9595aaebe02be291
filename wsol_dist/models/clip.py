"""Embeddings of CLIP: of class names from a table or through open_clip, and of images through open_clip."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsol_dist.errors import UserError, did_you_mean
from wsol_dist.models.config import CLIPConfig, TextConfig

log = logging.getLogger(__name__)

BATCH = 256
"""Prompts in one pass."""


def text_embeddings(config: TextConfig, classes: Sequence[str]) -> Tensor:
    """The l2-normalised embeddings of class names: (C, E) float32, in the order of the classes.

    Raises:
        UserError: a file that is missing or no table, a class without a row, another width, no such CLIP.
    """
    assert config.source != "random"
    named = [config.aliases.get(name, name) for name in classes]
    if config.source == "file":
        table = rows_of_names(config, classes)
    else:
        clip = load_clip(config.clip)
        table = clip.texts([template.format(name) for name in named for template in config.templates])
        table = table.unflatten(0, (len(named), len(config.templates))).mean(dim=1)
    if table.shape[1] != config.dim:
        where = config.embeddings if config.source == "file" else config.clip.model
        raise UserError(
            f"text.dim: {config.dim}, but the embeddings of {where} are {table.shape[1]} wide; "
            f"set --method.text.dim {table.shape[1]}"
        )
    return F.normalize(table, dim=1)


def rows_of_names(config: TextConfig, classes: Sequence[str]) -> Tensor:
    """The table's rows of the classes, found by name: (C, E) float32.

    Raises:
        UserError: as `text_embeddings`; a name that stands for two different rows.
    """
    assert config.embeddings is not None
    assert config.names is not None
    table_ME, names = _read_table(Path(config.embeddings), Path(config.names))
    place: dict[str, int] = {}
    for row, name in enumerate(names):
        first = place.setdefault(_plain(name), row)
        if first != row and not np.array_equal(table_ME[first], table_ME[row]):
            place[_plain(name)] = -1
    rows = [_row(name, config.aliases, place, names, where=config.names) for name in classes]
    if rows != list(range(len(rows))):
        log.info("%s: rows taken by name, their order is not that of the classes", config.embeddings)
    return torch.from_numpy(table_ME[rows].astype(np.float32))


def _row(
    name: str, aliases: Mapping[str, str], place: dict[str, int], names: list[str], *, where: str
) -> int:
    called = aliases.get(name, name)
    row = place.get(_plain(called))
    if row is None:
        raise UserError(
            f"text.names: {where} has no {called!r}, the name of a class of the shards; "
            f"{did_you_mean(called, names)}; name its row in text.aliases as {name}: ROW, or give another table"
        )
    if row < 0:
        raise UserError(f"text.names: {where} has {called!r} twice with different embeddings; remove one")
    return row


def _plain(name: str) -> str:
    return re.sub(r"[_\s]+", " ", name).strip().casefold()


def _read_table(path: Path, names_path: Path) -> tuple[np.ndarray, list[str]]:
    for one in (path, names_path):
        if not one.is_file():
            raise UserError(f"text.embeddings: there is no file {one}")
    try:
        table_ME = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"text.embeddings: {path}: no .npy array ({error})") from error
    if not isinstance(table_ME, np.ndarray) or table_ME.ndim != 2 or table_ME.dtype.kind != "f":
        raise UserError(f"text.embeddings: {path}: wanted is a float array with a row for each name")
    names = names_path.read_text(encoding="utf-8").splitlines()
    if len(names) != len(table_ME):
        raise UserError(
            f"text.names: {names_path} has {len(names)} lines, {path} {len(table_ME)} rows; give the names of its rows"
        )
    if not np.isfinite(table_ME).all():
        raise UserError(f"text.embeddings: {path}: holds values that are not finite")
    return table_ME, names


class CLIP:
    """A frozen model of open_clip in eval mode."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model.eval().requires_grad_(False), tokenizer
        size = model.visual.image_size
        self.image_px: int = size if isinstance(size, int) else size[0]
        self.mean, self.std = tuple(model.visual.image_mean), tuple(model.visual.image_std)

    @torch.no_grad()
    def texts(self, prompts: Sequence[str]) -> Tensor:
        """l2-normalised embeddings of prompts: (n, E) float32."""
        device = next(self.model.parameters()).device
        parts = [
            self.model.encode_text(self.tokenizer(list(prompts[start : start + BATCH])).to(device))
            for start in range(0, len(prompts), BATCH)
        ]
        return F.normalize(torch.cat(parts).float(), dim=1)

    @torch.no_grad()
    def images(self, image_BCHW: Tensor) -> Tensor:
        """l2-normalised embeddings of images normalised by `mean` and `std`: (B, E) float32."""
        return F.normalize(self.model.encode_image(image_BCHW).float(), dim=1)


def load_clip(config: CLIPConfig) -> CLIP:
    """The model with its weights.

    Raises:
        UserError: no such architecture; a tag that it does not have, or that cannot be had without network.
    """
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    known = open_clip.list_models()
    if config.model not in known:
        raise UserError(f"clip.model: open_clip has no {config.model!r}; {did_you_mean(config.model, known)}")
    tags = list_pretrained_tags_by_model(config.model)
    if not Path(config.pretrained).is_file() and config.pretrained.lower() not in tags:
        raise UserError(
            f"clip.pretrained: {config.pretrained!r} is neither a file nor a tag of {config.model}; "
            f"tags: {', '.join(tags) or 'none'}"
        )
    try:
        model = open_clip.create_model(config.model, pretrained=config.pretrained, weights_only=True)
    except Exception as error:  # hub, network and unpickler each have their own
        reason = re.sub(r"\s+", " ", str(error)).strip()[:160] or type(error).__name__
        source = get_pretrained_cfg(config.model, config.pretrained)
        hub = str(source.get("hf_hub") or "").rstrip("/")
        file = f"open_clip_model.safetensors of {hub} on the Hugging Face hub" if hub else source.get("url")
        cure = f"bring {file} along and name it in clip.pretrained" if file else "give a file of its weights"
        raise UserError(
            f"clip.pretrained {config.pretrained!r} of {config.model}: {reason}; {cure}"
        ) from error
    return CLIP(model, open_clip.get_tokenizer(config.model))
