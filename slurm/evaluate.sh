#!/usr/bin/env bash
# Score a run on one node while it trains, and the test split at its end:  sbatch slurm/evaluate.sh RUN SHARDS
# Any other scoring:  sbatch slurm/evaluate.sh RUN SHARDS --split val,test --step 5000
#SBATCH --job-name=wsol-evaluate
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=USR2@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -euo pipefail

RUN=${1:?usage: sbatch slurm/evaluate.sh RUN SHARDS [ARGUMENTS]}
SHARDS=${2:?usage: sbatch slurm/evaluate.sh RUN SHARDS [ARGUMENTS]}
cd "${SLURM_SUBMIT_DIR:-.}"
[ -f slurm/begin.sh ] || { echo "error: $PWD: submit from the project's folder, where slurm/begin.sh is" >&2; exit 2; }
source slurm/begin.sh

shift 2
[ $# -gt 0 ] || set -- --follow --final-split test
srun --kill-on-bad-exit=1 wsol evaluate "$RUN" --index "$SHARDS" "$@"
