"""The started server keeps to its own schema, whatever is asked of it: a bounded run of `make fuzz`."""

from tests.fuzz.running import Bound, fuzz


def test_the_api_keeps_to_its_schema(stack, tmp_path):
    figures = fuzz(stack, tmp_path, bound=Bound(examples=2), seed=1, leaving=20)

    assert figures.failures == (), figures.output
    assert figures.errors == (), figures.output
    assert figures.covered == figures.operations >= 45, figures.line
    assert figures.requests >= 3 * figures.operations, figures.line
