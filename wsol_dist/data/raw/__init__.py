"""Readers of other people's files: archives, image folders, lists, COCO JSON, .mat and XML files, masks.

`sources` import it, and what reads a user's own images or boxes: `fitting`, `prediction`, `quality`, `review`.
"""
