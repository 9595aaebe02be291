#!/usr/bin/env bash
# The weight map on one node of 8 GPUs:  SHARDS=/shared/cub sbatch slurm/weight_map_8gpu.sh [overrides]
# Trains f, then g, and scores val behind each epoch of g; the evaluator is queued behind it. RECIPE: weight-map-cub-1
# (the default), -2, weight-map-{cars,flowers,tiny-imagenet}-{1,2}. A job that is started again goes on.
#SBATCH --job-name=weight-map-8gpu
#SBATCH --nodes=1
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

RECIPE=${RECIPE:-weight-map-cub-1}
SHARDS=${SHARDS:?set it to the folder of packed shards, the one with index.json}
RUN=${RUN:-runs/$RECIPE}
cd "${SLURM_SUBMIT_DIR:-.}"
[ -f slurm/begin.sh ] || { echo "error: $PWD: submit from the project's folder, where slurm/begin.sh is" >&2; exit 2; }
source slurm/begin.sh

# f has batch 16 on the paper's single GPU. Here each GPU gets 16, for its batch norms, and lr grows with the batch.
scaled=(--before.0.train.global-batch 128 --before.0.train.lr 8e-3)
case $RECIPE in *-2) scaled+=(--before.1.train.global-batch 128 --before.1.train.lr 8e-3) ;; esac
check_ranks "$RECIPE" --out "$RUN" --data.index "$SHARDS" "${scaled[@]}" "$@"
queue_evaluator afterany
"${ON_RANKS[@]}" wsol train "$RECIPE" --out "$RUN" --data.index "$SHARDS" "${scaled[@]}" "$@"
