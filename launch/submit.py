#!/usr/bin/env python3
"""Submit a training and the evaluator job beside it: python launch/submit.py --nodes 8 [RECIPE] [overrides].

Or a `wsol` command cut into the tasks of a job array: python launch/submit.py cluster --jobs 16 --index SHARDS ...
"""

import sys

from wsol_dist.cli import run
from wsol_dist.launching.array import COMMANDS

if __name__ == "__main__":
    argv = sys.argv[1:]
    room = "array" if argv and argv[0] in COMMANDS else "submission"
    sys.exit(run(f"wsol_dist.launching.{room}", argv, prog="python launch/submit.py"))
