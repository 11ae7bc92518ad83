#!/usr/bin/env bash
# Makes the environment .venv when it is missing or out of date, then runs in it.
set -euo pipefail

# The environment is installed uncompiled; a start takes twice as long if that stays so.
unset PYTHONDONTWRITEBYTECODE

# Large arrays in pages of 2 MB, where Linux gives them to those who ask: XLA takes its memory anew
# for every step on a CPU, and to fetch it in small pages takes a tenth of the step.
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
venv=$root/.venv

usage() {
  cat <<EOF
usage: ./launch.sh setup                   make the environment, .venv, and nothing else
       ./launch.sh demo [--flags]          train, evaluate and report on a small data set
       ./launch.sh test [pytest's options]
       ./launch.sh docs                    build the documents into build/docs
       ./launch.sh NAME [--flags]          run an experiment; --help lists its flags
       ./launch.sh --processes=N NAME ...  run it as N processes that work together
       ./launch.sh lock                    renew requirements/ from pyproject.toml (needs uv)

experiments: $(experiments | paste -sd ' ' -)

PYTHON=PATH names the Python to use; CNN_JAX_DEVICE=cpu, cuda or tpu the build of JAX, where what
is found on the machine should not decide.
EOF
}

fail() {
  echo "error: $*" >&2
  exit 2
}

experiments() {
  find "$root/experiments" -maxdepth 1 -name '[a-z]*.py' ! -name app.py -exec basename {} .py \; | sort
}

# --- the environment --------------------------------------------------------------------------

find_python() {
  local candidate why="no Python 3.11 or newer found"
  local candidates=(python3.13 python3.12 python3.11 python3)
  [[ -z ${PYTHON:-} ]] || { candidates=("$PYTHON"); why="PYTHON=$PYTHON is no Python 3.11 or newer"; }
  for candidate in "${candidates[@]}"; do
    "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
    if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
      echo "$candidate"
      return
    fi
    why="$candidate has no venv or ensurepip (Debian, Ubuntu: apt install python3-venv)"
  done
  fail "$why; install it, or name another one by PYTHON=/path/to/python3"
}

find_device() {
  local driver
  if [[ -n ${CNN_JAX_DEVICE:-} ]]; then
    [[ $CNN_JAX_DEVICE =~ ^(cpu|cuda|tpu)$ ]] ||
      fail "unknown CNN_JAX_DEVICE=$CNN_JAX_DEVICE; take cpu, cuda or tpu"
    echo "$CNN_JAX_DEVICE"
  elif driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null) &&
    [[ ${driver%%.*} =~ ^[0-9]+$ ]] && ((${driver%%.*} >= 580)); then # CUDA 13's first driver
    echo cuda
  elif compgen -G '/dev/accel[0-9]*' >/dev/null ||
    { compgen -G '/dev/vfio/[0-9]*' && compgen -v TPU_; } >/dev/null; then
    echo tpu
  else
    echo cpu
  fi
}

# What the environment was made for; anything else in it is made anew.
foundation() {
  echo "$root" "$device" "$("${PYTHON:-$venv/bin/python}" --version 2>&1)"
}

packages() {
  cat "$root/pyproject.toml" "$root/requirements/$device.txt" | cksum
}

up_to_date() {
  [[ $(cat "$venv/stamp" 2>/dev/null) == "$(foundation)"$'\n'"$(packages)" ]]
}

# The lock names everything, and Python compiles what it imports: both options halve the time.
# pip's own words go to a file; its last error is part of ours.
install() {
  local log=$venv/install.log
  "$venv/bin/python" -m pip install --disable-pip-version-check --no-deps --no-compile "$@" \
    >"$log" 2>&1 ||
    fail "pip failed, is the network up? $(grep -iE '^ *error: ' "$log" | tail -n 1) (all of it: $log)"
}

set_up() {
  device=$(find_device)
  ! up_to_date || return 0
  python=$(find_python)
  [[ -w $root ]] || fail "cannot write to $root; copy the project to a folder of your own"
  (
    ! command -v flock >/dev/null || flock 9
    up_to_date || make_environment # another set-up may have been at it
  ) 9>"$root/.venv.lock"
}

make_environment() {
  # a new environment empties the folder that a link leads to
  [[ ! -L $venv || ! -s $venv/stamp || $(head -n 1 "$venv/stamp") == "$root "* ]] ||
    fail "$venv is a link to another project's environment; remove the link, and try again"
  echo "setting up .venv: $("$python" --version), JAX for $device; a few minutes, once" >&2
  [[ $device == cuda || -n ${CNN_JAX_DEVICE:-} ]] || ! nvidia-smi -L &>/dev/null ||
    echo "the NVIDIA driver is older than 580, which CUDA 13 needs: JAX will use the CPU" >&2
  if [[ $(head -n 1 "$venv/stamp" 2>/dev/null) != "$(foundation)" ]]; then
    "$python" -m venv --clear "$venv" >&2 || fail "$python could not make $venv"
  fi
  rm -f "$venv/stamp" # an interrupted set-up begins anew
  install -r "$root/requirements/$device.txt"
  install --no-build-isolation --editable "$root"
  { foundation && packages; } >"$venv/stamp"
}

# The site's generator, installed when it is first called for, so that other set-ups stay short.
docs() {
  local requirements=$root/requirements/docs.txt stamp=$venv/docs_stamp
  cd "$root"
  if [[ $(cat "$stamp" 2>/dev/null) != "$(cksum <"$requirements")" ]]; then
    echo "installing Sphinx into .venv, once" >&2
    install -r "$requirements"
    cksum <"$requirements" >"$stamp"
  fi
  # -W: what is amiss in a page, a docstring or a link is an error
  JAX_PLATFORMS=cpu "$venv/bin/python" -P -m sphinx -q -W --keep-going -d build/doctrees "$@" docs build/docs
  echo "documents: build/docs/index.html"
}

lock() {
  command -v uv >/dev/null || fail "lock needs uv: pip install uv"
  local device extras
  cd "$root"
  for device in cpu cuda tpu; do
    extras=(--extra dev)
    [[ $device == cpu ]] || extras+=(--extra "$device")
    uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-annotate \
      --no-emit-index-url --custom-compile-command "./launch.sh lock" "${extras[@]}" \
      pyproject.toml --output-file "requirements/$device.txt"
  done
  # in the versions of the others, and without the package's own dependencies
  "$(find_python)" -c '
import tomllib
with open("pyproject.toml", "rb") as file:
    print(*tomllib.load(file)["project"]["optional-dependencies"]["docs"], sep="\n")' |
    uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-annotate \
      --no-emit-index-url --custom-compile-command "./launch.sh lock" \
      --constraint requirements/cpu.txt - --output-file requirements/docs.txt
}

# --- running ----------------------------------------------------------------------------------

check_name() {
  local known
  read -ra known <<<"$(experiments | paste -sd ' ' -)"
  [[ " ${known[*]} " != *" $1 "* ]] || return 0
  python=$(find_python)
  fail "$("$python" -c '
import runpy, sys
path, name, *known = sys.argv[1:]
print(runpy.run_path(path)["unknown"]("experiment", name, known))
' "$root/cnn_jax/errors.py" "$1" "${known[@]}")"
}

# -P: a folder of the caller's that is called experiments is not ours.
run() {
  exec "$venv/bin/python" -P -m "experiments.$1" "${@:2}"
}

# Ends with the status of the first process that fails, and never leaves another one behind.
run_together() {
  local count=$1 port number status=0
  port=$("$venv/bin/python" -c '
import socket
with socket.socket() as listener:
    listener.bind(("localhost", 0))
    print(listener.getsockname()[1])')
  trap : INT TERM # they end the wait below
  for ((number = 0; number < count; number++)); do
    # One GPU each: two processes cannot share one.
    JAX_CUDA_VISIBLE_DEVICES=$number run "${@:2}" --coordinator_address="localhost:$port" \
      --num_processes="$count" --process_id="$number" &
  done
  for ((number = 0; number < count && status == 0; number++)); do
    wait -n || status=$?
  done
  # SIGTERM does not stop a process that waits for another one inside a collective.
  local deadline=$((SECONDS + ${CNN_JAX_GRACE_SECONDS:-20}))
  signal_running -TERM
  while [[ -n $(jobs -rp) ]] && ((SECONDS < deadline)); do
    sleep 0.2
  done
  signal_running -KILL
  exit "$status"
}

signal_running() {
  local number
  for number in $(jobs -rp); do
    kill "$1" "$number" 2>/dev/null || true # it may have ended meanwhile
  done
}

processes=1
if [[ ${1:-} == --processes=* ]]; then
  processes=${1#*=}
  [[ $processes =~ ^[1-9][0-9]*$ ]] || fail "--processes=$processes is no number of processes"
  shift
fi
case ${1:-} in
  "" | -h | --help | help)
    usage
    ;;
  setup)
    set_up
    ;;
  lock)
    lock
    ;;
  docs)
    set_up
    docs "${@:2}"
    ;;
  test)
    set_up
    cd "$root"
    # Two workers: half the time, on two cores and on many.
    exec "$venv/bin/python" -m pytest --numprocesses=2 --dist=worksteal "${@:2}"
    ;;
  *)
    check_name "$1"
    set_up
    if [[ $1 == demo ]]; then
      set -- demo --workdir="$root/runs/demo" "${@:2}"
    fi
    if ((processes == 1)); then
      run "$@"
    else
      run_together "$processes" "$@"
    fi
    ;;
esac
