"""Start jobs: on SLURM through submitit, on this machine, as arrays; requeue them, and say what ranks read.

Commands, `fitting` and launch/ import it; it knows no evaluator.
"""
