"""Masks of a few kilobytes that would unpack to gigabytes are refused by their header; no decoder sees them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from wsol_dist.data.images import arrays
from wsol_dist.data.images.decode import MAX_PIXELS
from wsol_dist.data.raw.coco_file import CocoFile
from wsol_dist.data.raw.masks import decode_runs, read_colours, read_indices
from wsol_dist.data.shards.shard import decode_mask
from wsol_dist.errors import UserError

SIDE = 12_000
TOLD = f"{SIDE} x {SIDE} pixels, more than {MAX_PIXELS}"


def bomb(kind: str = "png") -> bytes:
    buffer = io.BytesIO()
    Image.new("1" if kind == "png" else "L", (SIDE, SIDE)).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def no_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    def reached(*arguments: object, **options: object) -> None:
        pytest.fail("the pixels are unpacked")

    monkeypatch.setattr(cv2, "imdecode", reached)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", reached)


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("decode", [decode_mask, lambda data: arrays.decode(data, "png")])
def test_a_stored_mask(decode: Callable[[bytes], np.ndarray]) -> None:
    data = bomb()
    assert len(data) < 100_000
    with pytest.raises(ValueError, match=TOLD):
        decode(data)


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize(
    ("read", "kind"), [(read_colours, "png"), (read_colours, "jpeg"), (read_indices, "png")]
)
def test_a_mask_of_a_data_set(tmp_path: Path, read: Callable[[Path], np.ndarray], kind: str) -> None:
    path = tmp_path / "mask"
    path.write_bytes(bomb(kind))
    with pytest.raises(UserError, match=f"{path}: cannot read this mask: {TOLD}"):
        read(path)


def test_masks_up_to_the_limit_and_what_is_none(tmp_path: Path) -> None:
    path = tmp_path / "mask"
    path.write_bytes(arrays.encode(np.full((3, 4), 7, np.uint8), "png"))
    assert (read_colours(path) == np.full((3, 4, 3), 7)).all()
    assert (read_indices(path) == np.full((3, 4), 7)).all()
    for data in (b"", b"nothing of the kind", path.read_bytes()[:40]):
        path.write_bytes(data)
        for read in (read_colours, read_indices):
            with pytest.raises(UserError, match="cannot read this mask") as error:
                read(path)
            assert "0x" not in str(error.value)


def test_sizes_in_a_json_file(tmp_path: Path) -> None:
    image = {"id": 3, "file_name": "a.jpg", "width": SIDE, "height": SIDE}
    path = tmp_path / "own.json"
    path.write_text(json.dumps({"images": [image], "categories": [], "annotations": []}))
    with pytest.raises(UserError, match=rf"own\.json: not a file of COCO's format: .*{TOLD}"):
        CocoFile(path)


def test_runs_whose_sum_overflows() -> None:
    wrapped = [2**62, 2**62, 2**62, 2**62, 12]  # 12 in 64 bits
    with pytest.raises(ValueError, match="run lengths of 3 x 4"):
        decode_runs(wrapped, (3, 4))
