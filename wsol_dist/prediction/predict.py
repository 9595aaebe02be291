"""The work of `wsol predict` on its ranks: read, localize, write down chunk by chunk; the first rank sums up."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsol_dist.data.images.broken import name_some
from wsol_dist.data.images.decode import DecodeError, decode_rgb
from wsol_dist.data.images.transforms import squash
from wsol_dist.errors import UserError
from wsol_dist.files import write_atomically
from wsol_dist.log.progress import progress
from wsol_dist.prediction.asked import Asked
from wsol_dist.prediction.inputs import ImageItem, Inputs, Stamp
from wsol_dist.prediction.localizer import Localizer
from wsol_dist.prediction.opening import OpenedModel
from wsol_dist.prediction.record import Parts, Predictions, rows_of, write_record
from wsol_dist.prediction.results import LocalizedImage
from wsol_dist.prediction.writers import PICTURE_FORMATS, RECORD, draw_formats, write_formats
from wsol_dist.processes.ranks import Ranks

CHUNK = 64
"""Images that are written down at once: what a kill can cost a rank."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What the ranks are to do; picklable."""

    opened: OpenedModel
    inputs: Inputs
    out: Path
    asked: Asked
    formats: tuple[str, ...]
    settings: dict[str, Any]
    """That predictions of one folder must share."""
    batch_size: int
    threads: int

    @property
    def pictures(self) -> tuple[str, ...]:
        return tuple(name for name in self.formats if name in PICTURE_FORMATS)


@dataclass(frozen=True, kw_only=True, eq=False)
class Read:
    """One image, read; `image_CHW` is None where it did not decode."""

    item: ImageItem
    stamp: Stamp | None
    size_wh: tuple[int, int] = (0, 0)
    image_CHW: Tensor | None = None
    rgb_HWC: np.ndarray | None = None
    """The pixels, where pictures are drawn."""
    error: str | None = None


def run(ranks: Ranks, work: Work) -> None:
    """Predict what is missing. All ranks call it."""
    parts = Parts(work.out, work.settings)
    ranks.main_first(parts.begin)
    todo: list[ImageItem] = ranks.gather(
        parts.todo(work.inputs, pictures=work.pictures) if ranks.is_main else []
    )[0]
    total = len(work.inputs.items)
    if ranks.is_main and 0 < len(todo) < total:
        print(f"{work.out}: goes on, {total - len(todo)} of {total} images are there", flush=True)
    chunks = [todo[at : at + CHUNK] for at in range(0, len(todo), CHUNK)][ranks.rank :: ranks.world]
    if chunks:
        _predict_chunks(
            chunks, Localizer(work.opened, device=ranks.device), parts, work, ranks, total=len(todo)
        )
    ranks.barrier()
    ranks.main_first(lambda: _finish(parts, work, num_new=len(todo)))


def _predict_chunks(
    chunks: list[list[ImageItem]],
    localizer: Localizer,
    parts: Parts,
    work: Work,
    ranks: Ranks,
    *,
    total: int,
) -> None:
    with contextlib.ExitStack() as stack:
        tell = stack.enter_context(progress("predict", total)) if ranks.is_main else lambda count: None
        pool = stack.enter_context(ThreadPoolExecutor(work.threads))
        rows: list[dict[str, Any]] = []
        for chunk, is_last, batch in _batches(chunks, localizer.image_px, work, pool):
            rows += _predict_batch(batch, localizer, work)
            if is_last:
                parts.write(chunk, rows, pictures=work.pictures)
                rows = []
                tell(len(chunk) * ranks.world)


def _batches(
    chunks: Sequence[list[ImageItem]], image_px: int, work: Work, pool: ThreadPoolExecutor
) -> Iterator[tuple[list[ImageItem], bool, list[Read]]]:
    """Batches with the chunk that they are of and whether they end it; the next is read while one is localized."""
    waiting: deque[tuple[list[ImageItem], bool, list[Future[Read]]]] = deque()
    for chunk in chunks:
        for at in range(0, len(chunk), work.batch_size):
            items = chunk[at : at + work.batch_size]
            reading = [pool.submit(read, item, image_px, work) for item in items]
            waiting.append((chunk, at + len(items) == len(chunk), reading))
            if len(waiting) > 1:
                yield _ready(*waiting.popleft())
    while waiting:
        yield _ready(*waiting.popleft())


def _ready(
    chunk: list[ImageItem], is_last: bool, reading: list[Future[Read]]
) -> tuple[list[ImageItem], bool, list[Read]]:
    return chunk, is_last, [future.result() for future in reading]


def read(item: ImageItem, image_px: int, work: Work) -> Read:
    """One image, squashed to the method's input."""
    stamp = None
    try:
        data, stamp = work.inputs.read(item)
        rgb_HWC = decode_rgb(data)
    except DecodeError as error:
        return Read(item=item, stamp=stamp, error=" ".join(str(error).split()) or "does not decode")
    return Read(
        item=item,
        stamp=stamp,
        size_wh=(rgb_HWC.shape[1], rgb_HWC.shape[0]),
        image_CHW=squash(rgb_HWC, image_px),
        rgb_HWC=rgb_HWC if work.pictures else None,
    )


def _predict_batch(batch: list[Read], localizer: Localizer, work: Work) -> Iterator[dict[str, Any]]:
    found = _localize(batch, localizer, work)
    for one in batch:
        result = found.get(one.item.id)
        if result is not None and work.pictures:
            assert one.rgb_HWC is not None
            draw_formats(
                work.out,
                one.item.id,
                one.rgb_HWC,
                result,
                classes=localizer.classes,
                formats=work.pictures,
            )
        yield from rows_of(one.item, result, classes=localizer.classes, stamp=one.stamp, error=one.error)


def _localize(batch: list[Read], localizer: Localizer, work: Work) -> dict[str, LocalizedImage]:
    """By id, what was found in the images that decoded; a forward pass has given classes or predicted ones."""
    asked = work.asked
    decoded = [one for one in batch if one.image_CHW is not None]
    named = [one for one in decoded if asked.classes == "given" and one.item.given is not None]
    others = [one for one in decoded if one not in named]
    found: dict[str, LocalizedImage] = {}
    for group, labels in ((named, [one.item.given for one in named]), (others, None)):
        if not group:
            continue
        results = localizer.localize_batch(
            torch.stack([one.image_CHW for one in group if one.image_CHW is not None]),
            [one.size_wh for one in group],
            labels=None if labels is None else [label for label in labels if label is not None],
            top_k=asked.top_k,
            min_score=asked.min_score if labels is None else 0.0,
            rule=localizer.rule(asked.boxes, asked.min_area),
        )
        found |= {one.item.id: result for one, result in zip(group, results, strict=True)}
    return found


def _finish(parts: Parts, work: Work, *, num_new: int) -> None:
    """Put the record and the table formats together, unless all of it is there."""
    if num_new == 0 and _is_complete(work):
        print(f"{work.out}: all there, nothing to do")
        return
    table = parts.merged(work.inputs)
    errors = [
        (id_, error)
        for id_, error in zip(table["image"].to_pylist(), table["error"].to_pylist(), strict=True)
        if error is not None
    ]
    about = about_of(work) | {
        "num_images": len(work.inputs.items),
        "num_broken": len(errors),
        "num_boxes": len(table) - table["x0"].null_count,
    }
    write_formats(work.out, table, about=about, formats=work.formats)
    if "masks" in work.formats:
        _name_mask_classes(work)
    write_record(work.out, table, about)
    if errors:
        what = "image does" if len(errors) == 1 else "images do"
        print(f"{len(errors)} {what} not decode: {name_some([id_ for id_, _ in errors])}")
    print(
        f"{work.out}: {about['num_images']} images, {about['num_boxes']} boxes; written: "
        f"{', '.join(sorted({RECORD, *work.formats}))}"
    )


def _is_complete(work: Work) -> bool:
    """Whether an earlier run finished these very images and formats."""
    try:
        there = Predictions.open(work.out)
    except UserError:
        return False
    ids = there.table()["image"].unique().to_pylist()
    return set(work.formats) <= set(there.about["formats"]) and ids == [item.id for item in work.inputs.items]


def _name_mask_classes(work: Work) -> None:
    names = ["background", *work.opened.classes]
    text = "".join(f"{number} {name}\n" for number, name in enumerate(names))
    (work.out / "masks").mkdir(parents=True, exist_ok=True)
    write_atomically(work.out / "masks" / "classes.txt", text.encode())


def about_of(work: Work) -> dict[str, Any]:
    """`predictions.json` but for the counts."""
    opened, inputs = work.opened, work.inputs
    return {
        "root": None if inputs.root is None else str(inputs.root),
        "shards": [{"index": folder, "split": split} for folder, split in inputs.shards],
        "classes": list(opened.classes),
        "model": {
            "path": str(opened.path.absolute()),
            "method": opened.method_name,
            "weights_sha256": opened.weights_sha256,
            "step": opened.step,
        },
        "threshold": opened.threshold.to_json(),
        "settings": work.settings,
        "formats": sorted({RECORD, *work.formats}),
    }
