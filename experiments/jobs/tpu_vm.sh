#!/bin/bash
# Trains on a spot slice of 16 v5e chips with one process per host. Set REPOSITORY, and NFS to
# HOST:/SHARE for the runs:
# NAME=mtml ZONE=us-west4-a REPOSITORY=... NFS=... experiments/jobs/tpu_vm.sh
set -u
tpu() { gcloud compute tpus tpu-vm "$1" "$NAME" --zone="$ZONE" "${@:2}"; }
install="git clone $REPOSITORY mtml && mkdir -p runs && sudo mount $NFS runs && cd mtml &&
  python3 -m venv .venv && .venv/bin/pip install -e . 'jax[tpu]'"
train='cd mtml && exec .venv/bin/python -m experiments.train --strategy=amtml --preset=paper
  --data=personachat --data_dir=../runs/personachat --workdir=../runs/amtml --coordinator=auto'

while true; do
  # A preempted slice is lost: create a new one, and training resumes from the last checkpoint.
  if [ "$(tpu describe --format='value(state)')" != READY ]; then
    tpu delete --quiet
    tpu create --accelerator-type=v5litepod-16 --version=v2-alpha-tpuv5-lite --spot
    tpu ssh --worker=all --command="$install"
  fi
  tpu ssh --worker=all --command="$train" && exit
  # At a preemption, SIGTERM makes training save. Any failure on a slice that still exists stops.
  sleep 60
  [ "$(tpu describe --format='value(state)')" = READY ] && exit 1
done
