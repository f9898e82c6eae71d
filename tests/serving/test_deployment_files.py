"""The deployment files in export/: well-formed, and consistent with each other and with the exports."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest
from google.protobuf import text_format
from ruamel.yaml import YAML
from tensorflow_serving.config import model_server_config_pb2

EXPORT = Path(__file__).parents[2] / "export"


def documents(path):
    return list(YAML(typ="safe", pure=True).load_all((EXPORT / path).read_text()))


def server_commands():
    """File -> arguments of the model server in it."""
    commands = {}
    for name in ("docker-compose.cpu.yml", "docker-compose.gpu.yml"):
        (document,) = documents(name)
        commands[name] = document["services"]["serving"]["command"]
    for name in ("psanet.yaml", "psanet-gpu.yaml"):
        (deployment,) = [item for item in documents(f"kubernetes/{name}") if item["kind"] == "Deployment"]
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        commands[name] = container["args"]
    (service,) = documents("kubernetes/kserve.yaml")
    commands["kserve.yaml"] = service["spec"]["predictor"]["model"]["args"]
    return commands


COMMANDS = server_commands()


@pytest.mark.parametrize("file", COMMANDS)
def test_the_model_server_knows_every_flag(file):
    lines = (Path(__file__).parent / "model_server_flags.txt").read_text().splitlines()
    known = {line for line in lines if not line.startswith("#")}
    assert len(known) == 48
    flags = {re.fullmatch(r"--(\w+)=.+", argument)[1] for argument in COMMANDS[file]}
    assert flags <= known
    for argument in COMMANDS[file]:
        for name in re.findall(r"/config/([\w.]+)", argument):
            assert (EXPORT / "config" / name).is_file()


def limits(file):
    """(processors, GB of memory) that a file gives its server."""
    if not file.startswith("docker-compose"):
        found = containers(file)[0]["resources"]["limits"]
        return found["cpu"], int(found["memory"].removesuffix("Gi"))
    # The GPU file lies on top of the CPU file.
    found = {}
    for name in ("docker-compose.cpu.yml", file):
        (document,) = documents(name)
        found |= document["services"]["serving"]["deploy"]["resources"].get("limits", {})
    return found["cpus"], int(found["memory"].removesuffix("g"))


@pytest.mark.parametrize("file", COMMANDS)
def test_threads_are_as_many_as_the_limit(file):
    command = dict(argument.removeprefix("--").split("=", 1) for argument in COMMANDS[file])
    threads = limits(file)[0]
    assert command["tensorflow_intra_op_parallelism"] == command["tensorflow_inter_op_parallelism"] == threads


@pytest.mark.parametrize("file", ["docker-compose.cpu.yml", "psanet.yaml", "kserve.yaml"])
def test_on_a_cpu_nothing_is_joined(file):
    assert not any("batching" in argument for argument in COMMANDS[file])


@pytest.mark.parametrize(
    ("cpu", "gpu"), [("docker-compose.cpu.yml", "docker-compose.gpu.yml"), ("psanet.yaml", "psanet-gpu.yaml")]
)
def test_with_a_gpu_there_is_memory_for_its_libraries_and_a_second_model(cpu, gpu):
    assert limits(gpu)[1] >= 2 * limits(cpu)[1]


@pytest.mark.parametrize("file", ["docker-compose.gpu.yml", "psanet-gpu.yaml"])
def test_on_a_gpu_only_models_that_say_so_are_joined(file):
    assert "--enable_per_model_batching_parameters=true" in COMMANDS[file]
    text = (EXPORT / "config" / "batching.config").read_text()
    # How requests are joined would hold for no model.
    assert re.findall(r"^(\w+) \{ value: \S+ \}", text, re.MULTILINE) == ["thread_pool_name", "num_batch_threads"]


@pytest.mark.parametrize(
    ("file", "models"), [("models.config", ["psanet"]), ("models.gpu.config", ["psanet", "psanet-pixels"])]
)
def test_models_are_served_in_the_versions_that_are_named(file, models):
    text = (EXPORT / "config" / file).read_text()
    config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig()).model_config_list.config
    assert [(model.name, model.base_path) for model in config] == [(name, f"/models/{name}") for name in models]
    # "latest" would unload the version that a label names when enough newer ones are there.
    assert all(list(model.model_version_policy.specific.versions) == [1] for model in config)


def test_compose_files_open_nothing_beyond_this_machine():
    (cpu,) = documents("docker-compose.cpu.yml")
    (gpu,) = documents("docker-compose.gpu.yml")
    assert set(gpu["services"]) <= set(cpu["services"])
    for service in cpu["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    serving = cpu["services"]["serving"]
    assert serving["user"].split(":")[0] not in ("0", "root")
    assert serving["read_only"] and serving["cap_drop"] == ["ALL"]
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


def containers(file):
    """The containers of every pod that a manifest describes."""
    found = []
    for item in documents(f"kubernetes/{file}"):
        if item["kind"] == "Deployment":
            found += item["spec"]["template"]["spec"]["containers"]
        elif item["kind"] == "InferenceService":
            found.append(item["spec"]["predictor"]["model"])
    return found


MANIFESTS = sorted(path.name for path in (EXPORT / "kubernetes").glob("*.yaml"))
SCHEMAS = json.loads((Path(__file__).parent / "kubernetes_schemas.json").read_text())


def check(item):
    jsonschema.Draft202012Validator(SCHEMAS[f"{item['apiVersion']}/{item['kind']}"]).validate(item)


@pytest.mark.parametrize("file", MANIFESTS)
def test_the_cluster_accepts_the_manifest(file):
    for item in documents(f"kubernetes/{file}"):
        check(item)


@pytest.mark.parametrize("file", MANIFESTS)
def test_a_wrong_manifest_is_told(file):
    """The schemas are cut down to what the manifests touch: they must still tell a wrong key and a wrong type."""

    def places(value):
        if isinstance(value, dict):
            yield value
            for item in value.values():
                yield from places(item)
        elif isinstance(value, list):
            for item in value:
                yield from places(item)

    found = 0
    for item in documents(f"kubernetes/{file}"):
        # Of these any key may be there.
        free = {"labels", "matchLabels", "annotations", "requests", "limits"}
        if item["kind"] == "Service":
            free.add("selector")
        for place in places(item["spec"]):
            if any(place is owner.get(name) for owner in places(item) for name in free):
                continue
            place["replica"] = 1
            with pytest.raises(jsonschema.ValidationError, match="'replica' was unexpected"):
                check(item)
            del place["replica"]
            found += 1
        item["spec"] = "text"
        with pytest.raises(jsonschema.ValidationError):
            check(item)
    assert found >= 6


def test_the_manifest_hangs_together():
    items = {item["kind"]: item for item in documents("kubernetes/psanet.yaml")}
    assert set(items) == {
        "PersistentVolumeClaim",
        "Deployment",
        "NetworkPolicy",
        "Service",
        "HorizontalPodAutoscaler",
        "PodDisruptionBudget",
    }
    deployment = items["Deployment"]
    assert items["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    with_gpu = {item["kind"]: item for item in documents("kubernetes/psanet-gpu.yaml")}
    assert with_gpu["Deployment"]["metadata"]["name"] != deployment["metadata"]["name"]
    assert with_gpu["Service"]["metadata"]["name"] != items["Service"]["metadata"]["name"]
    pods = [item["Deployment"]["spec"]["template"]["metadata"]["labels"] for item in (items, with_gpu)]

    def chosen(selector):
        return [selector.items() <= labels.items() for labels in pods]

    # Each deployment owns its pods alone: a selector that fits another's would count those for its own.
    assert chosen(deployment["spec"]["selector"]["matchLabels"]) == [True, False]
    assert chosen(with_gpu["Deployment"]["spec"]["selector"]["matchLabels"]) == [False, True]
    assert chosen(items["Service"]["spec"]["selector"]) == [True, True]
    assert chosen(with_gpu["Service"]["spec"]["selector"]) == [False, True]
    for kind, key in (("NetworkPolicy", "podSelector"), ("PodDisruptionBudget", "selector")):
        assert chosen(items[kind]["spec"][key]["matchLabels"]) == [True, True]


@pytest.mark.parametrize("file", ["psanet.yaml", "psanet-gpu.yaml"])
def test_pods_may_do_no_more_than_they_need(file):
    (deployment,) = [item for item in documents(f"kubernetes/{file}") if item["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    context = container["securityContext"]
    assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
    assert context["capabilities"] == {"drop": ["ALL"]}
    # The status of a model is 200 also when every version of it failed.
    assert container["readinessProbe"]["httpGet"] == {"path": "/v1/models/psanet/metadata", "port": "rest"}
    assert container["livenessProbe"]["grpc"] == {"port": 8500}
    assert "--enable_grpc_healthcheck_service=true" in container["args"]
    assert pod["terminationGracePeriodSeconds"] > int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes


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
