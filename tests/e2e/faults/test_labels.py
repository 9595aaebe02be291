"""From class folders to labels: what a model from somewhere, the review server and full disks are told."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
from pathlib import Path

import pytest

from tests.e2e.faults.labels import class_folders, names_a_file_elsewhere
from tests.e2e.faults.process import finish, message, small_files, start
from tests.e2e.faults.table import fault
from tests.e2e.faults.test_table import call, contents
from tests.predictions import make_predictions
from tests.review import serving
from tests.unit.model_folders import make_run
from wsol_dist.cli import main
from wsol_dist.review.server import TOKEN_HEADER, ReviewServer


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    assert (
        main(["export", str(make_run(folder / "run")), "--out", str(folder / "model"), "--formats", "none"])
        == 0
    )
    return folder / "model"


def told(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.removeprefix("error: ").rstrip("\n")


def test_a_strip_is_left_out_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = fault("an image of 100,000 x 1 px to learn from")
    row.damage(tmp_path)
    assert call(f"wsol fit {tmp_path}/photos --explain") == 0
    assert any(row.pattern(tmp_path).fullmatch(line) for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize(
    "what",
    [
        "a model that was changed",
        "a model from an untrusted place whose weights are a program",
        "a model from an untrusted place that names code",
        "a model from an untrusted place with Python in its YAML",
    ],
)
def test_a_model_from_an_untrusted_place(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    row = fault(what)
    shutil.copytree(exported, tmp_path / "model")
    class_folders("ant", num=1)(tmp_path)
    row.damage(tmp_path)
    before = contents(tmp_path)
    assert call(f"wsol predict {tmp_path}/model {tmp_path}/photos --out {tmp_path}/labels") == 2
    said = told(capsys)
    assert row.pattern(tmp_path).fullmatch(said), said
    assert contents(tmp_path) == before


def test_a_port_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_predictions(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert call(f"wsol review {folder} --port {port}") == 2
    assert fault("port in use, review").pattern(tmp_path, port=port).fullmatch(told(capsys))


# ---- what is asked of the review server


def ask(server: ReviewServer, method: str, path: str, body: str = "", **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request(method, path, body=body.encode(), headers=headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/review.jsonl",
        "/predictions.json",
        "/images/cat/00000.jpg",
    ],
)
def test_paths_of_files_are_not_served(tmp_path: Path, path: str) -> None:
    with serving(make_predictions(tmp_path, 3)) as server:
        assert ask(server, "GET", path) == (404, fault("a path outside of the served folder").message)


def test_a_picture_elsewhere_is_not_served(tmp_path: Path) -> None:
    row = fault("predictions that name a file elsewhere")
    with serving(names_a_file_elsewhere(tmp_path)) as server:
        status, text = ask(server, "GET", "/pictures.json?side=320&cards=0,1")
    found = json.loads(text)
    assert status == 200
    assert row.pattern(tmp_path).fullmatch(found["0"]["problem"])
    assert found["1"]["src"].startswith("data:image/jpeg;base64,")


def test_a_page_elsewhere_cannot_choose(tmp_path: Path) -> None:
    choice = json.dumps({"card": 0, "state": "accepted"})
    with serving(make_predictions(tmp_path, 3)) as server:
        said = ask(server, "POST", "/choose", choice)
        assert server.journal.choices == {}
    assert said == (403, fault("another page in the browser chooses").message)


def test_a_choice_onto_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    choice = json.dumps({"card": 0, "state": "accepted"})
    with serving(make_predictions(tmp_path, 3)) as server:
        monkeypatch.setattr("wsol_dist.review.journal.os.write", full)
        status, text = ask(server, "POST", "/choose", choice, **{TOKEN_HEADER: server.token})
        monkeypatch.undo()
        assert server.journal.choices == {}
    assert status == 507
    assert fault("disk full while a choice is saved").pattern(tmp_path).fullmatch(text), text


# ---- labels and models that are written


def test_nothing_to_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_predictions(tmp_path)
    assert call(f"wsol review {folder} --export {tmp_path}/reviewed") == 2
    assert fault("nothing accepted yet").pattern(tmp_path).fullmatch(told(capsys))
    assert not (tmp_path / "reviewed").exists()


@pytest.mark.slow
def test_a_model_onto_a_full_disk(tmp_path: Path) -> None:
    """Files of 100 kB are too large here, as if the disk was full there."""
    make_run(tmp_path / "run")
    before = contents(tmp_path)
    words = ("export", str(tmp_path / "run"), "--out", str(tmp_path / "model"), "--formats", "none")
    code, said = finish(start(tmp_path, *words, limit=small_files(100_000)))
    assert code == 2, said
    assert fault("disk full while a model is exported").pattern(tmp_path).fullmatch(message(said)), said
    assert contents(tmp_path) == before


@pytest.mark.slow
def test_labels_onto_a_full_disk(tmp_path: Path) -> None:
    folder = make_predictions(tmp_path)
    words = ("review", str(folder), "--export", str(tmp_path / "reviewed"), "--with-open")
    code, said = finish(start(tmp_path, *words, limit=small_files(500)))
    assert code == 2, said
    assert fault("disk full while labels are exported").pattern(tmp_path).fullmatch(message(said)), said
    assert json.loads((tmp_path / "reviewed/exported.json").read_bytes()) == {}
    code, said = finish(start(tmp_path, *words))
    assert code == 0, said
    assert json.loads((tmp_path / "reviewed/exported.json").read_bytes())["boxes"] == 11
