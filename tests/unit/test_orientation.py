"""The EXIF orientation of PNGs and WebPs, wherever it lies in the file; JPEGs are in the table of faults."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from wsol_dist.data.images.decode import decode_rgb
from wsol_dist.data.images.orientation import PNG, TAG, UPRIGHT, orientation

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (180, 200, 3), dtype=np.uint8))


def tag(turned: int) -> bytes:
    exif = Image.Exif()
    exif[TAG] = turned
    return exif.tobytes()


def saved(kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    NOISE.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def behind_the_pixels(exif: bytes) -> bytes:
    plain = saved("png")
    end = plain.rindex(b"IEND") - 4
    assert end > 65_536
    return plain[:end] + chunk(b"eXIf", exif) + plain[end:]


@pytest.mark.parametrize("turned", range(1, 9))
def test_wherever_it_lies_the_picture_is_shown_as_pil_shows_it(turned: int) -> None:
    exif = tag(turned)
    bare = exif.removeprefix(b"Exif\0\0")
    files = [saved("png", exif=exif), behind_the_pixels(bare), saved("webp", lossless=True, exif=exif)]
    files.append(behind_the_pixels(b"Exif\0\0" + bare))  # as some write it
    for data in files:
        assert orientation(data) == turned
        with Image.open(io.BytesIO(data)) as image:
            expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        assert (decode_rgb(data) == expected).all()


def test_chunks_that_lie() -> None:
    whole = behind_the_pixels(tag(6).removeprefix(b"Exif\0\0"))
    place = whole.rindex(b"eXIf")
    assert orientation(whole[: place + 6]) == UPRIGHT  # cut off
    assert orientation(PNG + b"\xff\xff\xff\xffIDAT" + whole[place - 4 :]) == UPRIGHT
    in_the_pixels = PNG + chunk(b"IDAT", whole[place - 4 :]) + chunk(b"IEND", b"")
    assert orientation(in_the_pixels) == UPRIGHT


def test_pixels_are_not_unpacked_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("the pixels are unpacked"))
    buffer = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(buffer, "png")
    plain = buffer.getvalue()
    assert len(plain) < 65_536
    assert orientation(plain[:-12] + chunk(b"eXIf", b"MM\0*") + plain[-12:]) == UPRIGHT
