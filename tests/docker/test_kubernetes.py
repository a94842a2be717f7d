"""The manifests of docker/kubernetes: each against Kubernetes' own schema, and all with each other."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from worker.settings import WorkerSettings

FOLDER = Path(__file__).parents[2] / "docker/kubernetes"
CUSTOM = {"ScaledObject"}  # of KEDA, whose schema Kubernetes does not have


def documents() -> list[dict[str, Any]]:
    files = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    return [document for file in files for document in yaml.safe_load_all((FOLDER / file).read_text())]


def named(kind: str) -> dict[str, dict[str, Any]]:
    return {d["metadata"]["name"]: d for d in documents() if d["kind"] == kind}


def pods() -> dict[str, dict[str, Any]]:
    return {name: d["spec"]["template"]["spec"] for kind in ("Deployment", "Job") for name, d in named(kind).items()}


def test_every_file_is_applied() -> None:
    applied = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    assert {*applied, "kustomization.yaml"} == {path.name for path in FOLDER.iterdir()}


@pytest.mark.parametrize("document", documents(), ids=lambda d: f"{d['kind']}-{d['metadata']['name']}")
def test_a_manifest_is_what_kubernetes_takes(document: dict[str, Any]) -> None:
    if document["kind"] in CUSTOM:
        assert document["apiVersion"] == "keda.sh/v1alpha1"
        return
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_nobody_is_root_or_writes_where_they_need_not() -> None:
    for name, pod in pods().items():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        (container,) = pod["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        (models,) = (mount for mount in container["volumeMounts"] if mount["name"] == "models")
        assert models.get("readOnly", False) == (name != "train")


def test_what_is_mounted_is_there() -> None:
    for pod in pods().values():
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == volumes.keys()
        claims = {v["persistentVolumeClaim"]["claimName"] for v in volumes.values() if "persistentVolumeClaim" in v}
        assert claims <= named("PersistentVolumeClaim").keys()


def test_workers_have_a_gpu_and_time_to_hand_back() -> None:
    worker = pods()["worker"]
    (container,) = worker["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    environment = {variable["name"]: variable["value"] for variable in container["env"]}
    assert worker["terminationGracePeriodSeconds"] >= float(environment["SCORESERVE_GRACE_SECONDS"]) + 15
    names = {f"SCORESERVE_{name}".upper() for name in WorkerSettings.model_fields}
    assert environment.keys() <= names | {"SCORESERVE_REDIS_URL_FILE"}


def test_who_asks_for_a_gpu_may_be_on_nodes_that_are_kept_for_those() -> None:
    for pod in pods().values():
        asks = "nvidia.com/gpu" in pod["containers"][0]["resources"]["limits"]
        tolerated = [one["key"] for one in pod.get("tolerations", []) if one["operator"] == "Exists"]
        assert tolerated == (["nvidia.com/gpu"] if asks else [])


def test_what_scales_is_the_workers_by_their_work() -> None:
    (scaled,) = named("ScaledObject").values()
    assert scaled["spec"]["scaleTargetRef"]["name"] in named("Deployment")
    assert "replicas" not in named("Deployment")["worker"]["spec"], "two would then say how many there are"
    (trigger,) = scaled["spec"]["triggers"]
    assert "scoreserve_queue_image_steps" in trigger["metadata"]["query"]
    assert float(trigger["metadata"]["threshold"]) > 0


def test_nobody_talks_to_whom_they_need_not() -> None:
    policies = {name: document["spec"] for name, document in named("NetworkPolicy").items()}
    assert policies["nobody"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    asks = {}
    for name in policies.keys() - {"nobody"}:
        selected = policies[name]["podSelector"]["matchLabels"]
        assert selected == named("Deployment")[name]["spec"]["template"]["metadata"]["labels"]
        (container,) = pods()[name]["containers"]
        asked = {port["port"] for rule in policies[name]["ingress"] for port in rule["ports"]}
        assert asked <= {port["name"] for port in container["ports"]}
        asks[name] = {port["port"] for rule in policies[name]["egress"] for port in rule["ports"]}
    assert asks == {"api": {53, 443, 6379, 6380}, "worker": {53, 6379, 6380}}, "training asks nobody"
