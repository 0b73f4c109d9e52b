#!/bin/bash
# Two nodes of 8 GPUs, a process a GPU: sbatch experiments/jobs/slurm.sh
# The folder that it is submitted from has to be one that all nodes see.
#SBATCH --job-name=mtml
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120
. .venv/bin/activate

# SIGTERM, 120 s before the time is up or at a preemption, saves and ends with 143.
srun --kill-on-bad-exit=1 python -m experiments.train --strategy=amtml --preset=paper \
  --data=personachat --data_dir="$HOME/personachat" --workdir="$HOME/runs/amtml"
status=$?

# The same job again: it goes on from the last checkpoint.
if [ $status -eq 143 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit $status
