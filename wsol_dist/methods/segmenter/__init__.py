"""The segmentation stage: a network that learns the class of every pixel from pseudo labels."""
