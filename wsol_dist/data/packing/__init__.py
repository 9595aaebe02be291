"""Samples of a source to shards: plan, split off a held-out set, write in parallel, resume.

`sources`, `inspection` and `fitting` import it, and the commands `shards` and `cluster`.
"""
