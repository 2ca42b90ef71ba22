"""The answers that pages open with, and the rule as a table, on results whose verdicts are known."""

from dataclasses import replace

import pytest
from made import EVEN, FALLING, FLAT, results

from rgnb.press import answers
from rgnb.verdicts import findings

LATE = [10, 14, 13, 12, 11, 10, 9]  # falls from depth 1 alone


@pytest.mark.parametrize(
    ("short", "excess", "words"),
    [
        (FALLING, 0.02, "yes"),
        (FLAT, 0.02, "no"),
        (LATE, 0.02, "depends on the definition (2 of 4)"),
        (FALLING, 0.2, "not decided, since these networks miss the gate"),
    ],
)
def test_an_answer_in_words(short, excess, words):
    claim = findings.judge_rank_collapse(results(short=short, excess=excess))
    assert answers.answer(claim) == words
    box = answers.box({"one": claim, "two": claim}, "collapse", "C runs from").data
    assert box.count(f"**{words}** (8 networks each); C runs from") == 2
    numbers = {d: v.statistics["collapse"] for d, v in claim.verdicts.items()}
    least, most = (end(numbers.values(), key=lambda i: i.mean) for end in (min, max))
    assert str(least) in box and str(most) in box
    assert ("Not met: excess, ξ = 1" in box) == (excess > 0.1)
    assert ("C above 0.2 (4 of 4)" in box) == (short is FLAT)
    assert ("Not met" in box) == (words != "yes") and "*Close*" not in box


def test_a_box_says_what_is_close_and_what_could_not_be_judged():
    claim = findings.judge_kernel_drift(results(drift=[0.9, *[0.01] * 5]), 7.0)
    box = answers.box({"one": replace(claim, otherwise=("supported",))}, "share", "they hold").data
    assert ", by the one definition that leaves something to judge; they hold" in box
    assert "(without the first)" not in box and "would change the answer." in box
    gate = {"one": replace(claim, otherwise=("not trained",)), "two": claim}
    box = answers.box(gate, "share", "they hold").data
    assert "change the answer; for *one* only because the rest would miss the gate." in box


def test_no_is_said_where_an_interval_lies_beyond_its_bound():
    # C is 0.19, a little below the bound: by less, and by more, than its interval is wide.
    for spread, word in ((0.02, "not shown"), (0.001, "no")):
        claim = findings.judge_rank_collapse(results(short=[10, 9.8, 9.5, 9, 8.8, 8.5, 8.1], noise=spread))
        assert claim.headline == "not supported" and answers.answer(claim).startswith(word)
        assert answers.rule_table({"a": claim})["a"].str.endswith(f": {word}").any()


def test_two_networks_answer_nothing():
    assert str(findings.judge_rank_collapse(results(seeds=2))).startswith("open, for want of networks (2 ")
    assert answers.answer(findings.judge_rank_collapse(results(seeds=2))) == "open, for want of networks"
    assert answers.answer(findings.judge_rank_collapse(results(seeds=3))) == "yes"


def test_a_rule_table_holds_every_condition_of_the_gate_and_of_each_definition():
    profiles = {"a": FALLING, "b": FLAT}
    claims = {name: findings.judge_selectivity(results(short=p)) for name, p in profiles.items()}
    table = answers.rule_table(claims)
    assert list(table) == ["a", "b"] and len(table) == 2 + 4 * 4
    for title, claim in claims.items():
        conditions = [*claim.gate, *(c for v in claim.verdicts.values() for c in v.conditions)]
        assert [cell.endswith(": yes") for cell in table[title]] == [c.holds for c in conditions]
    needed = "below 5 %, largest at most 10 %"
    assert table.loc["gate"].index.tolist() == [f"excess, ξ = {xi} {needed}" for xi in (1, 7)]


def test_what_is_not_judged_is_not_called_yes_or_no():
    claim = findings.judge_kernel_drift(results(drift=[0.9, *[0.01] * 5]), 7.0)
    rest = answers.rule_table({"a": claim})["a"].loc["without the first"]
    assert rest.str.endswith(": not judged").all()
    spread = findings.judge_kernel_drift(results(drift=EVEN), 7.0)
    assert answers.rule_table({"a": spread})["a"].str.endswith(": no").any()
