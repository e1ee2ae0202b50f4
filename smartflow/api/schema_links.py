"""Says which routes an answer leads to: a route names them, the document writes them as OpenAPI links."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

Method = TypeVar("Method", bound=Callable[..., Any])


@dataclass(frozen=True)
class Link:
    """A route that takes something of an answer; expressions are OpenAPI's, such as `$response.body#/data/id`."""

    operation_id: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)


def leads_to(*links: Link) -> Callable[[Method], Method]:
    """Name the routes that the success of one method of a view leads to."""

    def mark(method: Method) -> Method:
        method.links = links  # type: ignore[attr-defined]
        return method

    return mark


def write_links(links: tuple[Link, ...]) -> dict[str, Any]:
    """Return links as OpenAPI writes them."""
    return {link.operation_id: _written(link) for link in links}


def _written(link: Link) -> dict[str, Any]:
    written: dict[str, Any] = {"operationId": link.operation_id}
    if link.parameters:
        written["parameters"] = dict(link.parameters)
    if link.body:
        written["requestBody"] = dict(link.body)
    return written
