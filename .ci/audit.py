"""Look up every locked package for known vulnerabilities: python .ci/audit.py UV CACHE LOCK...

Exit code 0: none is known; 1: some are, a line each; 3: not everything could be looked up, no internet for instance.
pip-audit runs in an environment of its own. It counts what it could not look up as fine; here that is code 3.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SERVICES = ("pypi", "osv")
VULNERABLE, NOT_DONE = 1, 3


def main(argv: list[str]) -> int:
    """Audit each lock file; the worst of their codes."""
    uv, cache, *locks = argv
    codes = {audit(uv, cache, Path(lock)) for lock in locks}
    return VULNERABLE if VULNERABLE in codes else max(codes)


def audit(uv: str, cache: str, lock: Path) -> int:
    """Ask one service, and the next where that did not look up everything; say in lines what came out."""
    reason, skipped = "", []
    for service in SERVICES:
        found, reason = ask(uv, cache, lock, service)
        vulnerable = [(one, bug) for one in found for bug in one.get("vulns", [])]
        for one, bug in vulnerable:
            fixed = ", ".join(bug.get("fix_versions", [])) or "no version yet"
            print(f"{lock.name}: {one['name']} {one['version']}: {bug['id']}, fixed in {fixed}")
        if vulnerable:
            return VULNERABLE
        skipped = [one["name"] for one in found if "skip_reason" in one]
        if found and not skipped:
            print(f"{lock.name}: {len(found)} packages, no known vulnerability ({service})")
            return 0
    if skipped:
        reason = f"{len(skipped)} packages were not found there ({', '.join(skipped[:3])}, ...)"
    print(
        f"{lock.name}: not audited: {reason}; no internet, or no vulnerability service behind this package index"
    )
    return NOT_DONE


def ask(uv: str, cache: str, lock: Path, service: str) -> tuple[list[dict[str, Any]], str]:
    """What pip-audit says of each package, and why it says nothing."""
    command = [uv, "tool", "run", "--quiet", "--cache-dir", cache, "pip-audit", "--requirement", str(lock)]
    command += ["--disable-pip", "--require-hashes", "--progress-spinner", "off", "--timeout", "5"]
    run = subprocess.run(
        [*command, "--vulnerability-service", service, "--format", "json"],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        return json.loads(run.stdout)["dependencies"], ""
    except (ValueError, KeyError, TypeError):
        lines = [line for line in run.stderr.splitlines() if line.strip()]
        return [], (
            lines[-1].split(": ")[0].strip() if lines else f"pip-audit ended with code {run.returncode}"
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
