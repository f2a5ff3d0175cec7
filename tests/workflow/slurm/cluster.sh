#!/usr/bin/env bash
# unshare --mount --pid --fork --mount-proc --kill-child tests/slurm/cluster.sh FOLDER COMMAND...
# Runs COMMAND on a one-node Slurm with two pretended GPUs, whose files are in FOLDER. In namespaces of its own it replaces
# nothing that is installed, and its daemons end with it.
set -euo pipefail
folder=$1 node=$(hostname -s)
shift
mkdir -p "$folder/state" "$folder/spool"
# Not in SLURM_CONF, which a job step of Snakemake does not hand on.
mount --bind "$folder" /etc/slurm
cat > "$folder/slurm.conf" <<END
ClusterName=test
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=26817
SlurmdPort=26818
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
SlurmUser=root
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/filetxt
JobCompLoc=$folder/jobs
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000
ReturnToService=2
GresTypes=gpu
NodeName=$node NodeAddr=127.0.0.1 CPUs=16 RealMemory=128000 Gres=gpu:2
PartitionName=main Nodes=ALL Default=YES
END
# Slurm counts and hands out device files; these two exist everywhere.
printf 'Name=gpu File=%s\n' /dev/null /dev/zero > "$folder/gres.conf"
head -c 1024 /dev/urandom > "$folder/munge.key"
chmod 400 "$folder/munge.key"
munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munge.pid" \
  --log-file="$folder/munge.log" --seed-file="$folder/munge.seed"
slurmctld -c
slurmd -c
for _ in {1..100}; do
  sinfo --noheader --format=%t 2> /dev/null | grep -q idle && exec "$@"
  sleep 0.2
done
tail -n 20 "$folder"/*.log >&2
exit 1
