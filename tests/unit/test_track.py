"""The log of a run: JSONL, console, and a real offline W&B run that is read back from its file."""

from __future__ import annotations

import io
import json
import os
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rich.console import Console

from wsol_dist.config.track import TrackConfig
from wsol_dist.errors import UserError
from wsol_dist.log.console import BarConsole, Eta, PlainConsole, duration_text
from wsol_dist.log.jsonl import JsonLines, first_time, read_metrics
from wsol_dist.log.track import Picture, Track, run_id
from wsol_dist.log.wandb_mode import has_key, server_answers, wanted_mode, why_not_online
from wsol_dist.validation import validated

KEY = "0123456789abcdef" * 2 + "01234567"
OFFLINE = TrackConfig(wandb="offline")
OFF = TrackConfig(wandb="off")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("NETRC", raising=False)


def open_track(run_dir: Path, config: TrackConfig, **changes: Any) -> Track:
    given: dict[str, Any] = {"job": "train", "resolved": {"seed": 1}, "total_steps": 20, "enabled": True}
    return Track.open(run_dir, config, **(given | changes))


def wandb_records(path: Path) -> list[Any]:
    """The records of a .wandb file: a 7-byte header, then a LevelDB log of protobuf messages."""
    from wandb.proto import wandb_internal_pb2

    data, place, block, part, records = path.read_bytes(), 7, 32768, b"", []
    assert data[:4] == b":W&B"
    while place + 7 <= len(data):
        left = block - place % block
        if left < 7:  # a header never crosses a block
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        part += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # full, last
            record = wandb_internal_pb2.Record()
            record.ParseFromString(part)
            records.append(record)
            part = b""
    return records


def finished_records(path: Path) -> list[Any]:
    """All records once the last is there: W&B's own process writes them, a moment after the run ends."""
    for _ in range(1200):
        records = wandb_records(path)
        if any(record.WhichOneof("record_type") == "exit" for record in records):
            return records
        time.sleep(0.05)
    raise AssertionError(f"{path} was not finished within 60 s")


def history(path: Path) -> list[dict[str, Any]]:
    rows = [r.history for r in finished_records(path) if r.WhichOneof("record_type") == "history"]
    return [{i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in row.item} for row in rows]


def test_offline_run_holds_scalars_and_images_and_no_key(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    run_dir = tmp_path / "run"
    picture = np.full((20, 30, 3), 200, np.uint8)
    with open_track(run_dir, OFFLINE, resolved={"seed": 7, "method": {"name": "molt"}}) as track:
        for step in (10, 20):
            track.log({"train/loss": 2.0 / step, "train/lr": 1e-3}, step=step)
    with open_track(run_dir, OFFLINE, job="evaluate") as track:
        track.log({"eval/test/gt_known": 60.5}, step=15)
        track.images("eval/cases", [Picture(image_HWC=picture, caption="cat 0.61")], step=15)

    files = sorted((run_dir / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 2
    assert {path.stem for path in files} == {f"run-{run_id(run_dir)}"}
    rows = history(files[0]) + history(files[1])
    assert [(r["train/step"], r["train/loss"]) for r in rows if "train/loss" in r] == [(10, 0.2), (20, 0.1)]
    assert [(r["train/step"], r["eval/test/gt_known"]) for r in rows if "eval/test/gt_known" in r] == [
        (15, 60.5)
    ]
    check_images(files[1].parent, rows)

    configs = [r.run.config for r in finished_records(files[0]) if r.WhichOneof("record_type") == "run"]
    values = {u.key: json.loads(u.value_json) for config in configs for u in config.update}
    assert values["seed"] == 7
    assert values["method"] == {"name": "molt"}
    metrics = [r.metric for r in finished_records(files[1]) if r.WhichOneof("record_type") == "metric"]
    assert {m.glob_name: m.step_metric for m in metrics if m.glob_name} == {
        "train/*": "train/step",
        "eval/*": "train/step",
    }
    for path in run_dir.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path
    said = capsys.readouterr()
    assert said.err == ""
    assert "wandb sync" in said.out
    assert KEY not in said.out


def check_images(folder: Path, rows: list[dict[str, Any]]) -> None:
    prefix = "eval/cases/"
    (shown,) = (row for row in rows if any(name.startswith(prefix) for name in row))
    assert shown["train/step"] == 15
    assert shown[f"{prefix}_type"] == "images/separated"
    assert shown[f"{prefix}captions"] == ["cat 0.61"]
    assert (shown[f"{prefix}width"], shown[f"{prefix}height"]) == (30, 20)
    image = cv2.imread(str(folder / "files" / shown[f"{prefix}filenames"][0]))
    assert image.shape == (20, 30, 3)
    assert abs(int(image.mean()) - 200) <= 2


@pytest.mark.parametrize("how", ["file", "read-only"])
def test_broken_wandb_place_switches_it_off_in_one_line(tmp_path, capsys, monkeypatch, how):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    if how == "file":
        (run_dir / "wandb").write_text("in the way")
    else:  # root may write anywhere: the answer of the system is what a user without the right gets
        monkeypatch.setattr(os, "access", lambda *_args, **_kw: False)
    with open_track(run_dir, OFFLINE) as track:
        track.log({"train/loss": 1.0}, step=1)
        track.images("eval/cases", [Picture(image_HWC=np.zeros((4, 4, 3), np.uint8), caption="")], step=1)
        track.alert("title", "text")
    lines = [line for line in capsys.readouterr().out.splitlines() if "W&B" in line]
    assert len(lines) == 1
    assert "switched off" in lines[0]
    assert read_metrics(run_dir / "metrics.jsonl")[0]["train/loss"] == 1.0


def test_wandb_failing_in_mid_run_is_said_once(tmp_path, capsys):
    run_dir = tmp_path / "run"
    with open_track(run_dir, OFFLINE) as track:
        track.log({"train/loss": 1.0}, step=1)
        bad = Picture(image_HWC=np.zeros((4, 4, 9), np.uint8), caption="nine channels")
        track.images("eval/cases", [bad], step=1)
        track.images("eval/cases", [bad], step=2)
        track.log({"train/loss": 0.5}, step=2)
    assert capsys.readouterr().out.count("switched off") == 1
    assert [row["step"] for row in read_metrics(run_dir / "metrics.jsonl")] == [1, 2]


class NotFound(BaseHTTPRequestHandler):
    """A server that answers, but is no W&B."""

    def do_GET(self) -> None:
        self.send_error(404)

    do_POST = do_GET

    def log_message(self, *_args: Any) -> None:
        pass


@pytest.fixture
def wrong_server(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), NotFound)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("WANDB_BASE_URL", url)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    yield url
    server.shutdown()
    server.server_close()


@pytest.fixture
def silent_server(monkeypatch):
    with socket.socket() as server:  # takes connections and never answers
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("WANDB_BASE_URL", url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield url


@pytest.mark.parametrize("which", ["wrong_server", "silent_server"])
def test_online_with_a_bad_server_goes_on_offline(tmp_path, capfd, request, which):
    request.getfixturevalue(which)
    begun = time.monotonic()
    config = TrackConfig(wandb="online", init_timeout_s=3, finish_timeout_s=2)
    with open_track(tmp_path / "run", config) as track:
        track.log({"train/loss": 1.0}, step=1)
    assert time.monotonic() - begun < 60
    said = capfd.readouterr()
    assert "going on offline" in said.out
    assert said.err == ""
    (file,) = (tmp_path / "run/wandb").glob("offline-run-*/run-*.wandb")
    assert any(row.get("train/loss") == 1.0 for row in history(file))
    assert not any(KEY.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_online_without_a_key_does_not_ask(tmp_path, capsys):
    with open_track(tmp_path / "run", TrackConfig(wandb="online")):
        pass
    assert "no API key" in capsys.readouterr().out


def test_wanted_mode(monkeypatch):
    assert wanted_mode(TrackConfig()) == "auto"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wanted_mode(TrackConfig()) == "off"
    assert wanted_mode(OFFLINE) == "offline"


def test_server_answers(wrong_server):
    assert server_answers(wrong_server)
    assert why_not_online(wrong_server) is None
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        assert why_not_online(url) == f"{url} does not answer"


def test_key_in_netrc():
    cloud = "https://api.forge.coreweave.com"
    assert not has_key(cloud)
    path = Path(os.environ["HOME"]) / ".netrc"
    path.write_text(f"machine api.wandb.ai login user password {KEY}\n")
    path.chmod(0o600)
    assert has_key(cloud)
    assert not has_key("https://wandb.example.org")


def test_other_ranks_are_silent(tmp_path, capsys):
    with open_track(tmp_path / "run", OFFLINE, enabled=False) as track:
        track.log({"train/loss": 1.0}, step=1)
        track.advance(2)
        track.line("nothing")
        track.alert("nothing", "at all")
        track.images("x", [], step=1)
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "run").exists()


def test_rows_survive_a_torn_line_and_a_resume(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = JsonLines(path)
    log.write({"train/loss": 3.0}, step=10)
    log.write({"train/loss": 2.0}, step=20)
    assert [row["step"] for row in read_metrics(path)] == [10, 20]  # readable before it is closed
    log.close()
    with path.open("a") as file:
        file.write('{"step": 30, "train/lo')
    assert [row["step"] for row in read_metrics(path)] == [10, 20]
    log = JsonLines(path)
    log.write({"train/loss": 1.5}, step=20)
    log.write({"train/loss": float("nan")}, step=30)
    log.close()
    assert [(row["step"], row["train/loss"]) for row in read_metrics(path)] == [
        (10, 3.0),
        (20, 1.5),
        (30, None),
    ]
    assert read_metrics(tmp_path / "none.jsonl") == []
    assert abs(time.time() - (first_time(path) or 0)) < 60


def test_jobs_have_their_own_files_and_scores_do_not_fill_the_console(tmp_path, capsys):
    for job in ("train", "evaluate"):
        with open_track(tmp_path, OFF, job=job) as track:
            track.log({f"{job}/x": 1.0}, step=1)
    assert "train/x" in read_metrics(tmp_path / "metrics.jsonl")[0]
    assert "evaluate/x" in read_metrics(tmp_path / "metrics-evaluate.jsonl")[0]
    said = capsys.readouterr().out
    assert "train 1" in said
    assert "evaluate/x" not in said


def test_plain_lines_name_step_scalars_and_eta():
    stream = io.StringIO()
    console = PlainConsole(40, job="train", stream=stream)
    console.log({"train/loss": 1.25, "train/lr": 1e-3}, step=10)
    console.log({"train/loss": 1.0, "train/data_wait_pct": 3.21, "train/loss_patch": 0.5}, step=20)
    first, second = stream.getvalue().splitlines()
    assert "train 10/40  loss 1.2500  lr 1.00e-03" in first
    assert "ETA" not in first
    assert "train 20/40  loss 1.0000  wait % 3.2  loss_patch 0.5  ETA 0:00:0" in second


def test_eta_counts_only_this_process():
    eta = Eta(1000)
    assert eta.update(500, now=0.0) is None
    assert eta.update(510, now=5.0) == pytest.approx(490 * 0.5)
    assert duration_text(3725.4) == "1:02:05"


def test_bar_on_a_terminal():
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    bar = BarConsole(40, job="train", console=console)
    bar.log({"train/loss": 1.25}, step=10)
    bar.advance(20)
    bar.line("a [bold]message[/bold]")
    bar.close()
    text = console.file.getvalue()
    assert "20/40" in text
    assert "loss 1.2500" in text
    assert "a [bold]message[/bold]" in text


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"log_every_steps": 0}, "log_every_steps: given 0; allowed: 1 or more"),
        ({"init_timeout_s": 0}, "init_timeout_s: given 0; allowed: above 0"),
        ({"project": ""}, "project: given '' (str): String should have at least 1 character"),
    ],
)
def test_config_refuses_nonsense(wrong, message):
    with pytest.raises(UserError) as refused:
        validated(TrackConfig, wrong)
    assert str(refused.value) == message
