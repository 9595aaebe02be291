"""The wheel: everything of the package is in it, and it works without the project's folder."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from email import message_from_string
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.forkserver import FRESH
from tests.unit.model_folders import make_images

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow
NEEDED = {".py", ".yaml", ".j2", ".typed"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a wheel of the project is unpacked into, as installing does."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # building leaves files where it builds
    shutil.copytree(ROOT / "wsol_dist", source / "wsol_dist", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = "from setuptools.build_meta import build_wheel; import sys; build_wheel(sys.argv[1])"
    subprocess.run([FRESH, "-c", build, str(folder)], cwd=source, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")  # made above
    return folder / "installed"


def test_the_wheel_holds_the_whole_package(installed: Path) -> None:
    def files(root: Path) -> set[Path]:
        return {path.relative_to(root) for path in (root / "wsol_dist").rglob("*") if path.suffix in NEEDED}

    assert files(installed) == files(ROOT)


def test_every_package_that_is_imported_is_required(installed: Path) -> None:
    (metadata,) = installed.glob("*.dist-info/METADATA")
    headers = message_from_string(metadata.read_text())
    required = {
        re.split(r"[^\w.-]", one)[0] for one in headers.get_all("Requires-Dist", []) if "extra" not in one
    }
    required |= {"faiss-cpu"}  # or faiss-gpu: the user chooses
    names, brings = {canonical(name) for name in required}, packages_distributions()
    for file in (installed / "wsol_dist").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            modules = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            modules += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            for module in (
                {one.partition(".")[0] for one in modules} - sys.stdlib_module_names - {"wsol_dist"}
            ):
                brought = {canonical(one) for one in brings[module]}
                assert brought & names, f"{file.name}: {module} of {brought}"


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_help_fit_and_predict_work_outside_of_the_project(installed: Path, tmp_path: Path) -> None:
    make_images(tmp_path / "photos", num=12)
    (points,) = installed.glob("*.dist-info/entry_points.txt")
    module, function = re.search(r"^wsol = (\S+):(\S+)$", points.read_text(), re.MULTILINE).groups()  # type: ignore
    environment = os.environ | {"PYTHONPATH": str(installed), "WANDB_MODE": "disabled"}

    def wsol(*words: str) -> str:
        command = [
            FRESH,
            "-P",
            "-c",
            f"import sys; from {module} import {function}; sys.exit({function}())",
            *words,
        ]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = "import wsol_dist; print(wsol_dist.__file__)"
    found = subprocess.run(
        [FRESH, "-P", "-c", where], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert Path(found.stdout.strip()).is_relative_to(installed), sys.path
    assert "usage: wsol COMMAND" in wsol("--help")
    wsol("fit", "photos", "--procs", "1", "--train.epochs", "1", "--method.image-px", "32")
    assert "36 images" in wsol("predict", "runs/photos", "photos", "--out", "labels")
    assert (tmp_path / "labels/coco.json").is_file()
