"""What a recipe says about watching a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class TrackConfig:
    """Console, JSONL and W&B. The JSONL file is always written, whatever is chosen here."""

    wandb: Literal["auto", "offline", "online", "off"] = "auto"
    """auto: WANDB_MODE if it is set, else online where an API key (WANDB_API_KEY or netrc) is present and the
    server answers within two seconds, else offline. online goes offline when it cannot be reached."""
    project: str = "wsol_dist"
    """W&B project."""
    entity: str | None = None
    """W&B user or team; None for the key's default."""
    group: str | None = None
    """W&B group, to hold several runs of one experiment together."""
    tags: tuple[str, ...] = ()
    """W&B tags."""
    log_every_steps: int = 10
    """Optimizer steps between two log rows."""
    init_timeout_s: float = 20.0
    """Longest wait for W&B at the start of a job, in seconds; then it goes on offline."""
    finish_timeout_s: float = 60.0
    """Longest wait for W&B's uploads at the end of a job, in seconds; the rest stays for `wandb sync`."""

    def __post_init__(self) -> None:
        if self.log_every_steps < 1:
            raise ValueError(f"log_every_steps must be at least 1, given {self.log_every_steps}")
        if self.init_timeout_s <= 0 or self.finish_timeout_s <= 0:
            raise ValueError("init_timeout_s and finish_timeout_s must be above 0")
        if not self.project:
            raise ValueError("project must not be empty")
