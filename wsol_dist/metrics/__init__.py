"""The field's localization and segmentation metrics as exact counters, and the choice of thresholds.

They know no method and no data set; the evaluator and the rooms above it import them, and reports.
"""
