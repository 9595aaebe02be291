"""What `wsol predict` leaves: `predictions.parquet`, a row for each image, class and box, and `predictions.json`.

While it runs, each chunk of images becomes a file in `parts/`, whole or absent: that is how it goes on after a kill.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wsol_dist.errors import UserError
from wsol_dist.files import write_atomically
from wsol_dist.prediction.inputs import ImageItem, Inputs, Stamp
from wsol_dist.prediction.results import Box, LocalizedClass, LocalizedImage

ABOUT_FILE, TABLE_FILE, PARTS, SETTINGS_FILE = (
    "predictions.json",
    "predictions.parquet",
    "parts",
    "settings.json",
)
ABOUT_SCHEMA = 1
PICTURES_KEY = b"pictures"
"""In a part's metadata: the picture formats that are written for its images."""
TOP = 5

SCHEMA = pa.schema(
    [
        ("image", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("class_rank", pa.int32()),
        ("label", pa.int32()),
        ("class", pa.string()),
        ("score", pa.float32()),
        ("box_rank", pa.int32()),
        ("x0", pa.float32()),
        ("y0", pa.float32()),
        ("x1", pa.float32()),
        ("y1", pa.float32()),
        ("stability", pa.float32()),
        ("given_label", pa.int32()),
        ("given_class", pa.string()),
        ("top5_label", pa.list_(pa.int32())),
        ("top5_score", pa.list_(pa.float32())),
        ("error", pa.string()),
        ("num_bytes", pa.int64()),
        ("modified_ns", pa.int64()),
    ]
)
"""Boxes are pixels of the image as a person sees it (after EXIF orientation), x1 and y1 behind the last pixel; `score`
is the class's probability. An image without a box, or that did not decode (`error` says why), has one row."""


def rows_of(
    item: ImageItem,
    found: LocalizedImage | None,
    *,
    classes: Sequence[str],
    stamp: Stamp | None,
    error: str | None = None,
) -> list[dict[str, Any]]:
    """The rows of an image; `found` is None where it did not decode."""
    common: dict[str, Any] = {
        "image": item.id,
        "width": found.width if found else 0,
        "height": found.height if found else 0,
        "given_label": item.given,
        "given_class": None if item.given is None else classes[item.given],
        "error": error,
        "num_bytes": stamp.num_bytes if stamp else 0,
        "modified_ns": stamp.modified_ns if stamp else 0,
    }
    if found is None:
        return [common]
    top = found.top(TOP)
    common |= {"top5_label": top.tolist(), "top5_score": found.prob_C[top].tolist()}
    if not found.classes:
        return [common]
    return [
        common | _class_columns(rank, one) | _box_columns(box_rank, box)
        for rank, one in enumerate(found.classes)
        for box_rank, box in enumerate(one.boxes or (None,))
    ]


def _class_columns(rank: int, one: LocalizedClass) -> dict[str, Any]:
    return {"class_rank": rank, "label": one.label, "class": one.name, "score": one.score}


def _box_columns(rank: int, box: Box | None) -> dict[str, Any]:
    if box is None:
        return {}
    sides = dict(zip(("x0", "y0", "x1", "y1"), box.xyxy, strict=True))
    return {"box_rank": rank, **sides, "stability": box.stability}


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """A finished folder of predictions."""

    folder: Path
    about: dict[str, Any]
    """`predictions.json`."""

    @classmethod
    def open(cls, folder: str | Path) -> Predictions:
        """Read what is there.

        Raises:
            UserError: no predictions, unfinished ones, or those of another version.
        """
        folder = Path(folder)
        path = folder / ABOUT_FILE
        if not path.is_file() or not (folder / TABLE_FILE).is_file():
            begun = (folder / PARTS).is_dir()
            what = "not finished: the same wsol predict goes on" if begun else "no predictions in it"
            raise UserError(f"{folder}: {what}; give the --out of a wsol predict that is through")
        try:
            about = json.loads(path.read_bytes())
            schema = about["schema"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}: damaged; remove it, and the same wsol predict writes it again"
            ) from error
        if schema != ABOUT_SCHEMA:
            raise UserError(f"{path}: schema {schema!r} given, {ABOUT_SCHEMA} supported; predict again")
        return cls(folder=folder, about=about)

    def table(self) -> pa.Table:
        """`predictions.parquet`; see `SCHEMA`."""
        return pq.read_table(self.folder / TABLE_FILE)

    def inputs(self) -> Inputs:
        """Where the images are; its items are not listed."""
        root = self.about["root"]
        shards = [(one["index"], one["split"]) for one in self.about["shards"]]
        return Inputs(items=[], root=None if root is None else Path(root), shards=shards)

    def read_image(self, id_: str) -> bytes:
        """The encoded image.

        Raises:
            UserError: it is not among the predictions, or is gone.
        """
        return ImageBytes(self).read(id_)


class ImageBytes:
    """Encoded images of predictions by id; opens shards once."""

    def __init__(self, predictions: Predictions) -> None:
        self.inputs = predictions.inputs()
        self.places: dict[str, ImageItem] = {}
        ids = predictions.table()["image"].unique().to_pylist()
        if self.inputs.root is not None:
            self.places = {id_: ImageItem(id=id_) for id_ in ids}
            return
        for place in range(len(self.inputs.shards)):
            for row, id_ in enumerate(self.inputs.reader(place).rows.ids.to_pylist()):
                self.places[id_] = ImageItem(id=id_, shard=place, row=row)

    def read(self, id_: str) -> bytes:
        """As `Predictions.read_image`."""
        from wsol_dist.data.images.decode import DecodeError

        if id_ not in self.places:
            raise UserError(f"{id_}: no image of these predictions")
        try:
            return self.inputs.read(self.places[id_])[0]
        except DecodeError as error:
            raise UserError(f"{id_}: {error}") from error


class Parts:
    """The unfinished record: one file a chunk, whole or absent."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.out, self.folder, self.settings = folder, folder / PARTS, settings

    def begin(self) -> None:
        """Make the folder, or see that what is there was made with the same model and settings.

        Raises:
            UserError: it was not; the first difference is named.
        """
        path = self.folder / SETTINGS_FILE
        if not path.is_file():
            if self.out.is_dir() and any(self.out.iterdir()) and not self.folder.is_dir():
                raise UserError(f"--out: {self.out} holds other files; give a new or an empty folder")
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, (json.dumps(self.settings, indent=1) + "\n").encode())
            return
        try:
            there = json.loads(path.read_bytes())
        except ValueError as error:
            raise UserError(f"{path}: damaged; give another --out, or remove {self.out}") from error
        for name in {**self.settings, **there}:
            if there.get(name) != self.settings.get(name):
                raise UserError(
                    f"--out: {self.out} holds predictions made otherwise ({name}: {there.get(name)!r} there, "
                    f"{self.settings.get(name)!r} here); give another --out, or remove it"
                )

    def write(
        self, items: Sequence[ImageItem], rows: list[dict[str, Any]], *, pictures: Sequence[str]
    ) -> None:
        """Put a chunk down."""
        name = hashlib.sha256("\n".join(item.id for item in items).encode()).hexdigest()[:16]
        schema = SCHEMA.with_metadata({PICTURES_KEY: ",".join(sorted(pictures)).encode()})
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink, compression="zstd")
        write_atomically(self.folder / f"{name}.parquet", sink.getvalue().to_pybytes(), sync=False)

    def todo(self, inputs: Inputs, *, pictures: Sequence[str]) -> list[ImageItem]:
        """Images that are not predicted yet, that changed since, or that lack a picture format."""
        done: dict[str, tuple[int, int]] = {}
        for table in self._tables():
            made = set((table.schema.metadata or {}).get(PICTURES_KEY, b"").decode().split(","))
            if set(pictures) <= made:
                columns = (table[name].to_pylist() for name in ("image", "num_bytes", "modified_ns"))
                done |= {id_: (size, when) for id_, size, when in zip(*columns, strict=True)}
        return [item for item in inputs.items if not _still(item, inputs, done.get(item.id))]

    def merged(self, inputs: Inputs) -> pa.Table:
        """The rows of all images, in their order."""
        place_of = {item.id: place for place, item in enumerate(inputs.items)}
        taken: set[str] = set()
        kept, places = [SCHEMA.empty_table()], [np.empty(0, np.int64)]
        for table in self._tables():  # the newest first: what was predicted again counts
            ids = table["image"].to_pylist()
            wanted = np.array([id_ in place_of and id_ not in taken for id_ in ids], bool)
            taken.update(ids)
            kept.append(table.filter(pa.array(wanted)).replace_schema_metadata(None))
            places.append(
                np.array([place_of[id_] for id_, one in zip(ids, wanted, strict=True) if one], np.int64)
            )
        # A stable sort: within an image rows keep their order.
        return pa.concat_tables(kept).take(pa.array(np.argsort(np.concatenate(places), kind="stable")))

    def _tables(self) -> Iterator[pa.Table]:
        """The parts, the newest first; one that cannot be read is as if it were not there."""
        for path in sorted(self.folder.glob("*.parquet"), key=lambda one: -one.stat().st_mtime_ns):
            try:
                table = pq.read_table(path)
            except (pa.ArrowInvalid, OSError):
                continue
            if table.schema.names == SCHEMA.names:
                yield table


def _still(item: ImageItem, inputs: Inputs, known: tuple[int, int] | None) -> bool:
    """Whether what was predicted is what is there now. Shards do not change: the settings name their checksum."""
    if known is None:
        return False
    now = inputs.stamp(item)
    return now is None or (now.num_bytes, now.modified_ns) == known


def write_record(folder: Path, table: pa.Table, about: dict[str, Any]) -> None:
    """`predictions.parquet`, and behind it `predictions.json`: where that is, all is there."""
    write_table(folder / TABLE_FILE, table)
    text = json.dumps({"schema": ABOUT_SCHEMA, **about}, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(folder / ABOUT_FILE, text.encode() + b"\n")


def write_table(path: Path, table: pa.Table) -> None:
    """A parquet file, whole or absent."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    write_atomically(path, sink.getvalue().to_pybytes())
