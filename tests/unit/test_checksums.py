"""Every sample's checksums: bytes that are not those that were packed are noticed where they are read."""

from __future__ import annotations

import io
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.damage import drop_checksums, flip_behind, flip_bit
from tests.order import order_alone
from tests.unit.test_pack import files
from wsol_dist.cli import main
from wsol_dist.config.data import DataConfig
from wsol_dist.data.images.decode import DecodeError, decode_rgb
from wsol_dist.data.inspection.verify import verify
from wsol_dist.data.shards.index import Index
from wsol_dist.data.shards.shard import read_sample
from wsol_dist.data.stream.stream import ShardReader, evaluation_batches, training_batches

IMAGE = r"the image's bytes are not those that were packed \(crc32 differs\)"
TRUTH = r"the record's or the mask's bytes are not those that were packed \(crc32 differs\)"


def reader(folder: Path, split: str = "test") -> ShardReader:
    return ShardReader(Index.load(folder), split)


def stored_image(shards: ShardReader, row: int) -> bytes:
    """What lies in the tar, whatever the table says."""
    start, size = int(shards.rows.offset[row]), int(shards.rows.bytes[row])
    return read_sample(
        shards.index.path(int(shards.rows.shard[row])).read_bytes()[start : start + size]
    ).image


def scored(folder: Path) -> list[tuple[str, bool, bool]]:
    """Id, whether it decoded, and whether boxes and mask are known, as evaluation has them."""
    batches = evaluation_batches(
        Index.load(folder), split="test", rank=0, world=1, batch_size=8, workers=0, image_px=24
    )
    return [
        (truth.id, decoded, truth.boxes_xyxy is not None and truth.mask is not None)
        for batch in batches
        for truth, decoded in zip(batch.truths, batch.decoded_B.tolist(), strict=True)
    ]


def broken_in_training(folder: Path) -> list[str]:
    index = Index.load(folder)
    data = DataConfig(index=str(folder), workers=0)
    order = order_alone(index, data, global_batch=8, last_step=12)
    return [one for batch in training_batches(index, data, order=order, image_px=24) for one in batch.broken]


def test_the_table_has_the_checksums_of_what_any_tar_reader_finds(tiny_shards: Path) -> None:
    index = Index.load(tiny_shards)
    table = index.table().to_pylist()
    for number, shard in enumerate(index.shards):
        with tarfile.open(index.path(number)) as tar:
            found = {one.name: tar.extractfile(one).read() for one in tar}  # type: ignore[union-attr]
        keys = sorted({name.partition(".")[0] for name in found})
        rows = [row for row in table if row["shard"] == number]
        assert [row["image_crc32"] for row in rows] == [zlib.crc32(found[f"{key}.jpg"]) for key in keys]
        assert [row["truth_crc32"] for row in rows] == [
            zlib.crc32(found[f"{key}.json"] + found[f"{key}.mask.png"]) for key in keys
        ], shard.file


def test_a_flipped_bit_that_decodes_is_noticed_by_every_reader(
    own_shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = reader(own_shards)
    before = decode_rgb(whole.image(2))
    name = flip_bit(own_shards, "test")
    damaged = reader(own_shards)
    assert (decode_rgb(stored_image(damaged, 2)) != before).any()
    for read in (damaged.image, damaged.sample):
        with pytest.raises(DecodeError, match=rf"test-\d+\.tar: {name}: {IMAGE}"):
            read(2)
    assert (damaged.truth(2).boxes_xyxy == whole.truth(2).boxes_xyxy).all()
    assert damaged.truth(2).image == b""
    assert all(damaged.image(row) == whole.image(row) for row in range(len(whole)) if row != 2)
    shown = [line for line in verify(own_shards, workers=1) if name in line]
    assert shown == [line for line in verify(own_shards, deep=True, workers=1) if name in line]
    assert len(shown) == 1
    assert "the image's bytes are not those that were packed" in shown[0]
    assert main(["shards", "show", str(own_shards), name]) == 0
    assert "damage  the image's bytes are not those that were packed" in capsys.readouterr().out


def test_it_is_missed_in_scoring_with_its_truth_and_replaced_in_training(own_shards: Path) -> None:
    in_test, in_train = flip_bit(own_shards, "test"), flip_bit(own_shards, "train", row=11)
    found = scored(own_shards)
    assert [name for name, decoded, _ in found if not decoded] == [in_test]
    assert all(known for _, _, known in found)
    assert broken_in_training(own_shards) == [in_train]


@pytest.mark.parametrize("text", [b'"boxes_xyxy":[[', b"IEND"], ids=["box", "mask"])
def test_a_changed_box_or_mask_is_noticed_too(own_shards: Path, text: bytes) -> None:
    """What is left of such a truth counts nowhere; the image counts as missed."""
    name = flip_behind(own_shards, "test", text)
    damaged = reader(own_shards)
    for read in (damaged.truth, damaged.sample):
        with pytest.raises(DecodeError, match=TRUTH):
            read(2)
    assert damaged.image(2)
    assert [one for one in scored(own_shards) if one[0] == name] == [(name, False, False)]
    assert any(
        name in line and "the record's or the mask's bytes" in line for line in verify(own_shards, workers=1)
    )


def test_shards_without_checksums_are_read_as_before(own_shards: Path) -> None:
    before = [reader(own_shards).sample(row) for row in range(40)]
    drop_checksums(own_shards)
    assert verify(own_shards, deep=True, workers=1) == []
    for row, sample in enumerate(before):
        again = reader(own_shards).sample(row)
        assert (again.id, again.image) == (sample.id, sample.image)
        assert np.array_equal(again.mask, sample.mask)  # type: ignore[arg-type]
    flip_bit(own_shards, "test")
    flip_bit(own_shards, "train")
    assert all(decoded for _, decoded, _ in scored(own_shards))
    assert broken_in_training(own_shards) == []


def test_packing_that_a_version_without_checksums_began_goes_on(tmp_path: Path) -> None:
    sizes = ["--num-train", "16", "--num-val", "8", "--num-test", "8", "--image-px", "32"]
    command = ["shards", "pack", "collage", *sizes, "--samples-per-shard", "8", "--workers", "1", "--out"]
    assert main([*command, str(tmp_path / "whole")]) == 0
    assert main([*command, str(tmp_path / "old"), "--part", "1/2"]) == 0
    for path in (tmp_path / "old").glob("*.done"):
        with pa.ipc.open_file(io.BytesIO(path.read_bytes())) as done:
            table = done.read_all().drop_columns(["image_crc32", "truth_crc32"])
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    assert main([*command, str(tmp_path / "old")]) == 0
    assert files(tmp_path / "old") == files(tmp_path / "whole")
