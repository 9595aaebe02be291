#!/usr/bin/env bash
# MOLT on ILSVRC-2012, 8 nodes x 8 GPUs:  SHARDS=/shared/imagenet sbatch slurm/molt_64gpu.sh [overrides]
# The same training code as `python launch/submit.py --nodes 8`; the evaluator starts with it and follows it.
#SBATCH --job-name=molt-64gpu
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -euo pipefail

RECIPE=${RECIPE:-molt-imagenet}
SHARDS=${SHARDS:?set it to the folder of packed shards, the one with index.json}
RUN=${RUN:-runs/$RECIPE}
cd "${SLURM_SUBMIT_DIR:-.}"
export PATH="$PWD/.venv/bin:$PATH"

# One rendezvous for all tasks: the job's first node, and a port that two jobs of a node do not share.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR
export MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}

echo "run folder $RUN; watch: tail -F $PWD/$SLURM_JOB_NAME-$SLURM_JOB_ID.log; squeue -j $SLURM_JOB_ID"
if [ "${SLURM_RESTART_COUNT:-0}" = 0 ]; then
  sbatch --dependency="after:$SLURM_JOB_ID" --ntasks-per-node="$SLURM_NTASKS_PER_NODE" \
    --gpus-per-node="$SLURM_GPUS_PER_NODE" --cpus-per-task="$SLURM_CPUS_PER_TASK" \
    slurm/evaluate.sh "$RUN" "$SHARDS"
fi
srun --kill-on-bad-exit=1 wsol train "$RECIPE" --out "$RUN" --data.index "$SHARDS" "$@"
