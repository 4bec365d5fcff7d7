"""bench.decide on an invented table: what it counts, and what its JSON line holds."""

import json
import random

import numpy as np
import polars as pl
import pytest

from bench import decide, decide_engine, decide_like
from kmmlu_fast.analysis.sequential.control_variate import KnownQuestions

MODELS = {"gpt-a": 0.7, "gpt-b": 0.4, "phi-a": 0.69, "llama-a": 0.5}


@pytest.fixture
def table(tmp_path):
    draw = random.Random(0)
    rows = []
    for subject, size in (("Law", 500), ("Math", 300)):
        for row in range(size):
            key, ease = draw.choice("ABCD"), draw.gauss(0, 0.2)
            wrong = "B" if key == "A" else "A"
            letters = {name: key if draw.random() < skill + ease else wrong for name, skill in MODELS.items()}
            rows.append({"_config": subject, "_row": row, "answer": key, **letters})
    path = tmp_path / "table.csv"
    pl.DataFrame(rows).write_csv(path)
    return path


def test_json_line_holds_what_was_found(table, tmp_path, capsys):
    argv = [
        "--predictions",
        str(table),
        "--permutations",
        "2",
        "--nulls",
        "6",
        "--record",
        "--results-dir",
        str(tmp_path / "r"),
    ]
    assert decide.main(argv) == 0
    found = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert found["questions"] == 800 and found["runs"] == 4
    assert set(found["mean_questions"]) <= set(decide.BINS) and "10-" in found["mean_questions"]
    assert sum(row["of"] for row in found["intervals"]["mean_questions"].values()) == 2 * 6
    assert found["mean_questions"]["10-"] < 800
    assert 0 <= found["wrong_sign_share"] <= 1 and found["intervals"]["null_decided_share"]["of"] == 6
    assert found["intervals"]["coverage_at_stop"]["of"] == 12 + 6
    assert len(list((tmp_path / "r").glob("*.json"))) == 1


def test_expectations_come_from_other_vendors_alone(table):
    pairs = decide.Pairs(table)
    names = pairs.names
    from_others = pairs.ease(names.index("gpt-a"), names.index("phi-a"))
    # only llama-a is left: its share drawn to its subject's mean by four
    llama = pairs.right[names.index("llama-a")]
    assert set(np.unique(from_others.round(9))) == set(
        np.unique(
            [
                (right + 4 * llama[subject].mean()) / 5
                for right in (0, 1)
                for subject in (slice(0, 500), slice(500, 800))
            ]
        ).round(9)
    )
    assert pairs.ease(names.index("gpt-a"), names.index("gpt-b")) is not None


def test_a_null_has_no_difference_and_the_same_disagreements():
    draw = np.random.default_rng(0)
    first, second = draw.random(500) < 0.7, draw.random(500) < 0.5
    one, other = decide.null_of(first, second, draw)
    assert one.sum() == other.sum()
    differing = int((first != second).sum())
    assert int((one != other).sum()) == differing - differing % 2
    agreed = first == second
    assert np.array_equal(one[agreed], first[agreed]) and np.array_equal(other[agreed], first[agreed])


def test_wrong_signs_are_counted_and_undecided_ones_are_not():
    assert decide.wrong({"verdict": "better", "difference": -0.01})
    assert not decide.wrong({"verdict": "better", "difference": 0.01})
    assert not decide.wrong({"verdict": "equal", "difference": 0.01})
    found = decide.ask(np.zeros(300, bool), np.ones(300, bool), KnownQuestions(300))
    assert found["verdict"] == "better" and found["questions"] < 100 and found["covered"]


def test_a_share_has_the_exact_interval():
    # Clopper and Pearson: no event in n has the upper end 1 - 0.025 ** (1 / n)
    assert decide.share(0, 100)["high"] == pytest.approx(1 - 0.025**0.01, abs=1e-5)


@pytest.mark.parametrize(
    ("argv", "message"),
    [(["--predictions", "none.csv"], "does not exist"), (["--engine"], "--adapter")],
)
def test_faults_are_one_line(argv, message, capsys):
    assert decide.main(argv) == 2
    assert message in capsys.readouterr().err


def test_two_draws_of_one_model_differ_by_luck_and_both_orders_are_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = decide_like.SmallBase(np.random.default_rng(0), 400)
    twin = base.redraw_twin(0.6)
    assert 0 < (twin != base.right).sum() < 150 and twin.sum() != base.right.sum()
    monkeypatch.setattr(decide_like, "EXAMS", {500: (0.04, 0.1)})
    found = decide_like.measure_like(1, 1, 0)
    assert found["like_null_decided_share"]["of"] == 4
    assert set(found["exams"]["500"]["like"]["10"]) == {"uniform", "adaptive"}
    assert "Questions of 500" in decide_like.tables_of_like(found)[0]


def test_orders_of_several_seeds_are_told_together() -> None:
    """An order that was not decided counts with all that was asked."""
    one = {"verdict": "better", "decided_at": 300, "asked": 320, "asking_sec": 30.0, "with_start_sec": 41.0}
    none = {**one, "verdict": "undecided", "decided_at": None, "asked": 900, "asking_sec": 90.0}
    assert decide_engine.mean_of_orders([one, one])["verdict"] == "better"
    both = decide_engine.mean_of_orders([one, none, one])
    assert both["verdict"] == "better (2 of 3) or undecided (1 of 3)"
    assert (both["decided_at"], both["asked"], both["asking_sec"]) == (500, 513, 50.0)
