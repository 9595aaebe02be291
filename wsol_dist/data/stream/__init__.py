"""Shards to batches: the order of an epoch, loader processes, shared memory, reading ahead.

Whatever reads many samples imports it; packing and sources do not.
"""
