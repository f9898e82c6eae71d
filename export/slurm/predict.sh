#!/bin/bash
#SBATCH --job-name=psanet-predict
#SBATCH --array=1-8
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH --requeue
#SBATCH --output=%x-%A-%a.log
#SBATCH --open-mode=append
#
# Labels images on as many machines as the array has tasks; each takes the share that --shard gives it:
#
#   sbatch export/slurm/predict.sh 'photos/**' --weights runs/psanet --out labelled
#   sbatch --gpus-per-task=1 --array=1-32 export/slurm/predict.sh ...
#
# A share that was lost is given again alone, and does only what is not there yet (SHARDS: of how many it is one):
#
#   SHARDS=8 sbatch --array=3 export/slurm/predict.sh 'photos/**' --weights runs/psanet --out labelled
#
# COMMAND=evaluate does the same for scores; when all shares are done: psanet evaluate ... --merge
set -euo pipefail

if [ -z "${SHARDS:-}" ]; then
    if [ "$SLURM_ARRAY_TASK_MIN" != 1 ] || [ "$SLURM_ARRAY_TASK_COUNT" != "$SLURM_ARRAY_TASK_MAX" ]; then
        echo "predict.sh: this array is a part of the shares: say of how many (SHARDS=8 sbatch --array=3 ...)" >&2
        exit 2
    fi
    SHARDS=$SLURM_ARRAY_TASK_MAX
fi
exec srun psanet "${COMMAND:-predict}" "$@" --shard "$SLURM_ARRAY_TASK_ID/$SHARDS"
