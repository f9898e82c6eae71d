"""TensorFlow Serving's messages about a model, and what requests say of which model they mean; for both protocols."""

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import any_pb2, json_format
from google.protobuf.message import Message

from psanet_tf.runtimes.errors import invalid_argument
from psanet_tf.runtimes.protos import serving_apis
from psanet_tf.serving.server.inference import ModelSpec
from psanet_tf.serving.server.servable import Servable
from psanet_tf.serving.server.versions import VersionConfig, VersionManager, VersionStatus

_STATES = {"LOADING": 20, "AVAILABLE": 30, "UNLOADING": 40, "END": 50}
_SIGNATURES = "signature_def"


def model_spec(request: Message) -> ModelSpec:
    """What a request's `model_spec` says.

    Raises:
        ServingError: INVALID_ARGUMENT, it is not there or has no name.
    """
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")
    spec = request.model_spec
    if not spec.name:
        raise invalid_argument("ModelSpec has no name specified.")
    version = spec.version.value if spec.HasField("version") else None
    return ModelSpec(spec.name, version, spec.version_label if spec.HasField("version_label") else None)


def status_response(statuses: Sequence[VersionStatus]) -> Message:
    """`GetModelStatusResponse` for a list of `VersionStatus`."""
    apis = serving_apis()
    response = apis.get_model_status_pb2.GetModelStatusResponse()
    for status in statuses:
        item = response.model_version_status.add(version=status.version, state=_STATES[status.state])
        codes = item.status.DESCRIPTOR.fields_by_name["error_code"].enum_type.values_by_name
        item.status.error_code = codes[status.error_code].number
        item.status.error_message = status.error_message
    return response


def check_metadata_fields(fields: Sequence[str]) -> None:
    """Compares what a metadata request wants to know with what there is: the signatures.

    Raises:
        ServingError: INVALID_ARGUMENT.
    """
    if not fields:
        raise invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
    for field in fields:
        if field != _SIGNATURES:
            raise invalid_argument(f"Metadata field {field} is not supported")


def metadata_response(name: str, servable: Servable) -> Message:
    """`GetModelMetadataResponse` with the signatures of a `Servable`."""
    response = serving_apis().get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name = name
    response.model_spec.version.value = servable.version
    packed = any_pb2.Any()
    packed.Pack(_signature_map(servable))
    response.metadata[_SIGNATURES].CopyFrom(packed)
    return response


def metadata_document(name: str, servable: Servable) -> dict[str, Any]:
    """The same for JSON, where the signatures stand without the name of their type."""
    spec = metadata_response(name, servable).model_spec
    return {"model_spec": to_document(spec), "metadata": {_SIGNATURES: to_document(_signature_map(servable))}}


def _signature_map(servable):
    signatures = serving_apis().get_model_metadata_pb2.SignatureDefMap()
    for key, definition in servable.signature_defs.items():
        signatures.signature_def[key].CopyFrom(definition)
    return signatures


def to_document(message: Message) -> dict[str, Any]:
    """A message for JSON, with the names of its definition and with fields that have their default."""
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def version_config(config: Message, versions: VersionManager) -> VersionConfig:
    """What a `ModelServerConfig` says of the one model that this server has.

    Raises:
        ServingError: INVALID_ARGUMENT, other models, another folder, or versions by a policy that is none.
    """
    if config.WhichOneof("config") != "model_config_list":
        raise invalid_argument(
            "ServerModelConfig type not supported by HandleReloadConfigRequest. "
            "Only ModelConfigList is currently supported"
        )
    models = config.model_config_list.config
    if len(models) != 1 or models[0].name != versions.name:
        raise invalid_argument(f"this server has one model, {versions.name}; the configuration must list just that")
    (model,) = models
    if not versions.is_base_path(model.base_path):
        raise invalid_argument(f"this server has one folder, {versions.base_path}, not {model.base_path}")
    policy = model.model_version_policy
    kind = policy.WhichOneof("policy_choice")
    labels: Mapping[str, int] = dict(model.version_labels)
    if kind == "all":
        return VersionConfig(latest=None, labels=labels)
    if kind == "specific":
        if not policy.specific.versions:
            raise invalid_argument("model_version_policy.specific names no versions")
        return VersionConfig(specific=tuple(policy.specific.versions), labels=labels)
    return VersionConfig(latest=policy.latest.num_versions or 1, labels=labels)
