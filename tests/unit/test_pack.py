"""Packing: the same bytes with any number of workers, readable by stock webdataset, careful with folders."""

import json
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from wsol_dist.cli import execute
from wsol_dist.data.packing.holdout import hash_fraction
from wsol_dist.data.packing.pack import PackOptions, make_plan
from wsol_dist.data.packing.pack import pack as pack_all
from wsol_dist.data.shards.index import Index
from wsol_dist.data.shards.sample import Item, Sample
from wsol_dist.data.shards.shard import encode_sample, read_sample, to_sample, write_shard
from wsol_dist.data.sources import collage
from wsol_dist.errors import UserError

SMALL = ["collage", "--num-train", "48", "--num-val", "8", "--num-test", "16", "--image-px", "64"]


def pack(out: Path, *flags: str) -> int:
    return execute(["shards", "pack", *SMALL, "--out", str(out), "--workers", "1", *flags])


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def make_sample(**changed) -> Sample:
    image = cv2.imencode(".jpg", np.full((10, 12, 3), 90, np.uint8))[1].tobytes()
    fields = {"id": "a/é 1.jpg", "image": image, "extension": "jpg", "labels": (1, 3)} | changed
    return Sample(**fields)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    out = tmp_path_factory.mktemp("packed") / "collage"
    assert pack(out) == 0
    return out


def test_two_workers_write_the_same_bytes_as_one(packed, tmp_path):
    assert pack(tmp_path / "two", "--workers", "2") == 0
    assert files(tmp_path / "two") == files(packed)


def test_every_sample_comes_back_as_the_source_made_it(packed):
    options = collage.Options(num_train=48, num_val=8, num_test=16, image_px=64)
    source = collage.Source(options)
    items = {item.id: item for item in source.items()}
    index = Index.load(packed)
    for split in index.splits:
        rows = index.rows(split)
        for position, sample_id in enumerate(rows.ids.to_pylist()):
            item = items.pop(sample_id)
            blob = index.path(rows.shard[position]).read_bytes()
            start = rows.offset[position]
            sample = to_sample(read_sample(blob[start : start + rows.bytes[position]]))
            expected = source.read(item)
            assert (sample.id, sample.image, sample.labels) == (
                item.id,
                expected.image,
                rows.labels(position),
            )
            assert rows.label[position] == item.labels[0]
            assert (sample.mask == expected.mask).all()
            assert (sample.boxes_xyxy == expected.boxes_xyxy).all()
            assert (rows.width[position], rows.height[position]) == (64, 64)
    assert not items


def test_the_index_describes_the_folder(packed):
    index = Index.load(packed)
    assert index.classes == collage.CLASSES
    assert {name: split.num_samples for name, split in index.splits.items()} == {
        "train": 48,
        "val": 8,
        "test": 16,
    }
    assert index.splits["train"].num_images_per_class == (6,) * 8
    assert index.columns == ("image", "labels", "boxes_xyxy", "mask")
    assert sum(shard.num_samples for shard in index.shards) == 72
    assert str(packed.parent) not in (packed / "index.json").read_text()
    assert sorted(files(packed)) == sorted(
        [*(shard.file for shard in index.shards), "index.json", "samples.parquet"]
    )


def test_stock_webdataset_reads_a_shard(packed):
    import webdataset

    index = Index.load(packed)
    found = {}
    for shard in index.shards:
        stream = webdataset.WebDataset(str(packed / shard.file), shardshuffle=False).decode("rgb8")  # noqa: TID251 - as its users do
        for sample in stream:
            found[sample["json"]["id"]] = sample
    assert len(found) == 72
    some = found["train/cat/000002"]
    assert some["jpg"].shape == (64, 64, 3)
    assert some["json"]["labels"] == [2]
    assert some["mask.png"].shape[:2] == (64, 64)


def test_headers_hold_nothing_of_this_machine(packed):
    with tarfile.open(packed / "train-000000.tar") as tar:
        members = tar.getmembers()
    facts = {
        (member.mtime, member.uid, member.gid, member.uname, member.mode, member.type) for member in members
    }
    assert facts == {(0, 0, 0, "", 0o644, tarfile.REGTYPE)}
    assert not any(member.pax_headers for member in members)


def test_the_seed_changes_the_order_and_nothing_else(packed, tmp_path):
    assert pack(tmp_path / "other", "--seed", "1") == 0
    first, other = (
        Index.load(folder).rows("train").ids.to_pylist() for folder in (packed, tmp_path / "other")
    )
    assert first != other
    assert sorted(first) == sorted(other)
    assert first != sorted(first)


def test_packing_again_does_nothing(packed, capsys):
    before = {path: path.stat().st_mtime_ns for path in packed.iterdir()}
    assert pack(packed) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in packed.iterdir()} == before


@pytest.mark.parametrize(("flags", "what"), [(("--image-px", "48"), "options"), (("--seed", "5"), "seed")])
def test_other_arguments_need_another_folder_or_force(packed, tmp_path, flags, what):
    out = tmp_path / "out"
    assert pack(out) == 0
    with pytest.raises(UserError, match=rf"other arguments or data \(.*{what}.*--force"):
        pack(out, *flags)
    assert files(out) == files(packed)
    assert pack(out, *flags, "--force") == 0
    assert files(out) != files(packed)


def test_an_unfinished_folder_is_packed_over(packed, tmp_path):
    out = tmp_path / "out"
    assert pack(out, "--samples-per-shard", "3") == 0
    (out / "index.json").unlink()  # as if the last step had not been reached
    (out / "packing.started").touch()
    (out / "train-000003.tar.tmp").write_bytes(b"half a shard")
    assert pack(out) == 0
    assert files(out) == files(packed)


def test_somebody_elses_folder_is_not_touched(tmp_path):
    (tmp_path / "train-000000.tar").write_bytes(b"precious")
    with pytest.raises(UserError, match="not empty and no folder of shards"):
        pack(tmp_path)
    assert files(tmp_path) == {"train-000000.tar": b"precious"}


def test_changed_images_under_the_same_names_are_noticed(tmp_path):
    root, out = tmp_path / "images", tmp_path / "out"
    for name in ("a", "b"):
        for number in range(4):
            path = root / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), np.full((8, 8, 3), number, np.uint8))
    arguments = [
        "pack",
        "folder",
        "--root",
        str(root),
        "--out",
        str(out),
        "--val-fraction",
        "0",
        "--workers",
        "1",
    ]
    assert execute(["shards", *arguments]) == 0
    assert execute(["shards", *arguments]) == 0
    cv2.imwrite(str(root / "a" / "0.png"), np.full((8, 8, 3), 200, np.uint8))
    with pytest.raises(UserError, match="the samples' bytes"):
        execute(["shards", *arguments])


class ListSource:
    """Only names: enough for plans."""

    classes = ("a", "b")
    known_counts: dict[str, int] = {}

    def __init__(self, **counts: int) -> None:
        self.counts = counts

    def items(self):
        for split, count in self.counts.items():
            for number in range(count):
                yield Item(id=f"{split}/{number}", split=split, labels=(number % 2,), where=number)

    def read(self, item):
        raise AssertionError("a plan reads no image")


def plan(source, **options):
    return make_plan("list", source, collage.Options(), PackOptions(out=Path("out"), **options))


@pytest.mark.parametrize(
    ("count", "least", "most"),
    [(10, 1, 1), (1023, 60, 64), (1024, 64, 64), (1100, 64, 100), (5000, 64, 100), (100_000, 100, 100)],
)
def test_number_of_shards(count, least, most):
    tasks = plan(ListSource(test=count)).shards
    sizes = [len(task.items) for task in tasks]
    assert least <= len(tasks) <= most
    assert sum(sizes) == count
    assert max(sizes) <= 1000
    assert max(sizes) - min(sizes) <= 1


def test_keys_are_unique_in_the_data_set():
    tasks = plan(ListSource(train=100, test=50)).shards
    ends = [task.first_ordinal + len(task.items) for task in tasks]
    assert [task.first_ordinal for task in tasks] == [0, *ends[:-1]]
    assert [task.shard for task in tasks] == list(range(len(tasks)))


def test_val_is_held_out_of_train_and_stays_when_images_are_added():
    small, large = plan(ListSource(train=1000, test=10)), plan(ListSource(train=2000, test=10))
    held = {item.id for item in small.items["val"]}
    assert 60 < len(held) < 140
    assert held.isdisjoint(item.id for item in small.items["train"])
    assert len(held) + len(small.items["train"]) == 1000
    assert held <= {item.id for item in large.items["val"]}
    assert all(item.split == "val" for item in small.items["val"])


def test_val_out_of_another_split_or_none():
    assert {
        name: len(items) > 0 for name, items in plan(ListSource(test=300), val_from="test").items.items()
    } == {
        "test": True,
        "val": True,
    }
    assert list(plan(ListSource(test=300)).items) == ["test"]
    assert list(plan(ListSource(train=300), val_fraction=0.0).items) == ["train"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_from": "trian"}, "did you mean 'train'"),
        ({"val_fraction": 1.0}, "--val-fraction: given 1.0; allowed: from 0 to below 1"),
        ({"samples_per_shard": 0}, "--samples-per-shard: given 0; allowed: 1 or more"),
        ({"workers": -1}, "--workers: given -1; allowed: 0 or more"),
        ({"val_fraction": 1e-9}, "leaves no image for val"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        plan(ListSource(train=50), **options)


def test_a_class_that_would_lose_all_training_images_is_named():
    with pytest.raises(UserError, match="class 'b' without images"):
        plan(ListSource(train=2), val_fraction=0.6, seed=seed_that_holds_out("train/1"))


def seed_that_holds_out(sample_id: str) -> int:
    held = [seed for seed in range(50) if _held(sample_id, seed) and not _held("train/0", seed)]
    return held[0]


def _held(sample_id: str, seed: int) -> bool:
    return hash_fraction(sample_id, seed) < 0.6


def test_val_from_is_refused_where_val_is_official():
    with pytest.raises(UserError, match="val split of its own"):
        plan(ListSource(train=5, val=5), val_from="train")


def test_two_samples_of_one_name_are_refused():
    class Twice(ListSource):
        def items(self):
            yield from super().items()
            yield from super().items()

    with pytest.raises(UserError, match="two samples are named 'train/0'"):
        plan(Twice(train=3))


@pytest.mark.parametrize("mask", [None, np.array([[0, 1], [255, 0]], np.uint8)])
@pytest.mark.parametrize("boxes", [None, [[0.5, 1, 2, 3.25], [4, 5, 6, 7]]])
def test_a_sample_goes_through_its_bytes_unchanged(mask, boxes):
    frame = None if boxes is None else (500, 375)
    given = make_sample(mask=mask, boxes_xyxy=None if boxes is None else np.array(boxes), box_frame_wh=frame)
    sample = to_sample(read_sample(encode_sample(7, given)))
    assert (sample.id, sample.image, sample.labels, sample.box_frame_wh) == (
        given.id,
        given.image,
        (1, 3),
        frame,
    )
    assert np.array_equal(sample.boxes_xyxy, given.boxes_xyxy) if boxes else sample.boxes_xyxy is None
    assert np.array_equal(sample.mask, mask) if mask is not None else sample.mask is None


BLOB = encode_sample(7, make_sample(mask=np.zeros((4, 4), np.uint8)))
DAMAGED = {
    "cut": BLOB[:700],
    "cut header": BLOB[:100],
    "link": BLOB[:156] + b"2" + BLOB[157:],
    "path": b"../7".ljust(100, b"\0") + BLOB[100:],
    "folder": b"a/7.jpg".ljust(100, b"\0") + BLOB[100:],
    "size": BLOB[:124] + b"77777777777\0" + BLOB[136:],
    "no octal number": BLOB[:124] + b"0x0000000a\0\0" + BLOB[136:],
    "unknown member": b"000000007.exe".ljust(100, b"\0") + BLOB[100:],
    "two samples": BLOB + encode_sample(8, make_sample()),
    "nothing": b"",
    "zeros": bytes(1024),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_damaged_bytes_are_a_value_error(what):
    assert read_sample(BLOB).record["labels"] == [1, 3]
    with pytest.raises(ValueError):
        read_sample(DAMAGED[what])


def test_help_lists_every_source(capsys):
    assert execute(["shards", "pack", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("caltech-101", "collage", "folder", "imagenet"))


def test_an_unknown_action_is_named_with_a_suggestion():
    with pytest.raises(UserError, match="did you mean 'verify'"):
        execute(["shards", "verfy"])


def test_index_json_is_plain_json_in_the_stated_form(packed):
    raw = json.loads((packed / "index.json").read_text())
    assert raw["schema"] == 1
    assert raw["name"] == "collage"
    assert set(raw["shards"][0]) == {"file", "split", "num_samples", "bytes", "sha256"}


BOX = np.array([[0.0, 1, 5, 6]])
REFUSED = {
    "no labels": ({"labels": ()}, "labels: () given"),
    "negative label": ({"labels": (-1,)}, r"labels: (-1,) given"),
    "no number": ({"labels": ("1",)}, "labels: ('1',) given, a tuple of one or more ints"),
    "numpy label": ({"labels": (np.int64(1),)}, "a tuple of one or more ints"),
    "no frame": ({"boxes_xyxy": BOX}, "boxes without box_frame_wh: None given, width and height"),
    "empty frame": ({"boxes_xyxy": BOX, "box_frame_wh": (0, 5)}, "box_frame_wh: (0, 5) given"),
    "flat": ({"boxes_xyxy": BOX[0], "box_frame_wh": (9, 9)}, "boxes_xyxy: shape (4,) given"),
    "five": ({"boxes_xyxy": np.ones((2, 5)), "box_frame_wh": (9, 9)}, "shape (2, 5) given"),
    "ragged": ({"boxes_xyxy": [[1, 2, 3, 4], [5]], "box_frame_wh": (9, 9)}, "rows of four numbers expected"),
    "nan": ({"boxes_xyxy": BOX * np.nan, "box_frame_wh": (9, 9)}, "finite numbers expected"),
    "extension": ({"extension": "tiff"}, "extension: tiff given, one of jpg, png, webp, bmp expected"),
    "no extension": ({"extension": ""}, "extension: '' given"),
    "no id": ({"id": ""}, "id: '' given"),
    "mask": ({"mask": np.ones((4, 4), bool)}, "mask: bool of shape (4, 4) given, uint8 of shape (H, W)"),
    "mask of colours": ({"mask": np.ones((4, 4, 3), np.uint8)}, "mask: uint8 of shape (4, 4, 3) given"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_sample_that_could_not_be_used_is_refused_and_no_tar_is_there(tmp_path, what):
    changed, message = REFUSED[what]
    samples = [(0, make_sample()), (1, make_sample(**{"id": "b/2.jpg"} | changed))]
    with pytest.raises(UserError) as raised:
        write_shard(tmp_path / "x.tar", samples, split="test", shard=0)
    assert message in str(raised.value)
    assert "id" in changed or str(raised.value).startswith("b/2.jpg: ")
    assert not (tmp_path / "x.tar").exists()


def test_two_samples_of_one_name_in_a_shard_are_refused(tmp_path):
    samples = [(0, make_sample()), (1, make_sample())]
    with pytest.raises(UserError, match=r"two samples are named 'a/é 1\.jpg'"):
        write_shard(tmp_path / "x.tar", samples, split="test", shard=0)
    assert not (tmp_path / "x.tar").exists()


@pytest.mark.parametrize("labels", [(2,), (-1,), (0, 5)])
def test_labels_that_are_no_classes_are_refused_before_anything_is_read(labels):
    class Wrong(ListSource):
        def items(self):
            yield Item(id="test/wrong", split="test", labels=labels, where=0)

    with pytest.raises(
        UserError, match=r"test/wrong: labels: .* given, a tuple of one or more ints from 0 to 1"
    ):
        plan(Wrong())


def test_images_in_which_no_class_is_are_left_out_and_counted():
    class Some(ListSource):
        def items(self):
            yield Item(id="empty", split="test", labels=(), where=0)
            yield Item(id="full", split="test", labels=(0, 1), where=1)

    made = plan(Some())
    assert (made.num_samples, made.num_unlabelled) == (1, 1)
    assert [item.id for item in made.items["test"]] == ["full"]


def test_the_classes_of_boxes_and_pixels_come_back(tmp_path):
    mask = np.zeros((10, 12), np.uint8)
    mask[2:4], mask[5], mask[7:] = 2, 4, 255
    boxes = np.array([[1.0, 2.0, 3.0, 4.0], [5.0, 5.0, 7.0, 9.0]])
    sample = make_sample(boxes_xyxy=boxes, box_frame_wh=(12, 10), box_labels=(3, 1), mask=mask, semantic=True)
    written = write_shard(tmp_path / "x.tar", [(0, sample)], split="test", shard=0)
    assert (written.semantic, written.box_labels) == (True, True)
    back = to_sample(read_sample((tmp_path / "x.tar").read_bytes()[: written.rows[0].bytes]))
    assert (back.box_labels, back.semantic) == ((3, 1), True)
    assert (back.mask == mask).all()
    with pytest.raises(UserError, match="one class number a box"):
        write_shard(tmp_path / "x.tar", [(0, make_sample(box_labels=(1,)))], split="test", shard=0)


@pytest.mark.parametrize("changed", [{"id": "test/1"}, {"labels": (1,)}, {"extension": "gif"}])
def test_a_sample_other_than_listed_leaves_no_index(tmp_path, changed):
    class Other(ListSource):
        def read(self, item):
            return make_sample(
                **{"id": item.id, "labels": item.labels} | (changed if item.where == 2 else {})
            )

    source, options = Other(test=4), PackOptions(out=tmp_path / "out", workers=1, samples_per_shard=1)
    with pytest.raises(UserError, match=r"^test/2: "):
        pack_all(make_plan("other", source, options, options), source, options)
    with pytest.raises(UserError, match="packing did not finish"):
        Index.load(options.out)
