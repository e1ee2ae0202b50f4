"""Puts characters together that a provider has cut in two. Pure.

JSON writes a character beyond U+FFFF as two escapes, and some providers end a chunk between them. Neither half can be
stored or sent, so the first one waits for the second; a half that stays alone becomes U+FFFD.
"""


class SurrogateJoiner:
    """Joins the halves within one stream of text."""

    def __init__(self) -> None:
        self._half = ""

    def feed(self, text: str) -> str:
        """Return what can be shown of the text so far not shown; possibly empty, always encodable."""
        text, self._half = self._half + text, ""
        try:
            text.encode()
        except UnicodeEncodeError:
            return self._join(text)
        return text

    def _join(self, text: str) -> str:
        if "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
