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
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -euo pipefail

RECIPE=${RECIPE:-weight-map-cub-1}
SHARDS=${SHARDS:?set it to the folder of packed shards, the one with index.json}
RUN=${RUN:-runs/$RECIPE}
cd "${SLURM_SUBMIT_DIR:-.}"
export PATH="$PWD/.venv/bin:$PATH"

# One rendezvous for all tasks, and a port that two jobs of a node do not share.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR
export MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}

echo "run folder $RUN; watch: tail -F $PWD/$SLURM_JOB_NAME-$SLURM_JOB_ID.log; squeue -j $SLURM_JOB_ID"
if [ "${SLURM_RESTART_COUNT:-0}" = 0 ]; then
  sbatch --dependency="afterany:$SLURM_JOB_ID" --ntasks-per-node="$SLURM_NTASKS_PER_NODE" \
    --gpus-per-node="$SLURM_GPUS_PER_NODE" --cpus-per-task="$SLURM_CPUS_PER_TASK" \
    slurm/evaluate.sh "$RUN" "$SHARDS"
fi
# f has batch 16 on the paper's single GPU. Here each GPU gets 16, for its batch norms, and lr grows with the batch.
scaled=(--before.0.train.global-batch 128 --before.0.train.lr 8e-3)
case $RECIPE in *-2) scaled+=(--before.1.train.global-batch 128 --before.1.train.lr 8e-3) ;; esac
srun --kill-on-bad-exit=1 wsol train "$RECIPE" --out "$RUN" --data.index "$SHARDS" "${scaled[@]}" "$@"
