"""Frozen embeddings of a packed data set's images or captions as a derived column, computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsol_dist.columns.config import EmbedConfig
from wsol_dist.columns.fill import ColumnTask, Values, fill_column
from wsol_dist.data.images.transforms import normalise
from wsol_dist.data.shards.columns import About
from wsol_dist.data.shards.index import Index
from wsol_dist.data.stream.stream import evaluation_batches
from wsol_dist.files import sha256_of
from wsol_dist.models.backbones import build_cnn
from wsol_dist.models.clip import load_clip, text_embeddings
from wsol_dist.models.config import TextConfig
from wsol_dist.processes.ranks import Ranks

NAME = "embedding"


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """What the ranks are to do; picklable."""

    index: str
    out: Path
    splits: tuple[str, ...]
    config: EmbedConfig
    command: str
    workers: int = 1
    """Loader processes of a rank; 0 reads in its own."""


@dataclass(frozen=True, kw_only=True)
class ImageEncoder:
    """A frozen network from normalised images (B, 3, px, px) to embeddings (B, E) float32."""

    embed: Callable[[Tensor], Tensor]
    image_px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    name: str
    """As the column's record calls it, with the weights."""


def embed_shards(ranks: Ranks, task: Embedding) -> None:
    """Make the missing embeddings. All ranks call it.

    Raises:
        UserError: weights that do not fit or cannot be had; the folder holds another column, or cannot be written.
    """
    index = Index.load(task.index)
    if task.config.what == "caption":
        values, dim, name = _captions(task.config, index)
    else:
        encoder = image_encoder(task.config, ranks.device)
        values, name = _images(task, index, encoder, ranks.device), encoder.name
        probe = torch.zeros(1, 3, encoder.image_px, encoder.image_px, device=ranks.device)
        dim = encoder.embed(probe).shape[1]
    settings = {"embedded": task.config.what, "encoder": name, "dim": dim}
    about = About(
        name=NAME,
        extension="npy",
        splits=task.splits,
        source=index.sha256,
        settings=settings,
        command=task.command,
    )
    column = ColumnTask(
        out=task.out, about=about, value="embedding", made_by=f"by {name}, {dim} numbers each"
    )
    fill_column(ranks, index, column, lambda: values)


def image_encoder(config: EmbedConfig, device: torch.device) -> ImageEncoder:
    """The frozen network of the config.

    Raises:
        UserError: no such network, weights that do not fit or cannot be had.
    """
    if config.encoder == "open_clip":
        clip = load_clip(config.clip)
        clip.model.to(device)
        name = f"open_clip {config.clip.model} {_weights_name(config.clip.pretrained)}"
        return ImageEncoder(
            embed=clip.images, image_px=clip.image_px, mean=clip.mean, std=clip.std, name=name
        )
    cnn = config.cnn
    network = build_cnn(
        cnn.arch,
        cnn.model_kwargs,
        num_classes=1,  # another count than any checkpoint's: its classifier is left out
        checkpoint=cnn.checkpoint,
        pretrained=cnn.pretrained,
        bn_checkpoint=cnn.bn_checkpoint,
    )
    network.reset_classifier(0)
    network = network.eval().requires_grad_(False).to(device)

    def embed(image_BCHW: Tensor) -> Tensor:
        with torch.no_grad():
            return F.normalize(network(image_BCHW).float(), dim=1)

    name = f"timm {cnn.arch} {_weights_name(cnn.checkpoint or 'pretrained')} at {config.image_px} px"
    return ImageEncoder(embed=embed, image_px=config.image_px, mean=config.mean, std=config.std, name=name)


def _weights_name(given: str) -> str:
    """A tag, or a file's name with the beginning of its sha256: a column is not continued with other weights."""
    path = Path(given)
    if not path.is_file():
        return given
    return f"{path.name} (sha256 {sha256_of(path)[:12]})"


def _images(task: Embedding, index: Index, encoder: ImageEncoder, device: torch.device) -> Values:
    def embed_shard(split: str, rows: range) -> Iterator[np.ndarray | None]:
        for batch in evaluation_batches(
            index,
            split=split,
            rank=0,
            world=1,
            batch_size=task.config.batch_size,
            workers=task.workers,
            image_px=encoder.image_px,
            positions=rows,
        ):
            image_BCHW = normalise(batch.image_BCHW.to(device), encoder.mean, encoder.std)
            found_BE = encoder.embed(image_BCHW).cpu().numpy().astype(np.float32)
            for value_E, decoded in zip(found_BE, batch.decoded_B.tolist(), strict=True):
                yield value_E if decoded else None

    return lambda split, shards: chain.from_iterable(embed_shard(split, rows) for rows in shards)


def _captions(config: EmbedConfig, index: Index) -> tuple[Values, int, str]:
    """Embeddings of captions, their width, and what made them."""
    text = config.text
    table_CE = text_embeddings(text, index.classes) if text.source == "file" else None
    clip = load_clip(text.clip) if table_CE is None else None

    def embed_one(labels: tuple[int, ...]) -> np.ndarray:
        if table_CE is not None:
            return F.normalize(table_CE[list(labels)].mean(dim=0), dim=0).numpy().astype(np.float32)
        assert clip is not None
        phrase = caption(labels, text, index)
        found = clip.texts([template.format(phrase) for template in text.templates])
        return F.normalize(found.mean(dim=0), dim=0).numpy().astype(np.float32)

    def values(split: str, shards: Sequence[range]) -> Iterator[np.ndarray | None]:
        labelled = index.rows(split)
        return (embed_one(labelled.labels(row)) for row in chain.from_iterable(shards))

    name = (
        f"mean of class rows of {_weights_name(str(text.embeddings))}"
        if table_CE is not None
        else f"open_clip {text.clip.model} {_weights_name(text.clip.pretrained)} on {text.templates}"
    )
    return values, len(embed_one((0,))), name


def caption(labels: tuple[int, ...], text: TextConfig, index: Index) -> str:
    """The names of an image's classes as a phrase: `cat, coin and cup`."""
    names = [text.aliases.get(index.classes[label], index.classes[label]) for label in labels]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
