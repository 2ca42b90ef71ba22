"""Rules come before the runs that they judge, and no seed that a pilot used is judged."""

import hashlib
import re
import subprocess
from pathlib import Path

import pytest

from rgnb.press import record
from rgnb.press.notebooks import ROOT
from rgnb.study import questions
from rgnb.study.store import results_folder
from rgnb.verdicts import rules

WHERE = ("rgnb/verdicts/rules.py", "rgnb/rules.py")  # in this commit and in earlier ones
HASH = hashlib.sha256(Path(rules.__file__).read_bytes()).hexdigest()


def provenances():
    """(file name, record) of every entry that names rules; the first round's name none."""
    for path in sorted(results_folder().glob("*.nc")):
        yield from ((path.name, made) for made in record.provenances(path) if "rules" in made)


def git(*arguments):
    return subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, check=False)


def test_a_result_names_rules_that_are_on_record():
    for name, made in provenances():
        assert made["rules"] in {HASH, *rules.CHANGES}, name


def test_the_commit_that_made_a_result_held_its_rules():
    commits = {(made["commit"], made["rules"]): name for name, made in provenances()}
    assert commits
    if git("rev-parse", "--is-shallow-repository").stdout.strip() != b"false":
        pytest.skip("needs the repository's history")
    for (commit, expected), name in commits.items():
        held = [git("show", f"{commit}:{path}") for path in WHERE]
        hashes = {hashlib.sha256(done.stdout).hexdigest() for done in held if done.returncode == 0}
        assert expected in hashes, f"{name} was made at {commit}, which does not hold the rules it names"


def test_every_bound_that_the_text_names_is_there():
    named = set(re.findall(r"`([A-Z_]+)`", rules.__doc__)) - {"CHANGES"}
    bounds = {name for name in vars(rules) if name.isupper()} - {"CHANGES", "PILOT_SEEDS"}
    assert named == bounds


def test_no_judged_seed_is_a_pilots():
    for name, question in questions.QUESTIONS.items():
        seeds = {seed for e in question.experiments() for seed in e.seeds}
        assert name in ("groups", "transplants") or not seeds & set(rules.PILOT_SEEDS), name
    assert min(seed for e in questions.QUESTIONS["gradient-noise"].experiments() for seed in e.seeds) > 2
