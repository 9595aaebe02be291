"""Score maps to regions: pixel clustering, refinement, boxes, connected components, CRF.

It works on arrays and tensors alone; methods, metrics and the rooms above them import it.
"""
