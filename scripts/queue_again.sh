# Sourced by the jobs that ask for --signal=B:USR1 and --requeue; not a job of its own.

# Runs a command. Where SLURM tells that the time is nearly up, stops it, which keeps what it has done, and
# queues the job again.
run_and_queue_again() {
  trap queue_again USR1
  "$@" &
  wait $!
}

queue_again() {
  trap '' USR1
  scancel --signal=TERM "$SLURM_JOB_ID"  # to the processes of the run, not to this script
  wait  # for the run
  scontrol requeue "$SLURM_JOB_ID"
}
