# shellcheck shell=bash disable=SC2034
# What a TPU type is, and what it costs. Sourced.

# describe_type TYPE: sets accelerator, chips, runtime. Sources:
# https://cloud.google.com/tpu/docs/runtimes and each version's page there, such
# as /v4 and /v5p, whose types count TensorCores, and /v5e and /v6e: chips.
describe_type() {
  [[ $1 =~ ^(v4|v5e|v5litepod|v5p|v6e)-([1-9][0-9]*)$ ]] ||
    wrong_usage "--type is '$1': v4-N, v5e-N, v5p-N or v6e-N"
  local version=${BASH_REMATCH[1]} size=${BASH_REMATCH[2]}
  accelerator=$1 chips=$size
  case $version in
    v4) chips=$((size / 2)) runtime=tpu-ubuntu2204-base ;;
    v5p) chips=$((size / 2)) runtime=v2-alpha-tpuv5 ;;
    v5e | v5litepod)
      accelerator=v5litepod-$size runtime=v2-alpha-tpuv5-lite
      ;;
    v6e) runtime=v2-alpha-tpuv6e ;;
  esac
}

# print_cost WORDS: after describe_type.
print_cost() {
  local kind="on demand" price=${BIG_CROP_TPU_PRICE_PER_CHIP_HOUR:-}
  [[ -z ${BIG_CROP_TPU_SPOT:-} ]] || kind=spot
  echo "$1 $BIG_CROP_TPU_NAME: $accelerator, $chips chips, $kind, in" \
    "$BIG_CROP_TPU_ZONE. It costs from ACTIVE until deleted, idle or not."
  if [[ $price ]]; then
    awk -v n="$chips" -v p="$price" 'BEGIN {
      printf "%d chips x %s per chip-hour = %.2f an hour, %.2f a day\n",
        n, p, n * p, 24 * n * p }'
  else
    echo "Prices per chip-hour: https://cloud.google.com/tpu/pricing" \
      "(give yours as --price-per-chip-hour to see the sum)"
  fi
}
