"""What is read never runs code, and what a person writes never reaches a shell: the sources are searched for it."""

from __future__ import annotations

import ast
import os
import shlex
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.forkserver import FRESH
from wsol_dist import cli

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for name in ("wsol_dist", "launch", "shards") for path in (ROOT / name).rglob("*.py"))
UNPICKLES = {
    "wsol_dist/launching/processes.py": "a pipe between a process and its own children",
    "wsol_dist/evaluator/row_file.py": "a file without a name, which no other process can open",
}
"""The only files that may name pickle, with what they read."""
NEVER = {
    "eval", "exec", "os.system", "os.popen", "tarfile.extractall", "extractall", "torch.jit.load", "torch.hub.load",
    "joblib.load", "dill.load", "dill.loads", "marshal.load", "marshal.loads", "shelve.open", "pandas.read_pickle",
    "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "webdataset.WebDataset", "np.fromregex",
}  # fmt: skip
NEEDS = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "np.save": ("allow_pickle", False),
}
"""Calls that must say something, and what."""


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def constant(call: ast.Call, name: str) -> object:
    value = next((word.value for word in call.keywords if word.arg == name), None)
    return value.value if isinstance(value, ast.Constant) else None


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_that_is_read_runs_code(path: Path) -> None:
    search(path, str(path.relative_to(ROOT)))


def search(path: Path, name: str) -> None:
    """Fail at the first call that could run what it reads."""
    for called, node in calls(path):
        assert called not in NEVER, f"{name}: {called}"
        assert not called.endswith(".extractall"), f"{name}: {called}"
        assert constant(node, "shell") is not True, f"{name}: a shell in {called}"
        if called in NEEDS:
            word, value = NEEDS[called]
            assert constant(node, word) is value, f"{name}: {called} without {word}={value}"
        if called == "yaml.load":
            assert "Loader=_UniqueKeyLoader" in ast.unparse(node), f"{name}: {ast.unparse(node)}"
        if called.startswith(("pickle.", "cloudpickle.")):
            assert name in UNPICKLES, f"{name}: {called}"


def test_the_loader_of_recipes_is_yamls_safe_one() -> None:
    import yaml

    from wsol_dist.config import _UniqueKeyLoader

    assert issubclass(_UniqueKeyLoader, yaml.SafeLoader)
    with pytest.raises(yaml.YAMLError):
        yaml.load("key: !!python/object/apply:os.system ['true']", Loader=_UniqueKeyLoader)


def test_the_search_finds_what_it_looks_for(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    for line in (
        "torch.load(path)",
        "np.load(path, allow_pickle=True)",
        "pickle.load(file)",
        "subprocess.run(x, shell=True)",
    ):
        bad.write_text(line)
        with pytest.raises(AssertionError):
            search(bad, "bad.py")


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
    import json

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
    assert cli.run("wsol_dist.launching.submission", words) == 0
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
