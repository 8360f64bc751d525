#!/bin/bash
# Two machines with eight GPUs each, a whole model on every GPU. The run's folder has to be on a shared disk.
#   sbatch scripts/slurm_ddp.sh configs/tofu_continual.yaml
# Before the time is up SLURM sends SIGTERM and queues the job again; it continues with the same folder.
#SBATCH --job-name=o3-lightning
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=08:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
CONFIG=${1:-configs/tofu_continual.yaml}
exec srun --kill-on-bad-exit=1 .venv/bin/python train.py run --config "$CONFIG" --config configs/trainer/ddp.yaml
