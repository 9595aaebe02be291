"""The report page as the real Chromium shows it: filters, themes, keyboard, no script, nothing fetched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.browser import Browser
from tests.unit.test_compare import make_run as make_scored
from tests.unit.test_page import make_run
from wsol_dist.cli import main
from wsol_dist.report.page import write_report
from wsol_dist.runs.rows import write_rows

pytestmark = pytest.mark.slow

CASES = [
    # id, label, predicted, iou, kind, groups
    ("a/0", 0, 0, 0.91, "right", ["fixed", "best"]),
    ("a/1", 0, 1, 0.62, "classification", ["fixed"]),
    ("a/2", 1, 1, 0.55, "right", ["best"]),
    ("a/3", 1, 1, 0.30, "part", ["worst"]),
    ("a/4", 1, 1, 0.02, "wrong_place", ["worst"]),
    ("a/5", 0, 0, None, None, ["fixed"]),
]
SHOWN = "[...document.querySelectorAll('figure')].filter(f => !f.hidden).map(f => f.querySelector('.id').textContent)"


def set_filter(name: str, value: str) -> str:
    """Code that does what a person does with a field."""
    return (
        f"(() => {{ const field = document.querySelector('.filters').elements[{name!r}]; field.value = {value!r};"
        " field.dispatchEvent(new Event('input', {bubbles: true})); return field.value; })()"
    )


def write_run(folder: Path, *, gt_known: float = 60.6) -> Path:
    run = make_run(folder, gt_known=gt_known)
    path = run / "eval/test-step-00000500.json"
    record = json.loads(path.read_text())
    picture = record["cases"][0]["picture"]
    keys = ("id", "label", "predicted", "iou", "error_kind", "groups")
    record["cases"] = [dict(zip(keys, case, strict=True)) | {"picture": picture} for case in CASES]
    record["classes"] = ["cat", "dog"]
    path.write_text(json.dumps(record))
    rows = [
        {"id": one, "label": label, "iou": iou, "gt_known": None if iou is None else iou >= 0.5}
        for one, label, _, iou, _, _ in CASES
    ]
    write_rows(path.with_suffix(".parquet"), rows, about={})
    return run


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as found:
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    write_report([write_run(folder / "quick")], folder / "page.html")
    return folder / "page.html"


@pytest.fixture(scope="module")
def page_of_three(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    runs = [write_run(folder / f"run-with-a-long-name-{at}", gt_known=50 + at) for at in range(3)]
    write_report(runs, folder / "page.html")
    return folder / "page.html"


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, ["a/0", "a/1", "a/2", "a/3", "a/4", "a/5"]),
        ({"class": "cat"}, ["a/0", "a/1", "a/5"]),
        ({"kind": "part"}, ["a/3"]),
        ({"right": "right"}, ["a/0", "a/2"]),
        ({"right": "wrong"}, ["a/1", "a/3", "a/4"]),
        ({"group": "worst"}, ["a/3", "a/4"]),
        ({"low": "0.5"}, ["a/0", "a/1", "a/2"]),
        ({"low": "0.3", "high": "0.6"}, ["a/2", "a/3"]),
        ({"right": "right", "class": "dog"}, ["a/2"]),
        ({"sort": "rising", "low": "0.1"}, ["a/3", "a/2", "a/1", "a/0"]),
        ({"right": "right", "kind": "part"}, []),
    ],
    ids=str,
)
def test_filters(browser, page, filters, expected):
    browser.open(page)
    for name, value in filters.items():
        assert browser.run(set_filter(name, value)) == value
    assert browser.run(SHOWN) == expected
    assert browser.run("document.querySelector('.filters output').textContent") == (
        f"{len(expected)} of 6 images"
    )
    assert browser.run("document.querySelector('.none').hidden") is bool(expected)
    browser.run("document.querySelector('.filters').reset()")
    assert browser.run(f"new Promise(done => setTimeout(() => done({SHOWN}), 20))") == [c[0] for c in CASES]
    assert browser.errors == []


def test_nothing_is_fetched_and_nothing_fails(browser, page, page_of_three):
    for path in (page, page_of_three):
        browser.open(path)
        assert browser.requests == [path.resolve().as_uri()]
        assert browser.errors == []
        assert browser.run("[...document.images].every(image => image.naturalWidth > 0)")


def test_a_request_would_be_seen(browser, page, tmp_path):
    """Else the test above could not fail: without the page's policy a picture from elsewhere is asked for."""
    html = page.read_text().replace("<main>", '<main><img src="http://127.0.0.1:9/x.png">')
    (tmp_path / "closed.html").write_text(html)
    browser.open(tmp_path / "closed.html")
    assert any("Content Security Policy" in error for error in browser.errors)
    (tmp_path / "open.html").write_text(html.replace("Content-Security-Policy", "X-Other"))
    browser.open(tmp_path / "open.html")
    assert "http://127.0.0.1:9/x.png" in browser.requests


def test_comparison(browser, tiny_shards, tmp_path):
    ious = np.linspace(0.1, 0.9, 40).round(2)
    runs = [
        make_scored(tmp_path / "base", tiny_shards, ious),
        make_scored(tmp_path / "new", tiny_shards, ious[::-1]),
    ]
    assert main(["compare", *map(str, runs), "--changed", "6"]) == 0
    for width_px in (1400, 420):
        browser.open(runs[0] / "compare.html", width_px=width_px)
        assert browser.run("document.documentElement.scrollWidth") == width_px
    assert browser.requests == [(runs[0] / "compare.html").as_uri()]
    assert browser.run("[...document.images].filter(image => image.naturalWidth === 224).length") == 12
    everything = browser.run(SHOWN)
    browser.run(set_filter("group", "gained"))
    gained = browser.run(SHOWN)
    browser.run(set_filter("group", "lost"))
    assert sorted(gained + browser.run(SHOWN)) == sorted(everything)
    assert 0 < len(gained) < 6
    assert browser.errors == []


@pytest.mark.parametrize("width_px", [1400, 420])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_overflows_and_colours_follow_the_system(browser, page, page_of_three, width_px, dark):
    for path in (page, page_of_three):
        browser.open(path, width_px=width_px, dark=dark)
        assert browser.run("document.documentElement.scrollWidth") == width_px
        background = browser.run("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(18, 19, 21)") is dark


def test_the_switch_goes_over_the_system(browser, page):
    browser.open(page, dark=True)
    theme = "document.getElementById('theme')"
    seen = []
    for _ in range(3):
        browser.run(f"{theme}.click()")
        seen.append(browser.run(f"[{theme}.textContent, getComputedStyle(document.body).backgroundColor]"))
    assert seen == [
        ["Theme: light", "rgb(247, 247, 245)"],
        ["Theme: dark", "rgb(18, 19, 21)"],
        ["Theme: auto", "rgb(18, 19, 21)"],
    ]


def test_without_script_everything_is_there(browser, page):
    browser.open(page, script=False)
    assert browser.run(SHOWN) == [case[0] for case in CASES]
    assert browser.run("document.querySelector('.filters').offsetHeight") == 0
    assert browser.run("document.getElementById('theme').offsetHeight") == 0
    assert browser.run("document.querySelectorAll('.frame svg path').length") >= 4
    assert "60.6" in browser.run("document.body.innerText")
    assert browser.errors == []


def test_keyboard_reads_charts_filters_and_sorts(browser, page):
    browser.open(page)
    browser.run("document.querySelector('.frame').focus()")
    for _ in range(3):
        browser.press("ArrowRight")
    readout = browser.run("document.querySelector('.frame .readout').innerText")
    assert readout.startswith("threshold 0.0")
    browser.run("document.querySelector('.filters').elements.right.focus()")
    browser.press("ArrowDown")
    assert browser.run(SHOWN) == ["a/0", "a/2"]
    browser.run("document.querySelector('.classes .order').focus()")
    names = "[...document.querySelectorAll('.classes tbody th')].map(cell => cell.textContent)"
    assert browser.run(names) == ["cat", "dog"]
    browser.press("Enter")
    browser.press("Enter")
    assert browser.run(names) == ["dog", "cat"]
    assert browser.run("document.querySelector('.classes th').getAttribute('aria-sort')") == "descending"
    assert browser.errors == []


def test_every_control_is_reached_by_tab(browser, page):
    browser.open(page)
    reached = set()
    for _ in range(60):
        browser.press("Tab")
        reached.add(browser.run("document.activeElement.name || document.activeElement.className"))
    assert {"group", "class", "kind", "right", "low", "high", "sort", "order", "frame"} <= reached
