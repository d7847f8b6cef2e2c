"""The examples for clusters: they parse, and every command in them is one that there is."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer.main
import yaml

from pipeline.cli import app
from pipeline.errors import ExitCode

EXAMPLES = Path(__file__).parents[3] / "examples"
SCRIPTS = sorted([*EXAMPLES.glob("slurm/*.sbatch"), *EXAMPLES.glob("slurm/*.sh")])
(CRON_JOB,) = yaml.safe_load_all((EXAMPLES / "kubernetes" / "cronjob.yaml").read_text())


def check(words: list[str]) -> None:
    """Hold a command line against what `--help` knows; values are taken for what they are."""
    command = typer.main.get_command(app)
    assert words.pop(0) == "shardscrub"
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    given = {word for word in words if word.startswith("-")}
    assert given <= options, given - options
    needed = {
        parameter.opts[0] for parameter in command.params if parameter.required and parameter.opts[0][:1] == "-"
    }
    assert needed <= given, needed - given


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse_and_call_commands_that_there_are(script):
    subprocess.run(["bash", "-n", script], check=True)
    text = script.read_text()
    called = re.findall(r"^exec (shardscrub .*)$", text, re.MULTILINE)
    assert len(called) == (script.suffix == ".sbatch")
    for line in called:
        check(shlex.split(line))
    for name in re.findall(r"\w+\.sbatch", text):
        assert (script.parent / name).is_file()


def test_the_cron_job_runs_one_night_at_a_time_and_tries_again_only_where_that_helps():
    assert (CRON_JOB["apiVersion"], CRON_JOB["kind"]) == ("batch/v1", "CronJob")
    assert CRON_JOB["spec"]["concurrencyPolicy"] == "Forbid"
    job = CRON_JOB["spec"]["jobTemplate"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    check(list(container["command"]))
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["containerName"] == container["name"]
    assert rule["onExitCodes"]["values"] == [ExitCode.USAGE, ExitCode.VERIFICATION, ExitCode.INPUT]
    assert pod["restartPolicy"] == "Never"  # which a podFailurePolicy needs
    mounts = {one["name"] for every in (container, *pod["initContainers"]) for one in every["volumeMounts"]}
    assert mounts == {one["name"] for one in pod["volumes"]}
