"""What a job writes while it runs: W&B, JSONL rows, the console's lines and tables, progress.

It knows no data and no method; every room from `data` and `methods` upward may import it, pages are `report`'s.
"""
