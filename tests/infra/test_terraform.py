"""Terraform on the configuration: format, schema, rules, apply and destroy."""

import json
import re
import shutil
import subprocess
import zipfile

import pytest

from tests.support.cli_process import ROOT, TIMEOUT_S
from tests.support.terraform import STUB, Infrastructure, needs_terraform

KEY = "k" * 40
INFRA = ROOT / "infra"
LOCK = ".terraform.lock.hcl"


@needs_terraform
def test_the_configuration_is_valid_and_keeps_its_rules(tmp_path):
    """Format, schema and every rule in infra/tests hold, and none of the rules is left out."""
    done = Infrastructure(tmp_path).provision("test", "-no-color")
    assert done.returncode == 0, done.stdout + done.stderr
    rules = re.findall(r'^run "(\w+)"', "".join(path.read_text() for path in INFRA.glob("tests/*.hcl")), re.MULTILINE)
    assert f"{len(rules)} passed, 0 failed" in done.stdout


@needs_terraform
def test_the_lock_file_is_of_the_provider_that_is_tested():
    """The version that is installed is the one whose schema the rules are tested against, within the range."""
    tested = json.loads((STUB.parent.parent / "data/schema.json").read_text())["provider_version"]
    lock = (INFRA / LOCK).read_text()
    assert re.findall(r'^  version     = "(.*)"', lock, re.MULTILINE) == [tested]
    (constraint,) = re.findall(r'^  constraints = "(.*)"', lock, re.MULTILINE)
    assert f'version = "{constraint}"' in (INFRA / "versions.tf").read_text()


@needs_terraform
def test_a_provider_that_is_not_in_the_lock_file_is_refused(tmp_path, monkeypatch):
    """An archive under the provider's name and version is not installed if its checksum is another one."""
    infrastructure = Infrastructure(tmp_path)
    shutil.copy(INFRA / LOCK, infrastructure.folder)
    folder = tmp_path / "mirror/registry.terraform.io/hashicorp/google"
    folder.mkdir(parents=True)
    system = json.loads(infrastructure.run("terraform", "version", "-json").stdout)["platform"]
    with zipfile.ZipFile(folder / f"terraform-provider-google_6.50.0_{system}.zip", "w") as archive:
        archive.writestr("terraform-provider-google_v6.50.0_x5", "not the provider")
    settings = tmp_path / "terraform.tfrc"
    settings.write_text(f'provider_installation {{\n  filesystem_mirror {{ path = "{tmp_path / "mirror"}" }}\n}}\n')
    monkeypatch.setenv("TF_CLI_CONFIG_FILE", str(settings))
    done = infrastructure.provision("plan", "-no-color")
    assert done.returncode == 1
    assert "Failed to install provider" in done.stderr
    assert "dependency-lock#checksum-verification" in done.stderr


def test_each_validation_is_tested_by_a_value_that_it_refuses():
    """Every variable that is validated has a run that expects it to fail."""
    variables = re.split(r'^variable "', (INFRA / "variables.tf").read_text(), flags=re.MULTILINE)[1:]
    validated = {text.partition('"')[0] for text in variables if "validation {" in text}
    refused = re.findall(r"expect_failures = \[var\.(\w+)\]", (INFRA / "tests/validation.tftest.hcl").read_text())
    assert {text.partition('"')[0] for text in variables} == validated == set(refused)


def test_the_example_of_the_variables_names_all_but_secrets():
    """terraform.tfvars.example has every variable, and does not suggest to write a secret into a file."""
    example = re.findall(r"^#? ?(\w+) +=", (INFRA / "terraform.tfvars.example").read_text(), re.MULTILINE)
    variables = re.findall(r'^variable "(\w+)"', (INFRA / "variables.tf").read_text(), re.MULTILINE)
    assert set(example) == set(variables) - {"wandb_api_key", "notify_url"}


@needs_terraform
def test_applying_writes_what_job_reads(applied):
    """After an apply outputs.json holds where everything is, whether job, make or a person asks."""
    outputs = {
        name: output["value"] for name, output in json.loads((applied.folder / "outputs.json").read_text()).items()
    }
    assert outputs.keys() == {
        *(
            "project",
            "region",
            "bucket",
            "archive",
            "image_repository",
            "runtime_service_account",
            "submitter_service_account",
        ),
        *("network", "subnetwork", "wandb_secret", "group", "vm_machine_type"),
        *("supervisor", "supervisor_service_account", "boot_image"),
    }
    assert (outputs["project"], outputs["bucket"]) == ("demo-project", "gs://demo-project-yolo-train")


@needs_terraform
def test_nothing_lets_anything_into_the_network(applied):
    """No firewall rule or policy is made, and without one the network lets nothing in."""
    kinds = {address.split(".")[0] for address in applied.run("terraform", "state", "list").stdout.split()}
    assert "google_compute_network" in kinds
    assert [kind for kind in kinds if "firewall" in kind or "security_policy" in kind] == []


@needs_terraform
def test_the_key_is_kept_in_no_file(applied):
    """After an apply the key stands in no file that Terraform or the script wrote."""
    written = [path for path in applied.folder.rglob("*") if path.is_file() and ".terraform" not in path.parts]
    assert applied.folder / "terraform.tfstate" in written
    assert [path for path in written if KEY in path.read_text(errors="replace")] == []


@needs_terraform
@pytest.mark.parametrize("bucket", ["google_storage_bucket.runs", "google_storage_bucket.archive[0]"])
def test_terraform_refuses_to_destroy_a_bucket(applied, bucket):
    """A `terraform destroy` that takes a bucket in stops before it touches anything."""
    done = applied.run("terraform", "destroy", f"-target={bucket}", "-auto-approve", "-no-color")
    assert done.returncode == 1
    assert f"Resource {bucket} has lifecycle.prevent_destroy set" in done.stderr
    assert "Destroying..." not in done.stdout


@needs_terraform
def test_an_archive_that_is_no_longer_named_is_not_destroyed(applied):
    """Without the variable Terraform refuses to plan, instead of destroying the archive."""
    done = applied.run("terraform", "plan", "-no-color")
    assert done.returncode == 1
    assert "Resource google_storage_bucket.archive[0] has lifecycle.prevent_destroy set" in done.stderr


@needs_terraform
def test_infra_destroy_keeps_the_bucket_and_an_apply_takes_it_up_again(tmp_path):
    """`make infra-destroy` destroys everything but the buckets and the services, as often as it is run, and the next
    apply makes the rest anew around the same bucket.
    """
    infrastructure = Infrastructure(tmp_path)
    with (infrastructure.folder / "terraform.tfvars").open("a") as settings:
        settings.write('archive = "demo-archive"\n')
    everything = applied_addresses(infrastructure)
    for _ in range(2):
        done = infrastructure.provision("destroy", "-auto-approve", "-no-color")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "bucket is kept" in done.stdout
        kept = addresses(infrastructure)
        assert {address.partition("[")[0] for address in kept} == {
            "google_storage_bucket.runs",
            "google_storage_bucket.archive",
            "google_project_service.api",
        }
        assert not (infrastructure.folder / "outputs.json").exists()
    before = bucket_of(infrastructure)
    assert applied_addresses(infrastructure) == everything
    assert bucket_of(infrastructure) == before


@needs_terraform
def test_an_apply_leaves_a_machine_alone_that_trains(tmp_path):
    """After `make vm-up` gave the group a machine and something to train, an apply would change nothing."""
    infrastructure = Infrastructure(tmp_path)
    applied_addresses(infrastructure)
    state = infrastructure.folder / "terraform.tfstate"
    content = json.loads(state.read_text())
    (group,) = [
        entry for entry in content["resources"] if entry["type"] == "google_compute_region_instance_group_manager"
    ]
    attributes = group["instances"][0]["attributes"]
    attributes["target_size"] = 1
    attributes["all_instances_config"] = [{"labels": None, "metadata": {"trainer-command": "train --recipe A"}}]
    state.write_text(json.dumps(content))
    done = infrastructure.provision("plan", "-detailed-exitcode", "-no-color")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No changes." in done.stdout


@pytest.mark.skipif(shutil.which("checkov") is None, reason="needs checkov; .ci/run installs it")
def test_a_static_check_finds_nothing_that_is_not_explained():
    """Checkov finds nothing, and each of its checks that is passed over has its reason beside it."""
    command = ["checkov", "--directory", INFRA, "--framework", "terraform", "--output", "json", "--skip-download"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    results = json.loads(done.stdout)["results"]
    assert [check["check_id"] for check in results["failed_checks"]] == []
    assert len(results["passed_checks"]) > 20
    reasons = re.findall(r"#checkov:skip=(\w+):(.*)", "".join(path.read_text() for path in INFRA.glob("*.tf")))
    assert {check["check_id"] for check in results["skipped_checks"]} == {name for name, _ in reasons}
    assert all(len(reason.split()) > 5 for _, reason in reasons)


def applied_addresses(infrastructure):
    """Apply, and return what there is then."""
    done = infrastructure.provision("apply", "-auto-approve", "-no-color")
    assert done.returncode == 0, done.stdout + done.stderr
    return addresses(infrastructure)


def addresses(infrastructure):
    """Return the addresses in the state."""
    return infrastructure.run("terraform", "state", "list").stdout.split()


def bucket_of(infrastructure):
    """Return what the state says of the bucket."""
    return infrastructure.run("terraform", "state", "show", "-no-color", "google_storage_bucket.runs").stdout
