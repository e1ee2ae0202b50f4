"""A count that stopped early, because a table may hold more rows than anybody should count. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BoundedCount:
    """`value` is exact unless `is_capped`; then there are at least that many."""

    value: int
    is_capped: bool = False

    @classmethod
    def of(cls, seen: int, *, cap: int) -> "BoundedCount":
        """Build it from a count that looked at no more than `cap + 1` rows."""
        return cls(value=min(seen, cap), is_capped=seen > cap)

    def __str__(self) -> str:
        return f"{self.value:,}+" if self.is_capped else f"{self.value:,}"
