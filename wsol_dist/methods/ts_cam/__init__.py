"""TS-CAM: token semantic coupled attention maps of a vision transformer."""
