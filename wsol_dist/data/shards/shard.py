"""One shard: a tar of samples that stock webdataset reads, and that can be read at any sample's byte offset.

A sample is a run of members with one key: `KEY.jpg` (or png, webp, bmp: the original bytes), `KEY.json`, and
`KEY.mask.png` where there is a mask. Headers are plain ustar with constant owner, mode and time, so that the
same samples always give the same bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from wsol_dist.data.images import arrays
from wsol_dist.data.images.decode import image_problem
from wsol_dist.data.images.orientation import TURNED, UPRIGHT, orientation, without_orientation
from wsol_dist.data.shards.check import IMAGE_EXTENSIONS, check_sample, reaches_out
from wsol_dist.data.shards.sample import Sample
from wsol_dist.errors import UserError
from wsol_dist.files import whole_or_absent

BLOCK = 512
"""Bytes of a tar header, and the multiple to which a member's bytes are padded."""
END_OF_TAR = bytes(2 * BLOCK)
_PLAIN = tarfile.TarInfo("").tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")
"""The header of an empty file without a name."""
_RECORD = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
_SUM_OF_PLAIN = int(_PLAIN[148:154], 8) - sum(_PLAIN[124:136])


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What `samples.parquet` holds of one sample."""

    id: str
    split: str
    shard: int
    """Position in the index's list of shards."""
    offset: int
    """Of the sample's first tar header, in bytes from the start of the tar."""
    bytes: int
    """From there to the end of its last padded member."""
    labels: tuple[int, ...]
    width: int
    """Of the stored image, in pixels; 0 where the header is unreadable."""
    height: int
    num_boxes: int
    has_mask: bool
    image_crc32: int
    """Of the image's bytes as they are stored."""
    truth_crc32: int
    """Of the record's bytes, and the mask's behind them."""


@dataclass(frozen=True, kw_only=True)
class WrittenShard:
    """What packing needs to know of a finished tar."""

    rows: tuple[Row, ...]
    bytes: int
    sha256: str
    broken: dict[str, str]
    """Images that do not decode: id and why. They are stored all the same, evaluation counts them as misses."""
    reaching_out: tuple[str, ...]
    """Ids of samples with a box more than a pixel beyond the image."""
    semantic: bool
    """Whether a mask says the class of every pixel."""
    box_labels: bool
    """Whether boxes say their class."""


class StoredSample(NamedTuple):
    """One sample as its shard has it, nothing decoded."""

    image: bytes
    """The original file's bytes."""
    extension: str
    record: dict[str, Any]
    """`id`, `labels`, `boxes_xyxy` (or None), `box_frame_wh` (or None); in multi-label sets `box_labels`, and
    `semantic` for a mask that says the class of every pixel."""
    mask_png: bytes | None
    record_json: bytes
    """The bytes that `record` was parsed from."""

    @property
    def image_crc32(self) -> int:
        """As in `Row`, of the bytes that are there now."""
        return zlib.crc32(self.image)

    @property
    def truth_crc32(self) -> int:
        """As in `Row`, of the bytes that are there now."""
        return _truth_crc32(self.record_json, self.mask_png)


def write_shard(path: Path, samples: Iterable[tuple[int, Sample]], *, split: str, shard: int) -> WrittenShard:
    """Write (ordinal, sample) pairs as one tar; the file appears under its name only when it is whole.

    Args:
        path: of the tar.
        samples: the ordinal is unique in the data set and becomes the webdataset key.
        split: name for the rows.
        shard: number for the rows.

    Raises:
        UserError: a sample that could not be read back whole, or an id that came before; no tar is there then.
    """
    rows, ids, sha256, position = [], set(), hashlib.sha256(), 0
    broken, reaching_out = {}, []
    semantic = box_labels = False
    with whole_or_absent(path) as file:
        for ordinal, sample in samples:
            members = _members(ordinal, sample)
            blob = _joined(members)
            if sample.id in ids:
                raise UserError(f"two samples are named {sample.id!r}; ids must differ")
            ids.add(sample.id)
            row = _row(sample, members, split=split, shard=shard, offset=position, num_bytes=len(blob))
            rows.append(row)
            if problem := image_problem(sample.image, (row.width, row.height)):
                broken[sample.id] = problem
            if reaches_out(sample):
                reaching_out.append(sample.id)
            semantic |= sample.semantic
            box_labels |= sample.box_labels is not None
            sha256.update(blob)
            position += file.write(blob)
        sha256.update(END_OF_TAR)
        position += file.write(END_OF_TAR)
    return WrittenShard(
        rows=tuple(rows),
        bytes=position,
        sha256=sha256.hexdigest(),
        broken=broken,
        reaching_out=tuple(reaching_out),
        semantic=semantic,
        box_labels=box_labels,
    )


def encode_sample(ordinal: int, sample: Sample) -> bytes:
    """The members of one sample as they lie in a tar; the same sample always gives the same bytes.

    Raises:
        UserError: as `check_sample`.
    """
    return _joined(_members(ordinal, sample))


def tar_member(name: str, data: bytes) -> bytes:
    """A file as it lies in a tar: header, bytes, padding."""
    return b"".join(_pieces(name, data))


def _joined(members: list[tuple[str, bytes]]) -> bytes:
    return b"".join(piece for name, data in members for piece in _pieces(name, data))


def _pieces(name: str, data: bytes) -> tuple[bytes, bytes, bytes]:
    return tar_header(name, len(data)), data, bytes(-len(data) % BLOCK)


def tar_header(name: str, size: int) -> bytes:
    """The header of a member of `size` bytes. Owner 0, no names, mode 0644, time 0: nothing of this machine gets in."""
    # Two fields and the sum over all differ from header to header; tarfile takes as long as reading a small image.
    name_field, size_field = name.encode("ascii").ljust(100, b"\0"), f"{size:011o}\0".encode()
    if len(name_field) > 100 or len(size_field) > 12:
        raise UserError(f"{name}: {size} bytes: a tar member has at most 8 GiB and a name of 100 bytes")
    total = f"{_SUM_OF_PLAIN + sum(name_field) + sum(size_field):06o}".encode()
    return b"".join((name_field, _PLAIN[100:124], size_field, _PLAIN[136:148], total, _PLAIN[154:]))


def read_sample(blob: bytes) -> StoredSample:
    """Parse the bytes of one sample: the range `offset`, `bytes` of its row.

    Raises:
        ValueError: not a run of plain ustar members of one key with an image and a record.
    """
    image: bytes | None = None
    extension, record, record_json, mask_png, key = "", None, b"", None, None
    for name, data in _parse_members(blob):
        member_key, _, suffix = name.partition(".")
        if key not in (None, member_key):
            raise ValueError(f"members of two samples: {key!r} and {member_key!r}")
        key = member_key
        if suffix == "json":
            record, record_json = json.loads(data), data
        elif suffix == "mask.png":
            mask_png = data
        elif suffix in IMAGE_EXTENSIONS:
            image, extension = data, suffix
        else:
            raise ValueError(f"unknown member {name!r}")
    if image is None or not isinstance(record, dict) or not {"id", "labels"} <= record.keys():
        raise ValueError(f"sample {key!r} lacks an image or a record")
    return StoredSample(image, extension, record, mask_png, record_json)


CRC32 = {"image_crc32": "the image's bytes", "truth_crc32": "the record's or the mask's bytes"}
"""Checksums of a sample by their name in `Row` and `StoredSample`."""


def changed(stored: StoredSample, name: str, packed: int | None) -> str | None:
    """One line where bytes are not those that were packed.

    Args:
        name: one of `CRC32`.
        packed: what the row says; None or below 0 in shards without checksums, of which nothing is said.
    """
    if packed is None or packed < 0 or getattr(stored, name) == packed:
        return None
    return f"{CRC32[name]} are not those that were packed (crc32 differs)"


def to_sample(stored: StoredSample) -> Sample:
    """The stored sample with boxes as an array and the mask decoded; the image stays encoded.

    Raises:
        ValueError: the mask does not decode; the boxes are not rows of four numbers.
    """
    boxes, frame = stored.record.get("boxes_xyxy"), stored.record.get("box_frame_wh")
    box_labels = stored.record.get("box_labels")
    return Sample(
        id=stored.record["id"],
        image=stored.image,
        extension=stored.extension,
        labels=tuple(stored.record["labels"]),
        boxes_xyxy=None if boxes is None else np.asarray(boxes, dtype=np.float64).reshape(-1, 4),
        box_frame_wh=None if frame is None else (int(frame[0]), int(frame[1])),
        box_labels=None if box_labels is None else tuple(box_labels),
        mask=None if stored.mask_png is None else decode_mask(stored.mask_png),
        semantic=stored.record.get("semantic", False),
    )


def decode_mask(png: bytes) -> np.ndarray:
    """(H, W) uint8 as in `Sample.mask`.

    Raises:
        ValueError: empty, damaged, in another format or larger than MAX_PIXELS.
    """
    try:
        return arrays.decode(png, "png")
    except ValueError as error:
        raise ValueError(f"a mask that is {error}") from error


def image_size(data: bytes) -> tuple[int, int]:
    """Width and height of the upright picture from the image's header, (0, 0) where it is unreadable."""
    width, height = _jpeg_size(data) or _any_size(data)
    return (height, width) if orientation(data) in TURNED else (width, height)


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Of a JPEG whose header libjpeg reads: PIL takes ten times as long."""
    if not simplejpeg.is_jpeg(data):
        return None
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    except (ValueError, KeyError):
        return None
    return width, height


def _any_size(data: bytes) -> tuple[int, int]:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.size
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return (0, 0)


def in_box_frame(sample: Sample) -> Sample:
    """The sample, shown as its boxes have it: upright, or as stored where the boxes' frame is the stored one.

    Raises:
        UserError: the latter, in a format whose orientation cannot be reset.
    """
    if sample.box_frame_wh is None or orientation(sample.image) not in TURNED:
        return sample
    if sample.box_frame_wh != image_size(sample.image)[::-1]:
        return sample
    image = without_orientation(sample.image)
    if orientation(image) != UPRIGHT:
        raise UserError(
            f"{sample.id}: boxes are given for {sample.box_frame_wh[0]} x {sample.box_frame_wh[1]} pixels, but its "
            "EXIF orientation swaps the sides; store the image upright, or give the boxes as a viewer shows it"
        )
    return dataclasses.replace(sample, image=image)


def _members(ordinal: int, sample: Sample) -> list[tuple[str, bytes]]:
    """Image, record and, where there is one, mask."""
    check_sample(sample)
    key = f"{ordinal:09d}"
    record: dict[str, Any] = {
        "id": sample.id,
        "labels": list(sample.labels),
        "boxes_xyxy": None
        if sample.boxes_xyxy is None
        else np.asarray(sample.boxes_xyxy, np.float64).tolist(),
        "box_frame_wh": None if sample.box_frame_wh is None else list(sample.box_frame_wh),
    }
    if sample.box_labels is not None:
        record["box_labels"] = list(sample.box_labels)
    if sample.semantic:
        record["semantic"] = True
    text = _RECORD.encode(record)
    members = [(f"{key}.{sample.extension}", sample.image), (f"{key}.json", text.encode())]
    if sample.mask is not None:
        members.append((f"{key}.mask.png", _encode_mask(sample.mask)))
    return members


def _encode_mask(mask: np.ndarray) -> bytes:
    ok, png = cv2.imencode(".png", mask, [cv2.IMWRITE_PNG_COMPRESSION, 6])
    assert ok
    return png.tobytes()


def _truth_crc32(record_json: bytes, mask_png: bytes | None) -> int:
    return zlib.crc32(mask_png or b"", zlib.crc32(record_json))


def _row(
    sample: Sample, members: list[tuple[str, bytes]], *, split: str, shard: int, offset: int, num_bytes: int
) -> Row:
    image, record_json, *mask_png = (data for _, data in members)
    width, height = image_size(sample.image)
    return Row(
        id=sample.id,
        split=split,
        shard=shard,
        offset=offset,
        bytes=num_bytes,
        labels=sample.labels,
        width=width,
        height=height,
        num_boxes=0 if sample.boxes_xyxy is None else len(sample.boxes_xyxy),
        has_mask=sample.mask is not None,
        image_crc32=zlib.crc32(image),
        truth_crc32=_truth_crc32(record_json, mask_png[0] if mask_png else None),
    )


def _parse_members(blob: bytes) -> Iterable[tuple[str, bytes]]:
    """Names and bytes of a run of regular ustar members; stricter than tarfile, as bytes are untrusted."""
    start = 0
    while start < len(blob):
        header = blob[start : start + BLOCK]
        if len(header) < BLOCK or header[257:262] != b"ustar":
            raise ValueError(f"no tar header at byte {start} of the sample")
        if header[156:157] not in (b"0", b"\0"):
            raise ValueError(f"no regular file at byte {start} of the sample")
        name, size = _text(header[0:100]), _octal(header[124:136])
        if not name or "/" in name or "\\" in name or ".." in name or header[345] != 0:
            raise ValueError(f"refused member name {name!r}")
        end = start + BLOCK + size
        if end > len(blob):
            raise ValueError(f"member {name!r} ends at byte {end} of a sample of {len(blob)} bytes")
        yield name, blob[start + BLOCK : end]
        start = end + -size % BLOCK


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("ascii", errors="strict")


def _octal(field: bytes) -> int:
    digits = field.strip(b" \0")
    if not digits.isdigit():
        raise ValueError(f"tar size {digits!r} is no octal number")
    return int(digits, 8)
