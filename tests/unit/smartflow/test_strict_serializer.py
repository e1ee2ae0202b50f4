"""Unknown fields are refused with a hint that names the known ones, and so are numbers where none belong."""

import pytest
from rest_framework import serializers

from smartflow.api.serializers import StrictSerializer


class Form(StrictSerializer):
    title = serializers.CharField()
    id = serializers.IntegerField(read_only=True)


class Inner(StrictSerializer):
    note = serializers.CharField()


class Typed(StrictSerializer):
    title = serializers.CharField(required=False)
    is_done = serializers.BooleanField(required=False)
    count = serializers.IntegerField(required=False)
    inner = Inner(required=False)


def errors_of(data):
    form = Form(data=data)
    assert not form.is_valid()
    return {name: str(errors[0]) for name, errors in form.errors.items()}


def test_strict_serializer_suggests_the_nearest_name():
    assert errors_of({"titel": "x"}) == {"titel": "Unknown field. Did you mean title? Known fields: title."}


def test_strict_serializer_lists_the_known_names_without_read_only_ones():
    assert errors_of({"title": "x", "zzz": 1, "id": 2}) == {
        "zzz": "Unknown field. Known fields: title.",
        "id": "Unknown field. Known fields: title.",
    }


def test_strict_serializer_accepts_the_known_ones():
    form = Form(data={"title": "x"})
    assert form.is_valid()
    assert form.validated_data == {"title": "x"}


@pytest.mark.parametrize("number", [0, 7, -1, 1.5, 1e300])
@pytest.mark.parametrize("field", ["title", "is_done"])
def test_strict_serializer_takes_no_number_for_a_text_or_a_truth(field, number):
    form = Typed(data={field: number})
    assert not form.is_valid()
    assert str(form.errors[field][0]) in {"Not a valid string.", "Must be a valid boolean."}


def test_strict_serializer_takes_no_number_for_a_text_within_a_shape():
    form = Typed(data={"inner": {"note": 3}})
    assert not form.is_valid()
    assert list(form.errors["inner"]) == ["note"]


def test_strict_serializer_names_every_fault_at_once():
    assert set(errors_of({"title": 5, "titel": "x"})) == {"title", "titel"}


@pytest.mark.parametrize(
    "data",
    [
        pytest.param({"title": "7", "is_done": True, "count": 3, "inner": {"note": "x"}}, id="json"),
        pytest.param({"title": "7", "is_done": "true", "count": "3", "inner": {"note": "x"}}, id="query"),
    ],
)
def test_strict_serializer_accepts_what_has_its_type(data):
    form = Typed(data=data)
    assert form.is_valid()
    assert form.validated_data == {"title": "7", "is_done": True, "count": 3, "inner": {"note": "x"}}
