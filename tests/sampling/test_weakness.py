"""weakness: shrinkage by hand, the shipped prior, and that few questions find the weak subjects of the
public runs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.data.subjects import SUBJECTS
from kmmlu_fast.runs import loading
from kmmlu_fast.sampling import weakness
from kmmlu_fast.sampling.plan import make_sampling_plan

REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "reference" / "predictions_25_models_test.csv"


def scores(correct: list[int], total: int = 20) -> pl.DataFrame:
    return pl.DataFrame(
        {"subject": list(SUBJECTS)[: len(correct)], "correct": correct, "total": [total] * len(correct)}
    )


def test_the_shipped_prior_holds_all_subjects_and_says_where_it_comes_from() -> None:
    prior = weakness.read_subject_prior()
    assert set(prior.accuracy) == set(SUBJECTS) and sum(prior.questions.values()) == 35_030
    assert "25 runs" in prior.source and prior.date == "2026-11-24"


@pytest.mark.skipif(not REFERENCE.exists(), reason="the reference predictions are not on this machine")
def test_the_shipped_prior_is_the_mean_of_the_public_runs() -> None:
    runs = loading.load_run_argument(str(REFERENCE))
    table = pl.concat(
        [run.scores.with_columns((pl.col("correct") / pl.col("total")).alias("accuracy")) for run in runs]
    )
    means = dict(table.group_by("subject").agg(pl.col("accuracy").mean()).iter_rows())
    assert weakness.read_subject_prior().accuracy == pytest.approx(means, abs=0.00006)


def test_accuracies_go_to_the_mean_without_a_prior_and_to_the_prior_with_one() -> None:
    few = scores([5, 10, 10, 10, 15] * 3)
    plain = weakness.subject_posterior(few, None)
    assert plain["raw"].to_list()[:2] == [0.25, 0.5]
    assert 0.25 < plain["shrunk"][0] < plain["shrunk"][1] < plain["shrunk"][4] < 0.75
    assert plain["shrunk"][1] == pytest.approx(0.5, abs=0.01)
    hard = dict.fromkeys(few["subject"], 0.6) | {few["subject"][1]: 0.2}
    informed = weakness.subject_posterior(few, hard)
    assert informed["shrunk"][1] < plain["shrunk"][1] - 0.03  # the same 10 of 20, but others find it hard
    assert ((informed["low"] <= informed["shrunk"]) & (informed["shrunk"] <= informed["high"])).all()


def test_more_questions_are_trusted_more() -> None:
    prior = dict.fromkeys(SUBJECTS, 0.5)
    few, many = (weakness.subject_posterior(scores([n // 5, *[n // 2] * 9], n), prior) for n in (10, 1000))
    assert abs(many["shrunk"][0] - 0.2) < 0.01 < few["shrunk"][0] - 0.2
    assert (many["high"] - many["low"]).max() < 0.08 < (few["high"] - few["low"]).min()


def test_nothing_right_of_five_is_not_nothing() -> None:
    found = weakness.subject_posterior(scores([0, 2, 3, 2, 3], 5), None)
    assert found["shrunk"][0] > 0.1 and found["high"][0] > 0.3
    alone = weakness.subject_posterior(scores([3], 5), {"Accounting": 0.9})
    assert alone["shrunk"][0] == alone["raw"][0] == 0.6


@pytest.mark.skipif(not REFERENCE.exists(), reason="the reference predictions are not on this machine")
def test_twenty_questions_find_the_weak_subjects_of_the_public_runs() -> None:
    """The prior of a run comes from other vendors' runs only."""
    runs = loading.load_run_argument(str(REFERENCE))
    names, total = runs[0].scores["subject"].to_list(), runs[0].scores["total"].to_numpy()
    accuracy = np.array([(run.scores["correct"] / run.scores["total"]).to_numpy() for run in runs])
    vendors = [run.name.split("-")[0] for run in runs]
    random, found, weakest = np.random.default_rng(0), [], []
    for place, truth in enumerate(accuracy):
        others = accuracy[[i for i, vendor in enumerate(vendors) if vendor != vendors[place]]].mean(axis=0)
        weak = np.flatnonzero(truth < (truth * total).sum() / total.sum())
        for _ in range(4):
            correct = random.hypergeometric(
                np.round(truth * total).astype(int), total - np.round(truth * total).astype(int), 20
            )
            table = pl.DataFrame({"subject": names, "correct": correct, "total": np.full(45, 20)})
            shrunk = weakness.subject_posterior(table, dict(zip(names, others, strict=True)))
            values = shrunk["shrunk"].to_numpy()
            hits = np.isin(weak, np.flatnonzero(values < correct.sum() / 900)).mean()
            bottom = np.isin(np.argsort(values)[:11], np.argsort(truth)[:11]).mean()
            inside = (shrunk["low"].to_numpy() <= truth) & (truth <= shrunk["high"].to_numpy())
            found.append((hits, bottom, ((values - truth) ** 2).mean(), inside.mean()))
            weakest.append(inside[np.argsort(values)[:11]].mean())  # those that are chosen for being weak
    recall, overlap, error, covered = np.mean(found, axis=0)
    assert recall >= 0.80 and overlap >= 0.68 and error**0.5 < 0.06
    assert 0.92 < covered < 0.99
    assert 0.93 < np.mean(weakest) < 0.98


def test_the_plan_follows_the_posterior_error_and_shows_it() -> None:
    few = scores([0, 10, 20], 20)
    found = pl.DataFrame(
        {
            "subject": few["subject"],
            "raw": [0.0, 0.5, 1.0],
            "shrunk": [0.25, 0.5, 0.75],
            "low": [0.1] * 3,
            "high": [0.9] * 3,
        }
    )
    supply = dict.fromkeys(few["subject"], 1000)
    plan = make_sampling_plan(few, supply, 90, weak=list(few["subject"]), weak_share=1.0, posterior=found)
    assert plan["quota"].to_list() == [45, 30, 15]  # 0.75 : 0.5 : 0.25, where the raw errors say 60, 30, 0
    assert plan.select("accuracy", "shrunk", "low", "high").row(0) == (0.0, 0.25, 0.1, 0.9)
    assert plan["weight"].to_list() == pytest.approx([0.5, 1 / 3, 1 / 6])


@pytest.mark.parametrize(
    "text",
    ["subjects: [1]", "x: 1", "subjects: {Law: 1.5}", "subjects: {Nowhere: 0.5}", "subjects: {Law: high}"],
)
def test_a_prior_that_is_none_is_one_clear_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "prior.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"prior\.yaml"):
        weakness.read_subject_prior(path)


def test_a_users_prior_is_read(tmp_path: Path) -> None:
    path = tmp_path / "prior.yaml"
    path.write_text("source: ours\ndate: 2026\nsubjects: {Law: 0.4, Math: {accuracy: 0.2}}", encoding="utf-8")
    assert weakness.read_subject_prior(path) == weakness.SubjectPrior(
        {"Law": 0.4, "Math": 0.2}, {}, "ours", "2026"
    )
