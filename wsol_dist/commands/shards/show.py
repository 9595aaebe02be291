"""Show one sample: picture, classes, boxes, mask, and where it is: wsol shards show FOLDER ID."""

from __future__ import annotations

from wsol_dist.data.inspection.options import SampleOptions

Options = SampleOptions


def run(options: Options) -> int:
    """Print what the sample is."""
    from wsol_dist.data.inspection.look import find_sample, sample_lines
    from wsol_dist.data.shards.index import Index

    index = Index.load(options.folder)
    for line in sample_lines(index, *find_sample(index, options.id)):
        print(line)
    return 0
