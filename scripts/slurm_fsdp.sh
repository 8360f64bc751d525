#!/bin/bash
# One machine with eight GPUs, the base model spread over them while an adapter trains, started by torchrun.
#   sbatch scripts/slurm_fsdp.sh configs/tofu_continual.yaml
# Two minutes before the time is up this script stops the run, which keeps what it has done, and queues the job
# again; so does SLURM itself when it takes the machine for another job. The run continues in the same folder.
#SBATCH --job-name=o3-lightning
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=08:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
CONFIG=${1:-configs/tofu_continual.yaml}

queue_again() {
  trap '' USR1
  scancel --signal=TERM "$SLURM_JOB_ID"  # to the processes of the run, not to this script
  wait "$STEP" || true
  scontrol requeue "$SLURM_JOB_ID"
}
trap queue_again USR1

srun .venv/bin/torchrun --standalone --nproc-per-node 8 \
  train.py run --config "$CONFIG" --config configs/trainer/fsdp.yaml &
STEP=$!
wait "$STEP"
