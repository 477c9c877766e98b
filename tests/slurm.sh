#!/usr/bin/env bash
# slurm.sh - bring up a throw-away multi-node Slurm with fake GPUs on ONE Debian 12 host
# (no systemd, no cgroups, no real GPU).  Idempotent: a second run is a no-op when healthy.
#
#   sudo ./slurm.sh            # up       (installs packages when missing)
#   sudo ./slurm.sh down       # stop everything this script started (by pid file)
#   sudo ./slurm.sh status
#
# knobs (environment):
#   SL_NODES=4 SL_GPUS=2 SL_CPUS=8 SL_MEM=16000
#   SL_DIR=/var/tmp/roundhouse-slurm
set -euo pipefail
SL_DIR=${SL_DIR:-/var/tmp/roundhouse-slurm}
SL_NODES=${SL_NODES:-4}; SL_GPUS=${SL_GPUS:-2}; SL_CPUS=${SL_CPUS:-8}; SL_MEM=${SL_MEM:-16000}
HOST=$(hostname -s)
export SLURM_CONF=/etc/slurm/slurm.conf
say() { printf '[slurm] %s\n' "$*"; }
alive() { [[ -s $1 ]] && kill -0 "$(cat "$1")" 2>/dev/null; }
retry() { local n=$1; shift; for _ in $(seq "$n"); do "$@" >/dev/null 2>&1 && return 0; sleep 0.25; done; return 1; }

down() {
  local p
  for p in $(seq 1 64 | sed 's/.*/slurmd-n&/') slurmctld munged; do
    if alive "$SL_DIR/run/$p.pid"; then
      say "stopping $p ($(cat "$SL_DIR/run/$p.pid"))"; kill "$(cat "$SL_DIR/run/$p.pid")" || true
      for _ in $(seq 80); do alive "$SL_DIR/run/$p.pid" || break; sleep 0.25; done
    fi
    rm -f "$SL_DIR/run/$p.pid"
  done
}
case ${1:-up} in
  down) down; exit 0;;
  status) sinfo -N -o '%N %t %c %m %G'; exit 0;;
  up) ;;
  *) echo "usage: $0 [up|down|status]" >&2; exit 2;;
esac

if [[ -e $SLURM_CONF ]] && ! grep -q '^ClusterName=roundhouse$' "$SLURM_CONF"; then
  say "$SLURM_CONF belongs to another cluster: not touching it"; exit 1
fi
[[ $EUID -eq 0 ]] || { say "run me as root"; exit 1; }

# --- packages ---------------------------------------------------------------
pkgs=(munge slurmctld slurmd slurm-client slurm-wlm-basic-plugins)
miss=(); for p in "${pkgs[@]}"; do dpkg -s "$p" >/dev/null 2>&1 || miss+=("$p"); done
if ((${#miss[@]})); then
  say "installing ${miss[*]}"
  # keep the packages from starting their own daemons where there is an init system
  if [[ ! -e /usr/sbin/policy-rc.d ]]; then
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod +x /usr/sbin/policy-rc.d; rmpol=1
  fi
  apt-cache show "${miss[0]}" >/dev/null 2>&1 || apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${miss[@]}" >/dev/null
  [[ ${rmpol:-} ]] && rm -f /usr/sbin/policy-rc.d
fi

# --- directories, fake GPU device files, configuration ------------------------
mkdir -p "$SL_DIR"/{run,log,state,dev,munge} /etc/slurm /run/munge
for i in $(seq "$SL_NODES"); do mkdir -p "$SL_DIR/spool/n$i"; done
for g in $(seq 0 $((SL_GPUS - 1))); do [[ -c $SL_DIR/dev/nvidia$g ]] || mknod "$SL_DIR/dev/nvidia$g" c 1 3; done
chown munge: /run/munge "$SL_DIR/munge"; chmod 755 /run/munge

cat >/etc/slurm/slurm.conf.new <<CONF
ClusterName=roundhouse
SlurmctldHost=$HOST(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=/run/munge/munge.socket.2
SlurmctldPort=16817
SlurmdPort=16818
SlurmctldPidFile=$SL_DIR/run/slurmctld.pid
SlurmdPidFile=$SL_DIR/run/slurmd-%n.pid
SlurmctldLogFile=$SL_DIR/log/slurmctld.log
SlurmdLogFile=$SL_DIR/log/slurmd-%n.log
SlurmdSpoolDir=$SL_DIR/spool/%n
StateSaveLocation=$SL_DIR/state
ReturnToService=2
MpiDefault=none
SwitchType=switch/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=2
JobAcctGatherParams=OverMemoryKill
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
LaunchParameters=use_interactive_step
$(if ((SL_DBD)); then cat <<X
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=16819
AccountingStoreFlags=job_comment
AccountingStorageTRES=gres/gpu
X
else echo AccountingStorageType=accounting_storage/none; fi)
NodeName=DEFAULT CPUs=$SL_CPUS RealMemory=$SL_MEM Gres=gpu:fake:$SL_GPUS State=UNKNOWN
$(for i in $(seq "$SL_NODES"); do echo "NodeName=n$i NodeHostname=$HOST NodeAddr=127.0.0.1 Port=$((17000 + i)) Feature=f$i"; done)
PartitionName=gpu   Nodes=ALL Default=YES MaxTime=7-0 State=UP PriorityTier=1  PreemptMode=REQUEUE
PartitionName=urgent Nodes=ALL Default=NO  MaxTime=7-0 State=UP PriorityTier=10 PreemptMode=OFF
CONF
cat >/etc/slurm/gres.conf <<CONF
AutoDetect=off
$(for i in $(seq "$SL_NODES"); do echo "NodeName=n$i Name=gpu Type=fake File=$SL_DIR/dev/nvidia[0-$((SL_GPUS - 1))]"; done)
CONF
changed=0; cmp -s /etc/slurm/slurm.conf.new /etc/slurm/slurm.conf || changed=1
mv /etc/slurm/slurm.conf.new /etc/slurm/slurm.conf
((changed)) && { say "configuration changed: restarting"; down; }

# fake node names must resolve for torchrun's MASTER_ADDR
for i in $(seq "$SL_NODES"); do getent hosts "n$i" >/dev/null || echo "127.0.0.1 n$i" >>/etc/hosts; done

# --- munge ------------------------------------------------------------------
[[ -s /etc/munge/munge.key ]] || { dd if=/dev/urandom of=/etc/munge/munge.key bs=128 count=1 status=none
  chown munge: /etc/munge/munge.key; chmod 400 /etc/munge/munge.key; }
if ! munge -n >/dev/null 2>&1; then
  setpriv --reuid munge --regid munge --clear-groups -- /usr/sbin/munged --force \
    --socket=/run/munge/munge.socket.2 --pid-file="$SL_DIR/munge/munged.pid" \
    --log-file="$SL_DIR/munge/munged.log" --seed-file="$SL_DIR/munge/seed"
  retry 40 munge -n || { say "munged did not start"; exit 1; }
  cp "$SL_DIR/munge/munged.pid" "$SL_DIR/run/munged.pid"
fi

# --- controller and one slurmd per fake node --------------------------------------
alive "$SL_DIR/run/slurmctld.pid" || { /usr/sbin/slurmctld; retry 80 scontrol ping || { say "slurmctld did not start"; tail -5 "$SL_DIR/log/slurmctld.log"; exit 1; }; }
for i in $(seq "$SL_NODES"); do
  alive "$SL_DIR/run/slurmd-n$i.pid" || /usr/sbin/slurmd -N "n$i"
done
up() { sinfo -h -N -o '%N %t' | sort -u | awk '$2 ~ /^(idle|mix|alloc)$/' | wc -l; }
for _ in $(seq 80); do [[ $(up) -ge $SL_NODES ]] && break
  sinfo -h -N -o '%N %t' | awk '$2 ~ /down|drain/ {print $1}' | sort -u | while read -r n; do scontrol update NodeName="$n" State=RESUME 2>/dev/null || true; done
  sleep 0.25; done
[[ $(up) -ge $SL_NODES ]] || { say "not all nodes came up"; sinfo -N -l; exit 1; }
say "up: $(sinfo -h -o '%P %D nodes %t %G' | tr '\n' ';')"
