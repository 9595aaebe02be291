"""The field's localization and segmentation metrics as exact counters, and the choice of thresholds.

They know no method and no data set; the evaluator, reports and prediction import them.
"""
