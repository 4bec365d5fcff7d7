"""Adaptive orders in evaluations: begun from a finished base, stored, continued, shared by adapters."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from early_cases import TOTAL, Skilled, config, run, with_other_form, write_exam
from tiny import make_tiny_adapter

from kmmlu_fast import compare
from kmmlu_fast.analysis.error_spending import spending_share
from kmmlu_fast.analysis.headline_comparison import ComparisonSettings
from kmmlu_fast.analysis.paired import ALPHA
from kmmlu_fast.analysis.sequential import sampling_weights
from kmmlu_fast.analysis.sequential.question_order import make_question_order
from kmmlu_fast.core.errors import ConfigError, RunError
from kmmlu_fast.core.schema import Request, Response
from kmmlu_fast.evaluation.early_stopping import passes, shared_order
from kmmlu_fast.evaluation.early_stopping.shared_order import choose_question_order
from kmmlu_fast.reporting.early_pairs import compare_early_stopped
from kmmlu_fast.runs.layout import read_question_order
from kmmlu_fast.runs.store import load_run_directory

SKILLS = {"base": 0.5, "lora": 0.58, "other": 0.5, "third": 0.54}


class Unsure(Skilled):
    """Like ``Skilled``, but its margin is small where a little more skill would turn the answer."""

    noise = 0.01

    def _answer(self, request: Request) -> Response:
        response = super()._answer(request)
        if request.question_id.startswith("probe/"):
            return response
        luck = random.Random(request.question_id).random()
        margin = 0.05 + 8 * abs(luck - self.skill["base"])
        letters = response.logprobs[:4]
        scored = [-2.0 if p == max(letters) else -2.0 - margin for p in letters]
        return replace(response, logprobs=with_other_form(request, scored))


@pytest.fixture(scope="module")
def adapters(model: Path) -> dict[str, Path]:
    names = enumerate(("lora", "other", "third"))
    return {name: make_tiny_adapter(model, model.parent / f"a-{name}", seed=seed) for seed, name in names}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_exam(tmp_path_factory.mktemp("kmmlu"))


@pytest.fixture(autouse=True)
def small_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "FIRST", 40)
    monkeypatch.setattr(sampling_weights, "FIRST_REDRAW", 40)
    monkeypatch.setattr(shared_order, "_SMALL_EXAM", 0)


def engine(data: Path, fuse: int | None = None) -> Unsure:
    return Unsure(data, SKILLS, fuse=fuse)


def decided(adapters: dict[str, Path], *names: str) -> list[str]:
    flags = [word for name in names for word in ("--adapter", f"{name}={adapters[name]}")]
    return [*flags, "--until-decided", "--population", "these"]


@pytest.fixture
def root(model: Path, data: Path, tmp_path: Path) -> Path:
    """An output directory with a finished base."""
    run(config(model, data, tmp_path), engine(data))
    return tmp_path


def test_a_finished_base_is_asked_about_where_it_is_unsure(
    model: Path, adapters: dict[str, Path], data: Path, root: Path
) -> None:
    asking = engine(data)
    base, adapted = run(config(model, data, root, *decided(adapters, "lora")), asking)
    assert {state for state, _ in asking.asked} == {"lora"} and base.total == TOTAL
    assert adapted.prefix.order == "adaptive" and adapted.prefix.decision["verdict"] == "better"
    margins = dict(zip(base.predictions["question_id"], base.predictions["margin"], strict=True))
    first = [margins[name] for name in adapted.predictions["question_id"]][:40]
    assert sum(first) / 40 < 0.7 * sum(margins.values()) / TOTAL
    decided_at = adapted.prefix.decision["decided_at"]
    looks = sampling_weights.list_look_places(TOTAL)
    assert adapted.total == next(look for look in looks if look >= decided_at)  # not only where it is redrawn
    low, high = adapted.prefix.accuracy
    whole, complete = run(config(model, data, root, *decided(adapters, "lora")[:2]), engine(data))
    assert low < complete.micro < high and complete.total == whole.total == TOTAL
    assert adapted.prefix.decision["low"] <= complete.micro - whole.micro <= adapted.prefix.decision["high"]
    beside = ("probe.json", "peeks.json", ".peeks.json.lock")
    names = [sorted({p.name for p in run.path.iterdir()} - {*beside}) for run in (complete, whole)]
    assert names[0] == names[1]


@pytest.mark.parametrize("fuse", [10, 45, 70])
def test_killed_and_started_again_it_decides_at_the_same_question(
    model: Path, adapters: dict[str, Path], data: Path, root: Path, fuse: int, tmp_path_factory: Any
) -> None:
    flags = decided(adapters, "lora", "third")
    straight = tmp_path_factory.mktemp("straight")
    run(config(model, data, straight), engine(data))
    expected = run(config(model, data, straight, *flags), engine(data))
    broken = engine(data, fuse)
    with pytest.raises(KeyboardInterrupt):
        run(config(model, data, root, *flags), broken)
    again = engine(data)
    resumed = run(config(model, data, root, *flags), again)
    assert not set(broken.asked) & set(again.asked)
    for one, other in zip(expected[1:], resumed[1:], strict=True):
        assert one.prefix.decision == other.prefix.decision
        assert one.predictions["question_id"].equals(other.predictions["question_id"])
    third = engine(data)
    run(config(model, data, root, *flags), third)
    assert not third.asked


def test_the_full_pass_holds_each_question_once(
    model: Path, adapters: dict[str, Path], data: Path, root: Path
) -> None:
    early, late = engine(data), engine(data)
    run(config(model, data, root, *decided(adapters, "lora")), early)
    _, complete = run(config(model, data, root, *decided(adapters, "lora")[:2]), late)
    ids = [name for _, name in early.asked + late.asked]
    assert len(ids) == len(set(ids)) == TOTAL == complete.total
    assert not (complete.path / "order.parquet").exists()


def test_an_undecided_adapter_is_asked_to_the_end_and_compared_exactly(
    model: Path, adapters: dict[str, Path], data: Path, root: Path
) -> None:
    flags = [*decided(adapters, "other"), "--margin", "0"]
    base, whole = run(config(model, data, root, *flags), engine(data))
    assert whole.prefix is None and whole.total == TOTAL
    truth = whole.micro - base.micro
    found = whole.metrics.to_json()["decision"]
    assert found["low"] == pytest.approx(truth, abs=1e-9) == found["high"]


def test_several_adapters_share_one_order_and_alpha_by_holm(
    model: Path, adapters: dict[str, Path], data: Path, root: Path
) -> None:
    flags = [*decided(adapters, "lora", "other"), "--margin", "0", "--max-questions", "500"]
    _, better, same = run(config(model, data, root, *flags), engine(data))
    assert better.prefix.decision["verdict"] == "better" and better.prefix.questions < 500
    n = better.prefix.questions
    level = ALPHA * (spending_share(1) + spending_share(2))  # of two comparisons with this base
    assert same.predictions["question_id"].head(n).equals(better.predictions["question_id"])
    assert better.prefix.decision["alpha"] == pytest.approx(level / 2)
    assert same.prefix.decision["alpha"] == pytest.approx(level)  # the other is decided


def test_adaptive_finishes_the_base_first(
    model: Path, adapters: dict[str, Path], data: Path, tmp_path: Path
) -> None:
    flags = [*decided(adapters, "lora"), "--order", "adaptive"]
    base, adapted = run(config(model, data, tmp_path, *flags), engine(data))
    assert base.prefix is None and base.total == TOTAL and adapted.prefix.order == "adaptive"
    # without a finished base, auto asks both along the uniform order
    base, adapted = run(config(model, data, tmp_path / "b", *decided(adapters, "lora")), engine(data))
    assert base.prefix.order == adapted.prefix.order == "uniform"


def test_overwrite_replaces_the_base_once_and_asks_the_adapter_adaptively(
    model: Path, adapters: dict[str, Path], data: Path, root: Path
) -> None:
    asking = engine(data)
    flags = [*decided(adapters, "lora"), "--order", "adaptive", "--overwrite"]
    base, adapted = run(config(model, data, root, *flags), asking)
    assert adapted.prefix.order == "adaptive" and base.total == TOTAL
    assert len([name for state, name in asking.asked if state == "base"]) == TOTAL


def test_compare_decides_several_adapters_as_the_evaluation_did(
    model: Path, adapters: dict[str, Path], data: Path, root: Path
) -> None:
    flags = [*decided(adapters, "lora", "third"), "--margin", "0", "--max-questions", "600"]
    runs = run(config(model, data, root, *flags), engine(data))
    for one, pair in zip(
        runs[1:], compare_early_stopped(runs, ComparisonSettings(population="these", margin=0.0)), strict=True
    ):
        decision = one.prefix.decision
        found = (pair.decision.verdict, pair.decision.decided_at, pair.decision.alpha)
        assert found == (decision["verdict"], decision["decided_at"], decision["alpha"])


def test_what_was_begun_in_the_uniform_order_continues_in_it(
    model: Path, adapters: dict[str, Path], data: Path, root: Path
) -> None:
    flags = decided(adapters, "lora")
    uniform = [*flags, "--order", "uniform", "--max-questions", "60", "--margin", "0"]
    run(config(model, data, root, *uniform), engine(data))
    with pytest.raises(RunError, match="give --order uniform"):
        run(config(model, data, root, *flags, "--order", "adaptive"), engine(data))
    _, adapted = run(config(model, data, root, *flags), engine(data))
    assert adapted.prefix.order == "uniform"


def test_another_order_or_seed_is_refused_where_an_adaptive_one_was_begun(
    model: Path, adapters: dict[str, Path], data: Path, root: Path
) -> None:
    flags = [*decided(adapters, "other"), "--max-questions", "60", "--margin", "0"]
    run(config(model, data, root, *flags), engine(data))
    cases = {("--order", "uniform"): "asked in an adaptive order", ("--seed", "7"): "--seed 42"}
    for more, message in cases.items():
        with pytest.raises(RunError, match=message):
            run(config(model, data, root, *flags, *more), engine(data))


def test_adapters_evaluated_apart_are_not_continued_together(
    model: Path, adapters: dict[str, Path], data: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    apart = ("--max-questions", "300", "--margin", "0")
    _, one = run(config(model, data, root, *decided(adapters, "other"), *apart), engine(data))
    base, two = run(config(model, data, root, *decided(adapters, "third"), *apart), engine(data))
    assert not read_question_order(one.path).equals(read_question_order(two.path))
    with pytest.raises(RunError, match="two adaptive orders"):
        run(config(model, data, root, *decided(adapters, "other", "third")), engine(data))
    # each against the base still compares, in its own order; the two of them do not
    paths = [str(each.path) for each in (base, one, two)]
    assert compare.run_compare_command([*paths, "--dataset", "none"]) == 0
    capsys.readouterr()
    assert compare.run_compare_command([*paths[1:], "--dataset", "none"]) == 2
    assert "two random orders" in capsys.readouterr().err


def test_a_race_ends_with_the_best_and_losers_are_asked_no_further(
    model: Path, adapters: dict[str, Path], data: Path, root: Path
) -> None:
    skills = {"base": 0.5, "lora": 0.7, "other": 0.4, "third": 0.52}
    asking = Unsure(data, skills)
    flags = [*decided(adapters, "lora", "other", "third"), "--until-best"]
    _, best, loser, _ = run(config(model, data, root, *flags), asking)
    assert best.prefix.race == {"best": "lora", "lost_to": None}
    assert loser.prefix.race["lost_to"] in ("lora", "third")
    assert loser.prefix.questions < best.prefix.questions < TOTAL


def test_a_stored_order_that_was_edited_is_refused(
    model: Path, adapters: dict[str, Path], data: Path, root: Path
) -> None:
    flags = [*decided(adapters, "other"), "--max-questions", "60", "--margin", "0"]
    base, adapted = run(config(model, data, root, *flags), engine(data))
    order = read_question_order(adapted.path)
    order.with_columns(pl.lit(0, pl.UInt8).alias("weight_0")).write_parquet(adapted.path / "order.parquet")
    with pytest.raises(RunError, match="weights from 1 to 255"):
        run(config(model, data, root, *flags), engine(data))
    assert load_run_directory(base.path).total == TOTAL


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--order", "adaptive"), "--order goes with --until-decided"),
        (("--until-best", "--until-decided", "--adapter", "x"), "two adapters"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(
    model: Path, data: Path, tmp_path: Path, flags: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        config(model, data, tmp_path, *flags)


def test_auto_is_uniform_in_a_small_exam(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [f"q{place}" for place in range(6)]
    uniform = make_question_order(ids, list("ABCDAB"), 1, public=False)
    base = pl.DataFrame({"question_id": ids, "correct": [True, False] * 3, "margin": [0.1, 2.0] * 3})

    def is_adaptive(population: str, order: str) -> bool:
        settings = SimpleNamespace(until_decided=True, population=population, order=order)
        return choose_question_order(settings, uniform, {}, base).weights is not None  # type: ignore[arg-type]

    monkeypatch.setattr(shared_order, "_SMALL_EXAM", 7)
    assert not is_adaptive("these", "auto") and not is_adaptive("like", "auto")
    assert is_adaptive("like", "adaptive") and is_adaptive("these", "adaptive")
    monkeypatch.setattr(shared_order, "_SMALL_EXAM", 6)
    assert is_adaptive("these", "auto") and is_adaptive("like", "auto")
