#!/bin/bash
# One machine with eight GPUs, the base model spread over them while an adapter trains, started by torchrun.
#   sbatch scripts/slurm_fsdp.sh configs/tofu_continual.yaml
#SBATCH --job-name=o3-lightning
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=08:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
CONFIG=${1:-configs/tofu_continual.yaml}
exec srun .venv/bin/torchrun --standalone --nproc-per-node 8 \
  train.py run --config "$CONFIG" --config configs/trainer/fsdp.yaml
