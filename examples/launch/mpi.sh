#!/usr/bin/env bash
# Trains on several machines under Open MPI: examples/launch/mpi.sh hosts.txt --recipe=resnet50_v2 --workdir=/shared/runs/resnet50
# hosts.txt has a line for each machine with as many slots as it has GPUs, as in: node1 slots=8
set -euo pipefail

hosts=${1:?name the file of hosts}
shift
# Open MPI tells each process its number, which --coordinator_address=auto reads.
exec mpirun --hostfile "$hosts" --bind-to none ./launch.sh train --coordinator_address=auto "$@"
