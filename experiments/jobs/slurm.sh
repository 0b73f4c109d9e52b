#!/bin/bash
# Trains on two nodes of 8 GPUs with one process per GPU: sbatch experiments/jobs/slurm.sh
# Submit it from a folder that all nodes can read.
#SBATCH --job-name=mtml
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120
. .venv/bin/activate

# On SIGTERM, 120 s before the time limit or at a preemption, training saves and exits with 143.
srun --kill-on-bad-exit=1 python -m experiments.train --strategy=amtml --preset=paper \
  --data=personachat --data_dir="$HOME/personachat" --workdir="$HOME/runs/amtml"
status=$?

# The same job then resumes from the last checkpoint.
if [ $status -eq 143 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit $status
