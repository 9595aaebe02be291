# Sourced by the job scripts of this folder, in the project's folder: the environment of the tasks, and steps that the
# scripts share. RECIPE, RUN and SHARDS are set by then.
# shellcheck shell=bash
export PATH="$PWD/.venv/bin:$PATH"

# One rendezvous for all tasks: the job's first node, and a port that two jobs of a node do not share, below those that
# the kernel gives to outgoing connections.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
[ "$SLURM_JOB_NUM_NODES" != 1 ] || MASTER_ADDR=127.0.0.1
export MASTER_ADDR
export MASTER_PORT=$((20000 + SLURM_JOB_ID % 12000))
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
# Since 22.05 srun does not take the job's cores for each task by itself.
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}

# Where memory is short fewer processes than the job has tasks can train: RANKS_PER_NODE=2 sbatch ...
RANKS_PER_NODE=${RANKS_PER_NODE:-$SLURM_NTASKS_PER_NODE}
ON_RANKS=(srun --kill-on-bad-exit=1 --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node="$RANKS_PER_NODE"
  --ntasks=$((SLURM_JOB_NUM_NODES * RANKS_PER_NODE)))

# Before minutes of starting: check everything once, let each task tell which samples are its own, check that together
# they are all, and that the ranks fit into memory. The words are those of `wsol train`.
check_ranks() {
  local log
  log=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/^ *StdOut=//p')
  echo "run folder $RUN; watch: tail -F $log; squeue -j $SLURM_JOB_ID"
  wsol ranks prepare "$@" --world "$SLURM_NTASKS" $((SLURM_JOB_NUM_NODES * RANKS_PER_NODE))
  srun --kill-on-bad-exit=1 wsol ranks tell "$RUN"
  wsol ranks check "$RUN" --ranks-per-node "$RANKS_PER_NODE"
}

# queue_evaluator after|afterany: its own job on one node, once, however often this one is started again.
queue_evaluator() {
  [ "${SLURM_RESTART_COUNT:-0}" = 0 ] || return 0
  local gpus=()
  [ -z "${SLURM_GPUS_PER_NODE:-}" ] || gpus=(--gpus-per-node="$RANKS_PER_NODE")
  sbatch --dependency="$1:$SLURM_JOB_ID" --nodes=1 --ntasks-per-node="$RANKS_PER_NODE" "${gpus[@]}" \
    --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" slurm/evaluate.sh "$RUN" "$SHARDS"
}
