"""A plan is drawn from its seed alone, and plans are as different as their seeds."""

from tests.faults_chat.plan import LIGHT, LONG, PIECE, SERVERS, SHORT, draw_plan
from tests.scripted_model.frames import answer_text
from tests.scripted_model.scenario import read_scenario

PLANS = [draw_plan(seed=seed) for seed in range(300)]


def test_draw_plan_gives_the_same_plan_when_the_seed_is_the_same():
    assert draw_plan(seed=7) == draw_plan(seed=7)
    assert len({str(plan.students) for plan in PLANS}) == len(PLANS)


def test_draw_plan_comes_to_every_kind_of_fault_and_of_step():
    seen = set().union(*(plan.kinds for plan in PLANS))
    assert {*LIGHT, *SERVERS, "overtaken", "web", "separate", "cut", "stall", "continue", "regenerate", "drop"} <= seen


def test_draw_plan_draws_no_fault_of_servers_when_they_are_others():
    drawn = set().union(*(draw_plan(seed=seed, has_servers=False).kinds for seed in range(100)))
    assert not drawn & SERVERS.keys()


def test_draw_plan_aims_at_executors_only_where_there_are_any():
    targets = {mode: {f.target for p in PLANS if p.mode == mode for f in p.faults} for mode in ("web", "separate")}
    assert {"executor-a", "executor-b", "web-a", "web-b"} <= targets["separate"]
    assert not targets["web"] & {"executor-a", "executor-b"}


def test_draw_plan_writes_messages_that_the_upstream_repeats_as_drawn():
    for step in (step for plan in PLANS[:50] for student in plan.students for step in student):
        scenario = read_scenario("scripted", step.message)
        assert answer_text(scenario, step.message) == step.message == step.message.strip()
        assert (
            -(-len(step.message) // PIECE) == step.answer.pieces or len(step.message) > step.answer.pieces * PIECE - 9
        )
        assert (scenario.cut or scenario.quiet_cut or scenario.stall or bool(scenario.error)) == (
            step.answer.ending != "whole"
        )


def test_draw_plan_makes_longer_plans_when_the_times_are_the_products_own():
    longest = max(fault.at for seed in range(50) for fault in draw_plan(seed=seed, scale=LONG).faults)
    assert longest > 2 * SHORT.span_seconds
