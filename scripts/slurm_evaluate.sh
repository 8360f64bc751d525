#!/bin/bash
# Measures a finished run with eight GPUs.
#   sbatch scripts/slurm_evaluate.sh runs/tofu_continual/config.yaml
#SBATCH --job-name=o3-evaluate
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
set -euo pipefail
exec srun --kill-on-bad-exit=1 .venv/bin/o3-lightning evaluate --config "${1:?name the configuration of a run}"
