#!/usr/bin/env bash
# Trains on a TPU pod, from a machine with gcloud: TPU=my-pod ZONE=us-west4-a examples/launch/tpu_pod.sh \
#   --recipe=resnet50_v2 --workdir=/mnt/shared/runs/resnet50
# The project lies in ~/cnn_jax of every worker; --workdir is a folder that all of them see (Filestore, or a bucket by gcsfuse).
set -euo pipefail

arguments=$(printf ' %q' "$@")
# Every worker runs the same command: the pod tells it its number, which --coordinator_address=auto reads.
exec gcloud compute tpus tpu-vm ssh "${TPU:?name the pod}" --zone="${ZONE:?name its zone}" --worker=all \
  --command="cd ~/cnn_jax && CNN_JAX_DEVICE=tpu ./launch.sh train --coordinator_address=auto$arguments"
