"""smartflow/accounts/quota_window.py: weeks of 7 local days, whatever clocks and travellers do."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from smartflow.accounts.quota_window import Week, find_week, find_zone, is_zone

SHANGHAI = ZoneInfo("Asia/Shanghai")
BERLIN = ZoneInfo("Europe/Berlin")
NEW_YORK = ZoneInfo("America/New_York")
SANTIAGO = ZoneInfo("America/Santiago")
HAVANA = ZoneInfo("America/Havana")
KIRITIMATI = ZoneInfo("Pacific/Kiritimati")
HONOLULU = ZoneInfo("Pacific/Honolulu")
ZONES = [SHANGHAI, BERLIN, NEW_YORK, SANTIAGO, HAVANA, KIRITIMATI, HONOLULU, ZoneInfo("Australia/Lord_Howe")]


def at(zone, *parts):
    return datetime(*parts, tzinfo=zone).astimezone(UTC)


def test_find_week_begins_at_the_local_midnight_of_the_first_use():
    week = find_week(last=None, zone=SHANGHAI, now=at(SHANGHAI, 2026, 11, 18, 15, 30))
    assert week == Week(at(SHANGHAI, 2026, 11, 18), at(SHANGHAI, 2026, 11, 25))
    assert week.starts_at == datetime(2026, 11, 17, 16, tzinfo=UTC)


def test_find_week_keeps_the_running_one_to_its_last_instant():
    last = Week(at(BERLIN, 2026, 11, 2), at(BERLIN, 2026, 11, 9))
    assert find_week(last=last, zone=BERLIN, now=last.ends_at - timedelta(microseconds=1)) == last
    assert find_week(last=last, zone=BERLIN, now=last.ends_at).starts_at == last.ends_at


def test_find_week_keeps_the_running_one_when_the_clock_is_put_back():
    last = Week(at(BERLIN, 2026, 11, 2), at(BERLIN, 2026, 11, 9))
    assert find_week(last=last, zone=BERLIN, now=last.starts_at - timedelta(days=30)) == last


@pytest.mark.parametrize(
    ("zone", "first_use", "hours"),
    [
        (BERLIN, (2026, 3, 27, 12), 167),
        (BERLIN, (2026, 10, 23, 12), 169),
        (NEW_YORK, (2026, 3, 6, 12), 167),
        (NEW_YORK, (2026, 10, 30, 12), 169),
        (SHANGHAI, (2026, 10, 23, 12), 168),
        # The clock jumps from 00:00 to 01:00 on 6 September, and from 24:00 back to 23:00 on 4 April.
        (SANTIAGO, (2026, 9, 6, 12), 167),
        (SANTIAGO, (2026, 8, 30, 12), 168),
        (SANTIAGO, (2026, 4, 1, 12), 169),
        # 00:00 comes twice on 1 November; the first one counts.
        (HAVANA, (2026, 10, 25, 12), 168),
        (HAVANA, (2026, 11, 1, 12), 169),
    ],
)
def test_find_week_lasts_seven_local_days_across_a_clock_change(zone, first_use, hours):
    week = find_week(last=None, zone=zone, now=at(zone, *first_use))
    assert week.ends_at - week.starts_at == timedelta(hours=hours)
    following = find_week(last=week, zone=zone, now=week.ends_at)
    assert following.starts_at == week.ends_at
    assert following.ends_at.astimezone(zone).date() - week.starts_at.astimezone(zone).date() == timedelta(days=14)


def test_find_week_skips_whole_weeks_after_a_pause():
    last = Week(at(BERLIN, 2026, 1, 5), at(BERLIN, 2026, 1, 12))
    week = find_week(last=last, zone=BERLIN, now=at(BERLIN, 2026, 7, 8, 9))
    assert week == Week(at(BERLIN, 2026, 7, 6), at(BERLIN, 2026, 7, 13))


@pytest.mark.parametrize("moved_to", ZONES)
@pytest.mark.parametrize("home", ZONES)
def test_find_week_never_opens_early_or_twice_after_a_change_of_zone(home, moved_to):
    week = find_week(last=None, zone=home, now=at(home, 2026, 10, 20, 12))
    moment = week.starts_at
    while moment < week.ends_at:
        assert find_week(last=week, zone=moved_to, now=moment) == week
        moment += timedelta(hours=1)
    after = find_week(last=week, zone=moved_to, now=week.ends_at)
    assert after.starts_at == week.ends_at
    local = after.starts_at.astimezone(moved_to).replace(tzinfo=None)
    end = after.ends_at.astimezone(moved_to)
    assert timedelta(days=7) <= end.replace(tzinfo=None) - local < timedelta(days=8)
    assert end.hour == 0
    third = find_week(last=after, zone=moved_to, now=after.ends_at)
    assert (third.ends_at.astimezone(moved_to).date() - end.date()).days == 7


def test_find_week_gives_no_more_weeks_to_one_who_moves_every_hour():
    moment = at(SHANGHAI, 2026, 1, 1, 12)
    week = find_week(last=None, zone=SHANGHAI, now=moment)
    starts = {week.starts_at}
    for hour in range(24 * 7 * 20):
        week = find_week(last=week, zone=ZONES[hour % len(ZONES)], now=moment + timedelta(hours=hour))
        starts.add(week.starts_at)
    assert len(starts) <= 20
    ordered = sorted(starts)
    gaps = [later - earlier for earlier, later in pairwise(ordered)]
    assert min(gaps) >= timedelta(hours=167)


@pytest.mark.parametrize("name", ["", "Mars/Olympus", "../etc/passwd", "Asia"])
def test_find_zone_takes_the_default_for_a_name_it_does_not_know(name):
    assert find_zone(name, default="Asia/Shanghai").key == "Asia/Shanghai"


def test_is_zone_knows_iana_names_only():
    assert is_zone("Europe/Berlin")
    assert is_zone("UTC")
    assert not any(is_zone(name) for name in ("", "europe/berlin", "Mars/Olympus", "../etc/passwd", "UTC+8"))


def test_zones_are_known_on_a_machine_without_zone_data_of_its_own():
    program = "from zoneinfo import *; print(len(available_timezones()) > 400, ZoneInfo('Asia/Shanghai'), TZPATH)"
    bare = {**os.environ, "PYTHONTZPATH": ""}
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=bare)
    assert answer.stdout.strip() == "True Asia/Shanghai ()", answer.stderr
