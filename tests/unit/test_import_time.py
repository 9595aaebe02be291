"""Reading a recipe is instant: what takes seconds to import is not there yet when it is shown, explained or refused."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.forkserver import FRESH
from tests.unit.test_options import every_command
from wsol_dist.recipe import recipe_names

SLOW = ("torch", "torchvision", "timm", "deepspeed", "open_clip", "wandb", "pycocotools", "submitit")
CALL = """
import contextlib, io, json, sys
from wsol_dist import cli

def call(words):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            if words[0] == "submit":
                return cli.run("wsol_dist.launching.submission", words[1:], prog="submit")
            return cli.main(words)
        except SystemExit as end:
            return end.code or 0

found = []
for words in json.loads(sys.argv[1]):
    code = call(words)
    found.append([code, [name for name in json.loads(sys.argv[2]) if name in sys.modules]])
print(json.dumps(found))
"""


def imported_by(*calls: list[str], slow: tuple[str, ...] = SLOW) -> list[list]:
    """Exit code of each call, and which of the slow modules it imported, in one fresh process."""
    command = [FRESH, "-c", CALL, json.dumps(calls), json.dumps(slow)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_no_recipe_imports_torch_to_be_shown_or_explained() -> None:
    calls = [words for name in recipe_names() for words in (["show", name], ["train", name, "--help"])]
    found = imported_by(*calls)
    assert [(words, one) for words, one in zip(calls, found, strict=True) if one != [0, []]] == []


def test_no_help_of_a_command_imports_torch() -> None:
    calls = [[*words, "--help"] for words in every_command()]
    found = imported_by(*calls)
    assert [(words, one) for words, one in zip(calls, found, strict=True) if one != [0, []]] == []


@pytest.mark.parametrize("command", ["train", "show", "evaluate", "plan", "search", "pseudo-label"])
def test_a_wrong_flag_is_refused_before_torch_is_imported(command: str) -> None:
    assert imported_by([command, "quickstart", "--train.epoch", "3"]) == [[2, []]]


def test_submitting_with_a_wrong_flag_imports_no_torch() -> None:
    slow = tuple(name for name in SLOW if name != "submitit")
    assert imported_by(["submit", "quickstart", "--train.epoch", "3"], slow=slow) == [[2, []]]


def test_what_needs_torch_is_seen_to_import_it() -> None:
    found = imported_by(
        ["show", "quickstart"], ["plan", "quickstart", "--data.num-classes", "8", "--data.index", ""]
    )
    assert found[0] == [0, []]
    assert {"torch", "timm"} <= set(found[1][1])
