#!/usr/bin/env bash
# Trains on several machines under Open MPI: examples/launch/mpi.sh hosts.txt --recipe=resnet50_v2 --workdir=/shared/runs/resnet50
# hosts.txt has a line for each machine with as many slots as it has GPUs, as in: node1 slots=8
# To stop the run with a checkpoint, send SIGTERM to one of its Python processes; mpirun, if it gets one, kills all after a second.
set -euo pipefail

hosts=${1:?name the file of hosts}
shift
first=$(awk 'NF && $1 !~ /^#/ { print $1; exit }' "$hosts")
# By the numbers that Open MPI gives each process, as JAX's own detection knows Open MPI 4 alone and takes the machine of mpirun for that
# of process 0. Each process takes the GPU of its number on its machine.
exec mpirun --hostfile "$hosts" --bind-to none bash -c 'JAX_CUDA_VISIBLE_DEVICES=$OMPI_COMM_WORLD_LOCAL_RANK exec ./launch.sh train \
  --coordinator_address="$0" --num_processes="$OMPI_COMM_WORLD_SIZE" --process_id="$OMPI_COMM_WORLD_RANK" "$@"' \
  "$first:${PORT:-8476}" "$@"
