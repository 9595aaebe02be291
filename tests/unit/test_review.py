"""The review's parts: cards, the journal that survives a crash, export, and what the server refuses."""

from __future__ import annotations

import base64
import dataclasses
import http.client
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from pycocotools.coco import COCO

from tests.predictions import CLASSES, make_predictions, paint, row, write_predictions
from tests.review import serving
from wsol_dist.cli import main
from wsol_dist.data.shards.index import Index
from wsol_dist.errors import UserError
from wsol_dist.prediction.record import SCHEMA
from wsol_dist.review.cards import Cards, open_cards
from wsol_dist.review.export import export
from wsol_dist.review.journal import FILE, Choice, Journal
from wsol_dist.review.page import DATA, write_static
from wsol_dist.review.pictures import Outside, Pictures
from wsol_dist.review.server import TOKEN_HEADER, ReviewServer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_predictions(tmp_path)


def open_journal(folder: Path, cards: Cards) -> Journal:
    return Journal(folder / FILE, cards)


# ---- cards


def test_a_card_for_each_box_and_for_the_image_without_one(folder):
    cards = open_cards(folder)
    assert (len(cards), cards.num_boxes) == (12, 11)
    assert cards.num_images == 12
    assert cards.num_without == 1
    assert cards.image[0] == "cat/00000.jpg"
    table = cards.predictions.table()
    score, stability = (table[name].to_numpy()[:11] for name in ("score", "stability"))
    differs = table["given_label"].to_numpy()[:11] != table["label"].to_numpy()[:11]
    assert differs.any()
    assert not differs.all()
    assert np.allclose(cards.doubt[:11], np.where(differs, 1, 1 - score * stability), atol=1e-6)
    assert cards.doubt[11] == 1
    assert cards.image[11] == "owl/00011.jpg"
    shown = cards.to_json()
    assert shown["box"][11] is None
    assert shown["classes"][shown["label"][11]] == "owl"


def test_of_which_class_an_image_without_a_box_is(tmp_path):
    """The asked one; where none was probable enough the given, else the most probable. What is broken has no card."""
    common = {"width": 10, "height": 10, "top5_label": [1, 2], "top5_score": [0.5, 0.25]}
    rows = [
        common | {"image": "asked.jpg", "label": 0, "class": "cat", "score": 0.125},
        common | {"image": "given.jpg", "given_label": 2, "given_class": "owl"},
        common | {"image": "probable.jpg"},
        {"image": "broken.jpg", "width": 0, "height": 0, "error": "no image"},
        row("boxed.jpg", 4, box=[1, 1, 5, 5], size_wh=(10, 10)),
        row("boxed.jpg", 5, box=None, size_wh=(10, 10)),
    ]
    write_predictions(tmp_path / "O", rows, root=tmp_path)
    cards = open_cards(tmp_path / "O")
    assert cards.image == ["boxed.jpg", "asked.jpg", "given.jpg", "probable.jpg"]
    assert cards.images == ["asked.jpg", "given.jpg", "probable.jpg", "boxed.jpg"]
    assert cards.label[1:].tolist() == [0, 2, 1]
    assert cards.score[1:].tolist() == [0.125, 0.25, 0.5]
    assert (cards.num_boxes, cards.num_without, cards.num_broken) == (1, 3, 1)


def test_predictions_of_broken_images_are_told(tmp_path):
    broken = row("a.jpg", 0, box=None, size_wh=(0, 0)) | {"error": "no image"}
    write_predictions(tmp_path / "O", [broken], root=tmp_path)
    with pytest.raises(UserError, match="nothing to review: none of its 1 images decoded"):
        open_cards(tmp_path / "O")


# ---- the journal


def test_choices_are_there_after_a_kill(folder):
    """Read back from the disk, without the first journal being closed."""
    cards = open_cards(folder)
    journal = open_journal(folder, cards)
    journal.choose(3, {"state": "accepted", "box": [1, 2, 50, 60.5]})
    journal.choose(4, {"state": "rejected"})
    journal.choose(4, {"state": "open"})
    again = open_journal(folder, cards)
    assert again.choices[3] == Choice(state="accepted", box=(1.0, 2.0, 50.0, 60.5))
    assert again.choices[4] == Choice(state="open")
    assert again.counts() == {"accepted": 1, "rejected": 0}


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_line_cut_off_by_a_crash_is_dropped_and_writing_goes_on(folder, cut):
    cards = open_cards(folder)
    journal = open_journal(folder, cards)
    journal.choose(0, {"state": "accepted"})
    journal.choose(1, {"state": "rejected"})
    path = folder / FILE
    path.write_bytes(path.read_bytes()[:-cut])
    again = open_journal(folder, cards)
    assert set(again.choices) == {0}
    again.choose(2, {"state": "accepted"})
    assert set(open_journal(folder, cards).choices) == {0, 2}


def test_a_disk_that_fills_loses_no_earlier_choice(folder, monkeypatch):
    cards = open_cards(folder)
    journal = open_journal(folder, cards)
    journal.choose(0, {"state": "accepted"})
    real = os.write

    def half(file: int, data: bytes) -> int:
        if len(data) > 20:
            return real(file, data[:20])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OSError, match="No space"):
        journal.choose(1, {"state": "rejected"})
    monkeypatch.undo()
    assert set(journal.choices) == {0}
    journal.choose(2, {"state": "accepted"})
    assert set(open_journal(folder, cards).choices) == {0, 2}


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ({"state": "maybe"}, "state 'maybe'"),
        ({"state": "accepted", "box": [0, 0, 5]}, "four numbers"),
        ({"state": "accepted", "box": [0, 0, float("nan"), 9]}, "four numbers"),
        ({"state": "accepted", "box": [-1, 0, 9, 9]}, "inside of 120 x 160"),
        ({"state": "accepted", "box": [0, 0, 121, 9]}, "inside of 120 x 160"),
        ({"state": "accepted", "box": [5, 5, 5.5, 9]}, "a pixel large"),
        ([], "state None"),
    ],
)
def test_choices_that_are_none(folder, raw, reason):
    cards = open_cards(folder)
    journal = open_journal(folder, cards)
    with pytest.raises(ValueError, match=reason):
        journal.choose(0, raw)
    assert journal.choices == {}


def test_what_has_no_box_is_accepted_with_a_drawn_one_only(folder):
    cards = open_cards(folder)
    journal = open_journal(folder, cards)
    with pytest.raises(ValueError, match="no box was found on this image; draw one to accept it"):
        journal.choose(11, {"state": "accepted"})
    journal.choose(11, {"state": "rejected"})
    drawn = journal.choose(11, {"state": "accepted", "box": [1, 2, 50, 60]})
    assert open_journal(folder, cards).choices == {11: drawn}


def test_a_journal_of_other_predictions_is_refused(folder):
    cards = open_cards(folder)
    open_journal(folder, cards).close()
    with pytest.raises(UserError, match="other predictions"):
        Journal(folder / FILE, dataclasses.replace(cards, sha256="0" * 64))


def test_damage_in_the_middle_is_told_with_its_line(folder):
    cards = open_cards(folder)
    journal = open_journal(folder, cards)
    journal.choose(0, {"state": "accepted"})
    with (folder / FILE).open("ab") as file:
        file.write(b'{"card": 99, "state": "accepted"}\n')
    with pytest.raises(UserError, match=r"line 3: no choice: card 99 given; 0 to 11"):
        open_journal(folder, cards)


# ---- export


def test_export_holds_the_accepted_boxes_as_they_were_moved(folder, tmp_path):
    cards = open_cards(folder)
    choices = {
        0: Choice(state="accepted"),
        1: Choice(state="accepted", box=(5.0, 6.0, 70.0, 80.0)),
        2: Choice(state="rejected"),
    }
    done = export(cards, choices, tmp_path / "out")
    assert (done.num_boxes, done.num_moved, done.num_images) == (2, 1, 2)
    coco = json.loads((tmp_path / "out/coco.json").read_bytes())
    assert [image["file_name"] for image in coco["images"]] == [cards.image[0], cards.image[1]]
    x0, y0, x1, y1 = cards.box_xyxy[0].tolist()
    assert coco["annotations"][0]["bbox"] == pytest.approx([x0, y0, x1 - x0, y1 - y0], abs=0.01)
    assert coco["annotations"][1]["bbox"] == [5, 6, 65, 74]
    # Judged otherwise, the file of what was accepted before is gone.
    assert (tmp_path / "out/yolo/labels/cat/00000.txt").is_file()
    export(cards, {1: Choice(state="accepted")}, tmp_path / "out")
    assert not (tmp_path / "out/yolo/labels/cat/00000.txt").exists()
    assert (tmp_path / "images/cat/00000.jpg").is_file()  # what it links to is not its own


def test_export_with_those_that_nobody_judged(folder, tmp_path):
    cards = open_cards(folder)
    done = export(cards, {2: Choice(state="rejected")}, tmp_path / "out", formats=("coco",), with_open=True)
    assert done.num_boxes == cards.num_boxes - 1
    with pytest.raises(UserError, match="no box is accepted yet"):
        export(cards, {}, tmp_path / "out")


def test_a_box_that_was_drawn_is_exported_where_its_image_was_predicted(tmp_path):
    rows = [
        row("cat/0.jpg", 0, box=None, size_wh=(120, 90))
        | {"top5_label": [0, 1], "top5_score": [0.75, 0.125]},
        row("dog/1.jpg", 1, box=[10, 10, 50, 50], size_wh=(120, 90)),
        row("owl/2.jpg", 2, box=None, size_wh=(120, 90)),
    ]
    for one in rows:
        paint(tmp_path / "images" / one["image"], size_wh=(120, 90), box=[10, 10, 50, 50], hue=0)
    write_predictions(tmp_path / "O", rows, root=tmp_path / "images")
    cards = open_cards(tmp_path / "O")
    choices = {1: Choice(state="accepted", box=(3.0, 4.0, 30.0, 40.0)), 2: Choice(state="rejected")}
    done = export(
        cards, choices, tmp_path / "out", formats=("coco", "voc", "yolo", "parquet"), with_open=True
    )
    assert (done.num_boxes, done.num_moved, done.num_images) == (2, 1, 2)
    labels = COCO(str(tmp_path / "out/coco.json"))
    drawn, predicted = labels.loadAnns(labels.getAnnIds())
    assert [image["file_name"] for image in labels.loadImgs(labels.getImgIds())] == ["cat/0.jpg", "dog/1.jpg"]
    assert (drawn["bbox"], labels.loadCats(drawn["category_id"])[0]["name"]) == ([3, 4, 27, 36], "cat")
    assert predicted["bbox"] == [10, 10, 40, 40]
    table = pq.read_table(tmp_path / "out/predictions.parquet")
    assert table.schema.names == SCHEMA.names
    assert table["score"].to_pylist()[0] == 0.75


def test_export_into_somebody_elses_folder_is_refused(folder, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("x")
    with pytest.raises(UserError, match="not empty and no earlier export"):
        export(open_cards(folder), {0: Choice(state="accepted")}, tmp_path / "mine")
    assert (tmp_path / "mine/thesis.txt").read_text() == "x"


# ---- the server


@pytest.fixture
def server(folder: Path) -> Iterator[ReviewServer]:
    with serving(folder) as found:
        yield found


def ask(
    server: ReviewServer, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, bytes, http.client.HTTPMessage]:
    """A request as it stands: no library tidies the path."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.putrequest(method, path, skip_host="Host" in headers)
    data = b"" if body is None else json.dumps(body).encode()
    for name, value in {"Content-Length": str(len(data)), **headers}.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders(data)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content, answer.headers


def decoded(picture: dict[str, str]) -> np.ndarray:
    data = base64.b64decode(picture["src"].removeprefix("data:image/jpeg;base64,"))
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def test_page_cards_and_pictures(server, folder):
    status, page, headers = ask(server, "GET", "/")
    assert status == 200
    assert server.token in page.decode()
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    status, cards, _ = ask(server, "GET", "/cards.json")
    assert status == 200
    assert json.loads(cards)["classes"] == list(CLASSES)
    status, answer, _ = ask(server, "GET", "/pictures.json?side=320&cards=1,11")
    assert status == 200
    pictures = json.loads(answer)
    assert set(pictures) == {"1", "11"}
    assert decoded(pictures["1"]).shape == (120, 160, 3)


def test_only_this_machine_is_listened_to(server):
    assert server.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd",
        "/pictures.json/../../../../etc/passwd",
        "/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/pictures.json?side=320&cards=../../secret.jpg",
        "/pictures.json?side=320&cards=%2e%2e%2f%2e%2e%2fsecret.jpg",
        "/pictures.json?side=320&cards=0,secret.jpg",
        "/images/..%5c..%5csecret.jpg",
        "//etc/passwd",
        "/etc/passwd",
        "/images//etc/passwd",
        "/pictures.json?side=320&cards=99999",
        "/pictures.json?side=320&cards=-1",
        "/pictures.json?side=320&cards=%D9%A1",
        "/pictures.json?side=99999999&cards=0",
        "/pictures.json?side=320&cards=" + ",".join("0" * 65),
        "/pictures.json?cards=0",
        "/pictures.json",
        "/review.jsonl",
        "/predictions.json",
        "file:///etc/passwd",
    ],
)
def test_a_path_outside_is_refused(server, folder, path):
    cv2.imwrite(str(folder.parent / "secret.jpg"), np.zeros((9, 9, 3), np.uint8))
    status, content, _ = ask(server, "GET", path)
    assert status in (403, 404)
    assert b"root:" not in content
    assert len(content) < 200


@pytest.mark.parametrize("image", ["../secret.jpg", "link.jpg", "{absolute}"])
def test_predictions_that_name_files_elsewhere_show_none(tmp_path, image):
    """A record of an untrusted place may name anything, and links are followed before it is judged."""
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "secret.jpg"), np.zeros((90, 120, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "images/own.jpg"), np.zeros((90, 120, 3), np.uint8))
    (tmp_path / "images/link.jpg").symlink_to(tmp_path / "secret.jpg")
    names = ["own.jpg", image.format(absolute=tmp_path / "secret.jpg")]
    rows = [row(name, at, box=[1, 1, 50, 50], size_wh=(120, 90)) for at, name in enumerate(names)]
    write_predictions(tmp_path / "O", rows, root=tmp_path / "images")
    cards = open_cards(tmp_path / "O")
    journal = open_journal(tmp_path / "O", cards)
    server = ReviewServer(cards, journal, tmp_path / "O", port=0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        found = json.loads(ask(server, "GET", "/pictures.json?side=320&cards=0,1")[1])
        assert decoded(found["0"]).shape == (90, 120, 3)
        assert set(found["1"]) == {"problem"}
        assert repr(names[1]) in found["1"]["problem"]
        assert f"leaves {tmp_path / 'images'}" in found["1"]["problem"]
        assert write_static(cards, {}, tmp_path / "static", folder=tmp_path / "O")
        assert not (tmp_path / "static/images/1.jpg").exists()
    finally:
        server.shutdown()
        server.server_close()


def test_a_link_to_the_very_file_that_was_predicted_is_shown_until_that_changes(tmp_path):
    """Class folders are often links into other folders."""
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "far.jpg"), np.zeros((90, 120, 3), np.uint8))
    (tmp_path / "images/link.jpg").symlink_to(tmp_path / "far.jpg")
    stamp = (tmp_path / "far.jpg").stat()
    one = row("link.jpg", 0, box=[1, 1, 50, 50], size_wh=(120, 90))
    one |= {"num_bytes": stamp.st_size, "modified_ns": stamp.st_mtime_ns}
    write_predictions(tmp_path / "O", [one], root=tmp_path / "images")
    picture = Pictures(open_cards(tmp_path / "O")).jpeg(0, 320)
    assert cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR).shape == (90, 120, 3)
    os.utime(tmp_path / "far.jpg", ns=(0, 0))
    with pytest.raises(Outside, match="for a file that was not predicted"):
        Pictures(open_cards(tmp_path / "O")).jpeg(0, 320)


def test_another_host_is_refused(server):
    """A page elsewhere can make a name of its own point to 127.0.0.1."""
    for host in ("evil.example", f"evil.example:{server.port}", "127.0.0.1", "127.0.0.1:1"):
        assert ask(server, "GET", "/cards.json", Host=host)[0] == 403
    assert ask(server, "GET", "/cards.json", Host=f"localhost:{server.port}")[0] == 200


def test_only_the_page_itself_chooses(server):
    choice = {"card": 0, "state": "accepted", "box": None}
    token = {TOKEN_HEADER: server.token}
    assert ask(server, "POST", "/choose", choice)[0] == 403
    assert ask(server, "POST", "/choose", choice, **{TOKEN_HEADER: "guessed"})[0] == 403
    assert ask(server, "POST", "/choose", choice, Origin="http://evil.example", **token)[0] == 403
    assert ask(server, "POST", "/choose", choice, Origin="null", **token)[0] == 403
    assert server.journal.choices == {}
    own = f"http://127.0.0.1:{server.port}"
    assert ask(server, "POST", "/choose", choice, Origin=own, **token)[0] == 200
    assert server.journal.choices == {0: Choice(state="accepted")}
    assert json.loads(ask(server, "GET", "/choices.json")[1]) == {"0": {"state": "accepted", "box": None}}


def test_bad_choices_and_bodies_are_told(server):
    token = {TOKEN_HEADER: server.token}
    assert ask(server, "POST", "/choose", {"card": 77, "state": "accepted"}, **token)[0] == 400
    assert ask(server, "POST", "/choose", {"card": True, "state": "accepted"}, **token)[0] == 400
    assert ask(server, "POST", "/choose", ["accepted"], **token)[0] == 400
    assert ask(server, "POST", "/choose", "x" * 70_000, **token)[0] == 400
    assert ask(server, "POST", "/elsewhere", {}, **token)[0] == 404
    assert ask(server, "DELETE", "/choose", {}, **token)[0] == 501
    status, said, _ = ask(server, "POST", "/export", {}, **token)
    assert status == 409
    assert b"no box is accepted yet" in said


def test_a_disk_that_is_full_is_told_to_the_page(server, monkeypatch):
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("wsol_dist.review.journal.os.write", full)
    # The handler's own socket does not go through os.write.
    status, said, _ = ask(
        server, "POST", "/choose", {"card": 0, "state": "accepted"}, **{TOKEN_HEADER: server.token}
    )
    assert status == 507
    assert said.startswith(b"not saved")
    assert b"free space" in said


def test_the_page_exports(server, folder):
    token = {TOKEN_HEADER: server.token}
    ask(server, "POST", "/choose", {"card": 0, "state": "accepted"}, **token)
    status, said, _ = ask(server, "POST", "/export", {"with_open": False}, **token)
    assert status == 200
    assert json.loads(said)["boxes"] == 1
    assert [path.name for path in (folder / "reviewed/voc").rglob("*.xml")] == ["00000.xml"]


# ---- the command


def test_a_port_in_use_is_one_line(folder, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["review", str(folder), "--port", str(port)]) == 2
    said = capsys.readouterr().err
    assert (
        said
        == f"error: --port: {port} is in use on this machine; give another one, or 0 for any that is free\n"
    )


@pytest.mark.parametrize("port", ["-1", "65536"])
def test_a_port_that_is_none(folder, capsys, port):
    assert main(["review", str(folder), "--port", port]) == 2
    assert f"--port: given {port}" in capsys.readouterr().err


def test_a_folder_without_predictions(tmp_path, capsys):
    assert main(["review", str(tmp_path)]) == 2
    assert "no predictions in it" in capsys.readouterr().err


def test_the_command_merges_and_exports(folder, tmp_path, capsys):
    cards = open_cards(folder)
    lines = [
        {"schema": 1, "predictions_sha256": cards.sha256},
        {"card": 0, "state": "accepted", "box": None},
        {"card": 1, "state": "accepted", "box": [5, 6, 70, 80]},
    ]
    (tmp_path / "choices.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    merge = ["review", str(folder), "--merge", str(tmp_path / "choices.jsonl")]
    assert main([*merge, "--export", str(tmp_path / "out"), "--formats", "coco,parquet"]) == 0
    assert "2 boxes of 2 images as coco, parquet; 1 of them moved or drawn by hand" in capsys.readouterr().out
    assert (tmp_path / "out/predictions.parquet").is_file()
    assert main(["review", str(folder), "--export", str(tmp_path / "out"), "--formats", "coko"]) == 2
    assert "no format 'coko' for boxes; did you mean 'coco'?" in capsys.readouterr().err
    lines[0]["predictions_sha256"] = "f" * 64
    (tmp_path / "choices.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(merge) == 2
    assert "other predictions" in capsys.readouterr().err


def test_a_static_folder_is_whole_and_is_not_written_over_others(folder, tmp_path, capsys):
    assert main(["review", str(folder), "--static", str(tmp_path / "page")]) == 0
    assert {path.name for path in (tmp_path / "page").iterdir()} == {"index.html", DATA, "images"}
    assert len(list((tmp_path / "page/images").iterdir())) == 12
    assert main(["review", str(folder), "--static", str(tmp_path / "page")]) == 0
    (tmp_path / "other").mkdir()
    (tmp_path / "other/x").write_text("x")
    assert main(["review", str(folder), "--static", str(tmp_path / "other")]) == 2
    assert "is not empty and no review page" in capsys.readouterr().err


def test_images_of_shards_are_shown(tmp_path, tiny_shards):
    ids = Index.load(tiny_shards).rows("val").ids.to_pylist()[:2]
    rows = [row(id_, at, box=[1, 1, 20, 20], size_wh=(32, 32)) for at, id_ in enumerate(ids)]
    write_predictions(tmp_path / "O", rows, root=None, shards=[{"index": str(tiny_shards), "split": "val"}])
    picture = Pictures(open_cards(tmp_path / "O")).jpeg(1, 320)
    assert cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR).shape == (32, 32, 3)
