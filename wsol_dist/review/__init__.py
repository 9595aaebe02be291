"""The review page: look through predicted boxes, correct them, export what was accepted.

The command `review` imports it.
"""
