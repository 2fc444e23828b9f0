"""Compose file, image and Kubernetes manifests: valid, in step with the code, and closed down."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from deploy.kubernetes.render import PARTITIONS, rendered
from stream_app.monitoring.endpoint import metrics_port
from stream_app.roles import ROLE_INPUTS, ROLES, SINGLE_ROLES
from stream_app.settings import ENV_PREFIX, KafkaSettings, Settings

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
BIN = Path(sys.executable).parent
KUBERNETES_VERSION = "1.34"
PIN = re.compile(r"^([a-z0-9-]+)==(\S+)", re.MULTILINE)


def compose() -> dict[str, Any]:
    """The compose file, its anchors filled in."""
    made: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return made


def documents(name: str) -> list[dict[str, Any]]:
    """The objects of one manifest."""
    return [one for one in yaml.safe_load_all((KUBERNETES / name).read_text()) if one is not None]


def pods() -> dict[str, dict[str, Any]]:
    """The pod specification of everything that runs pods, by name."""
    found = [one for name in ("config.yaml", "roles.yaml", "serve.yaml") for one in documents(name)]
    return {
        one["metadata"]["name"]: one["spec"]["template"]["spec"] for one in found if "template" in one.get("spec", ())
    }


def run_tool(*arguments: str | Path) -> None:
    """Run a linter, which must find nothing."""
    done = subprocess.run([str(BIN / arguments[0]), *map(str, arguments[1:])], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_compose_file_fits_the_schema() -> None:
    run_tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml")


def test_the_image_is_built_as_it_should() -> None:
    run_tool("hadolint", "deploy/Dockerfile")
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    assert "--require-hashes" in text
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)


def test_the_manifests_fit_the_schema() -> None:
    # All but the scaling, which is of a kind that KEDA brings.
    files = [KUBERNETES / name for name in ("config.yaml", "roles.yaml", "serve.yaml", "network.yaml")]
    run_tool("kubernetes-validate", "--strict", "--kubernetes-version", KUBERNETES_VERSION, *files)


def test_the_image_has_the_versions_that_are_tested_with() -> None:
    ours = dict(PIN.findall((ROOT / "requirements.lock").read_text()))
    image = dict(PIN.findall((ROOT / "deploy" / "requirements.lock").read_text()))
    assert image.items() <= ours.items()
    assert "pytest" not in image


def test_compose_runs_every_role_and_asks_it_at_its_port() -> None:
    services = compose()["services"]
    for role in ROLES:
        assert services[role]["command"] == ["worker", role]
        assert f":{metrics_port(9400, role, 0)}/readyz" in services[role]["healthcheck"]["test"][-1]
    assert services["encode-gpu"]["profiles"] == ["gpu"]
    assert services["encode-gpu"]["command"] == services["encode"]["command"]


def test_compose_keeps_three_copies_and_waits_for_two() -> None:
    services = compose()["services"]
    for number in ("1", "2", "3"):
        environment = services[f"kafka-{number}"]["environment"]
        assert environment["KAFKA_NODE_ID"] == number
        assert (environment["KAFKA_DEFAULT_REPLICATION_FACTOR"], environment["KAFKA_MIN_INSYNC_REPLICAS"]) == ("3", "2")
    assert services["sequence"]["environment"]["SLICEFLOW_REPLICATION"] == "3"


def test_compose_opens_nothing_beyond_this_machine_and_writes_to_volumes_alone() -> None:
    for name, service in compose()["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["cap_drop"] == ["ALL"], name
        assert "privileged" not in service, name
        if not name.startswith("kafka"):  # its image writes its configuration beside its programs
            assert service["read_only"] is True, name


def test_only_settings_that_exist_are_set() -> None:
    known = {ENV_PREFIX + name.upper() for name in Settings.__struct_fields__}
    known |= {f"{ENV_PREFIX}KAFKA_{name.upper()}" for name in KafkaSettings.__struct_fields__}
    known |= {ENV_PREFIX + "CONFIG"}
    texts = [ROOT / "docker-compose.yml", ROOT / "deploy" / "Dockerfile", *KUBERNETES.glob("*.yaml")]
    for path in texts:
        named = set(re.findall(r"(?<![{\w])(SLICEFLOW_[A-Z_]+)(?=[:=]|\n)", path.read_text()))
        named |= set(re.findall(r"name: (SLICEFLOW_[A-Z_]+)", path.read_text()))
        assert named <= known, path.name


def test_the_rendered_manifests_are_up_to_date() -> None:
    for name, text in rendered().items():
        assert (KUBERNETES / name).read_text() == text, "run: python -m deploy.kubernetes.render"


def test_every_role_has_its_workers_with_a_volume_each_and_probes() -> None:
    roles = documents("roles.yaml")
    sets = {one["metadata"]["name"]: one["spec"] for one in roles if one["kind"] == "StatefulSet"}
    assert list(sets) == list(ROLES)
    for role, spec in sets.items():
        container = spec["template"]["spec"]["containers"][0]
        assert container["args"] == ["worker", role]
        assert container["ports"][0]["containerPort"] == metrics_port(9400, role, 0)
        assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(container)
        assert spec["volumeClaimTemplates"][0]["spec"]["accessModes"] == ["ReadWriteOnce"]
        assert (spec["replicas"] == 1) == (role in SINGLE_ROLES)
    budgets = [one["metadata"]["name"] for one in roles if one["kind"] == "PodDisruptionBudget"]
    assert budgets == list(ROLES)


def test_no_pod_is_root_or_writes_to_its_image_or_holds_a_token() -> None:
    assert set(pods()) == {"topics", "serve", *ROLES}
    for name, spec in pods().items():
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["automountServiceAccountToken"] is False, name
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert "memory" in container["resources"]["limits"], name


def test_scaling_follows_the_lag_of_the_roles_own_group_up_to_its_partitions() -> None:
    scaled = {one["spec"]["scaleTargetRef"]["name"]: one["spec"] for one in documents("scaling.yaml")}
    assert set(scaled) == set(ROLES) - SINGLE_ROLES
    (settings,) = [one["data"] for one in documents("config.yaml") if one["kind"] == "ConfigMap"]
    assert settings["SLICEFLOW_PARTITIONS"] == str(PARTITIONS)
    for role, spec in scaled.items():
        (trigger,) = spec["triggers"]
        assert trigger["type"] == "kafka"
        assert trigger["metadata"]["topic"] == ROLE_INPUTS[role]
        assert trigger["metadata"]["consumerGroup"] == f"sliceflow-{role}"
        assert spec["maxReplicaCount"] == PARTITIONS
