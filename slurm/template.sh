#!/bin/bash
{{options}}
# One element of a job array. Its number among the submission's elements is the first argument (where this array
# begins) plus the array's index. Python replaces this shell, so that Slurm's signals reach it: USR2 (time is nearly
# over) saves and requeues, TERM (preempted, cancelled) saves. Until then, nothing is lost by coming back.
trap 'scontrol requeue "$SLURM_JOB_ID"; exit 85' USR2
{{setup}}
exec {{python}} -m lthbench task {{folder}} $(($1 + SLURM_ARRAY_TASK_ID))
