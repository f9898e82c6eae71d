"""Makes kubernetes_schemas.json: of the schemas of Kubernetes, KServe and JobSet what the manifests in export/ touch.

    python tests/serving/prune_schemas.py KUBERNETES_VALIDATE KSERVE_CRD JOBSET_CRD

KUBERNETES_VALIDATE is the folder of strict schemas of the PyPI package kubernetes-validate (v1.31.0-local-strict), the
others are the two projects' custom resource definitions. All keys beside one that a manifest has are kept, without what
is below them, so that a wrong key is told from a right one.
"""

import json
import sys
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
KEPT = ("type", "enum", "required", "additionalProperties", "x-kubernetes-int-or-string", "pattern", "oneOf", "anyOf")


def prune(schema, value, resolve):
    """The part of `schema` that `value` touches."""
    schema = resolve(schema)
    pruned = {key: schema[key] for key in KEPT if key in schema and not isinstance(schema[key], dict)}
    if "properties" in schema:
        properties = {key: {} for key in schema["properties"]}
        for key, item in value.items() if isinstance(value, dict) else ():
            if key in schema["properties"]:
                properties[key] = prune(schema["properties"][key], item, resolve)
        pruned |= {"properties": properties, "additionalProperties": False}
    elif isinstance(schema.get("additionalProperties"), dict):
        pruned["additionalProperties"] = {
            key: entry for key, entry in resolve(schema["additionalProperties"]).items() if key in ("type", "oneOf")
        }
    if "items" in schema and isinstance(value, list):
        parts = [prune(schema["items"], item, resolve) for item in value]
        pruned["items"] = merged(parts) if parts else {}
    for key in ("oneOf", "anyOf"):
        if key in pruned and not all("type" in part and len(part) <= 2 for part in pruned[key]):
            del pruned[key]
    return pruned


def merged(parts):
    """One schema for the items of a list, which touch different keys of it."""
    first = parts[0]
    for part in parts[1:]:
        for key, entry in part.get("properties", {}).items():
            if entry:
                there = first["properties"].get(key)
                first["properties"][key] = merged([there, entry]) if there else entry
        if part.get("items"):
            first["items"] = merged([first["items"], part["items"]]) if first.get("items") else part["items"]
    return first


def main():
    kubernetes, *resources = map(Path, sys.argv[1:])
    definitions = json.loads((kubernetes / "_definitions.json").read_text())["$defs"]

    def resolve(schema):
        while "$ref" in schema:
            schema = definitions[schema["$ref"].rpartition("/")[2]]
        return schema

    own = {}
    for path in resources:
        for document in YAML(typ="safe", pure=True).load_all(path.read_text()):
            if document and document["kind"] == "CustomResourceDefinition":
                for version in document["spec"]["versions"]:
                    kind = f"{document['spec']['group']}/{version['name']}/{document['spec']['names']['kind']}"
                    own[kind] = version["schema"]["openAPIV3Schema"]
    pruned = {}
    for path in sorted((ROOT / "export" / "kubernetes").glob("*.yaml")):
        for item in YAML(typ="safe", pure=True).load_all(path.read_text()):
            kind = f"{item['apiVersion']}/{item['kind']}"
            group, _, version = item["apiVersion"].rpartition("/")
            marks = {"group": group, "kind": item["kind"], "version": version}
            schema = own.get(kind) or next(
                entry for entry in definitions.values() if marks in entry.get("x-kubernetes-group-version-kind", [])
            )
            part = prune(schema, item, resolve)
            pruned[kind] = merged([pruned[kind], part]) if kind in pruned else part
    target = Path(__file__).with_name("kubernetes_schemas.json")
    target.write_text(json.dumps(pruned, sort_keys=True, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
