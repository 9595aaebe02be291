#!/usr/bin/env bash
# DeepLab-LargeFOV from a run's score maps, on 4 GPUs of one node:
#   SHARDS=/shared/voc ENCODER=/shared/ilsvrc-cls_rna-a1_cls1000_ep-0001.params sbatch slurm/deeplab_4gpu.sh [overrides]
# Makes the label maps once (SEEDS: the run, scored on val; LABELS: their folder; LABEL: further words for
# wsol pseudo-label), trains, and the evaluator starts with it. RECIPE: deeplab-voc (the default) or deeplab-coco.
#SBATCH --job-name=deeplab-4gpu
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=48:00:00
# Told two minutes before the limit, all ranks stop at one step, write a checkpoint and queue the job again.
#SBATCH --signal=USR2@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -euo pipefail

RECIPE=${RECIPE:-deeplab-voc}
SHARDS=${SHARDS:?set it to the folder of packed shards, the one with index.json}
ENCODER=${ENCODER:?set it to the weights of ResNet38}
RUN=${RUN:-runs/$RECIPE}
SEEDS=${SEEDS:-runs/mmcst-${RECIPE#deeplab-}}
LABELS=${LABELS:-labels/${SEEDS##*/}}
cd "${SLURM_SUBMIT_DIR:-.}"
[ -f slurm/begin.sh ] || { echo "error: $PWD: submit from the project's folder, where slurm/begin.sh is" >&2; exit 2; }
source slurm/begin.sh

# On this node; it starts its own ranks, goes on where it was cut off, and does nothing where all is there.
read -ra more <<< "${LABEL:---size-px 448 --crf.iterations 10}"
SLURM_NTASKS=1 wsol pseudo-label "$SEEDS" --index "$SHARDS" --out "$LABELS" --procs "$RANKS_PER_NODE" "${more[@]}"
given=("$RECIPE" --out "$RUN" --data.index "$SHARDS" --data.targets "$LABELS" --method.encoder.checkpoint "$ENCODER" "$@")
check_ranks "${given[@]}"
queue_evaluator after
"${ON_RANKS[@]}" wsol train "${given[@]}"
