"""The format on disk: samples in tar shards, their index, derived columns, and reading them from afar.

All of `data` but `images` may import it, and so may every room above `data`.
"""
