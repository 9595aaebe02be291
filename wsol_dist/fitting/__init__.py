"""`wsol fit`: from class folders to a trained localizer, choosing data, recipe and weights.

The command `fit` imports it, and `quality` reads what it wrote.
"""
