#!/usr/bin/env bash
# Pack a data set in parts, one a job of an array, then its index:
#   sbatch --array=1-32 slurm/pack_array.sh imagenet --root /data/ILSVRC --out /shards/imagenet
# The result is that of `python shards/pack.py` with the same arguments, byte for byte. After failures send the same
# command again: finished shards are kept. --out must be on a disk that all nodes see.
#SBATCH --job-name=pack
#SBATCH --array=1-16
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --open-mode=append
#SBATCH --output=%x-%A-%a.log
set -euo pipefail

: "${1:?usage: sbatch --array=1-N slurm/pack_array.sh SOURCE --out FOLDER [ARGUMENTS]}"
cd "${SLURM_SUBMIT_DIR:-.}"
export PATH="$PWD/.venv/bin:$PATH"
export OMP_NUM_THREADS=1
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1} # since 22.05 srun does not take it from the job by itself
part=()
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ] && [ "${WSOL_PACK_LAST:-}" != 1 ]; then
  part=(--part "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_MAX")
  # One job of the array queues the last one, which writes the index when all have ended well,
  # and is removed when one has not.
  if [ "$SLURM_ARRAY_TASK_ID" = "$SLURM_ARRAY_TASK_MIN" ] && [ "${SLURM_RESTART_COUNT:-0}" = 0 ]; then
    sbatch --dependency="afterok:$SLURM_ARRAY_JOB_ID" --kill-on-invalid-dep=yes --array=1-1 \
      --cpus-per-task="$SLURM_CPUS_PER_TASK" --export=ALL,WSOL_PACK_LAST=1 slurm/pack_array.sh "$@"
  fi
fi
srun wsol shards pack "$@" --workers "${SLURM_CPUS_PER_TASK:-1}" "${part[@]}"
