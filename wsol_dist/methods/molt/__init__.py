"""MOLT: the multiscale object localization transformer. MMCST and the segmenter build on it."""
