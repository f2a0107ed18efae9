#!/usr/bin/env bash
# A real Slurm cluster of one node, in a temporary folder, for as long as one command runs:
#
#     tests/cluster/one_node.sh .venv/bin/pytest tests/cluster
#
# Needs the packages slurm-wlm and munge (Debian, Ubuntu), no root, and touches nothing of a Slurm that is installed:
# configuration, key, sockets, logs and spool lie in the folder, the ports are free ones. Everything that was started is
# stopped at the end, jobs included, whatever happens. CPUS=4 says how many tasks run at once (a core may run several).
set -euo pipefail

CPUS=${CPUS:-4}
home=$(mktemp -d -t irope-slurm.XXXXXX)  # short: the path of a socket has at most 107 characters
PATH=$PATH:/usr/sbin:/sbin

stop() {
  status=$?
  trap - EXIT INT TERM
  [ -z "$command" ] || kill "$command" 2>/dev/null || true
  pids=$(cat "$home"/*.pid 2>/dev/null || true)
  kill $pids 2>/dev/null || true
  for _ in $(seq 20); do kill -0 $pids 2>/dev/null || break; sleep 0.1; done  # fails when any of them is gone
  kill -KILL $pids 2>/dev/null || true  # nothing of theirs is kept
  for process in /proc/[0-9]*; do  # what a job left behind was started with the folder's configuration
    tr '\0' '\n' 2>/dev/null <"$process/environ" | grep -qx "SLURM_CONF=$home/slurm.conf" || continue
    kill -KILL "${process#/proc/}" 2>/dev/null || true
  done
  if [ "$status" -ne 0 ]; then
    echo "one_node.sh: exit code $status; the last lines of the logs:" >&2
    tail -n 15 "$home"/slurmctld.log "$home"/slurmd.log >&2 2>/dev/null || true
  fi
  rm -rf "$home"
  exit "$status"
}
command=
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

free_ports() {
  python3 - <<'PY'
import socket

sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(s.getsockname()[1] for s in sockets))
PY
}

read -r controller_port node_port < <(free_ports)
chmod 711 "$home"  # munged refuses a socket that others cannot reach
mkdir "$home/state" "$home/spool" "$home/munge"
head -c 128 /dev/urandom >"$home/munge/key" && chmod 400 "$home/munge/key"
munged --key-file="$home/munge/key" --socket="$home/munge/socket" --pid-file="$home/munged.pid" \
  --log-file="$home/munge/log" --seed-file="$home/munge/seed" --num-threads=1

user=$(id -un)
host=$(hostname)
cat >"$home/slurm.conf" <<CONF
ClusterName=irope-test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$controller_port
SlurmdPort=$node_port
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$home/munge/socket,cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=20
MinJobAge=300
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=2,requeue_delay=1
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
StateSaveLocation=$home/state
SlurmdSpoolDir=$home/spool
SlurmctldPidFile=$home/slurmctld.pid
SlurmdPidFile=$home/slurmd.pid
SlurmctldLogFile=$home/slurmctld.log
SlurmdLogFile=$home/slurmd.log
NodeName=$host NodeAddr=127.0.0.1 CPUs=$CPUS RealMemory=4000 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE OverTimeLimit=0 State=UP
CONF
export SLURM_CONF=$home/slurm.conf
slurmctld -c
slurmd
for _ in $(seq 100); do
  [ "$(sinfo --noheader --format=%T 2>/dev/null)" = idle ] && break
  sleep 0.1
done
[ "$(sinfo --noheader --format=%T)" = idle ] || { echo "one_node.sh: the node did not come up" >&2; exit 1; }
"$@" &  # in the background, so that a signal to this script is heeded at once
command=$!
wait "$command"
