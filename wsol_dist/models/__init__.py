"""Networks and weight files: backbones, stems, attention, CLIP, U-Net.

Methods import them, and what reads or checks weights.
"""
