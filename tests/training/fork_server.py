"""A process that has imported TensorFlow, and forks one that runs a program whenever it is told to.

The import takes longer than what most of these programs do. It starts nothing in TensorFlow, so that a fork of this
process is what a new one would be after it.

A line of standard input, JSON, is a request, a line of standard output its answer: {"program", "arguments",
"environment", "log"} gets the number of the new process, {"pid"} its exit status as of `subprocess.Popen.poll`.
"""

import json
import os
import sys

from psanet_cli import app

app.quiet_libraries()

import psanet_tf.training.trainer  # noqa: E402, F401


def become(program, arguments, environment, log):
    """Turns a fork into the process that was asked for, but for running the program."""
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(os.open(log, os.O_WRONLY), 1)
    os.dup2(1, 2)
    sys.argv[1:] = arguments
    return program


def next_program():
    """Answers requests; comes back in every new process, with its program, and at the end, with None."""
    answers = sys.stdout
    for line in sys.stdin:
        request = json.loads(line)
        if "pid" in request:
            pid, status = os.waitpid(request["pid"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if answer == 0:
                return become(**request)
        print(json.dumps(answer), file=answers, flush=True)
    return None


program = next_program()
if program is not None:
    exec(program)
