"""OpenImages for localization: the union of the objects' masks, and what is ignored."""

import zipfile

import numpy as np
import pytest

from tests.unit.sources.images import png_bytes, write_image, write_text
from wsol_dist.data.sources import openimages
from wsol_dist.errors import UserError


def part(*slices: slice, size_hw=(20, 30)) -> bytes:
    pixels = np.zeros(size_hw, np.uint8)
    pixels[slices] = 255
    return png_bytes(pixels)


@pytest.fixture
def root(tmp_path):
    images = tmp_path / "dataset" / "OpenImages"
    for split, codes in (("train", ("0bt_c3", "01226z")), ("val", ("01226z",))):
        names = [f"{split}/{code}/a.jpg" for code in codes]
        for name in names:
            write_image(images / name)
        lists = tmp_path / "metadata" / "OpenImages" / split
        write_text(lists / "image_ids.txt", "".join(f"{name}\n" for name in names))
        write_text(
            lists / "class_labels.txt",
            "".join(f"{name},{99 - n * 99}\n" for n, name in enumerate(names[::-1])),
        )
    masks = images / "val" / "01226z"
    (masks / "a_1.png").write_bytes(part(slice(0, 5), slice(0, 10)))
    (masks / "a_2.png").write_bytes(part(slice(20, 30), slice(40, 60), size_hw=(40, 60)))
    (masks / "a_ignore.png").write_bytes(part(slice(3, 8), slice(0, 10)))
    below = "val/01226z/a"
    rows = f"{below}.jpg,{below}_1.png,{below}_ignore.png\n{below}.jpg,{below}_2.png,\n"
    write_text(tmp_path / "metadata" / "OpenImages" / "val" / "localization.txt", rows)
    return tmp_path


def test_splits_and_masks(root):
    source = openimages.Source(openimages.Options(root=root))
    items = list(source.items())
    assert [(item.id, item.split, item.labels) for item in items] == [
        ("train/0bt_c3/a.jpg", "train", (0,)),
        ("train/01226z/a.jpg", "train", (99,)),
        ("val/01226z/a.jpg", "val", (99,)),
    ]
    assert (source.classes[0], source.classes[99], len(source.classes)) == ("0bt_c3", "01226z", 100)
    assert source.read(items[0]).mask is None
    mask = source.read(items[2]).mask
    expected = np.zeros((40, 60), np.uint8)  # of the larger mask
    expected[6:16, :20] = 255
    expected[:10, :20], expected[20:30, 40:60] = 1, 1
    assert (mask == expected).all()


def test_the_zips_as_they_are(root):
    expected = openimages.Source(openimages.Options(root=root))
    loaded = root / "loaded" / "dataset"
    loaded.mkdir(parents=True)
    (root / "loaded" / "metadata").symlink_to(root / "metadata")
    folder = root / "dataset" / "OpenImages"
    for name, ending in ((openimages.IMAGES_ARCHIVE, ".jpg"), (openimages.MASKS_ARCHIVE, ".png")):
        with zipfile.ZipFile(loaded / name, "w") as out:
            for path in sorted(folder.rglob(f"*{ending}")):
                out.write(path, path.relative_to(folder).as_posix())
    source = openimages.Source(openimages.Options(root=root / "loaded"))
    item = list(source.items())[2]
    assert source.read(item).image == expected.read(item).image
    assert (source.read(item).mask == expected.read(item).mask).all()


@pytest.mark.parametrize("name", ["class-descriptions.csv", "oidv6-class-descriptions.csv"])
def test_the_official_list_names_the_classes(root, name):
    head = "" if name.startswith("class") else "LabelName,DisplayName\n"
    rows = '/m/011k07,Tortoise\n/m/01226z,"Football (American, say)"\n/m/0bt_c3,Book\n'
    write_text(root / name, head + rows)
    classes = openimages.Source(openimages.Options(root=root)).classes
    assert (classes[0], classes[99], classes[1]) == ("Book", "Football (American, say)", "1")
    write_text(root / name, "/m/01226z,Book\n/m/0bt_c3,Book\n")
    classes = openimages.Source(openimages.Options(root=root)).classes
    assert (classes[0], classes[99]) == ("0bt_c3", "01226z")


def test_a_row_without_its_three_fields_is_named(root):
    write_text(root / "metadata/OpenImages/val/localization.txt", "a.jpg,b.png\n")
    with pytest.raises(UserError, match=r"localization\.txt: row 1"):
        openimages.Source(openimages.Options(root=root))
