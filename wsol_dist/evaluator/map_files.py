"""Score maps and predicted classes that some other code wrote: folders, tars and derived columns of maps."""

from __future__ import annotations

import csv
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from wsol_dist.data.images.arrays import decode
from wsol_dist.data.shards.columns import BEGUN_FILE, COLUMN_FILE, Column
from wsol_dist.data.shards.index import Index, Rows
from wsol_dist.errors import UserError
from wsol_dist.evaluator.save_maps import NAME

MAX_NAMED = 10


class MapFiles(Protocol):
    """Where maps are read from; picklable."""

    def missing(self, rows: Rows) -> list[str]:
        """Ids of the split's rows that have no map."""
        ...

    def read(self, row: int, image_id: str) -> np.ndarray | None:
        """A map as stored; None where the image did not decode when the maps were made.

        Raises:
            ValueError: it is damaged.
        """
        ...


def open_maps(path: Path, index: Index, split: str) -> MapFiles:
    """The maps of a folder of `ID.npy`, of a tar of them, or of a folder that --save-maps wrote.

    Raises:
        UserError: there is nothing of that kind.
    """
    if path.is_file():
        return TarMaps(path)
    if (path / COLUMN_FILE).is_file() or (path / BEGUN_FILE).is_file():
        column = Column.open(path, index)
        if column.about.name != NAME:
            raise UserError(f"{path}: a column of {column.about.name!r}, not of score maps ({NAME!r})")
        return ColumnMaps(column, split)
    if not path.is_dir():
        raise UserError(f"{path}: no such folder or tar of score maps; expected ID.npy, one for each image")
    return FolderMaps(path)


class FolderMaps:
    """`FOLDER/ID.npy`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def missing(self, rows: Rows) -> list[str]:
        return [one for one in _ids(rows) if not self._path(one).is_file()]

    def read(self, row: int, image_id: str) -> np.ndarray | None:
        return decode(self._path(image_id).read_bytes(), "npy")

    def _path(self, image_id: str) -> Path:
        if image_id.startswith("/") or ".." in Path(image_id).parts:
            raise UserError(f"{image_id!r}: refused: an id that leaves {self.folder}")
        return self.folder / f"{image_id}.npy"


class TarMaps:
    """Members `ID.npy` of a plain tar, in any order, perhaps below one folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.place: dict[str, tuple[int, int]] = {}
        try:
            with tarfile.open(path, "r:") as tar:
                for member in tar:
                    if member.isreg() and member.name.endswith(".npy"):
                        self._add(member)
        except tarfile.TarError as error:
            raise UserError(f"{path}: no plain tar ({error}); unpack it if it is compressed") from error
        if not self.place:
            raise UserError(f"{path}: no .npy file in it; expected ID.npy, one for each image")

    def _add(self, member: tarfile.TarInfo) -> None:
        name = member.name.removeprefix("./").removesuffix(".npy")
        if name in self.place:
            raise UserError(f"{self.path}: holds {name}.npy several times; keep one")
        self.place[name] = (member.offset_data, member.size)

    def missing(self, rows: Rows) -> list[str]:
        self._leave_common_folder(rows)
        return [one for one in _ids(rows) if one not in self.place]

    def _leave_common_folder(self, rows: Rows) -> None:
        """Drop the folder that all names lie below, where ids do not have it: `tar cf maps.tar maps/`."""
        folders = {name.partition("/")[0] for name in self.place}
        first = rows.ids[0].as_py()
        if len(folders) == 1 and first not in self.place and f"{next(iter(folders))}/{first}" in self.place:
            self.place = {name.partition("/")[2]: place for name, place in self.place.items()}

    def read(self, row: int, image_id: str) -> np.ndarray | None:
        offset, size = self.place[image_id]
        with self.path.open("rb") as file:
            file.seek(offset)
            return decode(file.read(size), "npy")


class ColumnMaps:
    """What `--save-maps` wrote."""

    def __init__(self, column: Column, split: str) -> None:
        self.column, self.split = column, split
        if split not in column.about.splits:
            raise UserError(
                f"{column.folder}: maps of split {', '.join(column.about.splits)}, not of {split!r}; "
                "name it with --split, or give other maps"
            )

    def missing(self, rows: Rows) -> list[str]:
        return []

    def read(self, row: int, image_id: str) -> np.ndarray | None:
        return self.column.value(self.split, row)


def check_complete(maps: MapFiles, rows: Rows, *, where: Path) -> None:
    """Every image of the split has a map.

    Raises:
        UserError: the first ten that have none.
    """
    missing = maps.missing(rows)
    if missing:
        more = f" and {len(missing) - MAX_NAMED} more" if len(missing) > MAX_NAMED else ""
        raise UserError(
            f"{where}: no map for {len(missing)} of {len(rows)} images: {', '.join(missing[:MAX_NAMED])}{more}; "
            "a map is called ID.npy, with the id as `wsol shards show` prints it"
        )


def checked_map(value: np.ndarray) -> np.ndarray:
    """A map as the metrics want it, (h, w) float32 or float64; any size.

    Raises:
        ValueError: another shape, or no numbers.
    """
    if value.ndim != 2 or 0 in value.shape:
        raise ValueError(f"shape {value.shape} given, a map is (height, width)")
    if value.dtype.kind not in "fuib":
        raise ValueError(f"dtype {value.dtype} given, a map is float or uint8")
    return value if value.dtype in (np.float32, np.float64) else value.astype(np.float32)


def read_predictions(path: Path, index: Index) -> dict[str, tuple[int, ...]]:
    """Predicted classes by image id, the most probable first; of every image equally many.

    A .csv has rows `ID,CLASS[,CLASS...]`, perhaps with a header that begins with `id`; an .npz has the arrays `ids`
    and `predicted`, (N,) or (N, K). A class is its number or its name.

    Raises:
        UserError: anything else, with the place.
    """
    try:
        pairs = list(_npz_rows(path) if path.suffix == ".npz" else _csv_rows(path))
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise UserError(
            f"{path}: cannot be read as predicted classes ({error}); give a .csv of ID,CLASS or an .npz "
            "of ids, predicted"
        ) from error
    number_of = {name: number for number, name in enumerate(index.classes)}
    number_of |= {str(number): number for number in range(len(index.classes))}
    found: dict[str, tuple[int, ...]] = {}
    for image_id, classes in pairs:
        unknown = [one for one in classes if one not in number_of]
        if unknown or not classes:
            raise UserError(
                f"{path}: {image_id}: class {(unknown or [''])[0]!r}: no name or number of {index.place}"
            )
        if image_id in found:
            raise UserError(f"{path}: {image_id}: given several times; keep one")
        found[image_id] = tuple(number_of[one] for one in classes)
    if len({len(classes) for classes in found.values()}) != 1:
        raise UserError(f"{path}: equally many classes are needed for every image, and at least one image")
    return found


def check_predicted(found: dict[str, tuple[int, ...]], rows: Rows, *, where: Path) -> None:
    """Every image of the split has predicted classes.

    Raises:
        UserError: the first ten that have none.
    """
    missing = [one for one in _ids(rows) if one not in found]
    if missing:
        raise UserError(
            f"{where}: no predicted class for {len(missing)} of {len(rows)} images: {', '.join(missing[:MAX_NAMED])}"
        )


def _ids(rows: Rows) -> Iterable[str]:
    return (one.as_py() for one in rows.ids)


def _csv_rows(path: Path) -> Iterable[tuple[str, Sequence[str]]]:
    with path.open(newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.reader(file)):
            if row and not (number == 0 and row[0].strip().lower() in ("id", "image_id")):
                yield row[0].strip(), [one.strip() for one in row[1:]]


def _npz_rows(path: Path) -> Iterable[tuple[str, Sequence[str]]]:
    with np.load(path, allow_pickle=False) as arrays:
        ids, predicted = arrays["ids"], arrays["predicted"]
    if len(ids) != len(predicted):
        raise ValueError(f"{len(ids)} ids and {len(predicted)} predictions")
    for image_id, classes in zip(ids.tolist(), predicted.reshape(len(ids), -1).tolist(), strict=True):
        yield str(image_id), [str(one) for one in classes]
