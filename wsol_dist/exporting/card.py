"""The model card of an exported model: what the run's records say, and where a person has to fill in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wsol_dist.evaluator.history import TEST_SCORINGS_FILE
from wsol_dist.prediction.opening import OpenedModel
from wsol_dist.report.run_data import EvalRecord, read_run
from wsol_dist.report.view import LABELS, threshold_text, value_text

SHOWN_CLASSES = 30
TRAINED = ("epochs", "global_batch", "optimizer", "lr", "weight_decay", "schedule", "warmup_epochs", "ema")
FRONT = """---
license: other  # fill in: see "License of the weights"
library_name: wsol_dist
tags: [weakly-supervised-object-localization]
---
"""


def write_card(
    opened: OpenedModel, about: dict[str, Any], *, raw: dict[str, Any], formats: tuple[str, ...]
) -> str:
    """The card as Markdown.

    Args:
        about: `model.json`.
        raw: the run's `config.yaml` as plain values.
    """
    parts = [
        FRONT,
        f"# {opened.config.name}\n",
        _what(opened, about),
        _use(opened, about, formats),
        _scores(opened),
        _training(opened, raw),
        _limits(),
    ]
    return "\n".join(parts)


def _what(opened: OpenedModel, about: dict[str, Any]) -> str:
    names = ", ".join(opened.classes[:SHOWN_CLASSES])
    more = f" and {len(opened.classes) - SHOWN_CLASSES} more" if len(opened.classes) > SHOWN_CLASSES else ""
    return f"""A localizer trained on image labels only, without boxes: the method `{opened.method_name}` of wsol_dist.

- Input: RGB images, the whole image squashed to {about["image_px"]} x {about["image_px"]} pixels.
- Output: probabilities of {len(opened.classes)} classes; heat maps, boxes and masks of the most probable ones.
- Boxes: pixels of the image as a person sees it (after EXIF orientation), from 0 at the left and upper edge; x1, y1 end
  behind the last pixel. A box is that of the largest region of the heat map above the threshold.
- Boxes and masks are made at {opened.threshold_why.replace(str(opened.path), opened.path.name)}.
- Classes (`labels.json` has all, in the order of the numbers): {names}{more}
"""


def _use(opened: OpenedModel, about: dict[str, Any], formats: tuple[str, ...]) -> str:
    text = """## Use

```python
import wsol_dist

model = wsol_dist.load("THIS_FOLDER")                   # checks SHA256SUMS, runs no code from here
for image in model.localize(["photo.jpg"], top_k=1):
    for one in image.classes:
        print(one.name, one.score, [box.xyxy for box in one.boxes], one.mask.shape, one.heat_map.shape)
```
"""
    if "onnx" in formats:
        px, keep = about["image_px"], about["threshold"]["keep_from"]
        text += f"""
`model.onnx` needs onnxruntime only; normalisation is inside, the batch size is free:

```python
import json, numpy as np, onnxruntime
from PIL import Image, ImageOps

photo = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")
images = np.asarray(photo.resize(({px}, {px}), Image.Resampling.BILINEAR))[None]
session = onnxruntime.InferenceSession("model.onnx")
scores, classes, maps = session.run(None, {{"images": images}})
print(json.load(open("labels.json"))[classes[0, 0]], scores[0, classes[0, 0]])
ys, xs = np.nonzero(maps[0, 0] >= {keep:.6f})          # all that is above the threshold, not the largest region alone
scale = np.array(photo.size) / maps.shape[-1]
print([xs.min() * scale[0], ys.min() * scale[1], (xs.max() + 1) * scale[0], (ys.max() + 1) * scale[1]])
```

| name | shape | what |
|---|---|---|
| `images` (in) | batch, {px}, {px}, 3; uint8 | RGB, the whole image squashed |
| `scores` | batch, {len(opened.classes)}; float32 | class probabilities |
| `classes` | batch, {about["top_k"]}; int64 | the most probable classes, in order |
| `maps` | batch, {about["top_k"]}, {about["size_px"]}, {about["size_px"]}; float32 | their heat maps, 0 to 1 |
"""
    if "torch" in formats:
        text += """
`model.pt2` is the same graph: `torch.export.load("model.pt2").module()(images)`. Load it only where you trust its
origin: torch does not promise that reading one is safe.
"""
    return text


def _scores(opened: OpenedModel) -> str:
    records = [
        one for one in read_run(opened.path).records if one.raw.get("weights") == opened.weights_sha256
    ]
    if not records:
        return f"""## Scores

These weights were not scored. `wsol evaluate {opened.path.name} --split val,test` does, where the data has boxes or
masks.
"""
    lines = ["## Scores\n"]
    for record in records:
        lines += list(_table(record))
    looked = _test_scorings(opened.path)
    lines.append(f"\nScorings of test splits in this run, in all: {looked}.\n" if looked else "")
    return "\n".join(lines)


def _table(record: EvalRecord) -> Iterator[str]:
    index = record.raw.get("index") or {}
    data = f"{index.get('name', 'unknown')} (index sha256 {str(index.get('sha256', ''))[:12]})"
    yield f"\nSplit `{record.split}` of {data}, {record.raw.get('num_images')} images:\n"
    yield "| number | value | protocol | threshold |"
    yield "|---|---|---|---|"
    for metric in record.metrics:
        name = str(metric.get("name"))
        if name in LABELS:
            unit = f" {metric['unit']}" if metric.get("unit") else ""
            source = threshold_text(metric) or "none"
            value = f"{value_text(metric.get('value'))}{unit}"
            yield f"| {LABELS[name]} | {value} | `{metric.get('protocol')}` | {source} |"


def _test_scorings(run: Path) -> int:
    try:
        return len((run / TEST_SCORINGS_FILE).read_text(encoding="utf-8").splitlines())
    except OSError:
        return 0


def _training(opened: OpenedModel, raw: dict[str, Any]) -> str:
    train, data = raw.get("train") or {}, raw.get("data") or {}
    knobs = ", ".join(f"{name} {train[name]}" for name in TRAINED if train.get(name) is not None)
    before = [
        str(one.get("name", one)) if isinstance(one, dict) else str(one) for one in raw.get("before") or ()
    ]
    started = [f"{name} {value}" for name, value in _files(raw.get("method") or {}, "method.")]
    started += [f"train.init {value}" for value in train.get("init") or ()]
    return f"""## Training

- Data: `{Path(str(data.get("index", "unknown"))).name}`, split `{data.get("train_split", "train")}`
- Weights: checkpoint of step {opened.step}, sha256 `{opened.weights_sha256}`
- Seed: {raw.get("seed", 0)} (weights, order, augmentation and dropout follow from it)
- Knobs: {knobs or "as config.yaml of the run says"}
- Started from: {"; ".join(started) or "nothing: trained from scratch"}
- Runs before it: {", ".join(before) or "none"}

## License of the weights

To be filled in by whoever publishes them. It depends on the images that the model was trained on and on the weights
that it started from (above).
"""


def _files(tree: dict[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    """Knobs that name pretrained weights."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _files(value, f"{prefix}{name}.")
        elif name in ("checkpoint", "bn_checkpoint") and value:
            yield f"{prefix}{name}", Path(str(value)).name
        elif name == "pretrained" and value:
            yield f"{prefix}arch", f"{tree.get('arch', '')}, timm's pretrained weights"


def _limits() -> str:
    return """## Limits

Learned from image labels alone, the maps may show the part of an object that tells its class best, or what always
surrounds it. Beside each score stands the centre box, the best constant box of that split: a model that does not beat
it has learned nothing about where things are.
"""
