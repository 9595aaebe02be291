"""Predict what a recipe costs at scale: memory, communication, time.

The command `plan` imports it.
"""
