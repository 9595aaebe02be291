#!/usr/bin/env bash
# Install what tests need and pip cannot give: SLURM, and a browser. Where that is not possible (no root, no apt-get) it
# changes nothing, and those tests are skipped with their reason.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || exit 0
slurm/cluster.sh install || echo "SLURM cannot be installed; its tests are skipped" >&2
if ! command -v chromium chromium-browser google-chrome >/dev/null; then
  echo "installing chromium for the tests of pages"
  apt=(apt-get -qq -y -o DPkg::Lock::Timeout=300 --no-install-recommends install chromium)
  export DEBIAN_FRONTEND=noninteractive
  "${apt[@]}" >/dev/null 2>&1 || { apt-get update -qq && "${apt[@]}" >/dev/null; } ||
    echo "chromium cannot be installed; tests of pages are skipped" >&2
fi
