# Sourced at the top of every batch script: checks the job, sets up python, and on the way out requeues a stopped run.
# What is done at a site stands in slurm/site.sh. slurm/README.md explains the rest.

glam_fail() {
  echo "error: $1" >&2
  exit 2
}

[ -n "${SLURM_JOB_ID:-}" ] || glam_fail "$0 is a batch script: submit it with sbatch, from the root of the repository"
[ -f experiments/train_language_agent.py ] && [ -f slurm/launch_lamorel.py ] ||
  glam_fail "$PWD is not the root of the repository: submit from there, or with sbatch --chdir"

# One element of an array. Not SLURM_JOB_ID: for the array's last element that is the number of the array as well, and
# scontrol would requeue all of it.
GLAM_JOB=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
GLAM_JOB=${GLAM_JOB:-$SLURM_JOB_ID}
GLAM_ARGUMENTS=("$@")

# glam_event EVENT [STATUS]: a line for campaign/status.py. A full disk must not end the job.
glam_event() {
  local argument arguments= array=null task=null
  for argument in ${GLAM_ARGUMENTS[@]+"${GLAM_ARGUMENTS[@]}"}; do
    argument=${argument//\\/\\\\}
    argument=${argument//\"/\\\"}
    arguments+="${arguments:+, }\"${argument//[[:cntrl:]]/ }\""
  done
  if [ -n "${SLURM_ARRAY_JOB_ID:-}" ]; then
    array="\"$SLURM_ARRAY_JOB_ID\"" task="\"$SLURM_ARRAY_TASK_ID\""
  fi
  printf '{"event": "%s", "time": %s, "job": "%s", "array_job": %s, "task": %s, "restart": %s, "status": %s, "host": "%s", "arguments": [%s]}\n' \
    "$1" "$(date +%s)" "$SLURM_JOB_ID" "$array" "$task" "${SLURM_RESTART_COUNT:-0}" "${2:-null}" \
    "${SLURMD_NODENAME:-$HOSTNAME}" "$arguments" >> "campaign/logs/${SLURM_JOB_NAME}_$GLAM_JOB.events" || true
}

# glam_try COMMAND...: a busy controller may not answer at once.
glam_try() {
  "$@" || { sleep 5 && "$@"; } || { sleep 15 && "$@"; }
}

# The end of the script: a run that was stopped by a signal goes on later, unless SLURM is ending the job anyway
# (scancel, time limit, or preemption that requeues by itself). 138 is SIGUSR1 before python listens to it.
glam_finish() {
  local status=$?
  set +e
  trap '' TERM USR1
  if [ $status = 75 ] || [ $status = 138 ]; then
    if [ "$(glam_try squeue --noheader --job="$GLAM_JOB" --format=%T)" = RUNNING ]; then
      echo "stopped by a signal: job $GLAM_JOB is queued again"
      glam_event requeued $status # before scontrol, which has this script killed
      glam_try scontrol requeue "$GLAM_JOB" && exit $status
      echo "error: SLURM did not queue job $GLAM_JOB again: submit the same command once more" >&2
    fi
  fi
  glam_event ended $status
  exit $status
}

mkdir -p campaign/logs || true
glam_event started
trap glam_finish EXIT
trap : TERM USR1 # sent to the whole job they must not end this shell before srun has ended

[ -z "${GLAM_SITE:-}" ] || [ -f "$GLAM_SITE" ] || glam_fail "GLAM_SITE=$GLAM_SITE: there is no such file"
if [ -f "${GLAM_SITE:=slurm/site.sh}" ]; then
  . "$GLAM_SITE" || glam_fail "$GLAM_SITE fails, exit status $?: mend it"
fi
[ -n "${GLAM_STORAGE:-}" ] || unset GLAM_STORAGE # the overlays would make /logs of an empty one
if declare -F glam_activate > /dev/null; then
  glam_activate || glam_fail "glam_activate of $GLAM_SITE has failed"
elif [ -f .venv/bin/activate ]; then
  . .venv/bin/activate
fi
glam_root=$(python3 -P -c 'import experiments, hydra, lamorel_launcher; print(experiments.__path__[0])' 2>&1) ||
  glam_fail "python3 ($(command -v python3)) cannot run the project (${glam_root##*$'\n'}): call make install here, or activate its environment in glam_activate of $GLAM_SITE"
[ "$glam_root" -ef experiments ] ||
  glam_fail "python3 ($(command -v python3)) takes the project from ${glam_root%/*}, not from $PWD: call make install here, or activate its environment in glam_activate of $GLAM_SITE"
if grep -q SLURM_ARRAY_TASK_ID "$0" && [ -z "${SLURM_ARRAY_TASK_ID:-}" ]; then
  glam_fail "${SLURM_JOB_NAME} runs a seed per array task: submit it with --array=1-2, or --array=N for one seed"
fi

export PYTHONUNBUFFERED=1
export SLURM_EXPORT_ENV=ALL                                  # to srun, also after sbatch --export=NONE
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}          # since 22.05 srun does not take it from sbatch
# The status of a step is the highest of its tasks. One that fails must not have the others stopped by SIGTERM, as
# theirs would be 75; after a while they are killed.
export SLURM_KILL_BAD_EXIT=0
export SLURM_WAIT=300 # seconds; longer than rank 0 takes to save a cloned model
set -eu -o pipefail
