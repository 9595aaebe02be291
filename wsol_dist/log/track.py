"""One log behind console, JSONL and W&B. The only file that imports wandb, and only when it is wanted."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np

from wsol_dist.config.track import TrackConfig
from wsol_dist.log.console import BarConsole, PlainConsole, open_console
from wsol_dist.log.jsonl import METRICS_FILE, JsonLines, read_metrics
from wsol_dist.log.wandb_mode import wanted_mode, why_not_online
from wsol_dist.processes import first_error

__all__ = ["Job", "Picture", "Track", "read_metrics"]

Job = Literal["train", "evaluate"]
STEP_METRIC = "train/step"


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """An image for the log."""

    image_HWC: np.ndarray
    """(H, W, 3) uint8 RGB."""
    caption: str


class Track:
    """The log of one job: open it with `Track.open`, write into it, close it (or use `with`)."""

    def __init__(
        self,
        *,
        console: PlainConsole | BarConsole | None,
        rows: JsonLines | None,
        wandb: _Wandb | None,
        says_rows: bool = True,
    ) -> None:
        self._console, self._rows, self._wandb, self._says_rows = console, rows, wandb, says_rows
        if wandb:
            first_error.alerts.append(self.failed)

    @classmethod
    def open(
        cls,
        run_dir: Path,
        config: TrackConfig,
        *,
        job: Job,
        resolved: dict[str, Any],
        total_steps: int | None,
        enabled: bool,
    ) -> Track:
        """Starts the log of a job.

        Args:
            run_dir: the run folder; made if missing.
            config: what the recipe says.
            job: training and evaluation write two JSONL files and share one W&B run.
            resolved: the resolved config, shown by W&B.
            total_steps: last step, for progress and ETA; None if unknown.
            enabled: True on rank 0; elsewhere a silent log of the same interface comes back.
        """
        if not enabled:
            return cls(console=None, rows=None, wandb=None)
        console = open_console(total_steps, job=job)
        rows = JsonLines(run_dir / METRICS_FILE[job])
        wandb = None
        if config.wandb != "off":
            wandb = _Wandb(run_dir, config, job=job, resolved=resolved, say=console.line)
        # An evaluation's numbers are a table on the console: as one row they would fill the screen.
        return cls(console=console, rows=rows, wandb=wandb, says_rows=job == "train")

    def log(self, scalars: dict[str, float], *, step: int, say: bool = True) -> None:
        """Adds a row of slash-grouped scalars: `train/loss`, `eval/test/gt_known`; without `say` not on the console."""
        plain = {name: float(value) for name, value in scalars.items()}
        if self._console and self._says_rows and say:
            self._console.log(plain, step=step)
        if self._rows:
            self._rows.write(plain, step=step)
        if self._wandb:
            self._wandb.log(plain, step=step)

    def images(self, name: str, pictures: list[Picture], *, step: int) -> None:
        """Shows pictures in W&B under a slash-grouped name; JSONL and console hold none."""
        if self._wandb and pictures:
            self._wandb.images(name, pictures, step=step)

    def advance(self, step: int) -> None:
        """Moves the progress bar of a terminal between two rows; costs nothing elsewhere."""
        if self._console:
            self._console.advance(step)

    def line(self, text: str) -> None:
        """Says one plain message."""
        if self._console:
            self._console.line(text)

    def alert(self, title: str, text: str) -> None:
        """Says something that a person should see soon: on the console, and by W&B's mail or chat."""
        self.line(f"ALERT {title}: {text}")
        if self._wandb:
            self._wandb.alert(title, text)

    def failed(self, title: str, text: str) -> None:
        """Ends the W&B run as failed, behind an alert that says why; once. The console says it elsewhere, last."""
        wandb, self._wandb = self._wandb, None
        if wandb:
            wandb.exit_code = 1
            wandb.alert(title, text)
            wandb.finish()

    def close(self) -> None:
        """Ends the bar, the file and the W&B run; a second call does nothing."""
        console, rows, wandb = self._console, self._rows, self._wandb
        self._rows = self._wandb = None
        if self.failed in first_error.alerts:
            first_error.alerts.remove(self.failed)
        if rows:
            rows.close()
        if isinstance(console, BarConsole):
            console.close()
        if wandb:
            wandb.finish()
        self._console = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._wandb and isinstance(error, Exception):
            self.failed(*first_error.failed(error))
        self.close()


class _Wandb:
    """A W&B run that may fail: the first failure is said in one line, and then it is off."""

    def __init__(
        self,
        run_dir: Path,
        config: TrackConfig,
        *,
        job: Job,
        resolved: dict[str, Any],
        say: Callable[[str], None],
    ) -> None:
        self._run: Any = None
        self._say = say
        self.exit_code = 0
        mode = wanted_mode(config)
        if mode != "off":
            self._start(run_dir, config, mode=mode, job=job, resolved=resolved)

    def _start(
        self, run_dir: Path, config: TrackConfig, *, mode: str, job: Job, resolved: dict[str, Any]
    ) -> None:
        """Online if it is wanted and works, else offline, else not at all."""

        def init(mode: Literal["online", "offline"]) -> Any:
            return _init(run_dir, config, mode=mode, job=job, resolved=resolved)

        try:
            _check_writable(run_dir)
            if mode != "offline":
                reason, self._run = _try_online(init)
                if self._run is not None:
                    return self._say(f"W&B: {self._run.url}")
                if mode == "online":
                    self._say(f"W&B: {reason}; going on offline")
            self._run = init("offline")
        except Exception as error:
            return self._fail(error)
        self._say(f"W&B: offline; to upload it later: wandb sync {run_dir}/wandb/offline-run-*")

    def log(self, scalars: dict[str, float], *, step: int) -> None:
        self._guard(lambda run: run.log({**scalars, STEP_METRIC: step}))

    def images(self, name: str, pictures: list[Picture], *, step: int) -> None:
        def send(run: Any) -> None:
            wandb = _wandb()
            shown = [wandb.Image(item.image_HWC, caption=item.caption, file_type="jpg") for item in pictures]
            run.log({name: shown, STEP_METRIC: step})

        self._guard(send)

    def alert(self, title: str, text: str) -> None:
        self._guard(lambda run: run.alert(title=title, text=text))

    def finish(self) -> None:
        self._guard(lambda run: run.finish(exit_code=self.exit_code))

    def _guard(self, call: Callable[[Any], None]) -> None:
        if self._run is None:
            return
        try:
            call(self._run)
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._run = None
        self._say(f"W&B is switched off for this job: {_one_line(error)} (the JSONL log goes on)")


def _check_writable(run_dir: Path) -> None:
    """Raises where wandb would go to a temporary folder without saying so."""
    if not os.access(run_dir, os.W_OK):
        raise PermissionError(f"cannot write into {run_dir}")
    folder = run_dir / "wandb"
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder")


def _wandb() -> Any:
    """The library, kept quiet: its log-in talks on stderr whatever a run's own settings say."""
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    return wandb


def _try_online(init: Callable[[Literal["online"]], Any]) -> tuple[str | None, Any]:
    """The run, or the reason why there is none."""
    wandb = _wandb()
    reason = why_not_online(os.environ.get("WANDB_BASE_URL") or wandb.setup().settings.base_url)
    if reason:
        return reason, None
    try:
        return None, init("online")
    except Exception as error:
        wandb.teardown(exit_code=1)  # else the id stays in use, and its process waits at the end of ours
        return f"no connection ({_one_line(error)})", None


def _init(run_dir: Path, config: TrackConfig, *, mode: str, job: Job, resolved: dict[str, Any]) -> Any:
    """Starts or continues the run's one W&B run."""
    wandb = _wandb()
    run = wandb.init(
        project=config.project,
        entity=config.entity,
        group=config.group,
        tags=list(config.tags) or None,
        name=run_dir.resolve().name,
        id=run_id(run_dir),
        dir=str(run_dir),
        mode=mode,
        config=resolved,
        # Training, its resumptions and the evaluator are one run; offline, `wandb sync` joins them by id.
        resume="allow" if mode == "online" else None,
        settings=wandb.Settings(**_settings(config, wandb.Settings.model_fields)),
    )
    for pattern in ("train/*", "eval/*"):
        # Not wandb's own step: that may never go back, and an evaluator scores steps long passed.
        run.define_metric(pattern, step_metric=STEP_METRIC)
    return run


def _settings(config: TrackConfig, known: Any) -> dict[str, Any]:
    """Quiet, quick to start, and nothing collected beyond what is logged."""
    wanted: dict[str, Any] = {
        "silent": True,
        "console": "off",
        "disable_code": True,
        "disable_git": True,
        "disable_job_creation": True,
        "save_code": False,
        "reinit": "create_new",  # never someone else's run of the same process
        "init_timeout": config.init_timeout_s,
        "finish_timeout": config.finish_timeout_s,
        "use_dot_wandb": False,
        "x_disable_machine_info": True,
        "x_disable_meta": True,
        "x_disable_stats": True,
        "x_disable_viewer": True,
        "x_save_requirements": False,
    }
    return {name: value for name, value in wanted.items() if name in known}  # private names come and go


def run_id(run_dir: Path) -> str:
    """The W&B id of a run folder, drawn once and kept in `<run>/wandb-id`."""
    path = run_dir / "wandb-id"
    try:
        with path.open("x", encoding="utf-8") as file:  # of two jobs that start together one wins
            file.write(secrets.token_hex(4))
    except FileExistsError:
        pass
    found = path.read_text(encoding="utf-8").strip()
    if not found.isalnum():
        raise ValueError(f"{path} does not hold an id; remove it to start a new W&B run")
    return found


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
