# shellcheck shell=bash disable=SC2034
# What the scripts share: settings, flags, and how gcloud is called. Sourced.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
me=${0##*/}
dry_run='' yes='' follow='' remote='' rest=()

die() {
  echo "error: $me: $*" >&2
  exit 1
}

wrong_usage() {
  echo "error: $me: $*; see $me --help" >&2
  exit 2
}

# A flag wins over the environment, which wins over the settings file.
settings=${BIG_CROP_TPU_SETTINGS:-$here/settings.sh}
environment=
[[ -z ${!BIG_CROP_TPU_@} ]] || environment=$(declare -p "${!BIG_CROP_TPU_@}")
if [[ -e $settings ]]; then
  # shellcheck source=settings.example.sh
  source "$settings"
elif [[ ${BIG_CROP_TPU_SETTINGS:-} ]]; then
  die "BIG_CROP_TPU_SETTINGS names $settings, which does not exist"
fi
eval "$environment"

help() {
  sed -n '2,${/^#/!q;s/^# \{0,1\}//p;}' "$0"
  cat <<'END'

For all scripts: --name NAME, --zone ZONE, --project PROJECT say which TPU;
--dir DIR the folder on the workers, in the home folder unless it begins with /
(big_crop). --dry-run prints every command and runs none. A flag `--some-thing`
may also be set as BIG_CROP_TPU_SOME_THING in the environment, or in
tpu_scripts/settings.sh: see settings.example.sh.
END
}

# parse FLAGS ARGS...: sets BIG_CROP_TPU_* from the flags among ARGS. FLAGS
# names the script's own. What follows `--` goes to `rest`.
parse() {
  local allowed=" name zone project dir ${1//$'\n'/ } " flag value
  shift
  while (($#)); do
    flag=$1
    shift
    case $flag in
      --help | -h) help && exit ;;
      --dry-run) dry_run=--dry-run && continue ;;
      --) rest=("$@") && break ;;
      --yes | --follow | --spot | --on-demand) value=1 ;;
      --*=*) value=${flag#*=} ;;
      --*)
        (($#)) || wrong_usage "$flag needs a value"
        value=$1
        shift
        ;;
      *) wrong_usage "what is $flag?" ;;
    esac
    flag=${flag%%=*}
    flag=${flag#--}
    [[ $allowed == *" $flag "* ]] || wrong_usage "there is no flag --$flag"
    case $flag in
      yes | follow) printf -v "$flag" %s "$flag" ;;
      on-demand) BIG_CROP_TPU_SPOT='' ;;
      *) printf -v "$(variable "$flag")" %s "$value" ;;
    esac
  done
  remote=${BIG_CROP_TPU_DIR:=big_crop}
  # For the scripts that call others.
  export "${!BIG_CROP_TPU_@}"
}

variable() { echo "BIG_CROP_TPU_$(tr a-z- A-Z_ <<<"$1")"; }

# need FLAGS...: ends the script where one of these is not set.
need() {
  local flag name
  for flag; do
    name=$(variable "$flag")
    [[ ${!name:-} ]] || wrong_usage "set --$flag or $name"
  done
}

quoted() {
  local text
  printf -v text '%q ' "$@"
  echo "${text% }"
}

run() {
  if [[ $dry_run ]]; then
    quoted "$@"
  else
    local status=0 what="${*:1:5}"
    "$@" </dev/null || status=$?
    # Of a command with a snippet, its first line.
    ((status == 0)) || die "\`${what%%$'\n'*}\` ended with status $status"
  fi
}

# tpus ARGS...: gcloud compute tpus ARGS, for the TPU's zone and project.
tpus() {
  run gcloud compute tpus "$@" \
    --zone="$BIG_CROP_TPU_ZONE" --project="$BIG_CROP_TPU_PROJECT"
}

# on_workers WHICH COMMAND...: runs the very argv COMMAND on one worker or all.
# gcloud's status is not 0 if any worker's is not. A worker's shell is bash.
on_workers() {
  local which=$1
  shift
  tpus tpu-vm ssh "$BIG_CROP_TPU_NAME" --worker="$which" \
    --command="$(quoted "$@")"
}

# worker WHICH VERB ARGS...: the script `worker`, there.
worker() {
  local which=$1
  shift
  on_workers "$which" bash "$remote/code/tpu_scripts/worker" "$@"
}

queued_state() {
  tpus queued-resources describe "$BIG_CROP_TPU_NAME" \
    --format='value(state.state)'
}

confirm() {
  [[ -z $yes && -z $dry_run ]] || return 0
  [[ -t 0 ]] || die "nobody to ask, as this is not a terminal: add --yes"
  local answer
  read -r -p "$1 [y/N] " answer
  [[ $answer == [yY]* ]] || die "nothing done"
}
