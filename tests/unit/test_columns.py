"""Derived columns: a tar beside each image tar, resumable by the shard, read by position."""

from __future__ import annotations

import dataclasses
import io
import os
from pathlib import Path

import numpy as np
import pytest
import webdataset

from tests.damage import break_image
from wsol_dist.data.images.arrays import decode, encode
from wsol_dist.data.shards.columns import BEGUN_FILE, COLUMN_FILE, About, Column, ColumnWriter
from wsol_dist.data.shards.index import Index
from wsol_dist.errors import UserError


def about(index: Index, **changes: object) -> About:
    base = About(
        name="labels",
        extension="png",
        splits=("val", "test"),
        source=index.sha256,
        settings={"clusters": 4, "widths": (1, 2)},
        command="wsol cluster",
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def value(split: str, row: int) -> np.ndarray:
    return np.full((3 + row % 4, 5), row + 100 * (split == "val"), np.uint8)


def write(writer: ColumnWriter, number: int) -> None:
    split = writer.index.shards[number].split
    with writer.shard(number) as shard:
        for row in writer.positions(number):
            shard.add(None if (split, row) == ("test", 5) else encode(value(split, row), "png"))


def write_half(writer: ColumnWriter, number: int) -> None:
    with writer.shard(number) as shard:
        shard.add(b"half")
        raise KeyboardInterrupt


def write_all(folder: Path, index: Index) -> list[int]:
    """Writes what is missing; returns which shards that were."""
    writer = ColumnWriter(folder, index, about(index))
    todo = writer.todo()
    for number in todo:
        write(writer, number)
    writer.finish()
    return todo


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


def test_every_value_comes_back_at_its_row(tiny_shards: Path, tmp_path: Path) -> None:
    index = Index.load(tiny_shards)
    assert len(write_all(tmp_path / "labels", index)) == 3 + 5
    column = Column.open(tmp_path / "labels", index)
    for split in ("val", "test"):
        for row in range(len(index.rows(split))):
            found = column.value(split, row)
            if (split, row) == ("test", 5):
                assert found is None
            else:
                assert found is not None
                np.testing.assert_array_equal(found, value(split, row))
    assert (column.about.command, column.about.settings["clusters"]) == ("wsol cluster", 4)
    with pytest.raises(UserError, match="does not cover split 'train', only val, test"):
        column.data("train", 0)


def test_stock_webdataset_joins_it_by_key(tiny_shards: Path, tmp_path: Path) -> None:
    index = Index.load(tiny_shards)
    write_all(tmp_path / "labels", index)
    both = [
        list(webdataset.WebDataset(str(folder / "test-000001.tar"), shardshuffle=False, empty_check=False))  # noqa: TID251 - as its users do
        for folder in (tiny_shards, tmp_path / "labels")
    ]
    assert [one["__key__"] for one in both[0]] == [one["__key__"] for one in both[1]]
    assert both[1][0]["labels.png"][:4] == b"\x89PNG"


def test_a_killed_writer_goes_on_where_it_was_and_a_second_run_does_nothing(
    tiny_shards: Path, tmp_path: Path
) -> None:
    index = Index.load(tiny_shards)
    write_all(tmp_path / "whole", index)
    folder = tmp_path / "labels"
    writer = ColumnWriter(folder, index, about(index))
    todo = writer.todo()
    for number in todo[:3]:
        write(writer, number)
    with pytest.raises(KeyboardInterrupt):
        write_half(writer, todo[3])
    (folder / "test-000002.tar.99.tmp").write_bytes(b"left by a writer that was killed")
    with pytest.raises(UserError, match="its writing did not finish"):
        Column.open(folder, index)
    before = files(folder)
    assert write_all(folder, index) == todo[3:]
    after = files(folder)
    assert all(after[name] == before[name] for name in before if name.endswith(".tar"))
    assert {name: data for name, (_, data) in after.items()} == {
        name: data for name, (_, data) in files(tmp_path / "whole").items()
    }
    assert write_all(folder, index) == []
    assert files(folder) == after
    assert BEGUN_FILE not in after


def test_two_processes_share_the_shards(tiny_shards: Path, tmp_path: Path) -> None:
    index = Index.load(tiny_shards)
    first, second = (ColumnWriter(tmp_path / "labels", index, about(index)) for _ in range(2))
    numbers = first.todo()
    for writer, share in ((first, numbers[0::2]), (second, numbers[1::2])):
        for number in share:
            write(writer, number)
    first.finish()
    assert Column.open(tmp_path / "labels", index).value("test", 7) is not None


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("changes", [{"settings": {"clusters": 5}}, {"name": "map"}, {"splits": ("test",)}])
def test_another_column_is_not_mixed_in(
    tiny_shards: Path, tmp_path: Path, changes: dict[str, object], finished: bool
) -> None:
    index = Index.load(tiny_shards)
    if finished:
        write_all(tmp_path / "labels", index)
    else:
        ColumnWriter(tmp_path / "labels", index, about(index))
    ColumnWriter(tmp_path / "labels", index, about(index, command="the same in other words"))
    with pytest.raises(UserError, match=f"holds another column \\({next(iter(changes))} differ"):
        ColumnWriter(tmp_path / "labels", index, about(index, **changes))


def test_too_few_values_leave_no_tar(tiny_shards: Path, tmp_path: Path) -> None:
    index = Index.load(tiny_shards)
    writer = ColumnWriter(tmp_path / "labels", index, about(index))
    with pytest.raises(AssertionError, match="1 of 8 values"), writer.shard(writer.todo()[0]) as shard:
        shard.add(b"one")
    assert len(writer.todo()) == 8


def test_a_column_of_other_shards_or_a_damaged_one_is_refused(own_shards: Path, tmp_path: Path) -> None:
    index = Index.load(own_shards)
    folder = tmp_path / "labels"
    write_all(folder, index)
    other = dataclasses.replace(index, sha256="0" * 64)
    with pytest.raises(UserError, match="a column of other shards"):
        Column.open(folder, other)
    os.truncate(folder / "test-000003.tar", 600)
    with pytest.raises(UserError, match=r"test-000003.tar: truncated: \d+ bytes expected, 600 found"):
        Column.open(folder, index)
    (folder / COLUMN_FILE).write_text((folder / COLUMN_FILE).read_text().replace("test-000003", "../escape"))
    with pytest.raises(UserError, match="refused file name"):
        Column.open(folder, index)
    with pytest.raises(UserError, match=r"no column.json in it: no column"):
        Column.open(tmp_path, index)


def test_a_sample_whose_header_is_damaged_still_has_its_place(own_shards: Path, tmp_path: Path) -> None:
    index = Index.load(own_shards)
    rows = index.rows("test")
    with index.path(int(rows.shard[2])).open("r+b") as tar:
        tar.seek(int(rows.offset[2]))
        tar.write(b"\xff" * 64)
    write_all(tmp_path / "labels", index)
    found = Column.open(tmp_path / "labels", index).value("test", 2)
    assert found is not None
    np.testing.assert_array_equal(found, value("test", 2))


def test_arrays_of_objects_and_headers_that_lie_are_refused() -> None:
    array = np.arange(6, dtype=np.float16).reshape(2, 3)
    np.testing.assert_array_equal(decode(encode(array, "npy"), "npy"), array)
    file = io.BytesIO()
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="dtype object"):
        decode(file.getvalue(), "npy")
    lying = encode(array, "npy").replace(b"(2, 3)", b"(2,99)")
    with pytest.raises(ValueError, match=r"shape \(2, 99\)"):
        decode(lying, "npy")
    with pytest.raises(ValueError, match="no 8-bit grey PNG"):
        decode(b"nothing", "png")


def test_damaged_images_do_not_matter_to_the_writer(own_shards: Path, tmp_path: Path) -> None:
    break_image(own_shards, "test", row=4)
    assert write_all(tmp_path / "labels", Index.load(own_shards))
