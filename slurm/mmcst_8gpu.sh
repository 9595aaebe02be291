#!/usr/bin/env bash
# MMCST on one node of 8 GPUs:  SHARDS=/shared/voc sbatch slurm/mmcst_8gpu.sh [overrides]
# Embeds the training images once, trains, and the evaluator starts with it. RECIPE: mmcst-voc (the default), mmcst-coco,
# mmcst-openimages; EMBEDDINGS: folder of the embeddings; EMBED: further words for wsol embed, such as
# "--clip.pretrained /shared/ViT-B-32.pt" where the nodes have no network.
#SBATCH --job-name=mmcst-8gpu
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=48:00:00
# Told two minutes before the limit, all ranks stop at one step, write a checkpoint and queue the job again.
#SBATCH --signal=USR2@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -euo pipefail

RECIPE=${RECIPE:-mmcst-voc}
SHARDS=${SHARDS:?set it to the folder of packed shards, the one with index.json}
RUN=${RUN:-runs/$RECIPE}
EMBEDDINGS=${EMBEDDINGS:-data/${RECIPE#mmcst-}-clip}
cd "${SLURM_SUBMIT_DIR:-.}"
[ -f slurm/begin.sh ] || { echo "error: $PWD: submit from the project's folder, where slurm/begin.sh is" >&2; exit 2; }
source slurm/begin.sh

# On this node; it starts its own ranks, goes on where it was cut off, and does nothing where all is there.
read -ra more <<< "${EMBED:-}"
SLURM_NTASKS=1 wsol embed --index "$SHARDS" --out "$EMBEDDINGS" --split train --procs "$RANKS_PER_NODE" "${more[@]}"
given=("$RECIPE" --out "$RUN" --data.index "$SHARDS" --data.embeddings "$EMBEDDINGS" "$@")
check_ranks "${given[@]}"
queue_evaluator after
"${ON_RANKS[@]}" wsol train "${given[@]}"
