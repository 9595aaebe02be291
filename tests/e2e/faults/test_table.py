"""The table of faults, row by row: one clear line, exit code 2, nothing half-written; and the page says the same."""

from __future__ import annotations

import shlex
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.e2e.faults.fault import Fault, fill, render
from tests.e2e.faults.table import FAULTS, PAGE, SECTIONS, fault
from tests.forkserver import FRESH
from wsol_dist import cli

HERE = Path(__file__).parent


def call(command: str) -> int:
    """A command line in this process: the code is that of a process of its own."""
    program, *argv = shlex.split(command)
    return (
        cli.main(argv) if program == "wsol" else cli.run("wsol_dist.launching.submission", argv, prog=program)
    )


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder with its size and time of change."""
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


@pytest.mark.parametrize("row", [one for one in FAULTS if one.runs], ids=lambda row: row.what)
def test_one_clear_line_and_nothing_written(
    prepared: Path, row: Fault, capsys: pytest.CaptureFixture[str]
) -> None:
    (prepared / "recipe.yaml").write_text(fill(row.recipe, prepared))
    row.damage(prepared)
    before = contents(prepared)
    code = call(fill(row.command, prepared))
    said = capsys.readouterr().err.rstrip("\n")
    assert said.startswith("error: "), said
    assert row.pattern(prepared).fullmatch(said.removeprefix("error: ")), said
    assert code == 2
    assert contents(prepared) == before


@pytest.mark.parametrize(
    "what",
    ["truncated tar, verified", "shard missing, verified", "wrong checksum, verified"],
)
def test_verify_finds_damage(own_shards: Path, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    row, tmp = fault(what), own_shards.parent
    row.damage(tmp)
    assert cli.main(["shards", "verify", str(own_shards), "--workers", "1"]) == 1
    assert any(row.pattern(tmp).fullmatch(line) for line in capsys.readouterr().out.splitlines())


def test_a_real_process_ends_with_code_2_and_no_traceback(tmp_path: Path) -> None:
    command = [FRESH, "-m", "wsol_dist.cli", "show", "quikstart"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert fault("unknown recipe").pattern(tmp_path).fullmatch(done.stderr.removeprefix("error: ").strip())


def test_the_page_is_made_of_this_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(SECTIONS), (
        "python -m tests.e2e.faults.table writes it anew"
    )


def test_every_row_has_its_name_and_a_test_that_is_there() -> None:
    assert max(Counter(row.what for row in FAULTS).values()) == 1
    for row in FAULTS:
        file, _, name = row.test.partition("::")
        source = (HERE / file).read_text(encoding="utf-8")
        assert f"def {name}(" in source, row.test
        # A test of its own takes message and damage from its row, so that neither can drift from the page.
        assert row.runs or not row.message or repr(row.what)[1:-1] in source, (
            f"{row.what}: not used in {file}"
        )
