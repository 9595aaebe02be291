#!/usr/bin/env bash
# Score a run's newest checkpoint on one node:  sbatch slurm/evaluate.sh RUN SHARDS [SPLITS]
#SBATCH --job-name=wsol-evaluate
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -euo pipefail

RUN=${1:?usage: sbatch slurm/evaluate.sh RUN SHARDS [SPLITS]}
SHARDS=${2:?usage: sbatch slurm/evaluate.sh RUN SHARDS [SPLITS]}
cd "${SLURM_SUBMIT_DIR:-.}"
export PATH="$PWD/.venv/bin:$PATH"

export MASTER_ADDR=127.0.0.1
export MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
srun --kill-on-bad-exit=1 wsol evaluate "$RUN" --index "$SHARDS" --split "${3:-val,test}"
