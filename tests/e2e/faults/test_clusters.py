"""Faults of label maps that show only while images are scored."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.faults.fault import fill
from tests.e2e.faults.table import fault
from tests.e2e.faults.test_table import call

pytestmark = pytest.mark.slow


def test_label_maps_of_another_size_leave_no_record(
    prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = fault("label maps of another size than they say")
    (prepared / "recipe.yaml").write_text(fill(row.recipe, prepared))
    row.damage(prepared)
    assert call(fill(row.command, prepared) + " --threshold fixed --evaluate.workers 0") == 2
    said = capsys.readouterr().err.rstrip("\n").splitlines()[-1]
    assert row.pattern(prepared).fullmatch(said.removeprefix("error: ")), said
    assert not list((prepared / "run").rglob("*.json"))
