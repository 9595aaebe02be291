"""Pages and tables about runs and data sets, made of what they wrote.

It needs no network; the evaluator, prediction, `fitting`, `exporting`, `quality`, `columns` and commands import it.
"""
