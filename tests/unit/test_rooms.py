"""`make rooms`: rooms, floors, arrows and circles of a package are counted right."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / ".ci/rooms.py"


def test_floors_and_circles() -> None:
    rooms = SimpleNamespace(**runpy.run_path(str(SCRIPT)))
    plain = {"p.top": {"p.mid", "p.low"}, "p.mid": {"p.low"}, "p.low": set(), "p.apart": set()}
    assert rooms.circles_in(plain) == []
    assert rooms.floors_of(plain) == {"p.top": 3, "p.mid": 2, "p.low": 1, "p.apart": 1}
    circle = plain | {"p.low": {"p.mid"}}
    assert rooms.circles_in(circle) == [{"p.low", "p.mid"}]
    assert rooms.floors_of(circle) == {"p.top": 2, "p.mid": 1, "p.low": 1, "p.apart": 1}
    assert rooms.lines(plain, "p", each=True) == [
        "p: 4 rooms on 3 floors, 3 arrows, 0 circles",
        "   3  top          -> low mid",
        "   2  mid          -> low",
        "   1  apart",
        "   1  low",
    ]


def test_this_package_has_no_circle() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=True, cwd=ROOT)
    counts = done.stdout.splitlines()
    assert counts[0].startswith("wsol_dist: ")
    assert all(line.endswith(" 0 circles") for line in counts)
