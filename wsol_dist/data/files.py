"""Reading what data sets bring along: image files, class folders, rows of text; mistakes name the file."""

from __future__ import annotations

from pathlib import Path

from wsol_dist.data.shard import IMAGE_EXTENSIONS
from wsol_dist.errors import UserError


def need_folder(path: Path, what: str) -> Path:
    """The folder itself.

    Raises:
        UserError: it is not there; `what` says what was expected.
    """
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; expected {what}")
    return path


def extension_of(path: str | Path) -> str:
    """The extension in lower case without a dot, one name a format: jpg, not jpeg."""
    extension = Path(path).suffix.lower().removeprefix(".")
    return "jpg" if extension == "jpeg" else extension


def folders_in(folder: Path) -> list[str]:
    """Names of the visible folders, sorted."""
    return sorted(
        entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )


def images_in(folder: Path) -> list[str]:
    """Names of the image files directly in a folder, sorted."""
    return sorted(
        entry.name
        for entry in folder.iterdir()
        if extension_of(entry.name) in IMAGE_EXTENSIONS and not entry.name.startswith(".") and entry.is_file()
    )


def images_of_class(folder: Path) -> list[str]:
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


def read_image_bytes(path: Path) -> bytes:
    """An image file as it is.

    Raises:
        UserError: it is missing or unreadable.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot read this image: {error.strerror}") from error


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text file without empty ones.

    Raises:
        UserError: it is missing, unreadable or not text.
    """
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read this list: {error}") from error


def read_table(path: Path, *columns: str) -> list[list[str]]:
    """Rows of a comma separated list without a header.

    Raises:
        UserError: a row has another number of fields; file, line and the columns are named.
    """
    rows = [line.split(",") for line in read_lines(path)]
    for number, row in enumerate(rows, start=1):
        if len(row) != len(columns):
            raise UserError(f"{path}: row {number}: {','.join(row)!r} given, {','.join(columns)} expected")
    return rows


def to_int(text: str, path: Path) -> int:
    """A whole number.

    Raises:
        UserError: it is none; the file is named.
    """
    try:
        return int(text)
    except ValueError as error:
        raise UserError(f"{path}: {text!r} given, a whole number expected") from error


def inside(root: Path, relative: str) -> Path:
    """A path below the root, from a list that is not trusted.

    Raises:
        UserError: it points elsewhere.
    """
    if relative.startswith(("/", "\\")) or ".." in Path(relative).parts:
        raise UserError(f"{relative!r}: refused: a path that leaves {root}")
    return root / relative
