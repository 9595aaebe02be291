"""A data set looked through: sizes, damage and duplicates are those that were put in, on the page too."""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.flaky import FlakyServer
from wsol_dist.cli import execute
from wsol_dist.data.inspection.duplicates import find_duplicates
from wsol_dist.data.inspection.survey import GRID, Survey, spread_out, survey
from wsol_dist.data.packing.pack import PackOptions, make_plan, pack
from wsol_dist.data.shards.cache import CACHE_VARIABLE
from wsol_dist.data.shards.index import Index
from wsol_dist.data.shards.sample import IGNORE, Item, Sample
from wsol_dist.data.sources import collage

EVIL = "<script>alert('x')</script>"


def picture(number: int) -> np.ndarray:
    """A smooth one, another for each number: (90, 120, 3) uint8."""
    coarse = np.random.default_rng(number).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (120, 90), interpolation=cv2.INTER_CUBIC)


def jpeg(image: np.ndarray, quality: int = 92) -> bytes:
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


class Pictures:
    """Thirty pictures of two classes; some of them twice, one broken, each with a box, the first with a mask."""

    classes = ("cat", EVIL)
    known_counts: dict[str, int] = {}

    def items(self) -> Iterator[Item]:
        for number in range(30):
            split = ("train", "train", "test")[number % 3]
            yield Item(id=f"{split}/{number}", split=split, labels=(number % 2,), where=number)

    def read(self, item: Item) -> Sample:
        number = int(item.where)
        image = jpeg(picture(number))
        if number == 5:  # in test and labelled 1, the bytes of number 0, in train and labelled 0
            image = jpeg(picture(0))
        if number == 8:  # in test, number 4 of train: smaller, and compressed again
            image = jpeg(cv2.resize(picture(4), (80, 60), interpolation=cv2.INTER_AREA), quality=60)
        if number == 9:
            image = image[: len(image) // 2] + b"\xff\xd9"
        mask = None
        if number == 0:
            mask = np.zeros((90, 120), np.uint8)
            mask[:45], mask[:, :30] = 1, IGNORE
        return Sample(
            id=item.id,
            image=image,
            extension="jpg",
            labels=item.labels,
            boxes_xyxy=np.array([[0.0, 0.0, 600.0, 225.0]]),
            box_frame_wh=(600, 450),
            mask=mask,
        )


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pictures") / "shards"
    options = PackOptions(out=out, workers=1, samples_per_shard=7, val_fraction=0.0, max_bad=0.1)
    pack(make_plan("pictures", Pictures(), collage.Options(), options), Pictures(), options)
    return out


@pytest.fixture(scope="module")
def found(packed: Path) -> Survey:
    return survey(Index.load(packed), workers=1)


def test_what_was_put_in_is_found(found: Survey) -> None:
    assert len(found) == 30
    assert [found.ids[row] for row in found.broken] == ["train/9"]
    assert found.damaged == []
    # The broken image's box is known all the same, it is in the record.
    assert np.allclose(found.box_share, 0.5)
    assert np.allclose(found.box_grid[: GRID // 2], 1)
    assert np.allclose(found.box_grid[GRID // 2 :], 0)
    row = found.ids.index("train/0")
    assert found.mask_share[row] == 0.5
    assert np.isnan(np.delete(found.mask_share, row)).all()
    labels = np.array([found.labels[row][0] for row in found.box_row])
    assert (found.box_label == labels).all()


def test_copies_are_found_and_nothing_else(found: Survey) -> None:
    duplicates = find_duplicates(found)
    (same,), (alike,) = duplicates.identical, duplicates.alike
    assert {found.ids[row] for row in same.rows} == {"train/0", "test/5"}
    assert same.labels_differ
    assert set(same.splits) == {"train", "test"}
    assert {found.ids[row] for row in alike.rows} == {"train/4", "test/8"}
    assert not alike.labels_differ
    assert sorted(duplicates.between(found)) == [("test", "train", 1, 1), ("train", "test", 1, 1)]


def test_two_processes_see_the_same(packed: Path, found: Survey) -> None:
    other = survey(Index.load(packed), workers=2)
    for name, value in found.__dict__.items():
        assert np.array_equal(value, getattr(other, name), equal_nan=name == "mask_share"), name


def test_what_is_shown_is_spread_over_splits_and_classes(found: Survey) -> None:
    rows = spread_out(found, 8)
    assert rows == spread_out(found, 8)
    assert sorted(found.split[rows].tolist()) == ["test"] * 4 + ["train"] * 4
    assert sorted(found.labels[row][0] for row in rows) == [0] * 4 + [1] * 4
    assert len(spread_out(found, 1000)) == 30


def report(place: Path | str, out: Path, *flags: str) -> str:
    assert execute(["shards", "report", str(place), "--out", str(out), "--workers", "1", *flags]) == 0
    return out.read_text()


def test_the_page_tells_it(packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    html = report(packed, tmp_path / "page.html")
    said = capsys.readouterr().out
    for sentence in (
        "1 of 30 images cannot be shown",
        "Leakage: of test are also in train: 1 identical images, 1 that look alike.",
        "1 group of identical images under different labels.",
    ):
        assert sentence in said
        assert sentence in html
    assert EVIL not in html
    assert "&lt;script&gt;alert" in html
    assert not re.search(r"url\(|@import|https?://", html)
    assert "<code>train/9</code>" in html
    assert (
        html.count('src="data:image/jpeg;base64,') == 1 + 29 + 4
    )  # the heat map, the readable samples, two pairs
    assert "across" in html


def test_damage_is_told_and_ends_nothing(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(packed, tmp_path / "copy"))
    (copy / "train-000001.tar").unlink()
    os.truncate(copy / "test-000000.tar", 4000)
    with (copy / "train-000002.tar").open("r+b") as tar:
        tar.seek(900)
        tar.write(b"\0" * 8)
    html = report(copy, tmp_path / "page.html")
    assert "3 tars are missing or not as the index says" in capsys.readouterr().out
    for line in (
        "<code>train-000001.tar</code></td><td>cannot be read (No such file or directory)",
        "<code>test-000000.tar</code></td><td>4000 of ",
        "<code>train-000002.tar</code></td><td>sha256 differs from the index",
    ):
        assert line in html


def test_remote_shards_are_looked_through_too(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    with FlakyServer(packed) as server:
        html = report(f"plain-http://{server.address}", tmp_path / "page.html", "--samples", "4")
        assert max(server.asked[name] for name in server.asked if name.endswith(".tar")) == 1
    assert "1 group of identical images" in html


def test_the_four_pairs_of_tiny_imagenet(real_data: Path, tmp_path: Path) -> None:
    """Its training split is known to hold four images under two classes each."""
    pairs = {
        ("n01944390_66", "n01945685_164"),
        ("n07747607_20", "n07753592_63"),
        ("n01983481_199", "n01984695_120"),
        ("n07747607_32", "n07749582_144"),
    }
    names = {name.partition("_")[0] for pair in pairs for name in pair}
    root, out = real_data / "tiny-imagenet-200.zip", tmp_path / "tiny"
    with zipfile.ZipFile(root) as archive:
        for name in archive.namelist():
            if name.endswith(".JPEG") and name.split("/")[-1].partition("_")[0] in names:
                path = tmp_path / "photos" / name.split("/")[-3] / name.split("/")[-1]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(archive.read(name))
    arguments = ["pack", "folder", "--root", str(tmp_path / "photos"), "--out", str(out), "--workers", "1"]
    assert execute(["shards", *arguments, "--val-fraction", "0"]) == 0
    found = survey(Index.load(out), workers=1)
    duplicates = find_duplicates(found)
    told = {tuple(sorted(Path(found.ids[row]).stem for row in group.rows)) for group in duplicates.identical}
    assert told == pairs
    assert all(group.labels_differ for group in duplicates.identical)
    assert duplicates.alike == []
