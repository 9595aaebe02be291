"""Pascal VOC: `voc/VOCdevkit/VOC2012/Annotations/<stem>.xml` and the list `ImageSets/Main/trainval.txt`.

The layout is the one that torchvision's `VOCDetection(root="O/voc", year="2012", image_set="trainval")` reads.
Boxes are whole pixels that count from 1, the last one included, as VOC has them.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from wsol_dist.files import write_atomically
from wsol_dist.prediction.writers import LabelledBox, LabelledImage, Labels
from wsol_dist.prediction.writers.links import link_folder, remove_others


def write(out: Path, labels: Labels) -> None:
    """An annotation for each image that decoded; the list has those with a box."""
    folder = out / "voc" / "VOCdevkit" / "VOC2012"
    written, listed = set(), []
    for image in labels.images():
        path = folder / "Annotations" / f"{image.stem}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        tree = _annotation(image, labels)
        ET.indent(tree)
        write_atomically(path, ET.tostring(tree, encoding="utf-8") + b"\n", sync=False)
        written.add(path)
        if image.boxes:
            listed.append(f"{image.stem}\n")
    remove_others(folder / "Annotations", written)
    sets = folder / "ImageSets" / "Main"
    sets.mkdir(parents=True, exist_ok=True)
    write_atomically(sets / "trainval.txt", "".join(listed).encode())
    if labels.root is not None:
        link_folder(folder / "JPEGImages", labels.root)


def _annotation(image: LabelledImage, labels: Labels) -> ET.Element:
    root = ET.Element("annotation")
    _add(root, folder="JPEGImages", filename=image.id)
    _add(ET.SubElement(root, "source"), annotation=labels.about)
    _add(ET.SubElement(root, "size"), width=image.width, height=image.height, depth=3)
    _add(root, segmented=0)
    for box in image.boxes:
        node = ET.SubElement(root, "object")
        _add(node, name=labels.classes[box.label], pose="Unspecified", truncated=0, difficult=0)
        _add(ET.SubElement(node, "bndbox"), **_whole_pixels(box, image))
        _add(node, score=f"{box.score:.6f}")
    return root


def _whole_pixels(box: LabelledBox, image: LabelledImage) -> dict[str, int]:
    x0, y0, x1, y1 = (round(side) for side in box.xyxy)
    left, top = min(x0, image.width - 1) + 1, min(y0, image.height - 1) + 1
    return {"xmin": left, "ymin": top, "xmax": max(x1, left), "ymax": max(y1, top)}


def _add(node: ET.Element, **texts: object) -> None:
    for name, text in texts.items():
        ET.SubElement(node, name).text = str(text)
