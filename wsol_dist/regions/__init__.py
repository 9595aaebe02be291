"""Score maps to regions: pixel clustering, refinement, boxes, connected components, CRF.

It works on arrays and tensors alone; methods, metrics, evaluator, prediction and `columns` import it.
"""
