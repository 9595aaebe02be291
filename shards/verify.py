"""Check a folder of shards: `python shards/verify.py FOLDER [--deep]`; exit code 1 if it has problems."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works in a clone that is not installed

from wsol_dist.commands.shards import script

if __name__ == "__main__":
    sys.exit(script("verify"))
