"""The processes of one job as a group: their ranks, ports, shared stop, first error and health.

It knows nothing of images, methods or recipes; every room that computes on several ranks may import it.
"""
