"""CAM: class activation maps of a CNN."""
