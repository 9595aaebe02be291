"""TS-CAM: token semantic coupled attention maps. MOLT and MMCST build on it."""
