# shellcheck shell=bash disable=SC2034
# Copy this to settings.sh and fill it in. Every line can also be a flag, which
# wins, or an environment variable: --zone or BIG_CROP_TPU_ZONE.

BIG_CROP_TPU_PROJECT=my-project
BIG_CROP_TPU_ZONE=us-east1-d
BIG_CROP_TPU_NAME=my-tpu

# create: what to ask for. v4-8 and v5p-8 have 4 chips, v5e-8 and v6e-8 have 8.
BIG_CROP_TPU_TYPE=v6e-16
BIG_CROP_TPU_SPOT=1 # empty: on demand
# BIG_CROP_TPU_RUNTIME=v2-alpha-tpuv6e # default: the one for the type
# BIG_CROP_TPU_PRICE_PER_CHIP_HOUR=1.23 # yours, to see what it costs

# BIG_CROP_TPU_DIR=big_crop # on the workers
# BIG_CROP_TPU_MAX_RESTARTS=10 # of a run that fails
# BIG_CROP_TPU_BACKOFF=30 # seconds before the first restart, doubled each time
