"""Pack a data set: `python shards/pack.py SOURCE --root R --out O`; `--help` lists the sources."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works in a clone that is not installed

from wsol_dist.cli import run

if __name__ == "__main__":
    sys.exit(run("wsol_dist.commands.shards.pack", sys.argv[1:], prog="shards/pack.py"))
