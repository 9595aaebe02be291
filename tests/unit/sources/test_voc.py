"""PASCAL VOC 2012: palette masks, labels of the XML files, SBD's images without VOC's val."""

import io
import tarfile

import numpy as np
import pytest
import scipy.io
from PIL import Image

from tests.unit.sources.images import write_image, write_text
from wsol_dist.data.sources import voc
from wsol_dist.errors import UserError

OBJECT = (
    "<object><name>{name}</name><part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax>"
    "<ymax>2</ymax></bndbox></part><bndbox><xmax>{x1}</xmax><xmin>2</xmin><ymax>9</ymax><ymin>3.5</ymin></bndbox></object>"
)
OBJECTS = {
    "2007_000001": [("person", 8), ("cat", 20), ("person", 30)],
    "2007_000002": [("aeroplane", 30)],
    "2008_000003": [("tvmonitor", 12)],
    "2008_000004": [("dog", 12), ("cow", 9)],
}


def mask() -> np.ndarray:
    pixels = np.zeros((20, 30), np.uint8)
    pixels[2:9, 1:8], pixels[12:15, 3:6], pixels[0] = 15, 8, 255
    return pixels


@pytest.fixture
def root(tmp_path):
    base = tmp_path / "VOCdevkit" / "VOC2012"
    for name, objects in OBJECTS.items():
        size = "<size><width>30</width><height>20</height><depth>3</depth></size>"
        things = "".join(OBJECT.format(name=kind, x1=x1) for kind, x1 in objects)
        write_text(base / "Annotations" / f"{name}.xml", f"<annotation>{size}{things}</annotation>")
        write_image(base / "JPEGImages" / f"{name}.jpg")
    for split, name in (("train", "2007_000001"), ("val", "2007_000002")):
        write_text(base / "ImageSets" / "Segmentation" / f"{split}.txt", f"{name}\n")
        picture = Image.fromarray(mask(), "P")
        picture.putpalette([(7 * value) % 256 for value in range(768)])
        (base / "SegmentationClass").mkdir(exist_ok=True)
        picture.save(base / "SegmentationClass" / f"{name}.png")
    return tmp_path


def open_source(root, **options):
    return voc.Source(voc.Options(root=root, **options))


def test_labels_boxes_and_masks(root):
    for given in (root, root / "VOCdevkit", root / "VOCdevkit" / "VOC2012"):
        source = open_source(given)
        items = list(source.items())
        assert [(item.id, item.split, item.labels) for item in items] == [
            ("2007_000001", "train", (7, 14)),
            ("2007_000002", "test", (0,)),
        ]
    sample = source.read(items[0])
    assert sample.boxes_xyxy.tolist() == [[1, 2.5, 7, 8], [1, 2.5, 19, 8], [1, 2.5, 29, 8]]
    assert (sample.box_labels, sample.box_frame_wh, sample.semantic) == ((14, 7, 14), (30, 20), True)
    assert (sample.mask == mask()).all()  # 15 is person: class 14, counted from 1
    assert source.known_counts == {"train": 1464, "test": 1449}


def test_the_archive_as_it_is(root, tmp_path):
    (tmp_path / "loaded").mkdir()
    with tarfile.open(tmp_path / "loaded" / voc.ARCHIVE, "w") as tar:
        tar.add(root / "VOCdevkit", "VOCdevkit")
    expected = open_source(root)
    for given in (tmp_path / "loaded", tmp_path / "loaded" / voc.ARCHIVE):
        source = open_source(given)
        assert list(source.items()) == list(expected.items())
        for item in source.items():
            assert source.read(item).image == expected.read(item).image
            assert (source.read(item).mask == expected.read(item).mask).all()


def write_sbd(root):
    """benchmark.tgz with VOC's own images, two new ones, and one of VOC's val."""
    files = {"train.txt": b"2007_000002\n2008_000003\n", "val.txt": b"2008_000004\n2007_000001\n"}
    for name in OBJECTS:
        content = io.BytesIO()
        scipy.io.savemat(content, {"GTcls": {"Boundaries": np.zeros(3), "Segmentation": mask() // 255 + 6}})
        files[f"cls/{name}.mat"] = content.getvalue()
    with tarfile.open(root / voc.SBD_ARCHIVE, "w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(f"benchmark_RELEASE/dataset/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_sbd_makes_train_aug(root):
    write_sbd(root)
    source = open_source(root)
    splits = {item.id: item.split for item in source.items()}
    assert splits == {
        "2007_000001": "train",
        "2008_000003": "train",
        "2008_000004": "train",
        "2007_000002": "test",
    }
    assert source.known_counts["train"] == 10_582
    by_id = {item.id: item for item in source.items()}
    assert (source.read(by_id["2008_000003"]).mask == mask() // 255 + 6).all()
    assert (source.read(by_id["2007_000001"]).mask == mask()).all()  # VOC's own is better
    plain = open_source(root, plain_train=True)
    assert [item.id for item in plain.items()] == ["2007_000001", "2007_000002"]


def test_the_folder_of_masks_that_others_made_of_sbd(root):
    folder = root / "VOCdevkit" / "VOC2012" / "SegmentationClassAug"
    folder.mkdir()
    for name in OBJECTS:
        Image.fromarray(mask(), "L").save(folder / f"{name}.png")
    source = open_source(root)
    assert [item.id for item in source.items() if item.split == "train"] == [
        "2007_000001", "2008_000003", "2008_000004"
    ]  # fmt: skip
    assert all((source.read(item).mask == mask()).all() for item in source.items())


def test_an_object_of_another_class_is_named(root):
    path = root / "VOCdevkit" / "VOC2012" / "Annotations" / "2007_000002.xml"
    path.write_text(path.read_text().replace("aeroplane", "plane"))
    with pytest.raises(UserError, match=r"2007_000002\.xml: object 'plane' given"):
        list(open_source(root).items())
