"""The sources: layouts, conventions of boxes, and the mistakes a user can make."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from wsol_dist.data import sources
from wsol_dist.data.sources import caltech_101, folder, imagenet
from wsol_dist.errors import UserError

WSOL_DATA = os.environ.get("WSOL_DATA")
real_data = pytest.mark.skipif(not WSOL_DATA, reason="WSOL_DATA is not set: no real data to read")


def write_image(path: Path, shade: int = 100, size_hw: tuple[int, int] = (20, 30)) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = cv2.imencode(".jpg", np.full((*size_hw, 3), shade, np.uint8))[1].tobytes()
    path.write_bytes(data)
    return data


def test_sources_are_found_by_file_name():
    assert sources.source_names() == ["caltech-101", "collage", "folder", "imagenet"]
    for name in sources.source_names():
        module = sources.source_module(name)
        assert hasattr(module, "Options")
        assert hasattr(module, "Source")
        assert sources.summary(name)


def test_an_unknown_source_is_named_with_a_suggestion():
    with pytest.raises(UserError, match="did you mean 'collage'"):
        sources.source_module("colage")


class TestFolder:
    def test_class_folders(self, tmp_path):
        data = write_image(tmp_path / "b" / "1.JPEG")
        write_image(tmp_path / "a" / "2.png")
        (tmp_path / "a" / "notes.txt").write_text("no image")
        source = folder.Source(folder.Options(root=tmp_path))
        items = list(source.items())
        assert source.classes == ("a", "b")
        assert [(item.id, item.split, item.labels) for item in items] == [
            ("a/2.png", "train", (0,)),
            ("b/1.JPEG", "train", (1,)),
        ]
        sample = source.read(items[1])
        assert (sample.image, sample.extension, sample.boxes_xyxy) == (data, "jpg", None)

    def test_split_folders(self, tmp_path):
        for split in ("train", "test"):
            for name in ("a", "b"):
                write_image(tmp_path / split / name / "0.jpg")
        source = folder.Source(folder.Options(root=tmp_path))
        assert [item.id for item in source.items()] == [
            "train/a/0.jpg",
            "train/b/0.jpg",
            "test/a/0.jpg",
            "test/b/0.jpg",
        ]

    def test_boxes_in_the_frame_of_the_image(self, tmp_path):
        write_image(tmp_path / "a" / "0.jpg")
        write_image(tmp_path / "b" / "0.jpg")
        boxes = tmp_path / "boxes.csv"
        boxes.write_text("image,x0,y0,x1,y1\na/0.jpg,1,2,3,4\na/0.jpg,5,6,29,19\n")
        source = folder.Source(folder.Options(root=tmp_path, boxes=boxes))
        first, second = (source.read(item) for item in source.items())
        assert first.boxes_xyxy.tolist() == [[1, 2, 3, 4], [5, 6, 29, 19]]
        assert first.box_frame_wh == (30, 20)
        assert second.boxes_xyxy is None

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("image,x,y,w,h\n", "image,x0,y0,x1,y1"),
            ("image,x0,y0,x1,y1\na/0.jpg,1,2,three,4\n", "row 2"),
            ("image,x0,y0,x1,y1\na/0.jpg,9,2,3,4\n", "row 2"),
            ("image,x0,y0,x1,y1\na/0.jpg,nan,2,3,4\n", "row 2"),
            ("image,x0,y0,x1,y1\na/9.jpg,1,2,3,4\n", "no image 'a/9.jpg'"),
            ("image,x0,y0,x1,y1\n../a/0.jpg,1,2,3,4\n", "refused"),
            ("", "empty file"),
        ],
    )
    def test_bad_boxes_are_refused(self, tmp_path, text, message):
        write_image(tmp_path / "a" / "0.jpg")
        write_image(tmp_path / "b" / "0.jpg")
        (tmp_path / "boxes.csv").write_text(text)
        with pytest.raises(UserError, match=message):
            folder.Source(folder.Options(root=tmp_path, boxes=tmp_path / "boxes.csv"))

    def test_a_class_without_images_is_named(self, tmp_path):
        write_image(tmp_path / "a" / "0.jpg")
        (tmp_path / "b").mkdir()
        with pytest.raises(UserError, match=r"b: a class without images"):
            list(folder.Source(folder.Options(root=tmp_path)).items())

    def test_a_missing_root_is_named(self, tmp_path):
        with pytest.raises(UserError, match="nowhere: no such folder"):
            folder.Source(folder.Options(root=tmp_path / "nowhere"))


WNIDS = [f"n{number:08d}" for number in range(1000)]
XML = """<annotation><size><width>50</width><height>40</height></size>
<object><name>{wnid}</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>49</xmax><ymax>39</ymax></bndbox></object>
<object><name>{wnid}</name><bndbox><xmin>5</xmin><ymin>6</ymin><xmax>7</xmax><ymax>8</ymax></bndbox></object>
</annotation>"""


class TestImageNet:
    @pytest.fixture
    def root(self, tmp_path):
        lines = [f"{wnid} name {number}, other name\n" for number, wnid in enumerate(WNIDS)]
        (tmp_path / "synset_words.txt").write_text("".join(reversed(lines)))
        return tmp_path

    def write_val(self, base, wnid=WNIDS[7], xml=XML):
        write_image(base / "val" / "ILSVRC2012_val_00000001.JPEG")
        path = base / "Annotations" / "CLS-LOC" / "val" / "ILSVRC2012_val_00000001.xml"
        path.parent.mkdir(parents=True)
        path.write_text(xml.format(wnid=wnid))
        return path

    def test_val_with_xml_boxes_is_the_split_test(self, root):
        self.write_val(root)
        source = imagenet.Source(imagenet.Options(root=root))
        (item,) = source.items()
        sample = source.read(item)
        assert (item.split, item.labels) == ("test", (7,))
        assert source.classes[7] == f"{WNIDS[7]} name 7, other name"
        assert sample.boxes_xyxy.tolist() == [[1, 2, 49, 39], [5, 6, 7, 8]]
        assert sample.box_frame_wh == (50, 40)
        assert sample.extension == "jpg"

    def test_train_folders_of_the_original_layout(self, root):
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

    def test_a_document_type_is_refused(self, root):
        bomb = '<!DOCTYPE a [<!ENTITY b "bb">]>' + XML
        self.write_val(root, xml=bomb.replace("{wnid}", "&b;"))
        with pytest.raises(UserError, match="document type"):
            list(imagenet.Source(imagenet.Options(root=root)).items())

    def test_an_annotation_without_a_number_is_named(self, root):
        path = self.write_val(root)
        path.write_text(path.read_text().replace("<xmin>1</xmin>", ""))
        source = imagenet.Source(imagenet.Options(root=root))
        (item,) = source.items()
        with pytest.raises(UserError, match=r"val_00000001\.xml.*xmin"):
            source.read(item)

    def test_a_part_of_imagenet_points_to_the_folder_source(self, tmp_path):
        write_image(tmp_path / "train" / "n01440764" / "1.JPEG")
        with pytest.raises(UserError, match="source 'folder'"):
            imagenet.Source(imagenet.Options(root=tmp_path))

    def write_lists(self, root, **changed):
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

    def test_lists(self, root):
        source = self.write_lists(root)
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
    def test_bad_lists_are_refused(self, root, changed, message):
        with pytest.raises(UserError, match=message):
            list(self.write_lists(root, **changed).items())

    @real_data
    def test_the_300_real_validation_images(self):
        source = imagenet.Source(imagenet.Options(root=Path(WSOL_DATA) / "ilsvrc-val-300"))
        items = list(source.items())
        boxes = [source.layout.boxes(item)[0] for item in items]
        assert (len(items), len({item.labels for item in items}), sum(map(len, boxes))) == (300, 259, 505)
        assert sum(len(some) > 1 for some in boxes) == 64
        assert source.classes[472].endswith("canoe")


class TestCaltech:
    def write(self, root, box=(2, 17, 3, 28)):
        import scipy.io

        write_image(root / "101_ObjectCategories" / "airplanes" / "image_0001.jpg")
        path = root / "Annotations" / "Airplanes_Side_2" / "annotation_0001.mat"
        path.parent.mkdir(parents=True)
        contour = np.array([[0.0, 10.0, 10.0, 0.0], [0.0, 0.0, 5.0, 5.0]])
        scipy.io.savemat(path, {"box_coord": np.array([box], np.uint16), "obj_contour": contour})
        (root / "train.txt").write_text("airplanes/image_0001.jpg\n")
        (root / "test.txt").write_text("")
        return path

    def test_boxes_count_from_0_and_the_outline_starts_at_the_box(self, tmp_path):
        self.write(tmp_path)
        source = caltech_101.Source(caltech_101.Options(root=tmp_path))
        (item,) = source.items()
        sample = source.read(item)
        assert sample.boxes_xyxy.tolist() == [[2, 1, 27, 16]]  # the file has y0 y1 x0 x1 from 1
        ys, xs = np.nonzero(sample.mask)
        assert (xs.min(), ys.min(), xs.max(), ys.max()) == (2, 1, 12, 6)
        assert sample.mask.shape == (20, 30)

    def test_a_damaged_annotation_is_named(self, tmp_path):
        self.write(tmp_path).write_bytes(b"nothing of the kind")
        source = caltech_101.Source(caltech_101.Options(root=tmp_path))
        with pytest.raises(UserError, match=r"annotation_0001\.mat"):
            source.read(next(source.items()))

    def test_a_class_that_only_tests_is_refused(self, tmp_path):
        self.write(tmp_path)
        (tmp_path / "test.txt").write_text("ant/image_0001.jpg\n")
        with pytest.raises(UserError, match="without images: 'ant'"):
            caltech_101.Source(caltech_101.Options(root=tmp_path))

    @real_data
    def test_real_outlines_lie_in_their_boxes(self):
        source = caltech_101.Source(caltech_101.Options(root=Path(WSOL_DATA) / "caltech-101"))
        items = list(source.items())
        assert (len(items), len(source.classes)) == (1120, 24)
        overlaps = [_extent_iou(source.read(item)) for item in items[::10]]
        assert np.mean(overlaps) > 0.93  # 0.945 over all, by the data's own description


def _extent_iou(sample):
    ys, xs = np.nonzero(sample.mask)
    mask_box = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
    box = sample.boxes_xyxy[0] + [0, 0, 1, 1]
    low, high = np.maximum(mask_box[:2], box[:2]), np.minimum(mask_box[2:], box[2:])
    inter = np.prod(np.maximum(high - low, 0))
    return inter / (np.prod(mask_box[2:] - mask_box[:2]) + np.prod(box[2:] - box[:2]) - inter)
