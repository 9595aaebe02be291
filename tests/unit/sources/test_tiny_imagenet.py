"""Tiny-ImageNet: the folder and the zip give the same, subsets are fixed, the official val is `test`."""

import shutil
from pathlib import Path

import pytest

from tests.unit.sources.images import write_image, write_text
from wsol_dist.cli import execute
from wsol_dist.data.shards.index import Index
from wsol_dist.data.sources import tiny_imagenet
from wsol_dist.errors import UserError

WNIDS = ["n03", "n01", "n02", "n04"]  # not sorted, as in the original


@pytest.fixture
def root(tmp_path):
    base = tmp_path / "tiny-imagenet-200"
    write_text(base / "wnids.txt", "".join(f"{wnid}\n" for wnid in WNIDS))
    write_text(base / "words.txt", "".join(f"{wnid}\tname of {wnid}, other\n" for wnid in reversed(WNIDS)))
    for wnid in WNIDS:
        rows = [f"{wnid}_{number}.JPEG\t{number}\t10\t63\t58\n" for number in range(3)]
        write_text(base / "train" / wnid / f"{wnid}_boxes.txt", "".join(rows))
        for number in range(3):
            write_image(base / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", size_hw=(64, 64))
    rows = [f"val_{number}.JPEG\t{wnid}\t0\t32\t44\t62\n" for number, wnid in enumerate([*WNIDS, *WNIDS])]
    write_text(base / "val/val_annotations.txt", "".join(rows))
    for number in range(8):
        write_image(base / "val" / "images" / f"val_{number}.JPEG", size_hw=(64, 64), shade=number)
    return tmp_path


def open_source(root: Path, **options) -> tiny_imagenet.Source:
    return tiny_imagenet.Source(tiny_imagenet.Options(root=root, **options))


def test_splits_labels_and_boxes(root):
    source = open_source(root)
    items = list(source.items())
    assert source.classes == tuple(f"{wnid} name of {wnid}, other" for wnid in sorted(WNIDS))
    assert (items[0].id, items[0].split, items[0].labels) == ("train/n01/images/n01_0.JPEG", "train", (0,))
    assert (items[12].id, items[12].split, items[12].labels) == ("val/images/val_0.JPEG", "test", (2,))
    assert [len([item for item in items if item.split == split]) for split in ("train", "test")] == [12, 8]
    sample = source.read(items[1])
    assert (sample.boxes_xyxy.tolist(), sample.box_frame_wh) == ([[1, 10, 63, 58]], (64, 64))
    assert sample.image == (root / "tiny-imagenet-200" / items[1].id).read_bytes()
    assert source.read(items[12]).boxes_xyxy.tolist() == [[0, 32, 44, 62]]


def test_the_zip_gives_the_same_as_the_folder(root):
    expected = open_source(root)
    path = shutil.make_archive(
        str(root / "elsewhere" / "tiny-imagenet-200"), "zip", root, "tiny-imagenet-200"
    )
    for given in (Path(path), Path(path).parent):  # the zip itself, and the folder it was loaded to
        source = open_source(given)
        assert list(source.items()) == list(expected.items())
        for item in source.items():
            assert source.read(item).image == expected.read(item).image


def test_subsets_are_the_same_every_time(root):
    source = open_source(root, classes=2, per_class=2)
    assert [name.partition(" ")[0] for name in source.classes] == ["n01", "n03"]
    items = list(source.items())
    assert [item.id.rpartition("/")[2] for item in items if item.split == "train"] == [
        "n01_0.JPEG", "n01_1.JPEG", "n03_0.JPEG", "n03_1.JPEG"
    ]  # fmt: skip
    assert [item.labels for item in items if item.split == "test"] == [(1,), (0,), (1,), (0,)]
    assert source.known_counts == {"train": 4, "test": 100, "classes": 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 0}, "1 to 4 allowed"),
        ({"classes": 5}, "1 to 4"),
        ({"per_class": 0}, "--per-class: 0 given"),
    ],
)
def test_subsets_that_are_none(root, options, message):
    with pytest.raises(UserError, match=message):
        open_source(root, **options)


def test_a_row_of_boxes_that_does_not_parse_is_named(root):
    path = root / "tiny-imagenet-200/train/n02/n02_boxes.txt"
    path.write_text("n02_0.JPEG\t1\t2\t3\n")
    with pytest.raises(UserError, match=r"n02_boxes\.txt: row 1"):
        open_source(root)
    path.write_text("n02_0.JPEG\t1\t2\t3\tx\n")
    with pytest.raises(UserError, match=r"n02_boxes\.txt.*whole number"):
        open_source(root)
    path.write_text("")
    with pytest.raises(UserError, match=r"n02_boxes\.txt: a class without images"):
        open_source(root)


def test_what_is_missing_is_one_line_and_an_error_with_complete(root, capsys):
    flags = ["pack", "tiny-imagenet", "--root", str(root), "--workers", "1", "--val-fraction", "0.3"]
    assert execute(["shards", *flags, "--out", str(root / "out")]) == 0
    assert (
        "not the whole data set: 12 of 100,000 train images, 8 of 10,000 test images, 4 of 200 classes"
        in capsys.readouterr().out
    )
    assert list(Index.load(root / "out").splits) == ["train", "test", "val"]
    with pytest.raises(UserError, match=r"--complete: .*12 of 100,000 train images"):
        execute(["shards", *flags, "--out", str(root / "other"), "--complete"])
    assert not (root / "other").exists()


def test_the_real_zip(real_data, tmp_path):
    source = open_source(real_data / "tiny-imagenet-200.zip")
    items = list(source.items())
    assert len(source.classes) == 200
    assert [len([item for item in items if item.split == split]) for split in ("train", "test")] == [
        40_000,
        2000,
    ]
    assert all(source.read(item).boxes_xyxy.shape == (1, 4) for item in items[::50])
    flags = ["--root", str(real_data), "--classes", "10", "--per-class", "30", "--samples-per-shard", "50"]
    for workers in ("1", "3"):
        assert (
            execute(
                [
                    "shards",
                    "pack",
                    "tiny-imagenet",
                    *flags,
                    "--out",
                    str(tmp_path / workers),
                    "--workers",
                    workers,
                ]
            )
            == 0
        )
    one, three = ({path.name: path.read_bytes() for path in (tmp_path / n).iterdir()} for n in ("1", "3"))
    assert one == three
    assert len(one) > 8
