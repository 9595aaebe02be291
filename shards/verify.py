"""Check a folder of shards: `python shards/verify.py FOLDER [--deep]`; exit code 1 if it has problems."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works in a clone that is not installed

from wsol_dist.cli import run

if __name__ == "__main__":
    sys.exit(run("wsol_dist.commands.shards.verify", sys.argv[1:], prog="shards/verify.py"))
