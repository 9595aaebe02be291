"""Commands that the pages name and do not run: each is a command that is there, with flags that its --help knows.

What stands in `sh` blocks is run by `test_docs.py`. The rest, in other blocks of README.md and between backticks, wants
a cluster, other people's data or hours: here its words are held against `--help`, its scripts are parsed by bash, and
what `launch/submit.py` would submit is submitted with `--dry-run`. The page of faults is left out: its mistakes
are meant, and each is tried by `faults/`.
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from wsol_dist import cli
from wsol_dist.recipe import load

ROOT = Path(__file__).parents[2]
PAGES = [
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / name / "README.md" for name in (".", "bench", "shards")),
]
COMMANDS = {
    one.stem.replace("_", "-")
    for one in (ROOT / "wsol_dist/commands").glob("[!_]*")
    if one.name != "__pycache__"
}
RECIPES = sorted(one.stem for one in (ROOT / "wsol_dist/recipes").glob("*.yaml"))
ONE_OF_EACH_METHOD = (
    "cam-ilsvrc-mobilenetv2",
    "ts-cam-cub",
    "molt-imagenet",
    "weight-map-2",
    "mmcst-voc",
    "deeplab-voc",
)
TAKE_KNOBS = {
    "train",
    "evaluate",
    "score",
    "pseudo-label",
    "plan",
    "fit",
    "search",
    "show",
    "cluster",
    "ranks",
}
ACTIONS = {
    name: [one.stem for one in (ROOT / f"wsol_dist/commands/{name}").glob("[!_]*.py")]
    for name in ("shards", "ranks")
}
LAUNCHING = ("wsol_dist.launching.submission", "wsol_dist.launching.array")
FLAG = re.compile(r"--[a-zA-Z][\w.-]*")
NOT_OURS = {"--help", "--nproc-per-node", "--duplicates"}
"""Of every command, of torchrun, and of sacct."""

pytestmark = pytest.mark.slow


@cache
def flags_of(*words: str) -> frozenset[str]:
    """The flags that `--help` of a command lists."""
    said = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(said),
        contextlib.suppress(SystemExit),
    ):
        patch.setenv("COLUMNS", "200")
        if words[0] in LAUNCHING:
            cli.run(words[0], ["--help"], prog="launch/submit.py")
        else:
            cli.main([*words, "--help"])
    found = frozenset(FLAG.findall(said.getvalue()))
    assert found, f"{words}: --help lists no flag"
    return found


@cache
def knobs() -> frozenset[str]:
    """Every knob of every method's recipes."""
    return frozenset().union(*(flags_of("train", name) for name in ONE_OF_EACH_METHOD))


@cache
def known(name: str) -> frozenset[str]:
    """The flags of `wsol NAME`."""
    from wsol_dist.data.sources import source_names

    own = frozenset().union(
        *(flags_of(name, *action) for action in [[one] for one in ACTIONS.get(name, ())] or [[]])
    )
    if name == "shards":
        own = own.union(*(flags_of("shards", "pack", source) for source in source_names()))
    if name == "cluster":
        own = own.union(*(flags_of(name, "--backend", one) for one in ("dic", "faiss", "slic")))
    return own | knobs() if name in TAKE_KNOBS else own


def unrun_commands(page: Path) -> Iterator[list[str]]:
    """The words of each line of a block that no test runs, and of what stands between backticks."""
    text = re.sub(r"^```\w+.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    fences = re.findall(r"^```\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    for line in "\n".join(fences).replace("\\\n", " ").splitlines():
        yield words_of(line)
    text = re.sub(r"^```\n.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    for span in re.findall(r"`([^`]+)`", text):
        yield words_of(span)


def words_of(line: str) -> list[str]:
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # a formula, a pattern
        return []
    while words and re.fullmatch(r"\w+=.*", words[0]):
        words = words[1:]
    if words[:1] == ["torchrun"] and "wsol_dist.cli" in words:
        words = ["wsol", *words[words.index("wsol_dist.cli") + 1 :]]
    return words


def wrong(words: list[str]) -> str | None:
    """What is wrong with a command; None where nothing is, or where it is none of ours."""
    given = {
        re.sub(r"^--before\.\d+\.", "--", word.partition("=")[0]) for word in words if FLAG.match(word)
    } - NOT_OURS
    given.discard("--no-before")
    first, second = [*words, "", ""][:2]
    if first == "wsol":
        if second not in COMMANDS:
            return f"no command {second!r}" if re.fullmatch("[a-z-]+", second) else None
        return str(given - known(second)) if given - known(second) else None
    if first == "python" and second.startswith(("launch/", "shards/")):
        here = known("shards") if second.startswith("shards/") else launched()
        return str(given - here) if given - here else None
    if first == "python" and second.startswith("bench/"):  # run by tests/unit/test_bench.py
        return None if (ROOT / second).is_file() else f"no file {second}"
    if first == "make":
        return None if f"\n{second}:" in (ROOT / "Makefile").read_text() else f"no target {second!r}"
    for script in (word for word in words if re.fullmatch(r"slurm/[\w.]+\.sh", word)):
        if subprocess.run(["bash", "-n", ROOT / script], check=False).returncode:
            return f"{script} is no script"
    if first.startswith("--"):
        return str(given - everything()) if given - everything() else None
    return None


@cache
def launched() -> frozenset[str]:
    """The flags of the scripts in launch/."""
    return knobs().union(known("cluster"), known("search"), *map(flags_of, LAUNCHING))


@cache
def everything() -> frozenset[str]:
    """Flags that stand on a page without their command."""
    ours = frozenset().union(*(known(name) for name in COMMANDS), launched())
    scripts = "".join(path.read_text() for path in (ROOT / "slurm").glob("*.sh"))
    return ours | set(FLAG.findall(scripts)) | {"--quick"}


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.name != "faults.md"],
    ids=lambda page: f"{page.parent.name}-{page.stem}",
)
def test_commands_that_are_named_are_there(page: Path) -> None:
    found = [(shlex.join(words), mistake) for words in unrun_commands(page) if (mistake := wrong(words))]
    assert not found


def test_a_wrong_name_is_found() -> None:
    assert wrong(["wsol", "fti", "photos"])
    assert wrong(["wsol", "predict", "run", "--formts", "coco"])
    assert wrong(["wsol", "train", "quickstart", "--train.epoch", "3"])
    assert wrong(["python", "launch/submit.py", "--node", "8"])
    assert wrong(["make", "quickstrat"])
    assert not wrong(["wsol", "train", "weight-map-1", "--before.0.train.epochs", "3", "--no-before"])


def test_what_the_readme_submits_can_be_submitted() -> None:
    lines = [words for words in unrun_commands(ROOT / "README.md") if words[1:2] == ["launch/submit.py"]]
    assert len(lines) >= 3
    for _, _, *words in lines:
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            dry = [] if "--dry-run" in words else ["--dry-run"]
            code = cli.run(LAUNCHING[0], [*words, *dry], prog="launch/submit.py")
        assert code == 0, said.getvalue()
        assert "#SBATCH" in said.getvalue()


def test_the_readme_names_every_command_recipe_and_method() -> None:
    text = (ROOT / "README.md").read_text()
    named = {name for span in re.findall(r"`([^`\n]+)`", text) for name in spread(span)}
    assert {f"wsol {name}" for name in COMMANDS} <= named
    assert set(RECIPES) <= named
    assert {one for name in RECIPES if (one := load(name).method_name)} <= named


def test_the_architecture_names_every_room_and_each_says_what_it_is_for() -> None:
    named = set(re.findall(r"`(\w+)/`", (ROOT / "docs/architecture.md").read_text()))
    package = ROOT / "wsol_dist"
    assert {
        file.parent.name for place in ("*", "data/*") for file in package.glob(f"{place}/__init__.py")
    } <= named
    for file in package.rglob("__init__.py"):
        assert (ast.get_docstring(ast.parse(file.read_text())) or "").endswith("."), file


def spread(span: str) -> list[str]:
    """`a-{b,c}` -> a-b, a-c."""
    found = re.search(r"\{([^}]*)\}", span)
    if not found:
        return [span]
    return [
        one
        for part in found[1].split(",")
        for one in spread(span[: found.start()] + part + span[found.end() :])
    ]
