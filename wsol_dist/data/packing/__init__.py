"""Samples of a source to shards: plan, split off a held-out set, write in parallel, resume.

`sources`, `inspection`, `fitting` and the command `shards` import it.
"""
