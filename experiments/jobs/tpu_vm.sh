#!/bin/bash
# A spot slice of 16 v5e chips, a process a host; REPOSITORY and NFS (HOST:/SHARE, for runs) given:
# NAME=mtml ZONE=us-west4-a REPOSITORY=... NFS=... experiments/jobs/tpu_vm.sh
set -u
tpu() { gcloud compute tpus tpu-vm "$1" "$NAME" --zone="$ZONE" "${@:2}"; }
install="git clone $REPOSITORY mtml && mkdir -p runs && sudo mount $NFS runs && cd mtml &&
  python3 -m venv .venv && .venv/bin/pip install -e . 'jax[tpu]'"
train='cd mtml && exec .venv/bin/python -m experiments.train --strategy=amtml --preset=paper
  --data=personachat --data_dir=../runs/personachat --workdir=../runs/amtml --coordinator=auto'

while true; do
  # A preempted slice does not come back: make it anew, and go on from the last checkpoint.
  if [ "$(tpu describe --format='value(state)')" != READY ]; then
    tpu delete --quiet
    tpu create --accelerator-type=v5litepod-16 --version=v2-alpha-tpuv5-lite --spot
    tpu ssh --worker=all --command="$install"
  fi
  tpu ssh --worker=all --command="$train" && exit
  # SIGTERM, at a preemption, saves. What went wrong on a slice that is still there stops this.
  sleep 60
  [ "$(tpu describe --format='value(state)')" = READY ] && exit 1
done
