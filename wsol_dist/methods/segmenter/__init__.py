"""The segmentation stage: a network that learns the class of every pixel. `registry.py` alone names it."""
