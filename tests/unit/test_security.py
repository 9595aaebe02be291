"""What is read never runs code, and what a person writes never reaches a shell."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import stat
import subprocess
from pathlib import Path

import pytest

from tests.forkserver import FRESH
from wsol_dist import cli
from wsol_dist.errors import UserError
from wsol_dist.recipe import read_yaml

ROOT = Path(__file__).parents[2]
FORBIDDEN = """\
import cloudpickle
import dill
import joblib
import marshal
import pickle
import shelve
from pickle import dumps
eval(x)
exec(x)
os.system(x)
os.popen(x)
subprocess.run(x, shell=True)
anything.at_all(x, shell=True)
pd.read_pickle(x)
np.fromregex(x)
torch.hub.load(x)
torch.jit.load(x)
webdataset.WebDataset(x)
yaml.load(x)
yaml.load(x, Loader=yaml.Loader)
yaml.full_load(x)
yaml.load_all(x)
yaml.unsafe_load(x)
tarfile.open(x).extractall(y)
"""
NEEDED = {"torch.load": "weights_only=True", "np.load": "allow_pickle=False", "np.save": "allow_pickle=False"}
"""Calls and the keyword that each must have."""


@pytest.mark.parametrize("folder", ["wsol_dist", "launch", "shards"])
def test_ruff_refuses_what_runs_code(folder: str) -> None:
    command = [FRESH, "-m", "ruff", "check", "--output-format", "json", "--stdin-filename"]
    code = "import numpy as np, os, pandas as pd, subprocess, tarfile, torch, webdataset, yaml\n" + FORBIDDEN
    run = subprocess.run(
        [*command, f"{folder}/any.py", "-"], cwd=ROOT, input=code, capture_output=True, text=True, check=False
    )
    safety = re.compile(r"S\d+|TID251")
    found = {line["location"]["row"] for line in json.loads(run.stdout) if safety.fullmatch(line["code"])}
    missed = [line for row, line in enumerate(FORBIDDEN.splitlines(), start=2) if row not in found]
    assert missed == []


def unsafe_calls(code: str) -> list[str]:
    """Calls that could run or unpack what they read, of those that no rule of ruff finds."""
    calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    return [ast.unparse(call) for call in calls if is_unsafe(call)]


def is_unsafe(call: ast.Call) -> bool:
    called = ast.unparse(call.func)
    if called.endswith("extractall"):
        return True
    return called in NEEDED and NEEDED[called] not in [ast.unparse(keyword) for keyword in call.keywords]


def test_arrays_weights_and_archives_are_read_without_code() -> None:
    files = [path for name in ("wsol_dist", "launch", "shards") for path in (ROOT / name).rglob("*.py")]
    assert len(files) > 200
    found = {str(path.relative_to(ROOT)): unsafe_calls(path.read_text()) for path in files}
    assert {name: calls for name, calls in found.items() if calls} == {}


@pytest.mark.parametrize(
    "call",
    [
        "torch.load(x)",
        "torch.load(x, weights_only=False)",
        "np.load(x)",
        "np.load(x, allow_pickle=True)",
        "np.save(x, y)",
        "archive.extractall(x)",
        "zipfile.ZipFile(x).extractall(y)",
    ],
)
def test_the_search_finds_what_it_looks_for(call: str) -> None:
    assert unsafe_calls(f"def f(x, y, archive):\n    return {call}") == [call]


def test_a_recipe_runs_no_code(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"key: !!python/object/apply:os.system ['touch {tmp_path}/ran']")
    with pytest.raises(UserError, match=r"recipe\.yaml: could not determine a constructor for the tag"):
        read_yaml(recipe)
    assert not (tmp_path / "ran").exists()


def test_other_users_may_not_write_what_a_command_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = os.umask(0)
    try:
        out = tmp_path / "shards"
        counts = [
            "--num-train",
            "8",
            "--num-val",
            "8",
            "--num-test",
            "8",
            "--image-px",
            "32",
            "--workers",
            "1",
        ]
        assert cli.main(["shards", "pack", "collage", "--out", str(out), *counts]) == 0
    finally:
        os.umask(before)
    assert not [path for path in (out, *out.rglob("*")) if path.stat().st_mode & stat.S_IWOTH]


HOSTILE = "a b'c\"d $(touch pwned) `touch pwned` ;touch pwned"
FAKE = """#!{python}
import json, os, sys
with open({log!r}, "a") as file:
    file.write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\\n")
print("n1")
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins for SLURM's commands, which keep the words they get in `words`; the folder is the current one."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("srun", "sbatch", "scontrol", "squeue", "sacct", "sinfo", "wsol"):
        (folder / name).write_text(FAKE.format(python=FRESH, log=str(tmp_path / "words")))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def heard(folder: Path) -> list[list[str]]:
    return [json.loads(line) for line in (folder / "words").read_text().splitlines()]


SCRIPTS = {
    "molt_64gpu.sh": ["--name", HOSTILE],
    "weight_map_8gpu.sh": ["--name", HOSTILE],
    "evaluate.sh": [HOSTILE, HOSTILE, "--split", HOSTILE],
    "pack_array.sh": ["folder", "--root", HOSTILE],
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_job_scripts_hand_words_on_as_they_are(cluster: Path, name: str) -> None:
    environment = os.environ | {
        "RUN": HOSTILE, "SHARDS": HOSTILE, "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": HOSTILE, "SLURM_JOB_NODELIST": "n1",
        "SLURM_NTASKS_PER_NODE": "1", "SLURM_GPUS_PER_NODE": "1", "SLURM_CPUS_PER_TASK": "1", "SLURM_NTASKS": "1",
        "SLURM_NNODES": "1", "SLURM_JOB_NUM_NODES": "1", "SLURM_SUBMIT_DIR": str(cluster),
    }  # fmt: skip
    # Scripts may look for others beside them.
    (cluster / "slurm").symlink_to(ROOT / "slurm")
    command = ["bash", str(ROOT / "slurm" / name), *SCRIPTS[name]]
    run = subprocess.run(command, cwd=cluster, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert not (cluster / "pwned").exists()
    sruns = [words for words in heard(cluster) if words[0] == "srun"]
    assert any(HOSTILE in words for words in sruns), sruns


def test_submitted_jobs_hand_words_on_as_they_are(cluster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = cluster / HOSTILE.replace("/", "")
    words = ["quickstart", "--name", HOSTILE, "--out", str(out), "--dry-run", "--partition", HOSTILE]
    assert cli.run("wsol_dist.launching.submission", words, prog="launch/submit.py") == 0
    scripts = capsys.readouterr().out.split("# ---- ")[1:]
    assert len(scripts) == 2
    for number, script in enumerate(scripts):
        first, _, body = script.partition("\n")
        assert shlex.split(first.partition(": ")[2])[0] == "wsol"  # can be copied into a shell
        file = cluster / f"script-{number}.sh"
        file.write_text(body)
        subprocess.run(["bash", str(file)], cwd=cluster, check=False, capture_output=True)
        for line in body.splitlines():
            assert not line.startswith("#SBATCH") or len(shlex.split(line, comments=False)) == 2, line
    assert not (cluster / "pwned").exists()
    for words in heard(cluster):
        assert any(word.startswith(str(out)) for word in words), words
