"""ILSVRC-2012 in its layouts."""

import pickle  # noqa: TID251 - as a packing process gets it
from pathlib import Path

import pytest

from tests.unit.sources.images import image_bytes, write_image, write_text
from tests.unit.test_archive import make_tar
from wsol_dist.data.sources import imagenet
from wsol_dist.errors import UserError

WNIDS = [f"n{number:08d}" for number in range(1000)]
XML = """<annotation><size><width>50</width><height>40</height></size>
<object><name>{wnid}</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>49</xmax><ymax>39</ymax></bndbox></object>
<object><name>{wnid}</name><bndbox><xmin>5</xmin><ymin>6</ymin><xmax>7</xmax><ymax>8</ymax></bndbox></object>
</annotation>"""


@pytest.fixture
def root(tmp_path):
    lines = [f"{wnid} name {number}, other name\n" for number, wnid in enumerate(WNIDS)]
    (tmp_path / "synset_words.txt").write_text("".join(reversed(lines)))
    return tmp_path


def write_val(base, wnid=WNIDS[7], xml=XML):
    write_image(base / "val" / "ILSVRC2012_val_00000001.JPEG")
    path = base / "Annotations" / "CLS-LOC" / "val" / "ILSVRC2012_val_00000001.xml"
    path.parent.mkdir(parents=True)
    path.write_text(xml.format(wnid=wnid))
    return path


def test_val_with_xml_boxes_is_the_split_test(root):
    write_val(root)
    source = imagenet.Source(imagenet.Options(root=root))
    (item,) = source.items()
    sample = source.read(item)
    assert (item.split, item.labels) == ("test", (7,))
    assert source.classes[7] == f"{WNIDS[7]} name 7, other name"
    assert sample.boxes_xyxy.tolist() == [[1, 2, 49, 39], [5, 6, 7, 8]]
    assert sample.box_frame_wh == (50, 40)
    assert sample.extension == "jpg"


def test_train_folders_of_the_original_layout(root):
    base = root / "ILSVRC" / "Data" / "CLS-LOC"
    for wnid in WNIDS:
        (base / "train" / wnid).mkdir(parents=True)
        (base / "train" / wnid / f"{wnid}_1.JPEG").write_bytes(b"x")
    source = imagenet.Source(imagenet.Options(root=root))
    items = list(source.items())
    assert [item.labels[0] for item in items] == list(range(1000))
    assert items[3].id == f"train/{WNIDS[3]}/{WNIDS[3]}_1.JPEG"
    assert source.read(items[3]).image == b"x"
    (base / "train" / WNIDS[5] / f"{WNIDS[5]}_1.JPEG").unlink()
    with pytest.raises(UserError, match=f"{WNIDS[5]}: a class without images"):
        list(source.items())


def test_a_document_type_is_refused(root):
    bomb = '<!DOCTYPE a [<!ENTITY b "bb">]>' + XML
    write_val(root, xml=bomb.replace("{wnid}", "&b;"))
    with pytest.raises(UserError, match="document type"):
        list(imagenet.Source(imagenet.Options(root=root)).items())


def test_an_annotation_without_a_number_is_named(root):
    path = write_val(root)
    path.write_text(path.read_text().replace("<xmin>1</xmin>", ""))
    source = imagenet.Source(imagenet.Options(root=root))
    (item,) = source.items()
    with pytest.raises(UserError, match=r"val_00000001\.xml.*xmin"):
        source.read(item)


def test_a_part_of_imagenet_points_to_the_folder_source(tmp_path):
    write_image(tmp_path / "train" / "n01440764" / "1.JPEG")
    with pytest.raises(UserError, match="source 'folder'"):
        imagenet.Source(imagenet.Options(root=tmp_path))


def write_lists(root, **changed):
    lists = {
        "image_ids": "val/1.JPEG\nval/2.JPEG\n",
        "class_labels": "val/1.JPEG,472\nval/2.JPEG,0\n",
        "image_sizes": "val/1.JPEG,500,375\nval/2.JPEG,10,10\n",
        "localization": "val/1.JPEG,20,175,111,292\nval/1.JPEG,372,189,499,224\n",
    } | changed
    folder_path = root / "metadata" / "ILSVRC" / "test"
    folder_path.mkdir(parents=True)
    for name, text in lists.items():
        (folder_path / f"{name}.txt").write_text(text)
    for number in (1, 2):
        write_image(root / "dataset" / "ILSVRC" / "val" / f"{number}.JPEG")
    return imagenet.Source(imagenet.Options(root=root))


def test_lists(root):
    source = write_lists(root)
    first, second = source.items()
    assert (first.id, first.split, first.labels) == ("val/1.JPEG", "test", (472,))
    assert source.read(first).boxes_xyxy.tolist() == [[20, 175, 111, 292], [372, 189, 499, 224]]
    assert source.read(first).box_frame_wh == (500, 375)
    assert source.read(second).boxes_xyxy is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"class_labels": "val/1.JPEG,472\n"}, r"val/2\.JPEG"),
        ({"class_labels": "val/1.JPEG,1000\nval/2.JPEG,0\n"}, "0 to 999"),
        ({"class_labels": "val/1.JPEG\n"}, "image,label expected"),
        ({"localization": "val/1.JPEG,1,2,3,x\n"}, "whole number"),
        ({"image_sizes": "val/2.JPEG,10,10\n"}, r"no row for val/1\.JPEG"),
    ],
)
def test_bad_lists_are_refused(root, changed, message):
    with pytest.raises(UserError, match=message):
        list(write_lists(root, **changed).items())


def test_the_300_real_validation_images(real_data):
    source = imagenet.Source(imagenet.Options(root=real_data / "ilsvrc-val-300"))
    items = list(source.items())
    boxes = [source.layouts["main"].boxes(item)[0] for item in items]
    assert (len(items), len({item.labels for item in items}), sum(map(len, boxes))) == (300, 259, 505)
    assert sum(len(some) > 1 for some in boxes) == 64
    assert source.classes[472].endswith("canoe")


def write_tars(root: Path) -> None:
    """The official downloads: a tar of tars, a flat tar, boxes of val and of some training images."""
    inner = {}
    for wnid in WNIDS:
        path = make_tar(root / "inner.tar", {f"{wnid}_1.JPEG": wnid.encode()})
        inner[f"{wnid}.tar"] = path.read_bytes()
    (root / "inner.tar").unlink()
    make_tar(root / "ILSVRC2012_img_train.tar", inner)
    make_tar(root / "ILSVRC2012_img_val.tar", {f"ILSVRC2012_val_0000000{n}.JPEG": b"%d" % n for n in (1, 2)})
    val = {f"val/ILSVRC2012_val_0000000{n}.xml": XML.format(wnid=WNIDS[n]).encode() for n in (2, 1)}
    make_tar(root / "ILSVRC2012_bbox_val_v3.tgz", val, "w:gz")
    train = {f"{WNIDS[4]}/{WNIDS[4]}_1.xml": XML.format(wnid=WNIDS[4]).encode()}
    make_tar(root / "ILSVRC2012_bbox_train_v2.tar.gz", train, "w:gz")


def test_the_official_tars_as_they_are(root):
    write_tars(root)
    source = pickle.loads(pickle.dumps(imagenet.Source(imagenet.Options(root=root))))  # noqa: S301 - its own
    items = list(source.items())
    assert [item.id for item in items[-2:]] == [f"val/ILSVRC2012_val_0000000{n}.JPEG" for n in (1, 2)]
    assert [item.labels for item in items] == [(label,) for label in range(1000)] + [(1,), (2,)]
    by_class = {item.labels[0]: source.read(item) for item in (*items[:6], *items[-2:])}
    assert by_class[4].image == WNIDS[4].encode()
    assert by_class[4].boxes_xyxy.tolist() == [[1, 2, 49, 39], [5, 6, 7, 8]]
    assert by_class[5].boxes_xyxy is None
    assert (by_class[2].image, len(by_class[2].boxes_xyxy)) == (b"2", 2)


def test_flat_images_of_val_need_their_xml_files(root):
    write_tars(root)
    (root / "ILSVRC2012_bbox_val_v3.tgz").unlink()
    with pytest.raises(UserError, match=r"labels are in XML files; expected ILSVRC2012_bbox_val_v3\.tgz"):
        list(imagenet.Source(imagenet.Options(root=root)).items())


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("renamed", [False, True])
def test_imagenetv2_is_the_split_val(root, renamed, packed):
    write_val(root)
    names = [f"0/abc{number}.jpeg" if renamed else f"0/{number}.jpeg" for number in (0, 1)]
    if packed:  # as it is downloaded
        place = root / "imagenetv2-threshold0.7.tar.gz"
        files = {f"imagenetv2-threshold0.7/{name}": image_bytes((40, 50), n) for n, name in enumerate(names)}
        make_tar(place, files, "w:gz")
    else:
        place = root / "imagenetv2"
        for number, name in enumerate(names):
            write_image(place / name, number, (40, 50))
    lists = {
        "image_ids.txt": "val2/0/0.jpeg\nval2/0/1.jpeg\n",
        "class_labels.txt": "val2/0/0.jpeg,0\nval2/0/1.jpeg,0\n",
        "image_sizes.txt": "val2/0/0.jpeg,50,40\nval2/0/1.jpeg,50,40\n",
        "localization.txt": "val2/0/0.jpeg,1,2,3,4\nval2/0/1.jpeg,5,6,7,8\n",
    } | ({"mapping.txt": "0/0.jpeg, 0/abc0.jpeg\n0/1.jpeg, 0/abc1.jpeg\n"} if renamed else {})
    for name, text in lists.items():
        write_text(root / "lists" / name, text)
    options = imagenet.Options(root=root, imagenetv2=place, imagenetv2_lists=root / "lists")
    source = imagenet.Source(options)
    test, first, second = source.items()
    assert [test.split, first.split, second.split] == ["test", "val", "val"]
    assert source.read(second).boxes_xyxy.tolist() == [[5, 6, 7, 8]]
    assert [source.read(one).image for one in (first, second)] == [image_bytes((40, 50), n) for n in (0, 1)]
    assert source.read(second).box_frame_wh == (50, 40)
    assert source.known_counts["val"] == 10_000
