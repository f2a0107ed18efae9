#!/usr/bin/env bash
# The cluster tests on a real Slurm of one node: installs Debian's packages if they are missing (root and apt),
# starts the cluster in a temporary folder, stops it whatever happens.
#
#     .ci/slurm.sh [options of pytest]
#
# Without Slurm and without a way to install it: says so and ends with 0.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin

skip() {
  echo "cluster tests skipped, because $1"
  exit 0
}

missing() {
  for tool in sbatch slurmctld slurmd munged; do
    command -v "$tool" >/dev/null || return 0
  done
  return 1
}

if missing; then
  command -v apt-get >/dev/null || skip "slurmctld or munged is missing, and there is no apt-get to install them"
  [ "$(id -u)" -eq 0 ] || skip "slurm-wlm and munge are not installed, and only root can: apt-get install slurm-wlm munge"
  export DEBIAN_FRONTEND=noninteractive
  log=$(mktemp)
  { apt-get update -qq && apt-get install -qq -y --no-install-recommends slurm-wlm munge; } >"$log" 2>&1 ||
    skip "apt-get could not install slurm-wlm and munge: $(tail -n 1 "$log")"
fi
[ -x .venv/bin/pytest ] || skip "there is no .venv: run make test first"
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
tests/cluster/one_node.sh .venv/bin/pytest -m slurm tests/cluster "$@"
