"""Look into packed shards: verify them, survey them, find duplicates, show one sample.

The command `shards` and `report` import it.
"""
