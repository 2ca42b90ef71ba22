"""What a page of the argument opens with, and its rule as a table."""

from collections import Counter

import pandas as pd
from IPython.display import Markdown

from rgnb import checks
from rgnb.press.figures import _check
from rgnb.verdicts import rules
from rgnb.verdicts.findings import NOTHING_LEFT, TOO_FEW, Claim

WORDS = {
    "supported": "yes",
    "not trained": "not decided, since these networks miss the gate",
}


def answer(claim: Claim) -> str:
    """A claim's headline as an answer to its question; "close" where one or two networks decide it.

    A claim that is not supported is answered "no" if each definition has a condition whose interval lies
    beyond its bound, else "not shown". Fewer than `rules.GROUP_SEEDS` networks answer nothing.
    """
    headline = checks.instance("claim", claim, Claim).headline
    if claim.seeds < rules.GROUP_SEEDS:
        return TOO_FEW
    if headline == "not supported":
        judged = [v for v in claim.verdicts.values() if v.status != NOTHING_LEFT]
        refuted = all(any(c.word == "no" for c in v.conditions) for v in judged)
        headline = "no" if refuted else "not shown"
    return f"{WORDS.get(headline, headline)}{', but close' * claim.close}"


def box(claims: dict[str, Claim], statistic: str, name: str) -> Markdown:
    """The answer to one question, a sentence each: what the claims say, the range of a number, what fails.

    Args:
        claims: {title: Claim}.
        statistic: of their verdicts; the definitions with its least and its greatest mean are named.
        name: of the number in words.
    """
    _check("claims", claims, Claim)
    sentences = []
    for title, claim in claims.items():
        judged = {d: v for d, v in claim.verdicts.items() if v.status != NOTHING_LEFT}
        found = {d: v.statistics[statistic] for d, v in (judged or claim.verdicts).items()}
        gates = [f"{' '.join(c.parts[0::2])} ({c.parts[1]})" for c in claim.gate if not c.holds]
        conditions = [c for v in judged.values() for c in v.conditions]
        failed = Counter(" ".join(c.parts[0::2]) for c in conditions if not c.holds)
        ends = [least(found, key=lambda d: found[d].mean) for least in (min, max)]
        range_ = " to ".join(f"{found[d]} ({d})" for d in dict.fromkeys(ends))
        said = f"*{title}*: **{answer(claim)}** ({claim.seeds} networks each)"
        if len(judged) < len(claim.verdicts):
            one = (
                "one definition that leaves" if len(judged) == 1 else f"{len(judged)} definitions that leave"
            )
            said += f", by the {one} something to judge"
        missed = "; ".join([*gates, *(f"{needed} ({n} of {len(judged)})" for needed, n in failed.items())])
        sentences.append(f"{said}; {name} {range_}.{f' Not met: {missed}.' if missed else ''}")
    if any(claim.close for claim in claims.values()):
        gate = [f"*{title}*" for title, c in claims.items() if set(c.otherwise) == {"not trained"}]
        only = f"; for {' and '.join(gate)} only because the rest would miss the gate" if gate else ""
        sentences.append(f"*Close*: leaving out one or two networks would change the answer{only}.")
    return Markdown("\n\n".join(sentences))


def rule_table(claims: dict[str, Claim]) -> pd.DataFrame:
    """Every condition of a rule and whether it holds: {title: Claim}, of one question, a column each."""
    _check("claims", claims, Claim)
    columns = {title: pd.Series(_cells(claim)) for title, claim in claims.items()}
    return pd.DataFrame(columns).rename_axis(["definition", "needed"])


def _cells(claim: Claim) -> dict[tuple[str, ...], str]:
    rows = [("gate", c.word, c) for c in claim.gate]
    for name, verdict in claim.verdicts.items():
        judged = verdict.status != NOTHING_LEFT
        words = [c.word if judged else "not judged" for c in verdict.conditions]
        rows += [(name, word, c) for word, c in zip(words, verdict.conditions, strict=True)]
    return {(name, f"{c.parts[0]} {c.parts[2]}"): f"{c.parts[1]}: {word}" for name, word, c in rows}
