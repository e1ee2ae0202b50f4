"""What a user owns in the tests of foreign objects: one of each kind, each with words that only its owner may read."""

from django.apps import apps

from chat.models import ChatRun
from chat.operations import change_conversation, finish_run
from smartflow.accounts.models import User
from smartflow.kernel.clock import utc_now
from smartflow.web.app.undo import Undo
from tasks.models import TaskItem
from tasks.operations import complete_task
from tests.admin_rows import make_session
from tests.integration.chat.turns import RunState, another, ask, result, talk
from tests.memory_rows import add_deleted_memory, add_memory, by_user, turn_switch
from tests.task_rows import add_class, add_deleted_task, add_task


def secret_of(user) -> str:
    """Return the word that stands in every text of the user's."""
    return f"only-for-{user.username}"


def give_belongings(user) -> dict[str, object]:
    """Make one object of each kind and return their ids by the names that routes and recipes call them."""
    words, now = secret_of(user), utc_now()
    User.objects.filter(pk=user.pk).update(token_limit=100_000 + user.pk)
    conversation_id = talk(user, (f"Question {words}", f"Answer {words}"))
    change_conversation(user_id=user.pk, conversation_id=conversation_id, title=words)
    run_id = ChatRun.objects.get(chat__chat_id=conversation_id).pk
    another(user, run_id, answer=f"Other answer {words}")
    stopped = ask(user, f"Long question {words}")
    finish_run(run=stopped, result=result(f"Begin of {words}", state=RunState.STOPPED), now=now)
    done_task_id = add_task(user, f"Done {words}", now=now)
    complete_task(user_id=user.pk, task_id=done_task_id, now=now)
    task_class = add_class(user, f"First {words}", f"Second {words}", name=words)
    memory = {"title": f"Title {words}", "conversation_id": conversation_id, "by": by_user(user, f"Reason {words}")}
    # differently for each user
    turn_switch(user, memory_enabled=user.pk % 2 == 0)
    task_id = add_task(user, f"Open {words}", now=now)
    return {
        "conversation_id": conversation_id,
        "run_id": run_id,
        "stopped_run_id": stopped.run_id,
        "task_id": task_id,
        # what the page's toast keeps for taking a change back
        "undo": Undo(kind="change", task_id=task_id, before={"title": f"Before {words}"}).sign(user_id=user.pk),
        "done_task_id": done_task_id,
        "deleted_task_id": add_deleted_task(user, title=f"Deleted {words}", now=now),
        "task_class_id": task_class.id,
        "task_item_id": task_class.items[0].id,
        "memory_item_id": add_memory(user, f"Content {words}", **memory),
        "deleted_memory_item_id": add_deleted_memory(user, content=f"Deleted {words}", title=words),
        "session_id": make_session(user, user_agent=words).pk,
    }


def unknown(ids):
    """Return ids of the same kinds that nothing has."""
    return {
        name: 2_000_000_000 + number if isinstance(value, int) else f"00000000-0000-4000-8000-{number:012}"
        for number, (name, value) in enumerate(ids.items())
    }


def rows_of(user):
    """Return every row of the user's in any table."""
    found = {"users": list(User.objects.filter(pk=user.pk).values())}
    found["items"] = list(TaskItem.objects.filter(category__user_id=user.pk).order_by("pk").values())
    for model in apps.get_models():
        if not model._meta.proxy and any(field.attname == "user_id" for field in model._meta.concrete_fields):
            found[model._meta.label] = list(model._base_manager.filter(user_id=user.pk).order_by("pk").values())
    return found
