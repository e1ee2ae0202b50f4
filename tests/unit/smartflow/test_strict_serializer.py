"""Unknown fields are refused with a hint that names the known ones."""

from rest_framework import serializers

from smartflow.api.serializers import StrictSerializer


class Form(StrictSerializer):
    title = serializers.CharField()
    id = serializers.IntegerField(read_only=True)


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
