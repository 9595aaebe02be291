"""Use a trained model: open it, localize in images, write boxes, masks and heat maps.

`wsol_dist.load`, commands, `exporting`, `review` and `quality` import it.
"""
