"""Draw the pictures of these pages from runs on the embedded data: python docs/pictures/draw.py NAME RUN [SHARDS].

NAME is result, molt or clustering (a run of quickstart), weight-map (a run of the method, scored after each epoch), or
mmcst (a run of mmcst-collage). The images are the first of the scored test split's fixed cases: nobody chose them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import simplejpeg
import torch
from PIL import Image, ImageDraw, ImageFont

import wsol_dist
from wsol_dist.data.images.decode import decode_rgb
from wsol_dist.data.images.transforms import normalise, squash
from wsol_dist.data.shards.index import Index
from wsol_dist.data.shards.sample import Sample
from wsol_dist.data.stream.stream import ShardReader
from wsol_dist.evaluator.cases import boxes_on
from wsol_dist.metrics.iou import overlap
from wsol_dist.prediction.boxes import find_boxes
from wsol_dist.regions.cluster import backend_class
from wsol_dist.regions.refine import refine
from wsol_dist.report import filmstrip
from wsol_dist.report.draw import draw_boxes, heat_over
from wsol_dist.report.draw_clusters import coloured

HERE = Path(__file__).parent
MOST_BYTES = 150_000
GAP_PX, TITLE_PX, GREY = 6, 20, 32
CLASS_COLOURS = np.array(
    [(0, 0, 0), (230, 25, 75), (60, 180, 75), (255, 225, 25), (0, 130, 200), (245, 130, 48), (145, 30, 180),
     (70, 240, 240), (240, 50, 230)], np.uint8
)  # fmt: skip


def main() -> None:
    """Write docs/pictures/NAME.jpg."""
    drawings = {
        "result": result,
        "molt": molt,
        "clustering": clustering,
        "weight-map": weight_map,
        "mmcst": mmcst,
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=drawings)
    parser.add_argument("run", type=Path)
    parser.add_argument("shards", nargs="?", default="data/collage")
    given = parser.parse_args()
    picture = drawings[given.name](given.run, given.shards)
    for quality in range(90, 30, -5):
        encoded = simplejpeg.encode_jpeg(np.ascontiguousarray(picture), quality=quality)
        if len(encoded) < MOST_BYTES:
            break
    (HERE / f"{given.name}.jpg").write_bytes(encoded)
    print(
        f"{given.name}.jpg: {picture.shape[1]} x {picture.shape[0]}, {len(encoded)} bytes, quality {quality}"
    )


def result(run: Path, shards: str) -> np.ndarray:
    """Twelve images: the heat map, and the box of it."""
    model, cells = wsol_dist.load(run), []
    for sample, image in cases(run, shards, 12):
        found = model.localize(image, classes=[sample.labels[0]])[0].classes[0]
        heat = heat_over(cv2.resize(image, (148, 148), interpolation=cv2.INTER_CUBIC), found.heat_map)
        cells.append(beside([heat, boxed(image, sample, found.boxes, size_px=148)], gap_px=2))
    return titled(
        below([beside(cells[at : at + 3]) for at in range(0, 12, 3)]), ["heat map, box (green), truth (red)"]
    )


def molt(run: Path, shards: str) -> np.ndarray:
    """Four images: the map of each scale, the combined one, clusters, and the refined map, with boxes."""
    model, rows = wsol_dist.load(run), []
    method: Any = model.method
    backend = backend_class("slic")(backend_class("slic").Config(size_px=128, segments=40))
    for sample, image in cases(run, shards, 4):
        label = torch.tensor([[sample.labels[0]]])
        pixels = normalise(torch.as_tensor(squash(image, model.image_px))[None], method.mean, method.std)
        with torch.inference_mode():
            scales = method.scale_maps(pixels, label)[2]
            combined = method.localize(pixels, label).map_BKhw
        labels = backend(image[None], seeds=[0])
        refined = refine(combined, torch.from_numpy(labels), alpha_B=0.5)
        cells = [heat_over(image, one[0, 0].numpy()) for one in scales.values()]
        for one in (combined, refined):
            boxes = find_boxes(one[0, 0].numpy(), (image.shape[1], image.shape[0]), model.rule())
            cells.append(boxed(heat_over(image, one[0, 0].numpy()), sample, boxes, size_px=130))
        cells.insert(4, coloured(image, labels[0]))
        rows.append(beside([fitted(one, 130) for one in (boxed(image, sample, (), size_px=130), *cells)]))
    names = ["image", *(f"{px} px" for px in method.config.scales_px), "combined", "clusters", "refined"]
    return titled(below(rows), names)


def clustering(run: Path, shards: str) -> np.ndarray:
    """Six images: the clusters of each backend, the map as it is, and refined by each."""
    model, rows, alpha = wsol_dist.load(run), [], 0.6
    method: Any = model.method
    knobs = {"slic": {"segments": 34}, "faiss": {"clusters": 9}, "dic": {"fit_px": 64, "iterations": 12}}
    backends = {
        name: backend_class(name)(backend_class(name).Config(size_px=128, **more))
        for name, more in knobs.items()
    }
    for sample, image in cases(run, shards, 6):
        pixels = normalise(torch.as_tensor(squash(image, model.image_px))[None], method.mean, method.std)
        with torch.inference_mode():
            plain = method.localize(pixels, torch.tensor([[sample.labels[0]]])).map_BKhw
        square = cv2.resize(image, (128, 128), interpolation=cv2.INTER_AREA)
        labels = {name: backend(square[None], seeds=[0]) for name, backend in backends.items()}
        refined = [refine(plain, torch.from_numpy(one), alpha_B=alpha) for one in labels.values()]
        cells = [
            boxed(image, sample, (), size_px=112),
            *(coloured(square, one[0]) for one in labels.values()),
        ]
        for one in (plain, *refined):
            boxes = find_boxes(one[0, 0].numpy(), (image.shape[1], image.shape[0]), model.rule())
            cells.append(boxed(heat_over(image, one[0, 0].numpy()), sample, boxes, size_px=112))
        rows.append(beside([fitted(one, 112) for one in cells]))
    return titled(below(rows), ["image", *backends, "map", *(f"by {name}" for name in backends)])


def weight_map(run: Path, shards: str) -> np.ndarray:
    """Maps by epoch: the same images at each checkpoint that was scored in training."""
    strip = filmstrip.picture(run, "val")
    assert strip is not None, f"{run} was scored at one checkpoint only"
    return strip


def mmcst(run: Path, shards: str) -> np.ndarray:
    """Six images: the map of each class that the image has, the label map made of them, the truth."""
    model, rows = wsol_dist.load(run), []
    for sample, image in cases(run, shards, 6):
        found = [model.localize(image, classes=[label])[0].classes[0] for label in sample.labels]
        heats = np.stack([one.heat_map for one in found])
        seeds = np.array([0, *(label + 1 for label in sample.labels)])
        winner = seeds[np.where(heats.max(axis=0) > model.threshold.value, heats.argmax(axis=0) + 1, 0)]
        assert sample.mask is not None
        cells = [fitted(image, 130)]
        for one in found:
            cells.append(labelled(heat_over(fitted(image, 130), one.heat_map), one.name))
        cells += [np.full_like(cells[0], GREY)] * (4 - len(found))
        for mask in (winner, sample.mask):
            cells.append(
                np.asarray(Image.fromarray(CLASS_COLOURS[mask]).resize((130, 130), Image.Resampling.NEAREST))
            )
        rows.append(beside(cells))
    return titled(below(rows), ["image", *["class map"] * 4, "label map", "truth"])


def cases(run: Path, shards: str, num: int) -> Iterator[tuple[Sample, np.ndarray]]:
    """Samples and images of the newest scored test split's fixed cases."""
    record = sorted((run / "eval").glob("test-step-*.json"))[-1]
    reader = ShardReader(Index.load(shards), "test")
    ids = [case["id"] for case in json.loads(record.read_text())["cases"] if "fixed" in case["groups"]]
    for one in ids[:num]:
        row = pc.index_in(pa.array([one], reader.rows.ids.type), value_set=reader.rows.ids)[0].as_py()
        yield reader.sample(row), decode_rgb(reader.image(row))


def boxed(image: np.ndarray, sample: Sample, boxes: Sequence[Any], *, size_px: int) -> np.ndarray:
    """The true boxes, and the first found one with its IoU."""
    truth = boxes_on(sample, image)
    box = np.array(boxes[0].xyxy) if boxes else None
    iou = None if box is None else float(overlap(box[None], truth).iou_NM.max())
    return draw_boxes(image, gt_boxes=truth, predicted_box=box, iou=iou, size_px=size_px)


def fitted(image: np.ndarray, size_px: int) -> np.ndarray:
    return cv2.resize(image, (size_px, size_px), interpolation=cv2.INTER_CUBIC)


def beside(pictures: Sequence[np.ndarray], *, gap_px: int = GAP_PX) -> np.ndarray:
    gap = np.full((len(pictures[0]), gap_px, 3), GREY, np.uint8)
    return np.concatenate([part for one in pictures for part in (one, gap)][:-1], axis=1)


def below(rows: Sequence[np.ndarray]) -> np.ndarray:
    gap = np.full((GAP_PX, rows[0].shape[1], 3), GREY, np.uint8)
    return np.concatenate([part for one in rows for part in (one, gap)][:-1])


def titled(picture: np.ndarray, titles: Sequence[str]) -> np.ndarray:
    """A line above, a title for each column."""
    canvas = Image.fromarray(np.full((TITLE_PX, picture.shape[1], 3), GREY, np.uint8))
    step = (picture.shape[1] + GAP_PX) / len(titles)
    for number, title in enumerate(titles):
        ImageDraw.Draw(canvas).text((number * step + 4, 4), title, fill=(255, 255, 255), font=font())
    return np.concatenate([np.asarray(canvas), picture])


def labelled(picture: np.ndarray, text: str) -> np.ndarray:
    canvas = Image.fromarray(picture)
    ImageDraw.Draw(canvas).text(
        (4, 2), text, fill=(255, 255, 255), font=font(), stroke_width=2, stroke_fill=(0, 0, 0)
    )
    return np.asarray(canvas)


def font() -> Any:
    return ImageFont.load_default(size=12)


if __name__ == "__main__":
    main()
