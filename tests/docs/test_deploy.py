"""The files in ``deploy/``: systemd checks its unit, where installed, and all name commands that exist."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
import yaml
from rq import Queue

from rqmem.cli import main
from tests.conftest import ROOT

DEPLOY = ROOT / "deploy"


def check_command(words: list[str]) -> None:
    """A command and its options are rqmem's."""
    name, *rest = words
    command = main.get_command(click.Context(main), name)
    assert command is not None, name
    known = {
        option for each in command.get_params(click.Context(command)) for option in (*each.opts, *each.secondary_opts)
    }
    assert {word for word in rest if re.match(r"--?[a-z]", word)} <= known


def test_the_unit_passes_systemds_own_check(tmp_path: Path) -> None:
    unit = (DEPLOY / "rqmem-pool.service").read_text()
    [start] = re.findall(r"^ExecStart=\S+/rqmem (.*)$", unit, re.MULTILINE)
    check_command(start.split())
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze on PATH")
    here = tmp_path / "rqmem-pool.service"
    here.write_text(unit.replace("/srv/app/.venv/bin/rqmem", "/bin/true").replace("User=jobs", "User=root"))
    done = subprocess.run(["systemd-analyze", "verify", str(here)], capture_output=True, text=True)
    told = [line for line in done.stderr.splitlines() if "rqmem-pool" in line]
    assert done.returncode == 0 and not told, done.stderr


def test_the_compose_file_names_commands_that_exist() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    for name in ("workers", "exporter"):
        service = compose["services"][name]
        check_command(service["command"])
        assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).exists()


def test_the_pod_has_memory_for_its_ceiling_and_probes_that_exist() -> None:
    deployment: dict[str, Any] = yaml.safe_load((DEPLOY / "kubernetes.yaml").read_text())
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    check_command(container["args"])
    ceiling = int(container["args"][container["args"].index("--memory") + 1])
    assert int(container["resources"]["limits"]["memory"].removesuffix("Mi")) >= ceiling + 32 + 60
    for probe in ("startupProbe", "livenessProbe"):
        *_, line = container[probe]["exec"]["command"]
        assert line.startswith("rqmem ") and "$POD_NAME" in line
        check_command(line.split()[1:])


def test_the_manifest_fits_kubernetes_own_schema() -> None:
    version = ".".join(kubernetes_validate.latest_version().split(".")[:2])
    deployment = yaml.safe_load((DEPLOY / "kubernetes.yaml").read_text())
    kubernetes_validate.validate(deployment, version, strict=True)
    deployment["spec"]["template"]["spec"]["terminationGracePeriod"] = 300
    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGracePeriod"):
        kubernetes_validate.validate(deployment, version, strict=True)


def test_keda_scales_what_there_is_by_the_queues_that_are_served() -> None:
    deployment = yaml.safe_load((DEPLOY / "kubernetes.yaml").read_text())
    spec = yaml.safe_load((DEPLOY / "keda.yaml").read_text())["spec"]
    assert spec["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert 1 <= spec["minReplicaCount"] < spec["maxReplicaCount"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    queues = container["args"][1 : container["args"].index("--memory")]
    assert [each["metadata"]["listName"] for each in spec["triggers"]] == [
        f"{Queue.redis_queue_namespace_prefix}{name}" for name in queues
    ]
    texts = [value for each in spec["triggers"] for value in each["metadata"].values()]
    assert all(isinstance(value, str) for value in texts), "KEDA takes metadata as text only"


def test_the_image_ends_as_a_user_without_rights() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    assert re.search(r"^USER jobs$", text, re.MULTILINE)
    check_command(re.findall(r'"([^"]+)"', re.findall(r"^CMD (.*)$", text, re.MULTILINE)[0]))
