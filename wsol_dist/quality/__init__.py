"""Measure how good predicted labels are, and what a review of them buys.

The command `quality` imports it.
"""
