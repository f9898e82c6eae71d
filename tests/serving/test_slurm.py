"""The Slurm scripts, with stand-ins for Slurm's commands."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "export" / "slurm"

# As many tasks as nodes, side by side, with the number of each; ends with the largest status.
SRUN = """#!/bin/bash
while [ "${1#-}" != "$1" ]; do shift; done
for ((task = 0; task < ${SLURM_JOB_NUM_NODES:-1}; task++)); do SLURM_PROCID=$task "$@" & tasks+=($!); done
printf '%s ' "${tasks[@]}" > "$FOLDER/tasks"
most=0
for task in "${tasks[@]}"; do wait "$task"; status=$?; ((status > most)) && most=$status; done
exit $most
"""
SCONTROL = """#!/bin/bash
if [ "$1 $2" = "show hostnames" ]; then printf 'node1\\nnode2\\n'; else echo "$@" >> "$FOLDER/scontrol"; fi
"""
# To all tasks, as scancel does for the steps of a job.
SCANCEL = """#!/bin/bash
echo "$@" >> "$FOLDER/scancel"
kill -TERM $(cat "$FOLDER/tasks")
"""
PSANET = """#!/bin/bash
echo "$@" >> "$FOLDER/psanet"
[ "$1" = train ] || exit 0
trap 'sleep 0.3; echo saved >> "$FOLDER/saved"; exit 143' TERM
for ((i = 0; i < 600; i++)); do [ -e "$FOLDER/end" ] && exit 0; sleep 0.05; done
"""


@pytest.fixture
def environment(tmp_path):
    (tmp_path / "bin").mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("scancel", SCANCEL), ("psanet", PSANET)):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    clean = {key: value for key, value in os.environ.items() if not key.startswith("SLURM") and key != "SHARDS"}
    return {**clean, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "FOLDER": str(tmp_path)}


def lines(environment, name):
    file = Path(environment["FOLDER"]) / name
    return sorted(file.read_text().splitlines()) if file.exists() else []


def array(first, last, task):
    values = {"MIN": first, "MAX": last, "COUNT": last - first + 1, "ID": task}
    return {f"SLURM_ARRAY_TASK_{key}": str(value) for key, value in values.items()}


def test_every_task_of_an_array_takes_its_share(environment):
    for task in (1, 2, 3):
        command = [SCRIPTS / "predict.sh", "photos/**", "--weights", "run"]
        assert subprocess.run(command, env={**environment, **array(1, 3, task)}).returncode == 0
    assert lines(environment, "psanet") == [f"predict photos/** --weights run --shard {task}/3" for task in (1, 2, 3)]


def test_a_share_is_given_again_alone(environment):
    alone = {**environment, **array(3, 3, 3)}
    done = subprocess.run([SCRIPTS / "predict.sh", "x"], env=alone, capture_output=True, text=True)
    assert (done.returncode, "say of how many (SHARDS=8" in done.stderr) == (2, True)
    evaluate = {**alone, "SHARDS": "8", "COMMAND": "evaluate"}
    assert subprocess.run([SCRIPTS / "predict.sh", "--weights", "run"], env=evaluate).returncode == 0
    assert lines(environment, "psanet") == ["evaluate --weights run --shard 3/8"]


def start_training(environment, nodes):
    job = {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_NUM_NODES": str(nodes), "SLURM_JOB_ID": "7"}
    process = subprocess.Popen([SCRIPTS / "train.sh", "--config", "a b.yaml"], env={**environment, **job})
    end = time.monotonic() + 60
    while len(lines(environment, "psanet")) < nodes:
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.02)
    return process


def test_a_training_has_a_worker_on_every_node(environment):
    process = start_training(environment, 2)
    (Path(environment["FOLDER"]) / "end").touch()
    assert process.wait(60) == 0
    workers = "--workers node1:2222,node2:2222"
    assert lines(environment, "psanet") == [f"train --config a b.yaml {workers} --index {index}" for index in (0, 1)]
    assert lines(environment, "scontrol") == []


def test_one_node_needs_no_workers(environment):
    process = start_training(environment, 1)
    (Path(environment["FOLDER"]) / "end").touch()
    assert process.wait(60) == 0
    assert lines(environment, "psanet") == ["train --config a b.yaml"]


def test_before_its_time_is_over_a_training_saves_and_waits_again(environment):
    process = start_training(environment, 2)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(60) == 143
    assert lines(environment, "saved") == ["saved", "saved"]
    assert lines(environment, "scancel") == ["--signal=TERM 7"]
    assert lines(environment, "scontrol") == ["requeue 7"]


def test_a_cancelled_training_does_not_come_back(environment):
    process = start_training(environment, 2)
    subprocess.run(["scancel", "7"], env=environment, check=True)
    assert process.wait(60) == 143
    assert lines(environment, "saved") == ["saved", "saved"]
    assert lines(environment, "scontrol") == []
