"""The protocols once more, as plainly as possible: one threshold, one box, one pixel at a time.

Imports nothing of the package, so that agreement means something.
"""

from __future__ import annotations

import cv2
import numpy as np

THRESHOLDS = [step / 1000 for step in range(1000)]
KINDS = ("right", "classification", "multi_instance", "part", "more", "wrong_place")


def gray_map(scores, size, *, cubic):
    if scores.min() == scores.max():
        return np.zeros((size, size), np.uint8)
    scores = scores.astype(np.float64 if cubic else np.float32)
    large = cv2.resize(scores, (size, size), interpolation=cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR)
    large = large - large.min()
    return (large / large.max() * 255).astype(np.uint8)


def contours_above(gray, threshold):
    level = int(threshold * int(gray.max()))
    _, binary = cv2.threshold(gray, level, 255, cv2.THRESH_BINARY)
    return cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]


def to_box(contour, limit):
    x, y, w, h = cv2.boundingRect(contour)
    return [x, y, min(x + w, limit), min(y + h, limit)]


def largest_box(gray, threshold, *, clamp):
    contours = contours_above(gray, threshold)
    if len(contours) == 0:
        return [0, 0, 0, 0] if clamp else [0, 0, 1, 1]
    return to_box(max(contours, key=cv2.contourArea), len(gray) - 1 if clamp else len(gray))


def boxes_and_largest(gray, threshold):
    """The boxes of all contours, ending behind the last pixel, and which of them has the largest area."""
    contours = contours_above(gray, threshold)
    areas = [cv2.contourArea(contour) for contour in contours]
    return [to_box(contour, 10**6) for contour in contours], areas.index(max(areas))


def every_box(gray, threshold):
    contours = contours_above(gray, threshold)
    return [to_box(contour, len(gray) - 1) for contour in contours] or [[0, 0, 0, 0]]


def inter(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    return max(width, 0) * max(height, 0)


def area(box):
    return (box[2] - box[0] + 1) * (box[3] - box[1] + 1)


def iou(a, b):
    return inter(a, b) / (area(a) + area(b) - inter(a, b))


def scaled(box, frame_wh, size):
    width, height = (float(side) for side in frame_wh)
    x0, y0, x1, y1 = (float(number) for number in box)
    return [int(x0 * size / width), int(y0 * size / height), int(x1 * size / width), int(y1 * size / height)]


def clamped(box, size):
    return [min(max(number, 0), size - 1) for number in box]


def error_kind(box, truths, *, class_right):
    if not class_right:
        return "classification"
    ious = [iou(box, truth) for truth in truths]
    if max(ious) > 0.5:
        return "right"
    if sum(inter(box, truth) / area(truth) > 0.3 for truth in truths) >= 2:
        return "multi_instance"
    truth = truths[ious.index(max(ious))]
    if inter(box, truth) / area(box) > 0.5:
        return "part"
    if inter(box, truth) / area(truth) >= 0.7:
        return "more"
    return "wrong_place"


def topk_loc(images, threshold, size):
    """images: dicts of map, boxes, frame_wh, label, prob, decoded. Percentages at one threshold."""
    images = [image for image in images if image["boxes"] is not None]
    hits = dict.fromkeys(["gt_known", "top1_loc", "top5_loc", *KINDS], 0)
    for image in images:
        truths = [clamped(scaled(box, image["frame_wh"], size), size) for box in image["boxes"]]
        ranking = sorted(range(len(image["prob"])), key=lambda number: (-image["prob"][number], number))
        if not image["decoded"]:
            hits["classification"] += 1
            continue
        box = largest_box(gray_map(image["map"], size, cubic=False), threshold, clamp=False)
        best = max(iou(box, truth) for truth in truths)
        hits["gt_known"] += best >= 0.5
        hits["top1_loc"] += best > 0.5 and ranking[0] == image["label"]
        hits["top5_loc"] += best > 0.5 and image["label"] in ranking[:5]
        hits[error_kind(box, truths, class_right=ranking[0] == image["label"])] += 1
    return {name: 100.0 * number / len(images) for name, number in hits.items()}


def max_box_acc(images, size):
    """The best percentages over all thresholds: (MaxBoxAcc, V2 at 0.3, 0.5, 0.7)."""
    images = [image for image in images if image["boxes"] is not None]
    best = [0, 0, 0, 0]
    grays = [gray_map(image["map"], size, cubic=True) for image in images]
    for threshold in THRESHOLDS:
        hits = [0, 0, 0, 0]
        for image, gray in zip(images, grays, strict=True):
            if not image["decoded"]:
                continue
            truths = [scaled(box, image["frame_wh"], size) for box in image["boxes"]]
            hits[0] += max(iou(largest_box(gray, threshold, clamp=True), truth) for truth in truths) >= 0.5
            highest = max(iou(box, truth) for box in every_box(gray, threshold) for truth in truths)
            for place, delta in enumerate((0.3, 0.5, 0.7), start=1):
                hits[place] += highest >= delta
        best = [max(pair) for pair in zip(best, hits, strict=True)]
    return [100.0 * number / len(images) for number in best]


def pixel_counts(scores, masks):
    """At each threshold and at 1, 2: (true positives, false positives); and the number of object pixels."""
    scores, masks = np.concatenate([s.ravel() for s in scores]), np.concatenate([m.ravel() for m in masks])
    edges = [*np.arange(0, 1, 0.001), 1.0, 2.0]
    true = [int(((scores >= edge) & (masks == 1)).sum()) for edge in edges]
    false = [int(((scores >= edge) & (masks == 0)).sum()) for edge in edges]
    return true, false, int((masks == 1).sum())


def pxap(scores, masks):
    true, false, positives = pixel_counts(scores, masks)
    total = 0.0
    for here in reversed(range(len(true) - 1)):
        gain = (true[here] - true[here + 1]) / positives
        if true[here] + false[here] > 0:
            total += true[here] / (true[here] + false[here]) * gain
    return 100 * total


def max_piou(scores, masks):
    true, false, positives = pixel_counts(scores, masks)
    return max(100 * t / (positives + f) for t, f in zip(true, false, strict=True))


def seed_miou(images, threshold):
    """images: pairs of {class: scores in 0..1 at the mask's size} and mask. Mean IoU in percent at one threshold."""
    right, predicted, true = {}, {}, {}
    for score_of, mask in images:
        for place in np.ndindex(mask.shape):
            if mask[place] == 255:
                continue
            best, high = 0, np.float32(threshold)
            for number in sorted(score_of):
                if score_of[number][place] > high:
                    best, high = number + 1, score_of[number][place]
            truth = int(mask[place])
            predicted[best] = predicted.get(best, 0) + 1
            true[truth] = true.get(truth, 0) + 1
            if best == truth:
                right[best] = right.get(best, 0) + 1
    ious = {}
    for number in sorted(set(predicted) | set(true)):
        either = predicted.get(number, 0) + true.get(number, 0) - right.get(number, 0)
        ious[number] = 100 * right.get(number, 0) / either
    return sum(ious.values()) / len(ious), ious


def centre_box(boxes_of_image, size):
    """The best percentage over 20 x 20 centred boxes; boxes are on the square already."""
    best = 0
    sides = [max(round(step * size / 20), 1) for step in range(1, 21)]
    for width in sides:
        for height in sides:
            x0, y0 = (size - width) // 2, (size - height) // 2
            box = [x0, y0, x0 + width - 1, y0 + height - 1]
            best = max(best, sum(max(iou(box, t) for t in truths) >= 0.5 for truths in boxes_of_image))
    return 100.0 * best / len(boxes_of_image)
