#!/usr/bin/env python3
"""Search refine.alpha and cluster settings on val, here or (--jobs N) as a job array: RECIPE --index DIR --out DIR."""

import sys

from wsol_dist.cli import run

if __name__ == "__main__":
    argv, prog = sys.argv[1:], "python launch/search.py"
    if "--jobs" in argv:
        sys.exit(run("wsol_dist.launching.array", ["search", *argv], prog=prog))
    sys.exit(run("wsol_dist.commands.search", argv, prog=prog))
