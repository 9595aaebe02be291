"""Annotations in the XML of PASCAL VOC, which ImageNet uses too."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass

import numpy as np

from wsol_dist.data.raw.archive import Place
from wsol_dist.errors import UserError

CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, kw_only=True)
class XmlObjects:
    """What is annotated in one image."""

    names: tuple[str, ...]
    """Class name of each object."""
    boxes_xyxy: np.ndarray
    """(n, 4) float64, the numbers as they stand there."""
    size_wh: tuple[int, int]
    """Of the original image."""


def read_xml(path: Place) -> ET.Element:
    """The root element of a small XML file.

    Raises:
        UserError: missing, not XML, or with a document type, which could expand without bound.
    """
    try:
        text = path.read_bytes().decode("utf-8")
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise UserError(f"{path}: refused: an annotation with a document type declaration")
        return ET.fromstring(text)  # noqa: S314 - declarations are refused above
    except (OSError, ValueError, ET.ParseError) as error:
        raise UserError(f"{path}: cannot read this annotation: {error}") from error


def read_objects(path: Place) -> XmlObjects:
    """All objects of an annotation.

    Raises:
        UserError: as `read_xml`, or a number is missing.
    """
    root = read_xml(path)
    things = root.findall("object")  # direct children only: VOC has parts of objects within
    try:
        corners = [[float(thing.findtext(f"bndbox/{corner}", "")) for corner in CORNERS] for thing in things]
        size = (int(root.findtext("size/width", "")), int(root.findtext("size/height", "")))
    except ValueError as error:
        raise UserError(f"{path}: size and bndbox with {', '.join(CORNERS)} expected: {error}") from error
    return XmlObjects(
        names=tuple(thing.findtext("name", "") for thing in things),
        boxes_xyxy=np.array(corners, dtype=np.float64).reshape(-1, 4),
        size_wh=size,
    )


def read_names(path: Place) -> list[str]:
    """Class names of the objects alone."""
    return [thing.findtext("name", "") for thing in read_xml(path).findall("object")]
