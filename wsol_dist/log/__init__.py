"""What a job writes while it runs: W&B, JSONL rows, the console's lines and tables, progress.

It knows no data and no method, and every room above `processes` may import it; pages about runs are `report`'s.
"""
