"""Packing in parts and after a kill: the same bytes as in one go, finished shards are kept, other plans are refused."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.forkserver import FRESH
from tests.unit.test_pack import files
from wsol_dist.cli import execute
from wsol_dist.data.inspection.verify import verify
from wsol_dist.data.shards.index import Index
from wsol_dist.errors import UserError

ROOT = Path(__file__).parents[2]
SMALL = ["collage", "--num-train", "64", "--num-val", "8", "--num-test", "16", "--image-px", "48"]
CUT = ["--samples-per-shard", "8", "--workers", "1"]


def pack(out: Path, *flags: str) -> int:
    return execute(["shards", "pack", *SMALL, "--out", str(out), *CUT, *flags])


def written_at(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.tar")}


def descendants(pid: int) -> list[int]:
    """Processes that a process started, and those that they did."""
    children = [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children + [one for child in children for one in descendants(child)]


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def unfinished(folder: Path, whole: Path, *, part: str = "1/2") -> Path:
    """A folder as a kill leaves it: some shards finished, one half-written, no index."""
    assert pack(folder, "--part", part) == 0
    (folder / "train-000003.tar.somewhere.77.tmp").write_bytes(b"half a shard")
    shutil.copy(whole / "train-000005.tar", folder)  # killed between a tar and what says that it is finished
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "collage"
    assert pack(out) == 0
    return out


@pytest.mark.parametrize("parts", [["1/1"], ["1/2", "2/2"], ["3/3", "1/3", "2/3"], ["1/50", "7/50"]])
def test_parts_and_a_last_packing_give_the_same_bytes(whole: Path, tmp_path: Path, parts: list[str]) -> None:
    out = tmp_path / "out"
    for part in parts:
        assert pack(out, "--part", part) == 0
        assert not (out / "index.json").exists()
    kept = written_at(out)
    assert pack(out) == 0
    assert files(out) == files(whole)
    now = written_at(out)
    assert {name: now[name] for name in kept} == kept
    assert len(kept) == (11 if len(parts) < 2 or "/50" not in parts[0] else 2)


def test_parts_beside_each_other_in_processes(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, str(ROOT / "shards" / "pack.py"), *SMALL, "--out", str(out), *CUT, "--part"]
    running = [subprocess.Popen([*command, f"{number}/2"]) for number in (1, 2)]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    before = written_at(out)
    assert pack(out) == 0
    assert written_at(out) == before
    assert files(out) == files(whole)


@pytest.mark.slow
def test_a_killed_packing_goes_on_where_it_was(tmp_path: Path) -> None:
    sizes = ["collage", "--num-train", "400", "--num-val", "8", "--num-test", "8", "--image-px", "32"]
    flags = ["--samples-per-shard", "4", "--workers", "2"]
    killed, straight = tmp_path / "killed", tmp_path / "straight"
    script = [FRESH, str(ROOT / "shards" / "pack.py"), *sizes, *flags]  # killed from outside
    process = subprocess.Popen([*script, "--out", str(killed)], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 100
    while len(list(killed.glob("*.done"))) < 3:
        assert time.monotonic() < deadline
        assert process.poll() is None, "it was over before it could be killed"
        time.sleep(0.005)
    workers = descendants(process.pid)
    assert len(workers) >= 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    while any(map(runs, workers)):
        assert time.monotonic() < deadline, "its processes outlived it"
        time.sleep(0.05)
    assert not (killed / "index.json").exists()
    finished = {path.name.removesuffix(".done") for path in killed.glob("*.done")}
    before = written_at(killed)
    assert 3 <= len(finished) < 100
    assert execute(["shards", "pack", *sizes, *flags, "--out", str(killed)]) == 0
    after = written_at(killed)
    assert {name: after[name] for name in finished} == {name: before[name] for name in finished}
    assert execute(["shards", "pack", *sizes, *flags, "--out", str(straight)]) == 0
    assert files(killed) == files(straight)


def test_what_a_kill_left_is_written_anew_or_removed(whole: Path, tmp_path: Path, capsys) -> None:
    out = unfinished(tmp_path / "out", whole)
    before = written_at(out)
    capsys.readouterr()
    assert pack(out) == 0
    assert "6 of 11 shards are finished, going on with the others" in capsys.readouterr().out
    assert files(out) == files(whole)
    assert written_at(out)["train-000005.tar"] != before["train-000005.tar"]


@pytest.mark.parametrize("damage", ["cut", "gone", "done cut", "done of nothing", "done elsewhere"])
def test_a_damaged_shard_is_not_taken_for_finished(whole: Path, tmp_path: Path, damage: str) -> None:
    out = unfinished(tmp_path / "out", whole)
    tar, done = out / "train-000002.tar", out / "train-000002.tar.done"
    if damage == "cut":
        tar.write_bytes(tar.read_bytes()[:-512])
    elif damage == "gone":
        tar.unlink()
    elif damage == "done cut":
        done.write_bytes(done.read_bytes()[:100])
    elif damage == "done of nothing":
        done.write_bytes(b"")
    else:
        shutil.copy(whole / "samples.parquet", done)
    assert pack(out) == 0
    assert files(out) == files(whole)
    assert verify(out, deep=True, workers=1) == []


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (["--seed", "3"], "seed"),
        (["--image-px", "56"], "options"),
        (["--num-train", "72"], "options, list of samples, sizes of the samples"),
        (["--samples-per-shard", "12"], "options, sizes of the samples"),
    ],
)
@pytest.mark.parametrize("part", [[], ["--part", "2/2"]])
def test_another_plan_is_refused(whole: Path, tmp_path: Path, flags, what, part) -> None:
    out = unfinished(tmp_path / "out", whole)
    before = files(out)
    with pytest.raises(UserError, match=rf"finished shards of a packing with other .* \({what}\).*--force"):
        pack(out, *flags, *part)
    assert files(out) == before


def test_force_packs_over_an_unfinished_folder(whole: Path, tmp_path: Path) -> None:
    out = unfinished(tmp_path / "out", whole)
    assert pack(out, "--samples-per-shard", "30", "--force") == 0
    assert verify(out, workers=1) == []
    index = Index.load(out)
    assert {path.name for path in out.iterdir()} == {
        *(shard.file for shard in index.shards),
        "index.json",
        "samples.parquet",
    }


def test_a_folder_in_which_nothing_was_finished_takes_any_plan(whole: Path, tmp_path: Path) -> None:
    out = unfinished(tmp_path / "out", whole)
    for path in out.glob("*.done"):
        path.unlink()
    assert pack(out, "--seed", "4") == 0
    assert verify(out, workers=1) == []


def test_images_that_changed_since_are_noticed(tmp_path: Path) -> None:
    import cv2

    root, out = tmp_path / "images", tmp_path / "out"
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for number in range(3):
            cv2.imwrite(str(root / name / f"{number}.png"), np.full((8, 8, 3), number, np.uint8))
    flags = ["--val-fraction", "0", "--samples-per-shard", "2", "--workers", "1", "--out", str(out)]
    command = ["pack", "folder", "--root", str(root), *flags]
    assert execute(["shards", *command, "--part", "1/3"]) == 0
    for path in root.rglob("*.png"):
        cv2.imwrite(str(path), np.full((8, 8, 3), 200, np.uint8))
    with pytest.raises(UserError, match=r"train-000000\.tar: the files of .* changed since.*--force"):
        execute(["shards", *command])
    assert execute(["shards", *command, "--force"]) == 0
    assert verify(out, deep=True, workers=1) == []


def test_a_repaired_image_takes_the_place_of_the_broken_one(tmp_path: Path) -> None:
    import cv2

    root, out = tmp_path / "images", tmp_path / "out"
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for number in range(3):
            cv2.imwrite(str(root / name / f"{number}.png"), np.full((8, 8, 3), number, np.uint8))
    good = (root / "b" / "1.png").read_bytes()
    (root / "b" / "1.png").write_bytes(good[:40])
    command = [
        "pack",
        "folder",
        "--root",
        str(root),
        "--val-fraction",
        "0",
        "--workers",
        "1",
        "--out",
        str(out),
    ]
    with pytest.raises(UserError, match=r"1 of 6 images do not decode.*b/1\.png"):
        execute(["shards", *command, "--max-bad", "0"])
    (root / "b" / "1.png").write_bytes(good)
    assert execute(["shards", *command, "--max-bad", "0"]) == 0
    assert verify(out, deep=True, workers=1) == []


def test_an_end_between_index_and_cleaning_is_cleaned_later(whole: Path, tmp_path: Path) -> None:
    out = unfinished(tmp_path / "out", whole)
    done = (out / "train-000002.tar.done").read_bytes()
    assert pack(out) == 0
    (out / "train-000002.tar.done").write_bytes(done)
    (out / "packing.started").write_text("{}")
    assert pack(out) == 0
    assert files(out) == files(whole)


def test_a_shard_has_the_bytes_that_were_asked_for(tmp_path: Path) -> None:
    sizes = ["collage", "--num-train", "160", "--num-val", "8", "--num-test", "8", "--image-px", "32"]
    command = ["pack", *sizes, "--shard-mib", "0.0625", "--workers", "1"]
    assert execute(["shards", *command, "--out", str(tmp_path / "out")]) == 0
    index = Index.load(tmp_path / "out")
    sizes_of = {split: [s.bytes for s in index.shards if s.split == split] for split in index.splits}
    assert len(sizes_of["train"]) > 4
    assert all(0.85 * 2**16 < size < 1.1 * 2**16 for size in sizes_of["train"])
    assert len(sizes_of["val"]) == 1
    assert index.options["pack"]["shard_mib"] == 0.0625
    assert execute(["shards", *command, "--out", str(tmp_path / "again"), "--part", "2/2"]) == 0
    assert execute(["shards", *command, "--out", str(tmp_path / "again")]) == 0
    assert files(tmp_path / "again") == files(tmp_path / "out")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--part", "0/4"], r"--part: '0/4' given; I/N allowed"),
        (["--part", "5/4"], r"--part: '5/4' given; I/N allowed"),
        (["--part", "half"], r"--part: 'half' given; I/N allowed"),
        (["--part", "1/2", "--force"], "--part and --force both given"),
        (["--shard-mib", "0"], r"--shard-mib: given 0\.0; allowed: above 0 and below 1048576"),
        (["--shard-mib", "nan"], "--shard-mib: given nan; allowed: above 0 and below 1048576"),
        (["--shard-mib", "1"], "--shard-mib and --samples-per-shard both given"),
    ],
)
def test_parts_and_sizes_out_of_range_are_refused(tmp_path: Path, flags: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        pack(tmp_path / "out", *flags)
    assert not (tmp_path / "out").exists()


def test_a_part_of_a_finished_folder_does_nothing(whole: Path, capsys) -> None:
    before = written_at(whole)
    assert pack(whole, "--part", "1/2") == 0
    assert "nothing to do" in capsys.readouterr().out
    assert written_at(whole) == before
