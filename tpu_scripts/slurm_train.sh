#!/usr/bin/env bash
#SBATCH --job-name=big_crop
#SBATCH --output=%x_%j.log
#SBATCH --signal=TERM@180
# One run on several nodes. JAX finds the processes by Slurm's environment and
# gives each of them one GPU, hence a task for each. From the repository, in its
# environment:
#
#   sbatch --nodes=4 --ntasks-per-node=8 --gpus-per-node=8 --time=24:00:00 \
#     tpu_scripts/slurm_train.sh python -m big_crop.train --workdir WORKDIR \
#     --config configs/wrong_inception_crop/vit_s16_i1k.py
#
# The same sbatch goes on from the last checkpoint.
set -euo pipefail
if (($# == 0)); then
  echo "usage: sbatch --nodes=N $0 COMMAND..." >&2
  exit 2
fi
srun "$@"
