"""Whether W&B can be used here and now: by config, environment, key and network. Needs no wandb itself."""

from __future__ import annotations

import netrc
import os
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from wsol_dist.config.track import TrackConfig

PROBE_TIMEOUT_S = 2.0
CLOUD_HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")
"""Names of W&B's own cloud, old and new: a key for one serves the other."""


def wanted_mode(config: TrackConfig) -> Literal["auto", "online", "offline", "off"]:
    """What config and environment ask for: WANDB_MODE decides where the config says auto."""
    if config.wandb != "auto":
        return config.wandb
    said = os.environ.get("WANDB_MODE", "")
    if said == "disabled":
        return "off"
    return "offline" if said == "offline" else "online" if said == "online" else "auto"


def why_not_online(server: str) -> str | None:
    """The reason why the server (a URL) cannot be used from here; None if it can, as far as one can tell."""
    if not has_key(server):
        return f"no API key for {server} in WANDB_API_KEY or netrc"
    if not server_answers(server):
        return f"{server} does not answer"
    return None


def has_key(server: str) -> bool:
    """Whether W&B would find credentials: in the environment, or in netrc for its server."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    places = [os.environ.get("NETRC"), "~/.netrc", "~/_netrc"]
    path = next((Path(p).expanduser() for p in places if p and Path(p).expanduser().is_file()), None)
    if path is None:
        return False
    host = urlsplit(server).netloc
    try:
        logins = netrc.netrc(path)
    except (netrc.NetrcParseError, OSError):
        return False
    return any(logins.authenticators(name) for name in (CLOUD_HOSTS if host in CLOUD_HOSTS else (host,)))


def server_answers(server: str, timeout_s: float = PROBE_TIMEOUT_S) -> bool:
    """Whether the server answers anything over HTTP within the time, through a proxy where one is set."""
    answered = threading.Event()

    def ask() -> None:
        try:
            urllib.request.urlopen(server, timeout=timeout_s).close()  # noqa: S310 - nothing of it is read
        except urllib.error.HTTPError:
            pass  # an error page is an answer
        except (OSError, ValueError):
            return
        answered.set()

    # In a thread, because a name server that does not answer blocks longer than any socket time-out.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout_s + 0.5)
    return answered.is_set()
