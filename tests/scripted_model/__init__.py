"""A scripted model server: OpenAI-compatible over real HTTP, its behaviour chosen by each request.

By hand: `python -m tests.scripted_model --port 9100`, then OPENAI_BASE_URL=http://127.0.0.1:9100/v1. In tests:
`running_scripted_model()`. The scenarios stand in scenario.py.
"""

from tests.scripted_model.running import ScriptedModel, running_scripted_model

__all__ = ["ScriptedModel", "running_scripted_model"]
