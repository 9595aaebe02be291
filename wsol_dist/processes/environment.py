"""What the launcher's environment says of this process, asked before torch is imported."""

from __future__ import annotations

import os


def is_first_rank() -> bool:
    """Whether this process is rank 0, of its launcher or of its SLURM step."""
    return (os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or "0") == "0"
