#!/usr/bin/env bash
# Score a run on one node while it trains, and the test split at its end:  sbatch slurm/evaluate.sh RUN SHARDS
# Any other scoring:  sbatch slurm/evaluate.sh RUN SHARDS --split val,test --step 5000
#SBATCH --job-name=wsol-evaluate
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -euo pipefail

RUN=${1:?usage: sbatch slurm/evaluate.sh RUN SHARDS [ARGUMENTS]}
SHARDS=${2:?usage: sbatch slurm/evaluate.sh RUN SHARDS [ARGUMENTS]}
cd "${SLURM_SUBMIT_DIR:-.}"
export PATH="$PWD/.venv/bin:$PATH"

export MASTER_ADDR=127.0.0.1
export MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
shift 2
[ $# -gt 0 ] || set -- --follow --final-split test
srun --kill-on-bad-exit=1 wsol evaluate "$RUN" --index "$SHARDS" "$@"
