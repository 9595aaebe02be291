"""Train a recipe's method over DeepSpeed: steps, optimizer, memory, stages, and the checks before the first step.

Commands, `launching` and `fitting` import it; nothing here knows a data set or a metric.
"""
