"""List splits, shards, bytes and classes: wsol shards ls FOLDER."""

from __future__ import annotations

from wsol_dist.data.inspection.options import ShardsOptions

Options = ShardsOptions


def run(options: Options) -> int:
    """Print a line for each."""
    from wsol_dist.data.inspection.look import folder_lines
    from wsol_dist.data.shards.index import Index

    for line in folder_lines(Index.load(options.folder)):
        print(line)
    return 0
