#!/bin/bash
#SBATCH --job-name=psanet-train
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=B:USR1@180
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
#
# Trains on all GPUs of all nodes (MultiWorkerMirroredStrategy), one process per node; the run folder lies where all see it:
#
#   sbatch export/slurm/train.sh --config configs/ade20k/psanet50.yaml --run-dir /shared/runs/ade
#
# Three minutes before its time is over, and when it is pre-empted, the training saves its state; it then waits in the
# queue again and goes on to the bit where it was. `scancel` ends it for good. PORT: of the workers (2222).
set -uo pipefail

hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
WORKERS=$(for host in $hosts; do printf '%s:%s,' "$host" "${PORT:-2222}"; done)
export WORKERS=${WORKERS%,}

again=
# To the training on all nodes, which saves and ends; not to this script.
trap 'again=1; scancel --signal=TERM "$SLURM_JOB_ID"' USR1

if [ "$SLURM_JOB_NUM_NODES" = 1 ]; then
    srun psanet train "$@" &
else
    # One that ends early must not take the others' saving away.
    srun --kill-on-bad-exit=0 bash -c 'exec psanet train "$@" --workers "$WORKERS" --index "$SLURM_PROCID"' psanet "$@" &
fi
step=$!
wait "$step"
status=$?
if [ -n "$again" ]; then
    # The signal ended the first wait, not the training.
    wait "$step"
    status=$?
    # 143 is a training that was stopped and saved; 0 one that had just ended.
    if [ "$status" = 143 ]; then
        scontrol requeue "$SLURM_JOB_ID"
    fi
fi
exit "$status"
