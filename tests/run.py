"""The test suite with a second chance and a budget:  python -m tests.run NAME BUDGET_S [pytest's arguments]

A test that fails is run once more, alone, when all others are through. If it passes then, the run is green, its last
lines name it as `flaky: TEST`, and what it said the first time is kept in build/tests/NAME; if it fails again, the run
is red. More than ten failures are no flakiness and get no second chance. The last line holds the time against the
budget, which stops nothing.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.forkserver import FRESH

ROOT = Path(__file__).parents[1]
MOST_REPEATED = 10
ALONE_S = 1200
SPREAD = ("--dist=loadscope", "--no-loadscope-reorder", "--durations=20", "-q")
"""Over the workers by the groups of tests/groups.py, in their order."""
FAILED = pytest.ExitCode.TESTS_FAILED


class Failures:
    """A plugin that keeps which tests failed, and what they said; of collection too, which nothing repeats."""

    def __init__(self) -> None:
        self.said: dict[str, str] = {}
        self.broken = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Each test's set-up, call and tear-down, from whichever worker."""
        if report.failed:
            print(f"\nFAILED {report.nodeid} ({report.when})", flush=True)
            sections = [f"---- {title} ----\n{text}" for title, text in report.sections]
            text = "\n".join([f"==== {report.when} ====", str(report.longrepr), *sections])
            self.said[report.nodeid] = self.said.get(report.nodeid, "") + text + "\n"

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that cannot be read."""
        self.broken |= report.failed


def passes_alone(name: str) -> bool:
    """Run one test in a process of its own; a test that is skipped now has not passed."""
    command = [FRESH, "-m", "pytest", "-q", "-p", "tests.run", name]
    try:
        done = subprocess.run(command, cwd=ROOT, check=False, timeout=ALONE_S)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def pytest_sessionfinish(session: pytest.Session) -> None:
    """As a plugin of `passes_alone`: fail where nothing passed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.exitstatus == 0 and not reporter.stats.get("passed"):
        session.exitstatus = FAILED


def repeat(failures: Failures, folder: Path) -> tuple[list[str], list[str]]:
    """Run each failed test alone; returns those that passed now, and those that failed again."""
    passed, failed = [], []
    for number, (name, said) in enumerate(failures.said.items()):
        print(f"\nonce more, alone: {name}", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        first = folder / f"{number:02d}-{re.sub(r'[^A-Za-z0-9_.-]+', '-', name)[-80:]}.txt"
        first.write_text(said, encoding="utf-8")
        (passed if passes_alone(name) else failed).append(
            f"{name}  (its first failure: {first.relative_to(ROOT)})"
        )
    return passed, failed


def main(argv: list[str]) -> int:
    """Returns 0 if every test passed, at once or alone; else pytest's code."""
    name, budget_s, *words = argv
    start = time.monotonic()
    folder = ROOT / "build" / "tests" / name
    shutil.rmtree(folder, ignore_errors=True)
    failures = Failures()
    code = pytest.main([*SPREAD, *words], plugins=[failures])
    flaky: list[str] = []
    if code == FAILED and not failures.broken and 0 < len(failures.said) <= MOST_REPEATED:
        flaky, failed = repeat(failures, folder)
        code = FAILED if failed else 0
        print()
        for one in failed:
            print(f"failed twice: {one}")
    for one in flaky:
        print(f"flaky: {one}")
    spent = time.monotonic() - start
    verdict = "within" if spent <= float(budget_s) else "OVER"
    print(f"{name}: {spent:.0f} s, {verdict} its budget of {budget_s} s on 2 idle cores")
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
