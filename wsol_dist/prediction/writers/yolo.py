"""YOLO: `yolo/labels/<stem>.txt` with lines `class cx cy w h`, each over the image's size, and `yolo/data.yaml`.

Trainers look for `labels/` beside `images/`: where the images are files, `yolo/images` is a link to their folder.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from wsol_dist.files import write_atomically
from wsol_dist.prediction.writers import LabelledImage, Labels
from wsol_dist.prediction.writers.links import link_folder, remove_others


def write(out: Path, labels: Labels) -> None:
    """Images with a box are listed in `images.txt`. One without has no file: an empty one would say that there is
    no object."""
    folder = out / "yolo"
    listed, written = [], set()
    for image in labels.images():
        if image.boxes:
            path = folder / "labels" / f"{image.stem}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, "".join(_lines(image)).encode(), sync=False)
            written.add(path)
            listed.append(f"./images/{image.id}\n")
    remove_others(folder / "labels", written)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "images.txt", "".join(listed).encode())
    names = dict(enumerate(labels.classes))
    tree = {"train": "images.txt", "val": "images.txt", "names": names}
    text = f"# {labels.about}\n" + yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    write_atomically(folder / "data.yaml", text.encode())
    if labels.root is not None:
        link_folder(folder / "images", labels.root)


def _lines(image: LabelledImage) -> list[str]:
    lines = []
    for box in image.boxes:
        x0, y0, x1, y1 = box.xyxy
        centre_x, centre_y = (x0 + x1) / 2 / image.width, (y0 + y1) / 2 / image.height
        width, height = (x1 - x0) / image.width, (y1 - y0) / image.height
        lines.append(f"{box.label} {centre_x:.6f} {centre_y:.6f} {width:.6f} {height:.6f}\n")
    return lines
