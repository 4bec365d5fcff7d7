"""``Watch`` through a training that is stopped and resumed, with a scripted model in place of a real one."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny

from kmmlu_fast.core.schema import Candidates, Request, Response
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.integrations import watch as module
from kmmlu_fast.integrations.asked_questions import choose_asked_questions
from kmmlu_fast.integrations.watch import Watch

TOKENIZER = tiny.make_tiny_tokenizer(chat=True)


class ScriptedModel:
    """Answers every question with one letter, on which nearly all of the ``mass`` lies."""

    letter, mass = 0, 0.8

    def __init__(self, trainer: Any) -> None:
        pass

    def ask(self, requests: Iterable[Request]) -> Iterator[Response]:
        for request in requests:
            if not isinstance(request.want, Candidates):
                yield Response(request, logprobs=(-9.0,))  # a plain text
                continue
            count = len(request.want.token_ids)
            low = math.log(self.mass / 100 / count)
            logprobs = [low] * count
            logprobs[self.letter] = math.log(self.mass - (count - 1) * math.exp(low))
            yield Response(request, logprobs=tuple(logprobs))


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> type[ScriptedModel]:
    model = type("Scripted", (ScriptedModel,), {})
    monkeypatch.setattr(module, "LiveModel", model)
    return model


RECORD = "kmmlu_watch.json"


def make_watch(
    out: Path, *, name: str = "org/Tiny-1B", count: int = 40, exam: str = "kmmlu", **settings: Any
) -> Watch:
    logged: list[dict[str, float]] = []
    trainer = SimpleNamespace(
        args=SimpleNamespace(output_dir=str(out)),
        model=SimpleNamespace(config=SimpleNamespace(name_or_path=name), training=True),
        processing_class=TOKENIZER,
        log=logged.append,
        logged=logged,
    )
    config = EvalConfig(model="m", dataset="sample", **{"split": "train", **settings})
    asked = choose_asked_questions(config, TOKENIZER, count, [{"text": "다른 것"}], 4096)
    return Watch(trainer, asked, exam=exam, share_of_time=None, every=4, stop_when=None, base_run=None)


def train(watching: Watch, start: int, stop: int) -> Watch:
    watching.begin_training(start, 12)
    for step in range(start, stop):
        watching.begin_step()
        watching.look_before_first_update()
        watching.finish_step(step + 1)
    return watching


def begin(out: Path, scripted: type[ScriptedModel], **settings: Any) -> Watch:
    """Train eight steps of twelve; from then on the model answers B."""
    watching = train(make_watch(out, **settings), 0, 8)
    assert [(look.step, look.number) for look in watching.looks] == [(0, 0), (4, 1), (8, 2)]
    scripted.letter = 1
    return watching


def copies(out: Path) -> list[Path]:
    return sorted(path for path in out.iterdir() if path.name != RECORD)


def test_the_letter_mass_is_logged_from_what_is_asked(tmp_path: Path, scripted: type[ScriptedModel]) -> None:
    watching = train(make_watch(tmp_path), 0, 4)
    scripted.mass = 0.3
    watching.finish_step(8)
    logged = watching._trainer.logged
    assert [entry["kmmlu/letter_mass"] for entry in logged] == pytest.approx([0.8, 0.8, 0.3])
    assert "only 30%" in str(watching.looks[-1]) and "only" not in str(watching.looks[0])


def test_the_same_way_of_asking_continues_the_curve(tmp_path: Path, scripted: type[ScriptedModel]) -> None:
    before = begin(tmp_path, scripted)
    after = train(make_watch(tmp_path), 8, 12)
    assert [(look.step, look.number) for look in after.looks] == [(12, 3)]
    change = after.looks[0].accuracy - before.looks[0].accuracy
    assert after.looks[0].difference is not None
    assert after.looks[0].difference.value == pytest.approx(change)
    assert after.notes == [] and copies(tmp_path) == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"prompt_style": "chat"}, "prompt_style ('lm-eval' there, 'chat' here)"),
        ({"split": "test"}, "split ('train' there, 'test' here)"),
        ({"seed": 7}, "seed (42 there, 7 here)"),
        ({"count": 60}, "questions (40 there, 60 here)"),
        ({"name": "org/Tiny-3B"}, "model ('Tiny-1B' there, 'Tiny-3B' here)"),
    ],
)
def test_another_way_begins_a_new_curve_and_keeps_the_old_one(
    tmp_path: Path, scripted: type[ScriptedModel], settings: dict[str, Any], said: str
) -> None:
    begin(tmp_path, scripted)
    old = json.loads((tmp_path / RECORD).read_text())
    after = train(make_watch(tmp_path, **settings), 8, 12)
    assert [(look.step, look.number) for look in after.looks] == [(8, 0), (12, 1)]
    assert after.looks[1].difference is not None and after.looks[1].difference.value == 0  # B and B
    (note,) = after.notes
    assert f"resumed at step 8, and its earlier looks asked differently ({said}): a new curve begins" in note
    (kept,) = copies(tmp_path)
    assert kept.name in note and json.loads(kept.read_text()) == old
    # and the new one is continued in turn
    again = train(make_watch(tmp_path, **settings), 11, 12)
    assert [(look.step, look.number) for look in again.looks] == [(12, 2)] and again.notes == []


def test_one_training_watched_on_two_exams_continues_both(
    tmp_path: Path, scripted: type[ScriptedModel]
) -> None:
    first, second = make_watch(tmp_path), make_watch(tmp_path, exam="own", seed=7)
    for watching in (first, second):
        watching.begin_training(0, 12)
    for step in range(8):
        for watching in (first, second):
            watching.begin_step()
            watching.finish_step(step + 1)
    scripted.letter = 1
    own: dict[str, Any] = {"exam": "own", "seed": 7}
    for settings in ({}, own):
        after = train(make_watch(tmp_path, **settings), 8, 12)
        assert [(look.step, look.number) for look in after.looks] == [(12, 3)] and after.notes == []
    assert [path.name for path in copies(tmp_path)] == ["own_watch.json"]


def test_a_second_training_of_the_same_trainer_has_its_own_start(
    tmp_path: Path, scripted: type[ScriptedModel]
) -> None:
    watching = train(make_watch(tmp_path), 0, 12)
    watching.end_training()
    scripted.letter = 1
    train(watching, 0, 12)
    assert [(look.step, look.number) for look in watching.looks[4:]] == [(0, 0), (4, 1), (8, 2), (12, 3)]
    assert watching.looks[-1].difference is not None and watching.looks[-1].difference.value == 0  # B and B
    assert json.loads((tmp_path / RECORD).read_text())["looks"] == 3


def test_a_training_that_stops_early_is_looked_at_once_more(tmp_path: Path) -> None:
    watching = train(make_watch(tmp_path), 0, 6)
    watching.end_early(6)
    watching.end_early(6)
    assert [look.step for look in watching.looks] == [0, 4, 6]
    watching.end_training()
    assert watching.notes == []


def test_a_training_that_is_never_looked_at_again_says_so(tmp_path: Path) -> None:
    watching = train(make_watch(tmp_path), 0, 2)
    watching.end_training()
    assert watching.notes == ["the training ended before a look was due"]


def test_a_record_of_before_is_continued(tmp_path: Path, scripted: type[ScriptedModel]) -> None:
    begin(tmp_path, scripted)
    record = json.loads((tmp_path / RECORD).read_text())
    del record["asked"]
    (tmp_path / RECORD).write_text(json.dumps(record))
    after = train(make_watch(tmp_path), 8, 12)
    assert [look.number for look in after.looks] == [3] and after.notes == []
    assert json.loads((tmp_path / RECORD).read_text())["asked"]["prompt_style"] == "lm-eval"


def test_a_record_of_before_in_another_order_does_not_stop_the_training(
    tmp_path: Path, scripted: type[ScriptedModel]
) -> None:
    """Every question of the split was asked, so its ids are known in any order of them."""
    begin(tmp_path, scripted, count=180)
    record = json.loads((tmp_path / RECORD).read_text())
    del record["asked"]
    record["start"] = dict(list(record["start"].items())[-40:])
    (tmp_path / RECORD).write_text(json.dumps(record))
    after = train(make_watch(tmp_path, count=180), 8, 12)
    assert [look.number for look in after.looks] == [0, 1]
    assert "asked differently (other questions)" in after.notes[0]


def test_a_training_goes_on_in_another_folder(tmp_path: Path, scripted: type[ScriptedModel]) -> None:
    model = tmp_path / "here" / "Tiny-1B"
    model.mkdir(parents=True)
    begin(tmp_path / "here" / "out", scripted, name=str(model))
    (tmp_path / "here").rename(tmp_path / "there")
    moved = tmp_path / "there"
    after = train(make_watch(moved / "out", name=str(moved / "Tiny-1B")), 8, 12)
    assert [look.number for look in after.looks] == [3] and after.notes == []
    (moved / "out" / "checkpoint-8").mkdir()
    checkpoint = str(moved / "out" / "checkpoint-8")
    again = train(make_watch(moved / "out", name=checkpoint), 8, 12)
    assert [look.number for look in again.looks] == [4] and again.notes == []
    assert json.loads((moved / "out" / RECORD).read_text())["asked"]["model"] == "Tiny-1B"  # not forgotten


@pytest.mark.parametrize("text", ["", "[]", "{", '{"start": {"q": "A"}}'])
def test_a_damaged_record_begins_a_new_curve(
    tmp_path: Path, scripted: type[ScriptedModel], text: str
) -> None:
    begin(tmp_path, scripted)
    (tmp_path / RECORD).write_text(text)
    after = train(make_watch(tmp_path), 8, 12)
    assert [look.number for look in after.looks] == [0, 1]
    assert after.notes == [
        "the training was resumed at step 8, and the answers from before its first step are not known:"
        " differences are to step 8"
    ]
