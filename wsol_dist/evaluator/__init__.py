"""Score weights on shards: maps, boxes, exact counters over ranks, thresholds, records, following a run.

It stands beside `training`, which it does not import; the rooms above both import it.
"""
