#!/usr/bin/env bash
#SBATCH --job-name=big_crop_study
#SBATCH --output=%x_%A_%a.log
#SBATCH --signal=TERM@180
# The runs of a study as a Slurm array, one task a run. From the repository, in
# its environment; partition, GPUs and time are yours:
#
#   sbatch --array=0-521 --gpus=1 --time=4:00:00 tpu_scripts/slurm_study.sh \
#     configs/studies/wrong_inception_crop.py WORKDIR [flags of study run]
#
# `python -m big_crop.study list` has the indices. Three minutes before the time
# limit a run saves a checkpoint and ends; the same sbatch goes on with what is
# not done.
set -euo pipefail
if (($# < 2)); then
  echo "usage: sbatch --array=A-B $0 CONFIG WORKDIR" >&2
  exit 2
fi
# srun makes it a job step: the signal goes to those, and not to this shell.
srun python -m big_crop.study run --config "$1" --workdir "$2" \
  --index "$SLURM_ARRAY_TASK_ID" "${@:3}"
