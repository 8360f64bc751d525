#!/bin/bash
# Two machines with eight GPUs each, a whole model on every GPU. The run's folder has to be on a shared disk.
#   sbatch scripts/slurm_ddp.sh tofu_continual   # in the repository's folder
# Two minutes before the time is up this script stops the run, which keeps what it has done, and queues the job
# again; so does SLURM itself when it takes the machines for another job. The run continues in the same folder.
#SBATCH --job-name=o3-lightning
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=08:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
source scripts/queue_again.sh
CONFIG=${1:-tofu_continual}

run_and_queue_again srun --kill-on-bad-exit=1 .venv/bin/o3-lightning \
  run --config "$CONFIG" --config trainer/ddp
