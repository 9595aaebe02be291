"""The review page as the real Chromium shows it: by keyboard and pointer, with 20,000 images, killed and reloaded."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import Browser
from tests.forkserver import FRESH
from tests.predictions import make_many, make_predictions
from tests.review import serving
from wsol_dist.cli import main
from wsol_dist.review.cards import open_cards
from wsol_dist.review.journal import FILE, Choice, Journal
from wsol_dist.review.server import ReviewServer

pytestmark = pytest.mark.slow

SHOWN = "[...document.querySelectorAll('#gallery figure')]"
CURRENT = "Number(document.querySelector('#gallery .current').dataset.card)"
READY = (
    "typeof cards !== 'undefined' && cards !== null && document.querySelectorAll('#gallery figure').length"
)
JUMP = """new Promise((done) => {
  const began = performance.now();
  gallery.dispatchEvent(new KeyboardEvent("keydown", { key: "KEY", bubbles: true }));
  (function look() {
    const shown = SHOWN.filter((figure) => {
      const place = figure.getBoundingClientRect();
      return place.bottom > 0 && place.top < innerHeight;
    });
    const last = nodes.has(order[WANTED]);
    const images = shown.map((figure) => figure.querySelector("img"));
    const there = images.every((image) => image.complete && image.naturalWidth);
    if (last && shown.length && there) done(performance.now() - began);
    else if (performance.now() - began > 20000) done(-1);
    else requestAnimationFrame(look);
  })();
})""".replace("SHOWN", SHOWN)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as found:
        yield found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ReviewServer]:
    with serving(make_predictions(tmp_path)) as found:
        yield found


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReviewServer]:
    with serving(make_many(tmp_path_factory.mktemp("many"), 20_000)) as found:
        yield found


def wait(browser: Browser, code: str, *, within_s: float = 20.0) -> None:
    """Until an expression on the page is true."""
    deadline = time.monotonic() + within_s
    while not browser.run(code):
        assert time.monotonic() < deadline, code
        time.sleep(0.05)


def load(browser: Browser, page: str | Path, **how: object) -> None:
    browser.call(
        "Page.navigate", url="about:blank"
    )  # the page before may still ask its server, which is gone
    wait(browser, "location.protocol === 'about:' && document.readyState === 'complete'")
    browser.open(page, **how)  # type: ignore[arg-type]
    wait(browser, READY)


def set_field(name: str, value: str) -> str:
    return (
        f"(() => {{ const field = document.getElementById('filters').elements[{name!r}]; field.value = {value!r};"
        " field.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )


def test_keyboard_judges_and_choices_are_on_the_disk(browser, server):
    load(browser, server.url)
    order = browser.run("order")
    assert browser.run("document.activeElement.id") == "gallery"
    browser.press("a")
    browser.press("r")
    browser.press("ArrowRight")
    browser.press("a")
    wait(browser, "document.getElementById('progress').textContent.startsWith('3 of 12')")
    cards = open_cards(server.folder)
    again = Journal(server.folder / FILE, cards)
    assert again.choices == {
        order[0]: Choice(state="accepted"),
        order[1]: Choice(state="rejected"),
        order[3]: Choice(state="accepted"),
    }
    browser.press("Home")
    browser.press("u")
    wait(browser, "document.getElementById('progress').textContent.startsWith('2 of 12')")
    load(browser, server.url)
    assert browser.run("document.getElementById('progress').textContent") == (
        "2 of 12 judged: 1 accepted (0 by hand), 1 rejected"
    )
    assert browser.errors == []


def test_arrows_go_by_rows_and_to_both_ends(browser, server):
    load(browser, server.url, width_px=800)
    order, columns = browser.run("order"), browser.run("columns")
    assert columns == 3
    steps = [
        ("ArrowDown", 3),
        ("ArrowRight", 4),
        ("ArrowUp", 1),
        ("ArrowLeft", 0),
        ("ArrowLeft", 0),
        ("End", 11),
    ]
    for key, place in steps:
        browser.press(key)
        assert browser.run(CURRENT) == order[place], key
    place = browser.run("document.querySelector('#gallery .current').getBoundingClientRect().toJSON()")
    assert place["top"] >= 0
    assert place["bottom"] <= browser.run("innerHeight")


def test_keyboard_moves_a_box(browser, server):
    load(browser, server.url)
    card = browser.run(CURRENT)
    x0, y0, x1, y1 = browser.run(f"cards.box[{card}]")
    browser.press("e")
    assert browser.run("document.activeElement.id") == "edit-box"
    browser.press("ArrowRight")
    browser.press("ArrowDown", shift=True)
    assert browser.run("box") == [x0 + 1, y0 + 10, x1 + 1, y1 + 10]
    browser.press("Tab")
    assert browser.run("document.activeElement.dataset.handle") == "nw"
    browser.press("ArrowLeft")
    browser.press("ArrowUp", shift=True)
    assert browser.run("box") == [x0, y0, x1 + 1, y1 + 10]
    for _ in range(40):
        browser.press("ArrowUp", shift=True)
    assert browser.run("box[1]") == 0
    browser.press("Enter")
    wait(browser, "document.getElementById('progress').textContent.includes('(1 by hand)')")
    assert server.journal.choices[card] == Choice(state="accepted", box=(x0, 0.0, x1 + 1, y1 + 10))
    assert browser.run("document.activeElement.id") == "gallery"
    assert browser.errors == []


def test_escape_leaves_the_box_as_it_was(browser, server):
    load(browser, server.url)
    browser.press("e")
    browser.press("ArrowRight")
    browser.press("Escape")
    wait(browser, "!document.getElementById('editor').open")
    assert server.journal.choices == {}


def show_the_one_without_a_box(browser: Browser) -> int:
    browser.run(set_field("state", "none"))
    (card,) = browser.run("order")
    browser.run("document.getElementById('gallery').focus()")
    return card


def canvas_point(browser: Browser, x: float, y: float) -> tuple[float, float]:
    """Where a place of the edited image, in parts of its sides, is in the window."""
    seen = browser.run("document.getElementById('canvas').getBoundingClientRect().toJSON()")
    return seen["x"] + x * seen["width"], seen["y"] + y * seen["height"]


def test_an_image_without_a_box_has_a_card_and_one_is_drawn(browser, server):
    load(browser, server.url)
    card = show_the_one_without_a_box(browser)
    node = f"document.getElementById('card-{card}')"
    assert browser.run(f"{node}.querySelector('.mark').textContent") == "no box found"
    assert browser.run(f"{node}.querySelector('.box').getBoundingClientRect().width") == 0
    assert browser.run(f"[...{node}.querySelectorAll('button')].map((one) => one.textContent + one.disabled)") == [
        "Accepttrue", "Rejectfalse", "Drawfalse",
    ]  # fmt: skip
    browser.press("a")  # there is nothing yet to accept
    wait(browser, "document.getElementById('editor').open")
    assert browser.run("document.getElementById('edit-accept').disabled")
    browser.press("Enter")
    assert browser.run("document.getElementById('editor').open")
    browser.drag(canvas_point(browser, 0.75, 0.5), canvas_point(browser, 0.25, 0.125))
    width, height = browser.run("size")
    drawn = [width * 0.25, height * 0.125, width * 0.75, height * 0.5]
    assert browser.run("box") == pytest.approx(drawn, abs=1)
    browser.press("Enter")
    wait(browser, "document.getElementById('progress').textContent.includes('1 accepted (1 by hand)')")
    assert server.journal.choices[card].box == pytest.approx(drawn, abs=1)
    assert browser.run(f"{node}.querySelector('.mark').textContent") == "accepted, drawn"
    assert browser.run(f"{node}.querySelector('.box').getBoundingClientRect().width") > 0
    browser.press("u")
    wait(browser, "document.getElementById('progress').textContent.startsWith('0 of 12')")
    assert browser.run(f"{node}.querySelector('.mark').textContent") == "no box found"
    assert browser.errors == []


def test_a_box_is_drawn_by_keyboard(browser, server):
    load(browser, server.url)
    card = show_the_one_without_a_box(browser)
    browser.press("e")
    assert browser.run("document.activeElement.id") == "canvas"
    browser.press("ArrowRight")  # one in the middle
    browser.press("ArrowRight")
    width, height = browser.run("size")
    browser.press("Enter")
    wait(browser, "document.getElementById('progress').textContent.includes('1 accepted (1 by hand)')")
    expected = (width / 4 + 1, height / 4, width * 3 / 4 + 1, height * 3 / 4)
    assert server.journal.choices[card].box == pytest.approx(expected, abs=1)
    assert browser.errors == []


def test_a_drag_on_the_image_draws_the_box_anew_and_a_click_does_not(browser, server):
    load(browser, server.url)
    browser.press("e")
    before = browser.run("box")
    corner = canvas_point(browser, 0.99, 0.01)
    browser.drag(corner, (corner[0] - 2, corner[1] + 2))
    assert browser.run("box") == before
    browser.drag(corner, canvas_point(browser, 0.5, 0.5))
    width, height = browser.run("size")
    assert browser.run("box") == pytest.approx([width / 2, 0, width, height / 2], abs=2)
    browser.run("document.getElementById('edit-predicted').click()")
    assert browser.run("box") == before


@pytest.mark.parametrize(
    ("handle", "sides"),
    [("se", (2, 3)), ("nw", (0, 1)), ("e", (2,)), ("n", (1,)), ("box", (0, 1, 2, 3))],
)
def test_pointer_drags(browser, server, handle, sides):
    load(browser, server.url)
    browser.press("e")
    before = browser.run("box")
    target = "document.getElementById('edit-box')"
    if handle != "box":
        target = f"document.querySelector('[data-handle={handle}]')"
    x, y, scale = browser.run(
        f"(() => {{ const place = {target}.getBoundingClientRect();"
        " return [place.x + place.width / 2, place.y + place.height / 2, canvas.clientWidth / size[0]]; })()"
    )
    browser.drag((x, y), (x + 6 * scale, y + 4 * scale))
    expected = [value + (4 if side % 2 else 6) * (side in sides) for side, value in enumerate(before)]
    assert browser.run("box") == pytest.approx(expected, abs=0.01)
    browser.run("document.getElementById('edit-accept').click()")
    wait(browser, "document.getElementById('progress').textContent.includes('(1 by hand)')")
    (choice,) = server.journal.choices.values()
    assert choice.box == pytest.approx(tuple(expected), abs=0.01)


def test_filters_and_orders(browser, server):
    load(browser, server.url)
    browser.run(set_field("class", "1"))
    assert set(browser.run("order.map((card) => cards.label[card])")) == {1}
    browser.run(set_field("sort", "falling"))
    scores = browser.run("order.map((card) => cards.score[card])")
    assert scores == sorted(scores, reverse=True)
    browser.run(set_field("class", ""))
    browser.run(set_field("sort", "doubt"))
    doubts = browser.run("order.map((card) => cards.doubt[card])")
    assert doubts == sorted(doubts, reverse=True)
    assert len(doubts) == 12
    browser.run(set_field("low", "0.7"))
    assert all(score >= 0.7 for score in browser.run("order.map((card) => cards.score[card])"))
    browser.run(set_field("low", "0"))
    browser.run("document.getElementById('gallery').focus()")
    browser.press("r")
    wait(browser, "document.getElementById('progress').textContent.startsWith('1 of 12')")
    browser.run(set_field("state", "rejected"))
    assert browser.run("order.length") == 1
    assert browser.run("document.getElementById('found').textContent") == "1 of 12 shown"
    browser.run(set_field("low", "1"))
    assert browser.run("document.getElementById('none').hidden") is False
    assert browser.errors == []


@pytest.mark.parametrize("width_px", [1400, 420, 3800])
def test_of_20000_images_few_are_nodes_of_the_page(browser, many, width_px):
    load(browser, many.url, width_px=width_px)
    nodes = "document.querySelectorAll('#gallery figure').length"
    counts = [browser.run(nodes)]
    for key in ("End", "Home", "ArrowDown", "End"):
        browser.press(key)
        counts.append(browser.run(nodes))
    for part in (0.1, 0.35, 0.36, 0.9):
        browser.run(f"scrollTo(0, {part} * document.documentElement.scrollHeight)")
        browser.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        counts.append(browser.run(nodes))
    assert min(counts) > 0
    assert max(counts) <= 300
    assert browser.run("document.querySelectorAll('*').length") < 300 * 20
    assert browser.errors == []


def test_a_jump_to_the_end_of_20000_shows_its_cards_within_a_second(browser, many):
    """The best of four, each to pictures that nobody asked for before: other work on the machine is not the page's.

    The number of requests does not depend on other work: one for each row in sight, and those around it behind them.
    """
    load(browser, many.url)
    times = []
    rows = -(-900 // browser.run("HEIGHT + GAP")) + 1
    for sort in ("file", "doubt", "rising", "class"):
        browser.run(set_field("sort", sort))
        wait(browser, "fetching.size === 0")
        browser.requests.clear()
        times.append(browser.run(JUMP.replace("KEY", "End").replace("WANTED", "order.length - 1")))
        assert browser.run(f"{CURRENT} === order[order.length - 1]")
        assert len(browser.requests) <= rows + 4
        browser.run(JUMP.replace("KEY", "Home").replace("WANTED", "0"))
    print("jump to the end, ms:", [round(one) for one in times])
    assert 0 < min(times) < 1000
    assert browser.errors == []


def test_choices_outlive_a_killed_server(browser, tmp_path):
    folder = make_predictions(tmp_path)
    command = [FRESH, "-m", "wsol_dist.cli", "review", str(folder), "--port", "0"]

    def start() -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(r"http://\S+", line):
                return process, found[0]
        raise AssertionError("the server did not start")

    process, url = start()
    try:
        load(browser, url)
        card = browser.run(CURRENT)
        browser.press("a")
        wait(browser, "document.getElementById('progress').textContent.startsWith('1 of 12')")
        process.send_signal(signal.SIGKILL)
        process.wait()
        browser.press("r")  # nobody saves it: the page says so, and does not show it as done
        wait(browser, "!document.getElementById('alert').hidden")
        assert "does not answer" in browser.run("document.getElementById('alert').textContent")
        assert browser.run("document.getElementById('progress').textContent").startswith("1 of 12")
        process, url = start()
        load(browser, url)
        assert browser.run("choices") == {str(card): {"state": "accepted", "box": None}}
        assert browser.run("document.getElementById('progress').textContent").startswith("1 of 12")
    finally:
        process.kill()
        process.wait()


def test_another_site_cannot_choose(browser, server, tmp_path):
    """A page that is opened in the same browser posts a form and asks by script: nothing is saved."""
    page = tmp_path / "evil.html"
    page.write_text(
        f"""<form id=form method=post enctype=text/plain action="{server.url}choose" target=frame>
        <input name='{{"card":0,"state":"accepted","x":"' value='"}}'></form><iframe name=frame></iframe><script>
        form.submit();
        const body = '{{"card":0,"state":"accepted"}}';
        window.asked = fetch("{server.url}choose", {{method: "POST", mode: "no-cors", body}}).catch(() => null);
        window.read = fetch("{server.url}cards.json").then(() => "read", () => "not read");
        </script>"""
    )
    browser.open(page)
    browser.run("window.asked")
    assert browser.run("window.read") == "not read"
    assert server.journal.choices == {}


@pytest.mark.parametrize("width_px", [1400, 420])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_overflows_and_colours_follow_the_system(browser, server, width_px, dark):
    load(browser, server.url, width_px=width_px, dark=dark)
    assert browser.run("document.documentElement.scrollWidth") == width_px
    background = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(18, 19, 21)") is dark
    browser.press("e")
    assert browser.run("document.getElementById('editor').getBoundingClientRect().right") <= width_px
    assert browser.errors == []


def test_the_page_exports(browser, server):
    load(browser, server.url)
    browser.run("document.getElementById('export').click()")
    wait(browser, "document.getElementById('alert').textContent.includes('no box is accepted yet')")
    browser.run("document.getElementById('gallery').focus()")
    browser.press("a")
    wait(browser, "document.getElementById('progress').textContent.startsWith('1 of 12')")
    browser.run("document.getElementById('export').click()")
    wait(browser, "document.getElementById('alert').textContent.startsWith('1 box of 1 image, 0 by hand')")
    assert len(json.loads((server.folder / "reviewed/coco.json").read_bytes())["annotations"]) == 1


def test_a_static_page_keeps_choices_and_gives_them_back(browser, tmp_path, capsys):
    folder = make_predictions(tmp_path)
    page = tmp_path / "page"
    assert main(["review", str(folder), "--static", str(page)]) == 0
    load(browser, page / "index.html")
    wait(browser, f"{SHOWN}.every((figure) => figure.querySelector('img').naturalWidth > 0)")
    card = browser.run(CURRENT)
    browser.press("a")
    wait(browser, "document.getElementById('progress').textContent.startsWith('1 of 12')")
    load(browser, page / "index.html")
    assert browser.run("document.getElementById('progress').textContent").startswith("1 of 12")
    browser.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    browser.run("document.getElementById('save').click()")
    deadline = time.monotonic() + 20
    while not (tmp_path / "review.jsonl").is_file():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert all(request.startswith("file:") or request.startswith("blob:") for request in browser.requests)
    assert main(["review", str(folder), "--merge", str(tmp_path / "review.jsonl")]) == 0
    assert "1 choices taken over" in capsys.readouterr().out
    cards = open_cards(folder)
    journal = Journal(folder / FILE, cards)
    assert journal.choices == {card: Choice(state="accepted")}
