#!/usr/bin/env bash
# A real SLURM of virtual nodes with pretend GPUs on this one machine, to try job scripts without a cluster (as root):
#   slurm/cluster.sh up [--nodes 8] [--gpus 8] [--root FOLDER]    start it; once more: start what has died
#   eval "$(slurm/cluster.sh env)"                                sbatch, squeue, sacct, scancel then mean this SLURM
#   slurm/cluster.sh status                                       its nodes and jobs; exit code 1 if it is not up
#   slurm/cluster.sh install                                      only install Debian's packages, which `up` does too
#   slurm/cluster.sh down                                         end its jobs and daemons, remove its folder
# Everything it writes is below --root (default ${TMPDIR:-/tmp}/wsol-slurm, or $WSOL_SLURM_ROOT), but for the ports it
# claims in /run/virtual-slurm: several can be up side by side. No systemd, ports of its own; only processes that carry this folder's SLURM_CONF are ever ended.
set -euo pipefail
# Where Debian has the daemons; not everybody's PATH names them, and dpkg wants them.
export PATH="$PATH:/usr/sbin:/sbin"

readonly PACKAGES="slurm-wlm slurmdbd munge mariadb-server-core mariadb-client-core"
readonly COMMANDS="slurmctld slurmd slurmdbd munged mariadbd mariadb-install-db my_print_defaults sbatch unshare"
readonly TEMPLATES="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/cluster"
readonly CLAIMS=/run/virtual-slurm

main() {
  local action=${1:-}
  [ $# -eq 0 ] || shift
  NODES=8 GPUS=8 ROOT=${WSOL_SLURM_ROOT:-${TMPDIR:-/tmp}/wsol-slurm}
  case $action in
    up | down | status | env | install) ;;
    -h | --help | help) usage; exit 0 ;;
    "") usage >&2; exit 2 ;;
    *) mistake "unknown action '$action'; up, down, status, env or install" ;;
  esac
  while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || mistake "$1: a value is missing, or it is none of --nodes N, --gpus G, --root FOLDER"
    case $1 in
      --nodes) NODES=$(count "$1" "$2" 64) ;;
      --gpus) GPUS=$(count "$1" "$2" 16) ;;
      --root) ROOT=$2 ;;
      *) mistake "unknown option '$1'; --nodes N, --gpus G, --root FOLDER" ;;
    esac
    shift 2
  done
  ROOT=$(realpath -m -- "$ROOT")
  [[ $ROOT =~ ^/[A-Za-z0-9._/+-]+$ ]] && [ ${#ROOT} -le 80 ] ||
    mistake "--root: '$ROOT' given; SLURM needs at most 80 letters, digits and ._/+- (set --root or TMPDIR)"
  export SLURM_CONF=$ROOT/etc/slurm.conf
  "$action"
}

usage() { sed -n '2,/^set /{/^# \?/s///p}' "$0"; }
mistake() { echo "error: cluster.sh: $*" >&2; exit 2; }
fail() { echo "error: cluster.sh: $*" >&2; exit 1; }
count() {
  [[ $2 =~ ^[1-9][0-9]{0,3}$ ]] && [ "$2" -le "$3" ] || mistake "$1: '$2' given; a number from 1 to $3 is allowed"
  echo "$2"
}

up() {
  [ "$(id -u)" = 0 ] || mistake "up needs root: virtual nodes have mount namespaces and device files of their own"
  if [ -f "$ROOT/size" ] && [ "$(cat "$ROOT/size")" != "$NODES x $GPUS" ]; then
    mistake "$ROOT has a cluster of $(cat "$ROOT/size") (nodes x GPUs); down first, or another --root"
  fi
  install_packages
  check_kernel
  [ -f "$ROOT/size" ] || lay_out
  PORT=$(cat "$ROOT/port")
  start_munge
  start_database
  start_controller
  local node
  for node in $(nodes); do start_node "$node"; done
  wait_for 60 "its nodes" all_nodes_up
  echo "SLURM of $NODES nodes x $GPUS pretend GPUs is up in $ROOT; use it with"
  env
  echo "end it with  slurm/cluster.sh down --root $ROOT" >&2
}

install() {
  [ "$(id -u)" = 0 ] || mistake "install needs root"
  install_packages
}

env() { echo "export SLURM_CONF=$SLURM_CONF"; }

status() {
  [ -f "$ROOT/size" ] || { echo "no cluster in $ROOT"; exit 1; }
  local name
  for name in $(daemons); do
    is_ours "$name" || { echo "$name is not running; 'slurm/cluster.sh up' starts it"; exit 1; }
  done
  echo "SLURM of $(cat "$ROOT/size") (nodes x pretend GPUs) in $ROOT"
  timeout 20 sinfo --Node --format="%6N %10P %10T %6c %G" || fail "the controller does not answer; see $ROOT/log"
  timeout 20 squeue --format="%8i %9P %24j %10T %10M %5D %R"
}

down() {
  [ -d "$ROOT" ] || { echo "no cluster in $ROOT"; return; }
  [ -f "$ROOT/virtual-slurm" ] || mistake "$ROOT is no folder of a cluster, so it is left as it is"
  # First those that would start jobs again.
  stop slurmctld slurmdbd
  # shellcheck disable=SC2046
  stop $(daemons | grep '^slurmd-' || true)
  end_jobs
  stop mariadbd munged
  rm -f "$CLAIMS/$((($(cat "$ROOT/port" 2>/dev/null || echo 0) - 12000) / 100))"
  rm -rf -- "$ROOT"
  echo "the cluster in $ROOT is gone"
}

# Of several that come up at once one installs.
install_packages() { (flock 9; install_missing) 9>$CLAIMS.lock; }

install_missing() {
  local missing=() name
  for name in $COMMANDS; do command -v "$name" >/dev/null || missing+=("$name"); done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null ||
    fail "${missing[*]}: not installed, and there is no apt-get; install what Debian calls $PACKAGES"
  echo "installing $PACKAGES (${missing[*]} missing)" >&2
  # Debian's hook against services that a package starts.
  local policy=/usr/sbin/policy-rc.d own=
  if [ ! -e $policy ]; then
    own=$policy
    trap "rm -f $policy" EXIT
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
  fi
  local log said
  log=$(mktemp)
  # shellcheck disable=SC2086
  { apt_install $PACKAGES || { apt-get update -q && apt_install $PACKAGES; }; } >"$log" 2>&1 || {
    said=$(grep '^E:' "$log" | head -n 1)
    rm -f "$log"
    fail "apt-get install $PACKAGES: ${said:-failed}"
  }
  rm -f "$log" $own
  trap - EXIT
}

# Root of a container may be allowed neither; that is no fault of this script's, hence a code of its own.
check_kernel() {
  local folder
  folder=$(mktemp -d)
  if ! unshare --mount --uts --propagation private hostname n1 2>/dev/null ||
    ! mknod "$folder/gpu" c 1 3 2>/dev/null || ! : 2>/dev/null >"$folder/gpu"; then
    rm -rf "$folder"
    echo "error: cluster.sh: root may not make namespaces and device files here; run it on a machine or a privileged container" >&2
    exit 3
  fi
  rm -rf "$folder"
}

apt_install() { DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@"; }

lay_out() {
  if [ -f "$ROOT/virtual-slurm" ]; then
    rm -rf -- "$ROOT" # what an interrupted `up` left
  elif [ -e "$ROOT" ] && [ -n "$(ls -A "$ROOT")" ]; then
    mistake "$ROOT: has files that are not a cluster's; another --root"
  fi
  mkdir -p "$ROOT"
  chmod 755 "$ROOT"
  touch "$ROOT/virtual-slurm"
  mkdir "$ROOT"/{etc,run,log,state,spool,dev,tmp}
  local slot gpu node
  slot=$( (flock 9; free_slot) 9>$CLAIMS.lock)
  echo $((12000 + slot * 100)) >"$ROOT/port"
  (umask 077; head -c 1024 /dev/urandom >"$ROOT/etc/munge.key")
  # A character device each: SLURM takes no plain file for a GPU.
  for ((gpu = 0; gpu < GPUS; gpu++)); do mknod "$ROOT/dev/gpu$gpu" c 1 3; done
  cp /etc/hosts "$ROOT/etc/hosts"
  for ((node = 1; node <= NODES; node++)); do echo "127.0.$((slot + 1)).$node n$node" >>"$ROOT/etc/hosts"; done
  fill_in "$slot" slurm.conf
  fill_in "$slot" gres.conf
  fill_in "$slot" slurmdbd.conf
  chmod 600 "$ROOT/etc/slurmdbd.conf"
  echo "$NODES x $GPUS" >"$ROOT/size"
}

# A hundred ports below those the kernel gives away and those of the ranks' rendezvous (20000 + job id % 12000). Two
# clusters that come up at once must not choose the same: each claims its own in a file, which holds while its folder is
# there. To be called by one at a time.
free_slot() {
  local slot try first owner
  mkdir -p $CLAIMS
  first=$(($(cksum <<<"$ROOT" | cut -d' ' -f1) % 78))
  for ((try = 0; try < 78; try++)); do
    slot=$(((first + try) % 78))
    owner=$(cat $CLAIMS/$slot 2>/dev/null || true)
    [ "$owner" = "$ROOT" ] || [ ! -f "$owner/virtual-slurm" ] || continue
    ! answers $((12000 + slot * 100)) && ! answers $((12002 + slot * 100)) || continue
    echo "$ROOT" >$CLAIMS/$slot
    echo $slot
    return
  done
  fail "no free ports between 12000 and 20000"
}

fill_in() {
  local port=$((12000 + $1 * 100))
  # Job ids, too, differ from cluster to cluster, since the ranks' port follows from them.
  sed -e "s|@ROOT@|$ROOT|g" -e "s|@HOST@|$(hostname -s)|g" -e "s|@FIRST_JOB@|$(($1 * 150 + 1))|" \
    -e "s|@NODES@|$NODES|g" -e "s|@GPUS@|$GPUS|g" -e "s|@LAST_GPU@|$((GPUS - 1))|" -e "s|@CPUS@|$((GPUS * 8))|g" \
    -e "s|@CONTROLLER_PORT@|$port|" -e "s|@ACCOUNTING_PORT@|$((port + 1))|" -e "s|@DATABASE_PORT@|$((port + 2))|" \
    -e "s|@FIRST_PORT@|$((port + 11))|" -e "s|@LAST_PORT@|$((port + 10 + NODES))|" \
    "$TEMPLATES/$2.in" >"$ROOT/etc/$2"
}

start_munge() {
  start munged munged --foreground --force --key-file="$ROOT/etc/munge.key" --socket="$ROOT/run/munge.sock" \
    --pid-file="$ROOT/run/munged.self" --log-file="$ROOT/log/munged.log" --seed-file="$ROOT/run/munge.seed"
  wait_for 20 munged test -S "$ROOT/run/munge.sock"
}

start_database() {
  if [ ! -d "$ROOT/db" ]; then
    # Temporary tables in a folder that clusters share would be taken for each other's.
    TMPDIR=$ROOT/tmp mariadb-install-db --no-defaults --user=root --datadir="$ROOT/db.new" --skip-test-db >"$ROOT/log/db.log" 2>&1 ||
      fail "mariadb-install-db failed; see $ROOT/log/db.log"
    mv "$ROOT/db.new" "$ROOT/db"
    cat >"$ROOT/etc/db.sql" <<<"CREATE DATABASE IF NOT EXISTS slurm_acct_db;
CREATE USER IF NOT EXISTS slurm@127.0.0.1 IDENTIFIED BY 'slurm';
GRANT ALL ON slurm_acct_db.* TO slurm@127.0.0.1;"
  fi
  # slurmdbd looks at the size of its pool and at how long it waits for a lock, and complains of the defaults.
  start mariadbd mariadbd --no-defaults --user=root --tmpdir="$ROOT/tmp" --datadir="$ROOT/db" --socket="$ROOT/run/db.sock" \
    --bind-address=127.0.0.1 --port=$((PORT + 2)) --pid-file="$ROOT/run/mariadbd.self" --skip-name-resolve \
    --innodb-lock-wait-timeout=900 --innodb-flush-log-at-trx-commit=0 --init-file="$ROOT/etc/db.sql"
  wait_for 60 mariadbd answers $((PORT + 2))
  start slurmdbd slurmdbd -D
  wait_for 60 slurmdbd answers $((PORT + 1))
}

start_controller() {
  start slurmctld slurmctld -D -i -f "$SLURM_CONF"
  wait_for 60 slurmctld timeout 5 scontrol ping
}

# In namespaces of its own, so that `hostname` is the node's and every node resolves every other.
start_node() {
  start "slurmd-$1" unshare --mount --uts --propagation private bash -c \
    'hostname "$1"; mount --bind "$2/etc/hosts" /etc/hosts; exec slurmd -D -N "$1" -f "$SLURM_CONF"' slurmd "$1" "$ROOT"
}

all_nodes_up() {
  [ "$(timeout 5 sinfo --noheader --Node --partition=main --states=idle,alloc,mix,comp --format=%N | wc -l)" = "$(nodes | wc -l)" ]
}

nodes() { [ ! -f "$ROOT/size" ] || seq -f 'n%.0f' "$(cut -d' ' -f1 "$ROOT/size")"; }
daemons() { echo munged mariadbd slurmdbd slurmctld; nodes | sed 's/^/slurmd-/'; }
answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# start NAME COMMAND...: in the background with its pid in run/NAME.pid, unless it runs.
start() {
  local name=$1
  shift
  is_ours "$name" && return
  # Of no terminal and no caller: closing either ends nothing here.
  (
    cd /
    exec setsid "$@" </dev/null >>"$ROOT/log/$name.out" 2>&1
  ) &
  echo $! >"$ROOT/run/$name.pid"
}

is_ours() {
  local pid
  pid=$(cat "$ROOT/run/$1.pid" 2>/dev/null) || return 1
  [ "$(state_of "$pid")" != Z ] && carries_conf "/proc/$pid/environ"
}

state_of() { sed -n 's/^State:\t\(.\).*/\1/p' "/proc/$1/status" 2>/dev/null || true; }
carries_conf() { grep -qsxzF "SLURM_CONF=$SLURM_CONF" "$1"; }

# stop NAME...: all told to end, then waited for; killed after ten seconds.
stop() {
  local name pid
  for name in "$@"; do
    is_ours "$name" && kill "$(cat "$ROOT/run/$name.pid")" 2>/dev/null || true
  done
  for name in "$@"; do
    for ((pid = 0; pid < 100; pid++)); do
      is_ours "$name" || continue 2
      sleep 0.1
    done
    kill -KILL "$(cat "$ROOT/run/$name.pid")" 2>/dev/null || true
  done
}

# What runs in the jobs of this SLURM: each process has its configuration in the environment, and a node's name.
end_jobs() {
  local file pid
  while read -r file; do
    pid=${file//[!0-9]/}
    if grep -qszE '^SLURMD_NODENAME=' "$file" || [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = slurmstepd ]; then
      kill -KILL "$pid" 2>/dev/null || true
    fi
  done < <(grep -lsxzF "SLURM_CONF=$SLURM_CONF" /proc/[0-9]*/environ)
}

# wait_for SECONDS WHAT COMMAND...
wait_for() {
  local seconds=$1 what=$2 end=$((SECONDS + $1))
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || fail "$what did not come up in $seconds s; see $ROOT/log"
    sleep 0.1
  done
}

main "$@"
