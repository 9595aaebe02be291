"""A run folder: its recipe, checkpoints, lock, state and rows, and how a run is opened again.

Whatever uses a run or its weights imports it: training, the evaluator, prediction, columns, reports and commands.
"""
