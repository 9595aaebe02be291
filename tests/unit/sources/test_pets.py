"""Oxford-IIIT Pet: lists, trimaps with their border as ignore."""

import tarfile

import numpy as np
import pytest

from tests.unit.sources.images import png_bytes, write_image, write_text
from wsol_dist.data.sources import pets
from wsol_dist.errors import UserError

BREEDS = [f"Breed_{number:02d}" for number in range(1, 38)]


@pytest.fixture
def root(tmp_path):
    trimap = np.full((20, 30), 2, np.uint8)
    trimap[4:10, 5:12], trimap[6:8, 7:10] = 3, 1
    (tmp_path / "annotations" / "trimaps").mkdir(parents=True)
    for split, number in (("trainval", 1), ("test", 2)):
        rows = [f"{breed}_{number} {label} 1 {label}\n" for label, breed in enumerate(BREEDS, start=1)]
        write_text(tmp_path / "annotations" / f"{split}.txt", "".join(rows))
        for breed in BREEDS:
            write_image(tmp_path / "images" / f"{breed}_{number}.jpg")
            (tmp_path / "annotations" / "trimaps" / f"{breed}_{number}.png").write_bytes(png_bytes(trimap))
    return tmp_path


def test_splits_names_and_masks(root):
    source = pets.Source(pets.Options(root=root))
    items = list(source.items())
    assert source.classes[:2] == ("Breed 01", "Breed 02")
    assert [(items[n].id, items[n].split, items[n].labels) for n in (0, 38)] == [
        ("Breed_01_1.jpg", "train", (0,)),
        ("Breed_02_2.jpg", "test", (1,)),
    ]
    mask = source.read(items[0]).mask
    assert ((mask == 1).sum(), (mask == 255).sum(), (mask == 0).sum()) == (6, 42 - 6, 600 - 42)
    assert (mask[6:8, 7:10] == 1).all()


def test_archives_as_they_are(root, tmp_path):
    expected = pets.Source(pets.Options(root=root))
    loaded = tmp_path / "loaded"
    loaded.mkdir()
    for name in ("images", "annotations"):
        with tarfile.open(loaded / f"{name}.tar.gz", "w:gz") as tar:
            tar.add(root / name, name)
    source = pets.Source(pets.Options(root=loaded))
    assert list(source.items()) == list(expected.items())
    item = next(source.items())
    assert source.read(item).image == expected.read(item).image
    assert (source.read(item).mask == expected.read(item).mask).all()


def test_a_row_that_does_not_parse_is_named(root):
    (root / "annotations" / "test.txt").write_text("Breed_01_2 38 1 1\n")
    with pytest.raises(UserError, match=r"test\.txt: 'Breed_01_2 38 1 1' given"):
        pets.Source(pets.Options(root=root))
