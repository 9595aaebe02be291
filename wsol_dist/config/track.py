"""What a recipe says about watching a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt


@dataclass(frozen=True, kw_only=True)
class TrackConfig:
    """Console, JSONL and W&B. The JSONL file is always written, whatever is chosen here."""

    wandb: Literal["auto", "offline", "online", "off"] = "auto"
    """auto: WANDB_MODE if it is set, else online where an API key (WANDB_API_KEY or netrc) is present and the
    server answers within two seconds, else offline. online goes offline when it cannot be reached."""
    project: Annotated[str, Field(min_length=1)] = "wsol_dist"
    """W&B project."""
    entity: str | None = None
    """W&B user or team; None for the key's default."""
    group: str | None = None
    """W&B group, to hold several runs of one experiment together."""
    tags: tuple[str, ...] = ()
    """W&B tags."""
    log_every_steps: PositiveInt = 10
    """Optimizer steps between two log rows."""
    init_timeout_s: PositiveFloat = 20.0
    """Longest wait for W&B at the start of a job, in seconds; then it goes on offline."""
    finish_timeout_s: PositiveFloat = 60.0
    """Longest wait for W&B's uploads at the end of a job, in seconds; the rest stays for `wandb sync`."""
