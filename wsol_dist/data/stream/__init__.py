"""Shards to batches: the order of an epoch, loader processes, shared memory, reading ahead.

Training, the evaluator and `columns` import it; packing and sources do not.
"""
