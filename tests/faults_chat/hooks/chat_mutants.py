"""The product's chat, broken on purpose in one place, to see whether the suite notices. FAULTS_MUTANT names it."""

import time
from dataclasses import replace
from types import ModuleType
from typing import Any

from faults_breaking import Mutants, registrar
from faults_breaking import replace as _replace

MUTANTS: Mutants = {}
mutant = registrar(MUTANTS)


@mutant("shown-before-kept", "chat.runs.logs")
def _no_gate(module: ModuleType) -> None:
    """Readers are shown everything at once, and Redis is told when the run is over, if it lives to that."""
    original = module.RunLogs._gate

    def gate(self: Any, log: Any) -> None:
        log.show(log.units)
        if log.end_of_run is not None:
            original(self, log)

    _replace(module.RunLogs, "_gate", gate)


@mutant("shown-before-kept", "chat.runs.saving")
def _late_saves(module: ModuleType) -> None:
    """The database gets the first character, and then what was said three seconds ago."""
    original = module.save_progress
    earlier: dict[str, list[tuple[float, Any]]] = {}

    def save_progress(*, saves: Any, **values: Any) -> Any:
        now, late = time.monotonic(), []
        for run, progress in saves:
            known = earlier.setdefault(run.run_id, [])
            known.append((now, progress))
            old = [one for at, one in known if at <= now - 3]
            late.append((run, old[-1] if old else replace(progress, text=progress.text[:1], events=())))
        return original(saves=late, **values)

    _replace(module, "save_progress", save_progress)


@mutant("no-lease-fence", "chat.operations.ownership")
def _no_fence(module: ModuleType) -> None:
    """No write of an executor asks whose the run is: neither here nor, below, the saves and the leases."""
    live = module.RowReader(module.ChatRun, "id = %s AND is_live = 1", is_locking=True)
    _replace(module, "owned", lambda *, run: module.ChatRun.objects.filter(id=run.run_id, is_live=True))
    _replace(module, "_OWNED", type("Live", (), {"find": staticmethod(lambda run_id, *_fence: live.find(run_id))}))


@mutant("no-lease-fence", "chat.operations.progress")
def _no_fence_in_saves(module: ModuleType) -> None:
    fence = " AND owner = saved.of_owner AND epoch = saved.of_epoch"
    assert fence in module._UPDATE_MYSQL
    module._UPDATE_MYSQL = module._UPDATE_MYSQL.replace(fence, "")
    _replace(module, "_find_lost", lambda rows: set())

    def renew_leases(*, runs: Any, lease_seconds: float, now: Any) -> frozenset[str]:
        live = module.ChatRun.objects.filter(id__in=sorted(run.run_id for run in runs), is_live=True)
        live.update(lease_until=module._until(now, lease_seconds))
        return frozenset()

    _replace(module, "renew_leases", renew_leases)


@mutant("settle-twice", "smartflow.accounts.quota")
def _settle_twice(module: ModuleType) -> None:
    original = module.settle_hold

    def settle_hold(*, user_id: int, hold_id: str, tokens: int, now: Any) -> None:
        original(user_id=user_id, hold_id=hold_id, tokens=tokens, now=now)
        window = module.TokenHold.objects.values_list("window_id", flat=True).get(pk=hold_id)
        module.TokenWindow.objects.filter(pk=window).update(used_tokens=module.F("used_tokens") + tokens)

    _replace(module, "settle_hold", settle_hold)


@mutant("executed-after-first-word", "chat.operations.ownership")
def _always_claimable(module: ModuleType) -> None:
    original = module.claimable

    def claimable(*, now: Any) -> Any:
        wanted = original(now=now)
        spoken = module.Q(has_spoken=False)
        assert "has_spoken" in str(wanted)
        return _without(wanted, spoken.children[0], module.Q)

    _replace(module, "claimable", claimable)


def _without(condition: Any, child: Any, make: Any) -> Any:
    """The same condition, but for one of its parts."""
    kept = make()
    kept.connector, kept.negated = condition.connector, condition.negated
    kept.children = [
        _without(one, child, make) if isinstance(one, make) else one for one in condition.children if one != child
    ]
    return kept


@mutant("prefix-lost-at-the-end", "chat.operations.endings")
def _forgetful_end(module: ModuleType) -> None:
    original = module._result_of_abandoned

    def result_of_abandoned(run: Any, **values: Any) -> Any:
        run.output_text, run.output_events = "", []
        return original(run, **values)

    _replace(module, "_result_of_abandoned", result_of_abandoned)


@mutant("resumed-too-early", "chat.runs.document")
def _repeats(module: ModuleType) -> None:
    """Who comes back is sent the last three characters once more."""
    original = module.Position.parse.__func__

    def parse(cls: Any, text: str) -> Any:
        place = original(cls, text)
        return place and cls(place.attempt, max(0, place.units - 3))

    _replace(module.Position, "parse", classmethod(parse))


@mutant("end-not-told", "chat.runs.followers")
def _silent_end(module: ModuleType) -> None:
    """Readers in other processes than the executor's are never told the end."""
    _replace(module.Followers, "_take", lambda self, snapshot: None)
