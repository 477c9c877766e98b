#!/usr/bin/env bash
# A throw-away Slurm on one Debian machine: four nodes of two fake GPUs each, without systemd, cgroups or real GPUs.
#
#   tests/workflow/slurm.sh         # up, as root; installs Debian's packages where they are missing
#   tests/workflow/slurm.sh down    # ends its jobs, stops all that it started, and takes its configuration away
#   tests/workflow/slurm.sh node 2  # starts node n2's daemon again
set -euo pipefail

DIR=/var/tmp/roundhouse-slurm NODES=4 GPUS=2 CPUS=4 MEMORY=24000
HOST=$(hostname -s)
CONF=/etc/slurm/slurm.conf

say() { printf '[slurm] %s\n' "$*"; }
fail() { say "$*"; exit 1; }
alive() {  # the daemon of a pid file named after it, not a stranger who got its number
  local name=${1##*/}
  name=${name%.pid}
  [[ -s $1 ]] && [[ $(cat "/proc/$(cat "$1")/comm" 2>/dev/null) == "${name%%-*}" ]]
}
retry() { local n=$1; shift; for _ in $(seq "$n"); do "$@" >/dev/null 2>&1 && return 0; sleep 0.25; done; return 1; }
nodes_up() { sinfo -h -N -o '%N %t' | sort -u | awk '$2 ~ /^(idle|mix|alloc)$/' | wc -l; }
no_jobs() { [[ -z $(squeue -h) ]]; }
all_up() { [[ $(nodes_up) -ge $NODES ]]; }

stop() {
  local name
  for name in $(seq -f 'slurmd-n%g' $NODES) slurmctld munged; do
    if alive "$DIR/run/$name.pid"; then
      kill "$(cat "$DIR/run/$name.pid")" || true
      for _ in $(seq 80); do alive "$DIR/run/$name.pid" || break; sleep 0.25; done
    fi
    rm -f "$DIR/run/$name.pid"
  done
}

down() {  # a configuration left behind makes every start of Snakemake wait for a controller that is gone
  if alive $DIR/run/slurmctld.pid; then
    squeue -h -o %A | xargs -r scancel || true
    retry 40 no_jobs || say "jobs are left: $(squeue -h)"
  fi
  stop
  if grep -qs '^ClusterName=roundhouse$' $CONF; then rm -f $CONF /etc/slurm/gres.conf; fi
}

install() {
  local missing=() package
  for package in munge slurmctld slurmd slurm-client slurm-wlm-basic-plugins; do
    dpkg -s $package >/dev/null 2>&1 || missing+=($package)
  done
  ((${#missing[@]})) || return 0
  say "installing ${missing[*]}"
  # where there is an init system, packages would start daemons of their own
  local policy=/usr/sbin/policy-rc.d made=
  [[ -e $policy ]] || { printf '#!/bin/sh\nexit 101\n' >$policy; chmod +x $policy; made=1; }
  local failed=
  { apt-cache show ${missing[0]} >/dev/null 2>&1 || apt-get update -qq; } &&
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends ${missing[*]} >/dev/null || failed=1
  if [[ $made ]]; then rm -f $policy; fi
  if [[ $failed ]]; then fail "cannot install ${missing[*]}"; fi
}

configure() {
  mkdir -p $DIR/{run,log,state,dev,munge} /etc/slurm /run/munge
  local i
  for i in $(seq $NODES); do mkdir -p $DIR/spool/n$i; done
  for i in $(seq 0 $((GPUS - 1))); do [[ -c $DIR/dev/nvidia$i ]] || mknod $DIR/dev/nvidia$i c 1 3; done
  for i in $(seq $NODES); do getent hosts n$i >/dev/null || echo "127.0.0.1 n$i" >>/etc/hosts; done
  chown munge: /run/munge $DIR/munge
  chmod 755 /run/munge
  cat >$CONF.new <<END
ClusterName=roundhouse
SlurmctldHost=$HOST(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=/run/munge/munge.socket.2,cred_expire=30
SlurmctldPort=16817
SlurmdPort=16818
SlurmctldPidFile=$DIR/run/slurmctld.pid
SlurmdPidFile=$DIR/run/slurmd-%n.pid
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdLogFile=$DIR/log/slurmd-%n.log
SlurmdSpoolDir=$DIR/spool/%n
StateSaveLocation=$DIR/state
ReturnToService=2
MpiDefault=none
SwitchType=switch/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
DefMemPerCPU=500
KillWait=3
MessageTimeout=20
SlurmdTimeout=20
SlurmctldTimeout=20
BatchStartTimeout=20
MinJobAge=300
GresTypes=gpu
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
NodeName=DEFAULT CPUs=$CPUS RealMemory=$MEMORY Gres=gpu:fake:$GPUS State=UNKNOWN
$(for i in $(seq $NODES); do echo "NodeName=n$i NodeHostname=$HOST NodeAddr=127.0.0.1 Port=$((17000 + i))"; done)
PartitionName=gpu    Nodes=ALL Default=YES MaxTime=7-0 State=UP PriorityTier=1  PreemptMode=REQUEUE
PartitionName=urgent Nodes=ALL Default=NO  MaxTime=7-0 State=UP PriorityTier=10 PreemptMode=OFF
END
  cat >/etc/slurm/gres.conf <<END
AutoDetect=off
$(for i in $(seq $NODES); do echo "NodeName=n$i Name=gpu Type=fake File=$DIR/dev/nvidia[0-$((GPUS - 1))]"; done)
END
  if ! cmp -s $CONF.new $CONF; then stop; fi
  mv $CONF.new $CONF
}

start_munge() {
  munge -n >/dev/null 2>&1 && return
  [[ -s /etc/munge/munge.key ]] || dd if=/dev/urandom of=/etc/munge/munge.key bs=128 count=1 status=none
  chown munge: /etc/munge/munge.key
  chmod 400 /etc/munge/munge.key
  setpriv --reuid munge --regid munge --clear-groups -- /usr/sbin/munged --force \
    --socket=/run/munge/munge.socket.2 --pid-file=$DIR/munge/munged.pid \
    --log-file=$DIR/munge/munged.log --seed-file=$DIR/munge/seed
  retry 40 munge -n || fail "munged did not start"
  cp $DIR/munge/munged.pid $DIR/run/munged.pid
}

start_node() { alive "$DIR/run/slurmd-n$1.pid" || /usr/sbin/slurmd -N "n$1"; }

up() {
  if [[ -e $CONF ]] && ! grep -q '^ClusterName=roundhouse$' $CONF; then
    fail "$CONF belongs to another cluster: not touching it"
  fi
  [[ $EUID -eq 0 ]] || fail "must be run as root: sudo tests/workflow/slurm.sh"
  install
  configure
  start_munge
  alive $DIR/run/slurmctld.pid || /usr/sbin/slurmctld
  retry 80 scontrol ping || fail "slurmctld did not start: $(tail -5 $DIR/log/slurmctld.log)"
  local i
  for i in $(seq $NODES); do start_node "$i"; done
  for i in $(seq 10); do
    retry 8 all_up && break
    sinfo -h -N -o '%N %t' | awk '$2 ~ /down|drain/ {print $1}' | sort -u |
      while read -r i; do scontrol update NodeName="$i" State=RESUME 2>/dev/null || true; done
  done
  all_up || fail "not all nodes came up: $(sinfo -N -l)"
  say "up: $(sinfo -h -o '%P %D nodes %t %G' | tr '\n' ';')"
}

case ${1:-up} in
  up) up ;;
  down) down ;;
  node) start_node "$2" ;;
  *) fail "usage: $0 [up|down|node N]" ;;
esac
