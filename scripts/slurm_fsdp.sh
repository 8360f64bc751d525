#!/bin/bash
# One machine with eight GPUs, the base model spread over them while an adapter trains, started by torchrun.
#   sbatch scripts/slurm_fsdp.sh tofu_continual   # in the repository's folder
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
source scripts/queue_again.sh
CONFIG=${1:-tofu_continual}

run_and_queue_again srun .venv/bin/torchrun --standalone --nproc-per-node 8 \
  -m o3_lightning run --config "$CONFIG" --config trainer/fsdp
