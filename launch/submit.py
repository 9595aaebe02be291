#!/usr/bin/env python3
"""Submit a training and the evaluator job beside it: python launch/submit.py --nodes 8 [RECIPE] [overrides]."""

import sys

from wsol_dist.cli import run

if __name__ == "__main__":
    sys.exit(run("wsol_dist.launching.submission", sys.argv[1:]))
