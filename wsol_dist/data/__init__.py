"""Images with labels, boxes and masks: from raw data sets to shards, and from shards to batches.

It knows no method, metric or recipe; every room from `recipe` upward may import it.
"""
