"""The deployment files in export/: well-formed, and consistent with each other and with the exports."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from google.protobuf import text_format
from ruamel.yaml import YAML
from tensorflow_serving.config import model_server_config_pb2

EXPORT = Path(__file__).parents[2] / "export"


def documents(path):
    return list(YAML(typ="safe", pure=True).load_all((EXPORT / path).read_text()))


def test_the_models_configuration_is_one():
    config = text_format.Parse(
        (EXPORT / "config" / "models.config").read_text(), model_server_config_pb2.ModelServerConfig()
    )
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path) == ("psanet", "/models/psanet")
    assert model.model_version_policy.latest.num_versions == 2


def test_compose_files_name_files_that_are_there():
    (cpu,) = documents("docker-compose.cpu.yml")
    (gpu,) = documents("docker-compose.gpu.yml")
    assert set(gpu["services"]) <= set(cpu["services"])
    serving = cpu["services"]["serving"]
    for flag in serving["command"]:
        for name in re.findall(r"/config/([\w.]+)", flag):
            assert (EXPORT / "config" / name).is_file()
    # Nothing listens beyond this machine unless somebody decides so.
    for service in cpu["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    (prometheus,) = documents("config/prometheus.yml")
    path = prometheus["scrape_configs"][0]["metrics_path"]
    assert f'path: "{path}"' in (EXPORT / "config" / "monitoring.config").read_text()


@pytest.mark.skipif(
    shutil.which("docker") is None
    or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode != 0,
    reason="no docker compose here",
)
def test_compose_accepts_the_files():
    files = ["-f", EXPORT / "docker-compose.cpu.yml", "-f", EXPORT / "docker-compose.gpu.yml"]
    done = subprocess.run(["docker", "compose", *files, "config", "-q"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_manifest_hangs_together():
    items = {item["kind"]: item for item in documents("kubernetes/psanet.yaml")}
    assert set(items) == {
        "PersistentVolumeClaim",
        "Deployment",
        "Service",
        "HorizontalPodAutoscaler",
        "PodDisruptionBudget",
    }
    deployment = items["Deployment"]
    template = deployment["spec"]["template"]
    labels = template["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == items["Service"]["spec"]["selector"] == labels
    assert items["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    (container,) = template["spec"]["containers"]
    assert container["readinessProbe"]["httpGet"] == {"path": "/v1/models/psanet", "port": "rest"}
    assert container["resources"]["limits"]["cpu"] == container["resources"]["requests"]["cpu"]
    volumes = {volume["name"] for volume in template["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    (cpu,) = documents("docker-compose.cpu.yml")
    assert set(container["args"]) <= set(cpu["services"]["serving"]["command"])


BUILD_FILE = """
SUPPORTED_TENSORFLOW_OPS = if_v2([]) + if_not_v2([
    "@org_tensorflow//tensorflow/contrib:contrib_kernels",
]) + [
    "@org_tensorflow_text//tensorflow_text:ops_lib",
]

cc_library(
    name = "server_lib",
    deps = [] + SUPPORTED_TENSORFLOW_OPS,
)
"""


def link(path, target="//tensorflow_serving/custom_ops/psa_mask:psa_mask"):
    script = EXPORT / "custom_op" / "link_op.sh"
    return subprocess.run(["sh", script, path, target], capture_output=True, text=True)


def test_the_op_is_added_to_the_servers_ops(tmp_path):
    build = tmp_path / "BUILD"
    build.write_text(BUILD_FILE)
    assert link(build).returncode == 0
    # Bazel's language is close enough to Python to be run as that.
    found = {}
    names = {
        "if_v2": lambda x: x,
        "if_not_v2": lambda x: [],
        "cc_library": lambda name, deps: found.update({name: deps}),
    }
    exec(build.read_text(), names)
    assert found["server_lib"] == [
        "@org_tensorflow_text//tensorflow_text:ops_lib",
        "//tensorflow_serving/custom_ops/psa_mask:psa_mask",
    ]
    once = build.read_text()
    assert link(build).returncode == 0
    assert build.read_text() == once
    target = re.search(r'name = "(psa_mask)",', (EXPORT.parent / "custom_ops" / "BUILD").read_text())
    assert target and f"psa_mask:{target[1]}" in (EXPORT / "custom_op" / "Dockerfile").read_text()


def test_another_servers_build_file_is_refused(tmp_path):
    build = tmp_path / "BUILD"
    build.write_text("cc_library()\n")
    done = link(build)
    assert (done.returncode, "has no SUPPORTED_TENSORFLOW_OPS" in done.stderr) == (1, True)
    assert build.read_text() == "cc_library()\n"
