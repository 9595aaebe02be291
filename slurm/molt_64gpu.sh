#!/usr/bin/env bash
# MOLT on ILSVRC-2012, 8 nodes x 8 GPUs:  SHARDS=/shared/imagenet sbatch slurm/molt_64gpu.sh [overrides]
# The same training code as `python launch/submit.py --nodes 8`; the evaluator starts with it and follows it.
#SBATCH --job-name=molt-64gpu
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
# Told two minutes before the limit, all ranks stop at one step, write a checkpoint and queue the job again.
#SBATCH --signal=USR2@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -euo pipefail

RECIPE=${RECIPE:-molt-imagenet}
SHARDS=${SHARDS:?set it to the folder of packed shards, the one with index.json}
RUN=${RUN:-runs/$RECIPE}
cd "${SLURM_SUBMIT_DIR:-.}"
[ -f slurm/begin.sh ] || { echo "error: $PWD: submit from the project's folder, where slurm/begin.sh is" >&2; exit 2; }
source slurm/begin.sh

check_ranks "$RECIPE" --out "$RUN" --data.index "$SHARDS" "$@"
queue_evaluator after
"${ON_RANKS[@]}" wsol train "$RECIPE" --out "$RUN" --data.index "$SHARDS" "$@"
