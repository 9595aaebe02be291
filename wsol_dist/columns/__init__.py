"""Fill derived columns, which stand beside a data set's shards: pixel clusters, embeddings, pseudo labels.

Commands import it; it uses the evaluator's maps, and starts no training.
"""
