"""Folders, zips and tars read alike; archives that reach outside are refused."""

import gzip
import io
import pickle  # noqa: TID251 - as a packing process gets it
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from wsol_dist.data.raw import archive
from wsol_dist.data.raw.archive import SeekableGzip, find_place, first_place, open_place
from wsol_dist.data.raw.files import folders_in, images_in, read_lines
from wsol_dist.errors import UserError

FILES = {
    "top/a/1.jpg": b"one",
    "top/a/2.JPEG": b"second",
    "top/b/1.png": bytes(1000),
    "top/list.txt": b"x\n\ny\n",
}


def make_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def make_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in files.items():
            out.writestr(name, data)
    return path


def make_folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


MAKERS = {
    "folder": lambda path: make_folder(path / "f", FILES),
    "zip": lambda path: make_zip(path / "f.zip", FILES),
    "tar": lambda path: make_tar(path / "f.tar", FILES),
    "tgz": lambda path: make_tar(path / "f.tgz", FILES, "w:gz"),
    "tar.gz": lambda path: make_tar(path / "f.tar.gz", FILES, "w:gz"),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_every_kind_reads_alike(tmp_path, kind):
    place = open_place(MAKERS[kind](tmp_path))
    assert folders_in(place) == ["top"]
    assert folders_in(place / "top") == ["a", "b"]
    assert images_in(place / "top/a") == ["1.jpg", "2.JPEG"]
    assert read_lines(place / "top" / "list.txt") == ["x", "y"]
    assert (place / "top/b").is_dir()
    assert not (place / "top/b").is_file()
    assert not (place / "top/c").is_dir()
    again = pickle.loads(pickle.dumps(place))  # noqa: S301 - its own
    for name, data in reversed(FILES.items()):
        assert (again / name).read_bytes() == data
    with pytest.raises(FileNotFoundError):
        (place / "top/3.jpg").read_bytes()
    with pytest.raises(UserError, match=r"cannot read this list"):
        read_lines(place / "nothing.txt")


def test_the_marked_folder_is_found_below_the_root_and_in_an_archive(tmp_path):
    make_zip(tmp_path / "f.zip", FILES)
    assert str(find_place(tmp_path, "list.txt", archives=["f.zip"], what="f.zip")).endswith("f.zip:top")
    make_folder(tmp_path, FILES)
    assert find_place(tmp_path, "list.txt", archives=["f.zip"], what="f.zip") == tmp_path / "top"
    with pytest.raises(UserError, match=r"no other\.txt in it; expected f\.zip"):
        find_place(tmp_path, "other.txt", archives=["f.zip"], what="f.zip")


def test_a_tar_of_tars_shows_folders(tmp_path):
    inner = {}
    for number in (1, 2):
        path = make_tar(
            tmp_path / "inner.tar", {f"n{number}_{k}.JPEG": b"%d %d" % (number, k) for k in (1, 2)}
        )
        inner[f"n{number}.tar"] = path.read_bytes()
    place = open_place(make_tar(tmp_path / "outer.tar", inner), nested=True)
    assert folders_in(place) == ["n1", "n2"]
    assert images_in(place / "n2") == ["n2_1.JPEG", "n2_2.JPEG"]
    assert (place / "n2/n2_2.JPEG").read_bytes() == b"2 2"
    assert (place / "n1/n1_1.JPEG").read_bytes() == b"1 1"


def test_an_archive_in_an_archive(tmp_path):
    inner = MAKERS["tgz"](tmp_path).read_bytes()
    place = open_place(make_zip(tmp_path / "outer.zip", {"all/inner.tgz": inner, "all/note.txt": b""}))
    found = first_place(place / "all", "inner", "inner.tgz")
    again = pickle.loads(pickle.dumps(found))  # noqa: S301 - its own
    assert (again / "top/a/2.JPEG").read_bytes() == b"second"
    assert first_place(place / "all", "other") is None


@pytest.mark.parametrize("name", ["/etc/x.jpg", "../x.jpg", "a/../../x.jpg", "a\\..\\x.jpg"])
def test_paths_that_leave_the_archive_are_refused(tmp_path, name):
    with pytest.raises(UserError, match="leaves the archive"):
        open_place(make_tar(tmp_path / "f.tar", {name: b""}))
    with pytest.raises(UserError, match="leaves the archive"):
        open_place(make_zip(tmp_path / "f.zip", {name: b""}))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    with tarfile.open(tmp_path / "f.tar", "w") as tar:
        info = tarfile.TarInfo("a/link.jpg")
        info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info)
    with pytest.raises(UserError, match=r"a/link\.jpg.*link or a device"):
        open_place(tmp_path / "f.tar")


def test_a_symbolic_link_in_a_zip_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "f.zip", "w") as out:
        info = zipfile.ZipInfo("link.jpg")
        info.external_attr = 0o120777 << 16
        out.writestr(info, "/etc/passwd")
    with pytest.raises(UserError, match=r"link\.jpg.*link or a device"):
        open_place(tmp_path / "f.zip")


@pytest.mark.parametrize("kind", ["zip", "tar", "tgz"])
def test_a_download_that_stopped_is_named(tmp_path, kind):
    path = MAKERS[kind](tmp_path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    with pytest.raises(UserError, match=r"cannot read this archive.*download complete"):
        open_place(path)


def test_what_is_no_archive_is_refused(tmp_path):
    (tmp_path / "f.rar").write_bytes(b"")
    with pytest.raises(UserError, match="neither a folder nor an archive"):
        open_place(tmp_path / "f.rar")
    with pytest.raises(UserError, match="no such folder or archive"):
        open_place(tmp_path / "g.zip")


class CountedReads(io.BytesIO):
    """Counts the bytes that are read of it."""

    count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data


class TestSeekableGzip:
    @pytest.fixture(params=["kept", "not kept"])
    def data(self, request, monkeypatch):
        if request.param == "not kept":
            monkeypatch.setattr(archive, "IN_MEMORY_BYTES", 1000)
        return np.random.default_rng(0).integers(0, 256, 9_000_000, dtype=np.uint8).tobytes()

    @pytest.mark.parametrize("streams", [1, 3])
    def test_random_reads_equal_the_plain_bytes(self, tmp_path, data, streams):
        third = len(data) // streams
        parts = [data[number * third : (number + 1) * third] for number in range(streams)]
        (tmp_path / "f.gz").write_bytes(b"".join(gzip.compress(part, 1) for part in parts) + bytes(512))
        file = SeekableGzip((tmp_path / "f.gz").open("rb"))
        rng = np.random.default_rng(1)
        for start in [0, 5_000_000, 100, *rng.integers(0, len(data), 30).tolist(), len(data) - 10]:
            file.seek(start)
            assert file.read(70_000) == data[start : start + 70_000]
            assert file.read(10) == data[start + 70_000 : start + 70_010]

    def test_a_seek_back_reads_only_a_part_of_the_file(self, data):
        compressed = CountedReads(gzip.compress(data, 1))  # noise, so it is as large as the data
        file = SeekableGzip(compressed)
        file.seek(len(data) - 5)
        file.read(5)
        assert compressed.count >= len(data)
        compressed.count = 0
        file.seek(6_500_000)
        assert file.read(100) == data[6_500_000:6_500_100]
        assert compressed.count <= 2_400_000

    def test_a_stream_that_ends_early(self, tmp_path, data):
        (tmp_path / "f.gz").write_bytes(gzip.compress(data, 1)[:2_000_000])
        file = SeekableGzip((tmp_path / "f.gz").open("rb"))
        file.seek(5_000_000)
        with pytest.raises(EOFError, match="ends early"):
            file.read(1)
