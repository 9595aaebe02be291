"""Train a recipe's method over DeepSpeed: steps, optimizer, memory, stages, and the checks before the first step.

`launching`, `fitting`, `planning` and commands import it; nothing here knows a data set or a metric.
"""
