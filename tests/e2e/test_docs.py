"""The pages of docs/ as a reader walks them: every file saved, every command run, in order, in a fresh copy."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.forkserver import FRESH

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
FENCE = re.compile(r"^```(\w+)(?: +(\S+))?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LEFT_OUT = shutil.ignore_patterns(
    ".venv", ".git", ".tools", "data", "runs", "*.egg-info", ".*_cache", "__pycache__", ".hypothesis"
)

SMALL_QUICKSTART = """
python shards/pack.py collage --out data/collage --num-train 96 --num-val 24 --num-test 40 --image-px 32
wsol train quickstart --train.epochs 1 --train.global-batch 16 --track.wandb off
"""

pytestmark = pytest.mark.slow


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """Language, file name (or empty) and text of each fenced block that names a language."""
    return [match.groups(default="") for match in FENCE.finditer(page.read_text())]  # type: ignore[misc]


def copy_project(folder: Path) -> None:
    """The project without what it has built; `wsol_dist/data` is wanted, `data` at the top is not."""
    for name in ("wsol_dist", "launch", "shards", "slurm", "tests", "bench", "docs"):
        skip = None if name == "wsol_dist" else LEFT_OUT
        shutil.copytree(ROOT / name, folder / name, ignore=skip)
    for name in ("pyproject.toml", "README.md", "Makefile"):
        shutil.copy(ROOT / name, folder / name)


def reader(project: Path) -> dict[str, str]:
    """The environment of somebody in a copy of the project whose virtual environment is active."""
    programs = f"{Path(sys.executable).parent}:{Path(FRESH).parent}"
    return os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(project)}


def run_block(text: str, page: str, project: Path, environment: dict[str, str]) -> None:
    run = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=project, env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert run.returncode == 0, f"{page}:\n{text}\n{run.stdout[-3000:]}\n{run.stderr[-3000:]}"


@pytest.mark.timeout(1800)
@pytest.mark.apart
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(block[0] == "sh" for block in blocks(page))],
    ids=lambda page: page.stem,
)
def test_every_command_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    """Every file of the page is saved, every command run, in order."""
    copy_project(tmp_path)
    for language, file, text in blocks(page):
        if file:
            (tmp_path / file).write_text(text)
        elif language == "sh":
            run_block(text, page.name, tmp_path, reader(tmp_path))


@pytest.mark.timeout(1800)
@pytest.mark.apart
def test_the_readmes_commands_run_behind_a_small_quickstart(tmp_path: Path) -> None:
    """Its `sh` blocks; `make quickstart` makes the same folders, and takes three minutes."""
    copy_project(tmp_path)
    run_block(SMALL_QUICKSTART, "README.md", tmp_path, reader(tmp_path))
    for language, _, text in blocks(ROOT / "README.md"):
        assert language == "sh"
        run_block(text, "README.md", tmp_path, reader(tmp_path))


def test_every_page_is_listed_and_every_link_leads_somewhere() -> None:
    index = (ROOT / "docs/README.md").read_text()
    for page in PAGES:
        assert page.name == "README.md" or f"({page.name})" in index
    for page in (*PAGES, ROOT / "README.md", ROOT / "bench/README.md", ROOT / "shards/README.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
    assert all(picture.stat().st_size < 150_000 for picture in (ROOT / "docs/pictures").glob("*.jpg"))


def test_every_command_is_in_a_block_that_runs() -> None:
    languages = {language for page in PAGES for language, file, _ in blocks(page) if not file}
    assert languages <= {"sh"}, (
        "only sh blocks run; a block of another language names the file it is saved as"
    )
