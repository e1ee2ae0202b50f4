"""How each operation is aimed at an object of another user: what a new route must be given here.

A text in braces stands for an id of the owner's belongings ("{task_id}"), with `my_` before its name for one of the
asker's own. Parameters of a path are filled in by their names, or by what `path` calls them.

Hidden     the object does not exist to others: the answer is word for word that for an id that nothing has
Silent     the answer is 200 by design, and yet word for word that for an id that nothing has; say by which design
OwnRead    names no object: the asker is answered as if the other user had nothing
OwnWrite   names no object: it succeeds, and nothing of the other user's is changed or told
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One request."""

    query: dict[str, Any] = field(default_factory=dict)
    body: Any = None
    path: dict[str, str] = field(default_factory=dict)
    # Of a view that is a function: its operation tells no method.
    method: str = ""


@dataclass(frozen=True, kw_only=True)
class Hidden(Recipe):
    """`code` is the envelope's; a page has no envelope, and the status that belongs to the code."""

    code: str


@dataclass(frozen=True, kw_only=True)
class Silent(Recipe):
    """`because` names the design."""

    because: str


@dataclass(frozen=True, kw_only=True)
class OwnRead(Recipe):
    """A list, or the asker's own single object."""


@dataclass(frozen=True, kw_only=True)
class OwnWrite(Recipe):
    """A new object, or a change of the asker's own."""


CONVERSATION = {"conversation_id": "{conversation_id}"}
_CONFIG = {"total_slots": 5}
_CLASS = {"name": "Mine now", "mode": "manual", "config": _CONFIG}
_MEMORY = {"memory_type": "fact", "title": "Mine", "content": "Mine"}
# Notes of where an item comes from: looked up nowhere.
_SOURCE = {"run_id": "{run_id}", "assistant_id": "{run_id}"}
_OF_MEMORY = {"item_id": "memory_item_id"}
_NEW_ITEMS = [{"order": 1, "content": "Mine now"}]

_FORM = {"title": "Mine now", "deadline_at": "", "estimated_sections": ""}


def _of_page(**request):
    """Return the recipe of what the page does to one task."""
    return Hidden(code="40050", method="POST", **request)


RECIPES: dict[str, tuple[Recipe, ...]] = {
    # --- accounts ---
    "POST /api/v1/user/logout": (OwnWrite(),),
    "GET /api/v1/user/me": (OwnRead(),),
    "PATCH /api/v1/user/me": (OwnWrite(body={"time_zone": "Europe/Berlin"}),),
    "GET /api/v1/user/quota": (OwnRead(),),
    "GET /api/v1/user/sessions": (OwnRead(),),
    "POST /api/v1/user/sessions/end-all": (OwnWrite(body={"keep_current": False}),),
    "DELETE /api/v1/user/sessions/{session_id}": (Hidden(code="40400"),),
    # --- tasks ---
    "POST /api/v1/task/create": (OwnWrite(body={"title": "Mine", "priority_group": 1}),),
    "GET /api/v1/task/get": (
        OwnRead(),
        OwnRead(query={"keyword": "only-for", "limit": 200}),
        OwnRead(query={"completed": "true", "sort": "deadline"}),
    ),
    "POST /api/v1/task/batch-status": (
        Silent(
            body={"ids": ["{task_id}", "{done_task_id}", "{deleted_task_id}"]},
            because="an old page asks for many at once: what is not the asker's is left out",
        ),
        Silent(body={"ids": ["{my_task_id}", "{done_task_id}"]}, because="the same among the asker's own"),
    ),
    "PUT /api/v1/task/update": (Hidden(code="40050", body={"task_id": "{task_id}", "title": "Mine now"}),),
    "PUT /api/v1/task/complete": (
        Hidden(code="40050", body={"task_id": "{task_id}"}),
        Hidden(code="40050", body={"task_id": "{done_task_id}"}),
    ),
    "PUT /api/v1/task/undo-complete": (Hidden(code="40050", body={"task_id": "{done_task_id}"}),),
    "DELETE /api/v1/task/delete": tuple(
        Silent(**{place: {"task_id": "{task_id}"}}, because="deleting is idempotent: 10003 says that nothing is there")
        for place in ("query", "body")
    ),
    "POST /api/v1/task/restore": (Hidden(code="40050", body={"task_id": "{deleted_task_id}"}),),
    # --- task classes ---
    "POST /api/v1/task-class/add": (OwnWrite(body={**_CLASS, "items": _NEW_ITEMS}),),
    "GET /api/v1/task-class/list": (OwnRead(),),
    "GET /api/v1/task-class/get": (Hidden(code="40020", query={"task_class_id": "{task_class_id}"}),),
    "PUT /api/v1/task-class/update": (
        Hidden(code="40020", body={**_CLASS, "task_class_id": "{task_class_id}", "items": _NEW_ITEMS}),
        Hidden(
            code="40048",
            body={
                **_CLASS,
                "task_class_id": "{my_task_class_id}",
                "items": [{"id": "{task_item_id}", "order": 1, "content": "Mine now"}],
            },
        ),
    ),
    "DELETE /api/v1/task-class/delete-item": (Hidden(code="40036", query={"task_item_id": "{task_item_id}"}),),
    "DELETE /api/v1/task-class/delete-class": (Hidden(code="40040", query={"task_class_id": "{task_class_id}"}),),
    # --- chat ---
    "POST /api/v1/agent/chat": (
        Hidden(code="40401", body={"message": "Go on", **CONVERSATION}),
        OwnWrite(body={"message": "Something new"}),
    ),
    "GET /api/v1/agent/runs/{run_id}/events": (Hidden(code="40402"), Hidden(code="40402", query={"after": "1-1"})),
    "POST /api/v1/agent/runs/{run_id}/stop": (Hidden(code="40402"),),
    "POST /api/v1/agent/runs/{run_id}/regenerate": (Hidden(code="40402"),),
    "POST /api/v1/agent/runs/{run_id}/continue": (Hidden(code="40402", path={"run_id": "stopped_run_id"}),),
    "GET /api/v1/agent/runs/{run_id}/variants": (Hidden(code="40402"),),
    "POST /api/v1/agent/runs/{run_id}/select": (Hidden(code="40402"),),
    "GET /api/v1/agent/conversation-meta": (Hidden(code="40401", query=CONVERSATION),),
    "GET /api/v1/agent/conversation-list": (OwnRead(), OwnRead(query={"status": "active", "limit": 100})),
    "GET /api/v1/agent/conversation-timeline": (
        Hidden(code="40401", query=CONVERSATION),
        Hidden(code="40401", query={**CONVERSATION, "after_seq": 0}),
    ),
    "GET /api/v1/agent/context-stats": (Hidden(code="40401", query=CONVERSATION),),
    "PATCH /api/v1/agent/conversations/{conversation_id}": (
        Hidden(code="40401", body={"title": "Mine now"}),
        Hidden(code="40401", body={"status": "archived"}),
    ),
    "DELETE /api/v1/agent/conversations/{conversation_id}": (Hidden(code="40401"),),
    # --- memory ---
    "GET /api/v1/memory/items": (
        OwnRead(),
        OwnRead(query={"statuses": "active,archived,deleted", "limit": 100}),
        Silent(
            query=CONVERSATION, because="of another's conversation the asker has no items: the global ones are left"
        ),
    ),
    "POST /api/v1/memory/items": (
        OwnWrite(body=_MEMORY),
        Hidden(code="40401", body={**_MEMORY, **CONVERSATION, **_SOURCE}),
    ),
    "GET /api/v1/memory/items/{item_id}": (Hidden(code="40055", path=_OF_MEMORY),),
    "PATCH /api/v1/memory/items/{item_id}": (
        Hidden(code="40055", path=_OF_MEMORY, body={"title": "Mine now"}),
        Hidden(code="40401", path={"item_id": "my_memory_item_id"}, body={**CONVERSATION, **_SOURCE}),
    ),
    "DELETE /api/v1/memory/items/{item_id}": (Hidden(code="40055", path=_OF_MEMORY),),
    "POST /api/v1/memory/items/{item_id}/restore": (
        Hidden(code="40055", path=_OF_MEMORY),
        Hidden(code="40055", path={"item_id": "deleted_memory_item_id"}),
    ),
    "GET /api/v1/memory/settings": (OwnRead(),),
    "PATCH /api/v1/memory/settings": (OwnWrite(body={"sensitive_memory_enabled": True}),),
    # --- the page ---
    "* /app/": (
        OwnRead(),
        Silent(query={"edit": "{task_id}"}, because="an address that was kept: the page is shown without an editor"),
    ),
    "* /app/quadrants": (OwnRead(),),
    "GET /app/events": (OwnRead(query={"after": ""}),),
    "* /app/tasks/add": (OwnWrite(method="POST", body={**_FORM, "quadrant": "1"}),),
    "* /app/tasks/undo": (Hidden(code="40005", method="POST", body={"undo": "{undo}"}),),
    "* /app/tasks/{task_id}/editor": (Hidden(code="40050"),),
    "* /app/tasks/{task_id}/edit": (_of_page(body=_FORM),),
    "* /app/tasks/{task_id}/move": (_of_page(body={"quadrant": "1"}),),
    "* /app/tasks/{task_id}/complete": (_of_page(),),
    "* /app/tasks/{task_id}/reopen": (_of_page(path={"task_id": "done_task_id"}),),
    "* /app/tasks/{task_id}/delete": (_of_page(),),
    "* /app/sign-out": (OwnWrite(method="POST"),),
    "* /app/token": (OwnWrite(method="POST"),),
}

# Operations without objects of a user, open to everybody, and why they may be.
WITHOUT_OBJECTS = {
    "GET /": "leads to the page",
    "POST /": "leads to the page",
    "PUT /": "leads to the page",
    "PATCH /": "leads to the page",
    "DELETE /": "leads to the page",
    "GET /health": "tells how the installation is",
    "GET /health/live": "tells how the installation is",
    "GET /health/ready": "tells how the installation is",
    "GET /api/v1/health": "tells how the installation is",
    "* /metrics": "numbers of the installation, for the scraper's token alone",
    "GET /api/schema/": "documents the routes",
    "GET /api/docs/": "documents the routes",
    "GET /api/redoc/": "documents the routes",
    "* /app/sign-in": "who knows the password is the user",
    "* /app/sign-up": "makes an account; that a name is taken must be told",
    "* /app/language": "keeps in the asker's browser which language to speak",
    "POST /api/v1/user/register": "makes an account; that a name is taken must be told",
    "POST /api/v1/user/login": "who knows the password is the user; a wrong one is answered as an unknown name",
    "POST /api/v1/user/refresh-token": "who has the token is the user",
}

WHAT_TO_ADD = """No recipe aims {operation} at another user's object.
Add "{operation}" in tests/integration/ownership/recipes.py:
 - to RECIPES, when it names an object or answers with rows of a user: one Hidden, Silent, OwnRead or OwnWrite for each
   way to name one; and what its owner has, if it is a new kind, to give_belongings in belongings.py;
 - to WITHOUT_OBJECTS with the reason, when everybody may ask and nothing in it belongs to anybody."""
