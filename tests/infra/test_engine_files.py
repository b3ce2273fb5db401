"""Files for other engines, SkyPilot and Kubernetes, as those read them."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet
from pydantic import ValidationError

from job.cli.app import find, load
from job.errors import FATAL
from job.training.nodes import Nodes, find_nodes
from tests.support.cli_process import ROOT, TIMEOUT_S
from tests.support.stub_programs import Programs

JOBSET, SKY = ROOT / "infra/kubernetes/jobset.yaml", ROOT / "infra/skypilot/train.yaml"
SCREEN = 50

READ_TASKS = """
import json, sky, sys, yaml
from sky.server import plugins

plugins.load_plugins(plugins.ExtensionContext())
given, answers = [("BUCKET", "gs://b"), ("IMAGE", "r/i@sha256:0")], []
for text in json.load(sys.stdin):
    try:
        task = sky.Task.from_yaml_config(yaml.safe_load(text), env_overrides=given)
    except sky.exceptions.InvalidSkyPilotConfigError as error:
        answers.append(str(error))
    else:
        [resources] = task.resources
        answers.append([task.num_nodes, resources.use_spot, *resources.accelerators])
print(json.dumps(answers))
"""
"""Tasks of standard input, as SkyPilot's server reads them: its client lets unknown fields of a recovery pass."""


def jobset():
    """Return the JobSet."""
    return yaml.safe_load(JOBSET.read_text())


def test_kubernetes_knows_every_field_of_the_jobset():
    """Kubeflow's models of JobSet and of pods, generated from their published schemas, take each field and keep it."""
    read = JobsetV1alpha2JobSet.from_dict(jobset())
    assert read.to_dict() == jobset()
    assert (jobset()["apiVersion"], jobset()["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")


def test_a_field_that_kubernetes_does_not_know_would_be_noticed():
    """A misspelt field does not survive the models, and a value of another type is refused."""
    wrong = jobset()
    wrong["spec"]["replicatedJob"] = []
    assert JobsetV1alpha2JobSet.from_dict(wrong).to_dict() != wrong
    wrong["spec"]["failurePolicy"]["maxRestarts"] = "often"
    with pytest.raises(ValidationError):
        JobsetV1alpha2JobSet.from_dict(wrong)


def test_the_pods_of_the_jobset_are_the_nodes_of_a_training():
    """Each pod tells the entry its rank and where the first one is, by the name that JobSet gives it."""
    job, set_name = jobset()["spec"]["replicatedJobs"][0], jobset()["metadata"]["name"]
    spec = job["template"]["spec"]
    container = spec["template"]["spec"]["containers"][0]
    environment = {entry["name"]: entry.get("value", "1") for entry in container["env"]}  # the index of the second pod
    nodes = find_nodes(environment)
    assert nodes == Nodes(spec["completions"], 1, f"{set_name}-{job['name']}-0-0.{set_name}", nodes.port)
    assert (spec["parallelism"], spec["completionMode"]) == (spec["completions"], "Indexed")
    assert jobset()["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "training"}


def test_an_end_that_no_retry_changes_ends_the_jobset():
    """A pod's fatal exit code fails its job, and that the set, instead of fifty paid restarts."""
    job = jobset()["spec"]["replicatedJobs"][0]["template"]["spec"]
    [fails] = job["podFailurePolicy"]["rules"]
    assert fails == {
        "action": "FailJob",
        "onExitCodes": {"containerName": "job", "operator": "In", "values": sorted(FATAL)},
    }
    assert jobset()["spec"]["failurePolicy"]["rules"] == [
        {"name": "fatal", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    ]


def test_the_command_of_the_jobset_exists():
    """Its words are a training's, with flags that there are."""
    words = jobset()["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"][0]["args"]
    path, entry = find(words)
    assert callable(load(entry).read("job train", words[len(path) :]))


@pytest.mark.skipif(shutil.which("sky") is None, reason="needs sky; .ci/run installs it")
def test_skypilot_reads_the_task(tmp_path):
    """SkyPilot takes the file, and refuses one with a field that it does not know, at the top and of the recovery."""
    python, text = Path(shutil.which("sky")).read_text().splitlines()[0].removeprefix("#!"), SKY.read_text()
    texts = [text, text.replace("num_nodes", "num_node"), text.replace("recover_on_exit_codes", "recover_on_exit_code")]
    done = subprocess.run(
        [python, "-c", READ_TASKS],
        input=json.dumps(texts),
        env={
            "HOME": str(tmp_path),
            "PATH": "/usr/bin:/bin",
            "SKYPILOT_DISABLE_USAGE_COLLECTION": "1",
            "IS_SKYPILOT_SERVER": "true",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    right, top, recovery = json.loads(done.stdout.splitlines()[-1])
    assert right == [1, True, "L4"]
    assert "did you mean 'num_nodes'" in top
    assert "recover_on_exit_code" in recovery


def test_the_task_starts_the_container_with_the_nodes(tmp_path):
    """The shell command of the task passes SkyPilot's variables, every GPU and the words of the training on."""
    programs = Programs(tmp_path)
    programs.add("docker")
    programs.add("gcloud")
    task = yaml.safe_load(SKY.read_text())
    given = {"BUCKET": "gs://b", "IMAGE": "us-docker.pkg.dev/p/r/job@sha256:0", "RUN": "zebra", "ARGUMENTS": "epochs=3"}
    given["SKYPILOT_NUM_GPUS_PER_NODE"] = "4"
    for part in ("setup", "run"):
        words = ["bash", "-c", task[part]]
        environment = {**task["envs"], **given, "PATH": programs.path}
        subprocess.run(words, env=environment, check=True, capture_output=True)
    assert programs.words("gcloud") == [["auth", "configure-docker", "--quiet", "us-docker.pkg.dev"]]
    pull, run = programs.words("docker")
    assert pull == ["pull", given["IMAGE"]]
    words = ["train", "--recipe", "A", "--bucket", "gs://b", "--device", "0,1,2,3", "--run", "zebra", "epochs=3"]
    assert run[run.index(given["IMAGE"]) + 1 :] == words
    assert [run[at + 1] for at, word in enumerate(run) if word == "--env"] == [
        f"SKYPILOT_{name}" for name in ("NUM_NODES", "NODE_RANK", "NODE_IPS")
    ]


@pytest.mark.parametrize("path", [JOBSET, SKY])
def test_a_file_is_a_screen_long(path):
    """A person sees all of it at once."""
    assert len(path.read_text().splitlines()) <= SCREEN
