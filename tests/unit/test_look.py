"""`wsol shards ls`, `show` and `cat`: what is said is what is there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from wsol_dist.cli import execute
from wsol_dist.data.inspection.look import size_text
from wsol_dist.data.shards.index import Index
from wsol_dist.data.shards.shard import decode_mask
from wsol_dist.data.sources import collage
from wsol_dist.errors import UserError

CAT = "train/cat/000002"


def said(capsys: pytest.CaptureFixture[str], *words: object) -> list[str]:
    assert execute(["shards", *map(str, words)]) == 0
    return capsys.readouterr().out.splitlines()


def test_ls_counts_what_is_there(tiny_shards: Path, capsys) -> None:
    lines = said(capsys, "ls", tiny_shards)
    assert lines[0] == f"{tiny_shards}: collage, 8 classes, columns image, labels, boxes_xyxy, mask, seed 0"
    index = Index.load(tiny_shards)
    for split, count in (("train", 96), ("val", 24), ("test", 40)):
        (line,) = [line for line in lines if line.startswith(split)]
        num_shards = sum(shard.split == split for shard in index.shards)
        num_bytes = sum(shard.bytes for shard in index.shards if shard.split == split)
        boxes = int(index.rows(split).num_boxes.sum())
        words = line.split()
        assert words[1:3] == [str(count), str(num_shards)]
        assert size_text(num_bytes) in line
        assert words[7:9] == [str(boxes), str(count)]
        assert line.endswith(f"{count // 8} to {count // 8}")
    assert lines[-1] == "classes: " + "; ".join(collage.CLASSES)


@pytest.mark.parametrize("by", ["id", "row"])
def test_show_tells_one_sample(tiny_shards: Path, capsys, by: str) -> None:
    index = Index.load(tiny_shards)
    number = index.table()["id"].to_pylist().index(CAT)
    row = index.table().slice(number, 1).to_pylist()[0]
    text = "\n".join(said(capsys, "show", tiny_shards, CAT if by == "id" else number))
    assert f"id      {CAT}\nsplit   train\nclass   2 cat\n" in text
    assert "image   jpg, 32 x 32 px, " in text
    where = f"{row['bytes']} bytes from byte {row['offset']} on"
    assert f"place   {index.shards[row['shard']].file}, {where}" in text
    source = collage.Source(collage.Options(num_train=96, num_val=24, num_test=40, image_px=32))
    sample = source.read(next(item for item in source.items() if item.id == CAT))
    assert sample.boxes_xyxy is not None
    assert sample.mask is not None
    assert f"boxes   {len(sample.boxes_xyxy)} in a frame of 32 x 32 px" in text
    for x0, y0, x1, y1 in sample.boxes_xyxy.tolist():
        assert f"x0 {x0:g}  y0 {y0:g}  x1 {x1:g}  y1 {y1:g}" in text
    assert f"object {(sample.mask == 1).mean():.1%}" in text


def test_cat_gives_the_stored_bytes(tiny_shards: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    source = collage.Source(collage.Options(num_train=96, num_val=24, num_test=40, image_px=32))
    sample = source.read(next(item for item in source.items() if item.id == CAT))
    given = {}
    for which in ("image", "json", "mask"):
        assert execute(["shards", "cat", str(tiny_shards), CAT, "--member", which]) == 0
        given[which] = capsysbinary.readouterr().out
    assert execute(["shards", "cat", str(tiny_shards), CAT]) == 0
    assert capsysbinary.readouterr().out == given["image"] == sample.image
    assert json.loads(given["json"])["labels"] == [2]
    assert (decode_mask(given["mask"]) == sample.mask).all()


def test_cat_without_a_mask_and_names_that_are_not_there(tmp_path: Path, tiny_shards: Path) -> None:
    (tmp_path / "photos" / "a").mkdir(parents=True)
    (tmp_path / "photos" / "b").mkdir()
    for name in ("a/7.png", "b/8.png"):
        (tmp_path / "photos" / name).write_bytes(b"\x89PNG of no kind")
    out = tmp_path / "out"
    flags = ["--root", str(tmp_path / "photos"), "--val-fraction", "0", "--max-bad", "1", "--workers", "1"]
    assert execute(["shards", "pack", "folder", *flags, "--out", str(out)]) == 0
    assert execute(["shards", "show", str(out), "a/7.png"]) == 0
    with pytest.raises(UserError, match=r"a/7\.png: has no mask; image and json are there"):
        execute(["shards", "cat", str(out), "a/7.png", "--member", "mask"])
    for name in ("train/dog", "160", "-1", "1" * 40, "²"):
        with pytest.raises(
            UserError, match=rf"no sample {re.escape(repr(name))}; .*rows count from 0 to 159"
        ):
            execute(["shards", "cat", str(tiny_shards), "--", name])


def test_damage_of_a_sample_is_said(own_shards: Path, capsys) -> None:
    index = Index.load(own_shards)
    rows = index.rows("test")
    with index.path(int(rows.shard[0])).open("r+b") as tar:
        tar.seek(int(rows.offset[0]))
        tar.write(b"\0" * 512)
    with pytest.raises(UserError, match=r"no tar header.*wsol shards verify .* lists all damage"):
        execute(["shards", "show", str(own_shards), rows.ids[0].as_py()])


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (2**20, "1.0 MiB"), (3 * 2**29, "1.50 GiB")],
)
def test_sizes(num_bytes: int, text: str) -> None:
    assert size_text(num_bytes) == text
