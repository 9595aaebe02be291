"""Reading what data sets bring along: image files, class folders, rows of text; mistakes name the file."""

from __future__ import annotations

import math
import os
from pathlib import PurePosixPath
from typing import TypeVar

from wsol_dist.data.images.orientation import without_orientation
from wsol_dist.data.raw.archive import Place
from wsol_dist.data.shards.shard import IMAGE_EXTENSIONS
from wsol_dist.errors import UserError

AnyPlace = TypeVar("AnyPlace", bound=Place)
"""The same kind comes out that went in."""


def need_folder(path: AnyPlace, what: str) -> AnyPlace:
    """The folder itself.

    Raises:
        UserError: it is not there; `what` says what was expected.
    """
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; expected {what}")
    return path


def extension_of(path: str) -> str:
    """The extension in lower case without a dot, one name a format: jpg, not jpeg."""
    extension = os.path.splitext(path)[1].lower().removeprefix(".")
    return "jpg" if extension == "jpeg" else extension


def folders_in(folder: Place) -> list[str]:
    """Names of the visible folders, sorted."""
    return sorted(
        entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )


def images_in(folder: Place) -> list[str]:
    """Names of the image files directly in a folder, sorted."""
    return sorted(
        entry.name
        for entry in folder.iterdir()
        if extension_of(entry.name) in IMAGE_EXTENSIONS and not entry.name.startswith(".") and entry.is_file()
    )


def images_of_class(folder: Place) -> list[str]:
    """Names of the images of a class folder, sorted.

    Raises:
        UserError: there are none.
    """
    names = images_in(folder)
    if not names:
        raise UserError(
            f"{folder}: a class without images; put images ({', '.join(IMAGE_EXTENSIONS)}) there or remove it"
        )
    return names


def read_image_bytes(path: Place) -> bytes:
    """An image file as it is.

    Raises:
        UserError: it is missing or unreadable.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot read this image: {error.strerror}") from error


def read_published_image(path: Place) -> bytes:
    """An image of a published data set, whose annotations are in the frame of the stored pixels: its EXIF orientation
    is set to upright, as the field's readers ignore it.

    Raises:
        UserError: as `read_image_bytes`.
    """
    return without_orientation(read_image_bytes(path))


def read_lines(path: Place) -> list[str]:
    """The lines of a UTF-8 text file without empty ones.

    Raises:
        UserError: it is missing, unreadable or not text.
    """
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read this list: {error}") from error


def read_table(path: Place, *columns: str) -> list[list[str]]:
    """Rows of a comma separated list without a header.

    Raises:
        UserError: a row has another number of fields; file, line and the columns are named.
    """
    return read_rows(path, *columns, separator=",")


def read_rows(path: Place, *columns: str, separator: str | None = "\t") -> list[list[str]]:
    """Rows of a list without a header, fields between tabs or another separator; None for any blanks.

    Raises:
        UserError: as `read_table`.
    """
    rows = [line.split(separator) for line in read_lines(path)]
    for number, row in enumerate(rows, start=1):
        if len(row) != len(columns):
            shown = (separator or " ").join(columns)
            given = (separator or " ").join(row)
            raise UserError(f"{path}: row {number}: {given!r} given, {shown} expected")
    return rows


def to_int(text: str, path: Place) -> int:
    """A whole number.

    Raises:
        UserError: it is none; the file is named.
    """
    try:
        return int(text)
    except ValueError as error:
        raise UserError(f"{path}: {text!r} given, a whole number expected") from error


def to_float(text: str, path: Place) -> float:
    """A finite number.

    Raises:
        UserError: it is none; the file is named.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{path}: {text!r} given, a number expected")
    return number


def inside(root: AnyPlace, relative: str) -> AnyPlace:
    """A path below the root, from a list that is not trusted.

    Raises:
        UserError: it points elsewhere.
    """
    if relative.startswith(("/", "\\")) or ".." in PurePosixPath(relative).parts:
        raise UserError(f"{relative!r}: refused: a path that leaves {root}")
    return root / relative  # type: ignore[return-value]
