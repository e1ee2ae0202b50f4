"""Every route there is, asked by Alice for what is Bob's: it does not exist, and the answer gives nothing away.

The routes are read from the URL conf and from the raw ASGI routes; recipes.py says how to aim each one.
"""

import re

import pytest
from drf_spectacular.generators import SchemaGenerator

from outbox.models import OutboxMessage
from smartflow.api.codes import CODES
from smartflow.streams import Streams
from tests.integration.ownership.asking import Asker
from tests.integration.ownership.belongings import give_belongings, rows_of, secret_of, unknown
from tests.integration.ownership.recipes import (
    RECIPES,
    WHAT_TO_ADD,
    WITHOUT_OBJECTS,
    Hidden,
    OwnRead,
    OwnWrite,
    Recipe,
    Silent,
)
from tests.integration.ownership.routes import operations

pytestmark = pytest.mark.django_db
OPERATIONS = {str(operation): operation for operation in operations()}
IDENTIFIER = re.compile(r"(^|_)ids?$")


def cases(*kinds):
    """Return a parameter for each recipe of these kinds; raw routes read the database in threads of their own."""
    found = []
    for name, operation in OPERATIONS.items():
        marks = [pytest.mark.django_db(transaction=True)] if operation.is_raw else []
        for number, recipe in enumerate(RECIPES.get(name, ())):
            if isinstance(recipe, kinds):
                found.append(pytest.param(operation, recipe, id=f"{name} {number}", marks=marks))
    return found


def names_of(asker_ids, target_ids):
    return {**{f"my_{name}": value for name, value in asker_ids.items()}, **target_ids}


def test_every_operation_is_aimed_at_another_users_object_or_says_why_it_has_none():
    without = [WHAT_TO_ADD.format(operation=name) for name in OPERATIONS if name not in {**RECIPES, **WITHOUT_OBJECTS}]
    assert not without, "\n\n".join(without)


def test_no_recipe_is_left_of_an_operation_that_is_gone():
    assert sorted({*RECIPES, *WITHOUT_OBJECTS} - set(OPERATIONS)) == []
    assert sorted({*RECIPES} & {*WITHOUT_OBJECTS}) == []


def test_raw_asgi_serves_no_route_that_the_walk_does_not_know():
    known = {"LiveTasks", "RunRoutes", "serves"}
    assert {*Streams.serves.__code__.co_names} == known, "Give its routes to raw_operations in routes.py."
    assert {name for name, operation in OPERATIONS.items() if operation.is_raw} == {
        name for name in RECIPES if re.search(r"/agent/chat$|/(events|stop|regenerate|continue)$", name)
    }


def test_every_field_that_names_an_object_is_aimed_at():
    document = SchemaGenerator().get_schema(request=None, public=True)
    missed = []
    for path, methods in document["paths"].items():
        for method, described in methods.items():
            name = f"{method.upper()} {path}"
            taken = {field for field in _fields_of(described, document) if IDENTIFIER.search(field)}
            aimed = {field for recipe in RECIPES.get(name, ()) for field in _fields_aimed(recipe)}
            missed += [f"{name}: {field}" for field in sorted(taken - aimed - set(OPERATIONS[name].parameters))]
    assert missed == [], "No recipe in recipes.py gives these fields another user's id."


def _fields_of(described, document):
    """Return the names of an operation's query parameters and of its body's fields, at any depth."""
    yield from (parameter["name"] for parameter in described.get("parameters", ()) if parameter["in"] == "query")
    bodies = described.get("requestBody", {}).get("content", {})
    yield from _properties(bodies.get("application/json", {}).get("schema", {}), document)


def _properties(schema, document):
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    for name, inner in schema.get("properties", {}).items():
        yield name
        yield from _properties(inner, document)
    for inner in (schema.get("items", {}), *schema.get("allOf", ())):
        if inner:
            yield from _properties(inner, document)


def _fields_aimed(value):
    """Return the names of the fields that hold a placeholder of another user's belongings."""
    if isinstance(value, Recipe):
        yield from _fields_aimed(value.query)
        yield from _fields_aimed(value.body)
    elif isinstance(value, dict):
        for name, inner in value.items():
            if re.search(r"\{(?!my_)\w+\}", str(inner)):
                yield name
            yield from _fields_aimed(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _fields_aimed(inner)


@pytest.mark.parametrize(("operation", "recipe"), cases(Hidden, Silent))
def test_object_of_another_user_is_answered_as_one_that_does_not_exist(operation, recipe, alice, bob):
    hers, his = give_belongings(alice), give_belongings(bob)
    her, him = Asker(alice), Asker(bob)
    before, told = (rows_of(alice), rows_of(bob)), OutboxMessage.objects.count()

    foreign = her.ask(operation, recipe, names_of(hers, his))
    nothing = her.ask(operation, recipe, names_of(hers, unknown(his)))

    assert foreign == nothing
    assert secret_of(bob) not in foreign.text
    assert not re.search(rf"\b{bob.username}\b", foreign.text)
    if isinstance(recipe, Hidden):
        assert foreign.status == CODES[recipe.code].http_status
        assert foreign.code == ("" if operation.route.startswith("/app/") else recipe.code)
    else:
        assert foreign.status == 200
        assert recipe.because
    assert _without_keys(before) == _without_keys((rows_of(alice), rows_of(bob)))
    assert OutboxMessage.objects.count() == told

    own = him.ask(operation, recipe, names_of(his, his))
    assert 200 <= own.status < 300, f"The recipe does not reach its object: {own.text}"
    assert own.body != foreign.body


@pytest.mark.parametrize(("operation", "recipe"), cases(OwnRead))
def test_list_holds_nothing_of_another_user(operation, recipe, alice, bob):
    hers, her = give_belongings(alice), Asker(alice)
    without_him = her.ask(operation, recipe, names_of(hers, {}))
    his, him = give_belongings(bob), Asker(bob)
    before = rows_of(bob)

    beside_him = her.ask(operation, recipe, names_of(hers, {}))

    assert beside_him == without_him
    assert beside_him.status == 200
    assert secret_of(bob) not in beside_him.text
    assert rows_of(bob) == before
    assert him.ask(operation, recipe, names_of(his, {})).body != beside_him.body


@pytest.mark.parametrize(("operation", "recipe"), cases(OwnWrite))
def test_write_without_an_object_touches_and_tells_nothing_of_another_user(operation, recipe, alice, bob):
    hers, her = give_belongings(alice), Asker(alice)
    give_belongings(bob)
    Asker(bob)
    before = rows_of(bob)

    answer = her.ask(operation, recipe, names_of(hers, {}))

    assert 200 <= answer.status < 400, answer.text
    assert secret_of(bob) not in answer.text
    assert rows_of(bob) == before


@pytest.mark.django_db(transaction=True)
def test_nobody_learns_without_a_token_whether_an_object_exists(bob):
    his, nobody = give_belongings(bob), Asker()
    before = rows_of(bob)
    for name, recipes in RECIPES.items():
        for recipe in recipes:
            foreign = nobody.ask(OPERATIONS[name], recipe, names_of(unknown(his), his))
            nothing = nobody.ask(OPERATIONS[name], recipe, names_of(unknown(his), unknown(his)))

            assert foreign == nothing, name
            if OPERATIONS[name].route.startswith("/api/"):
                assert (foreign.status, foreign.code) == (401, "40009"), name
            else:
                assert foreign.status in (302, 401, 403), name
            assert secret_of(bob) not in foreign.text, name
    assert rows_of(bob) == before


def test_open_routes_tell_nothing_of_anybody(alice, bob):
    give_belongings(bob)
    before, askers = rows_of(bob), (Asker(), Asker(alice))
    for name, reason in WITHOUT_OBJECTS.items():
        for asker in askers:
            answer = asker.ask(OPERATIONS[name], Recipe(), {})
            assert answer.status != 500, name
            assert secret_of(bob) not in answer.text, name
        assert reason
    assert rows_of(bob) == before


def _without_keys(pair):
    """Return the rows without the keys of writes that were sent: a refusal is kept as any answer is."""
    return [{name: rows for name, rows in found.items() if name != "edge.IdempotencyRecord"} for found in pair]
