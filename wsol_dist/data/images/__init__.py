"""One image: decode it, apply its EXIF orientation, transform it, store small arrays, count broken ones.

The lowest room of `data`; every other one may import it.
"""
