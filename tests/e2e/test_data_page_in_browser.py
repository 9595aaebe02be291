"""The page of a data set as the real Chromium shows it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.browser import Browser
from wsol_dist.cli import main

pytestmark = pytest.mark.slow


def test_the_data_page_shows_everything_and_fetches_nothing(own_shards: Path, tmp_path: Path) -> None:
    os.truncate(own_shards / "test-000001.tar", 5000)
    page = tmp_path / "page.html"
    assert main(["shards", "report", str(own_shards), "--out", str(page), "--workers", "1"]) == 0
    for width_px, dark in ((1400, False), (400, True)):
        with Browser() as browser:
            browser.open(page, width_px=width_px, dark=dark)
            assert browser.run("document.querySelectorAll('figure img').length") > 40
            assert browser.run(
                "[...document.images].every(image => image.complete && image.naturalWidth > 20)"
            )
            assert browser.run("document.documentElement.scrollWidth") <= width_px
            # Every chart says its values under the pointer.
            hover = (
                "[...document.querySelectorAll('.frame')].map(frame => { const at = frame.getBoundingClientRect();"
                " frame.dispatchEvent(new PointerEvent('pointermove', {clientX: at.left + at.width / 2}));"
                " return frame.querySelector('.readout').textContent.length; })"
            )
            read = browser.run(hover)
            assert len(read) >= 3
            assert min(read) > 4
            # The classes can be put in order by any column.
            browser.run("document.querySelector('table.sortable th:nth-child(2) button').click()")
            rows = "[...document.querySelectorAll('table.sortable tbody tr')]"
            numbers = browser.run(f"{rows}.map(row => Number(row.cells[1].dataset.value))")
            assert numbers == sorted(numbers, reverse=True)
            broken = browser.run("[...document.querySelectorAll('td code')].map(cell => cell.textContent)")
            assert "test-000001.tar" in broken
            assert [url for url in browser.requests if not url.startswith("file:")] == []
            assert browser.errors == []
