"""Reads the OpenAPI document: its operations, its references, and its shapes as JSON Schema."""

from smartflow.api.codes import CODES

METHODS = {"get", "put", "post", "delete", "patch", "options", "head", "trace"}


def operations(document, *, prefix="/"):
    """Yield the name and the content of each operation below a path."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if path.startswith(prefix) and method in METHODS:
                yield f"{method} {path}", operation


def resolve(document, node):
    """Return what stands behind a reference, or the node itself."""
    while "$ref" in node:
        found = document
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        node = found
    return node


def responses(document, operation):
    """Return an operation's answers by status, without references."""
    return {status: resolve(document, response) for status, response in operation["responses"].items()}


def error_codes(document, operation):
    """Return every error or informational code that an operation documents, by status."""
    found = {}
    for status, response in responses(document, operation).items():
        examples = response.get("content", {}).get("application/json", {}).get("examples", {})
        found[status] = {name for name in examples if name in CODES}
    return found


def as_json_schema(node):
    """Return an OpenAPI 3.0 shape as JSON Schema, which says `nullable` in another way."""
    if isinstance(node, list):
        return [as_json_schema(value) for value in node]
    if not isinstance(node, dict):
        return node
    converted = {key: as_json_schema(value) for key, value in node.items() if key != "nullable"}
    return {"anyOf": [converted, {"type": "null"}]} if node.get("nullable") is True else converted
