"""The second chance of a failed test: what passes alone is named as flaky, what fails or is skipped then is red."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.forkserver import FRESH

ROOT = Path(__file__).parents[2]
TESTS = """
import pathlib
import pytest

def is_first(name):
    mark = pathlib.Path(__file__).with_name(name)
    first = not mark.exists()
    mark.touch()
    return first

def test_good():
    pass

def test_once():
    assert not is_first("once")
"""
RED = """
def test_always():
    assert False, "always"

def test_skipped_then():
    assert not is_first("skipped") or False
    pytest.skip("not now")
"""

pytestmark = pytest.mark.slow


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder inside the project, where names of tests are found again."""
    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as folder:
        yield Path(folder)


def run(file: Path) -> tuple[int, list[str]]:
    """Exit code and lines of the suite's own command on a file of tests."""
    command = [FRESH, "-m", "tests.run", file.stem, "100", "-n", "1", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.splitlines()


def test_what_passes_alone_is_green_and_named(place: Path) -> None:
    (place / "test_green.py").write_text(TESTS)
    code, said = run(place / "test_green.py")
    assert code == 0
    flaky, verdict = said[-2:]
    assert flaky.startswith("flaky: ")
    assert "test_green.py::test_once  (its first failure: build/tests/test_green/" in flaky
    assert verdict.startswith("test_green: ")
    kept = ROOT / flaky.rpartition("its first failure: ")[2].rstrip(")")
    assert "assert not is_first" in kept.read_text()


def test_what_fails_or_is_skipped_alone_is_red(place: Path) -> None:
    (place / "test_red.py").write_text(TESTS + RED)
    code, said = run(place / "test_red.py")
    assert code == 1
    twice = [line for line in said if line.startswith("failed twice: ")]
    assert len(twice) == 2
    assert "::test_always " in twice[0]
    assert "::test_skipped_then " in twice[1]
    assert sum(line.startswith("flaky: ") for line in said) == 1
