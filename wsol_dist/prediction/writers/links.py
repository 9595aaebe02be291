"""Folders of label files: a link to the images beside them, and no file of an earlier run left over."""

from __future__ import annotations

import os
from pathlib import Path


def link_folder(link: Path, target: Path) -> None:
    """Make `link` point to a folder; what is there and is no link stays."""
    if link.is_symlink():
        if os.readlink(link) == str(target):
            return
        link.unlink()
    if not link.exists():
        link.symlink_to(target, target_is_directory=True)


def remove_others(folder: Path, keep: set[Path]) -> None:
    """Remove label files of images that are not among those to keep."""
    for parent, _, names in os.walk(folder):
        for name in names:
            if Path(parent, name) not in keep:
                os.unlink(os.path.join(parent, name))
