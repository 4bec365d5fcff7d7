"""A training's template and stop tokens: chosen with its rows in view, saved, and read back by evaluation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from kmmlu_fast.core.errors import KmmluError
from kmmlu_fast.core.schema import Question
from kmmlu_fast.data.alpaca import SftRow
from kmmlu_fast.data.training_rows import TrainingRow, Turn
from kmmlu_fast.models.chat_files import read_saved_stop_ids, read_saved_template
from kmmlu_fast.models.model import Model, load_tokenizer, resolve_model
from kmmlu_fast.prompting.chat_template import BUILT_IN
from kmmlu_fast.training.chat_setup import ChatSetup, check_chat_flags, prepare_chat, save_chat_files
from kmmlu_fast.training.config import TrainConfig

TURNS = (Turn("user", "물은?"), Turn("assistant", "흐른다."))
CHAT = TrainingRow(turns=TURNS, source="chats.jsonl", number=1, form="messages")
QUESTION = SftRow(
    question=Question(
        question_id="Law/train/0",
        subject="Law",
        supercategory="HUMSS",
        split="train",
        row=0,
        question="물은?",
        options=("액체", "돌"),
        answer="A",
    ),
    strategy="uniform",
)


@pytest.fixture
def base(model: Path, tmp_path: Path) -> Model:
    """A base with a chat template, which stops at <|eos|> alone."""
    shutil.copytree(model, tmp_path / "base")
    (tmp_path / "base" / "generation_config.json").write_text('{"eos_token_id": 2, "top_p": 0.9}')
    return resolve_model(str(tmp_path / "base"))


def set_up(base: Model, *rows: Any, **settings: Any) -> ChatSetup:
    config = TrainConfig(data=["rows.jsonl"], **settings)
    return prepare_chat(config, base, load_tokenizer(base), rows)


def test_chats_save_the_template_and_the_end_that_they_were_trained_with(base: Model, tmp_path: Path) -> None:
    setup = set_up(base, CHAT)
    assert setup.is_used and "<|im_end|> (4), where the base does not stop" in setup.warnings[0]
    assert setup.identity_parts() == {"chat": {"stop_ids": [4]}}
    save_chat_files(setup, base, tmp_path / "lora")
    assert read_saved_stop_ids(tmp_path / "lora") == (4, 2)
    saved = json.loads((tmp_path / "lora" / "generation_config.json").read_text())
    assert saved["top_p"] == 0.9
    assert read_saved_template(tmp_path / "lora") == load_tokenizer(base).chat_template
    assert (tmp_path / "lora" / "tokenizer.json").is_file()
    assert setup.card_parts()["stop_ids"] == [2, 4]


def test_another_template_is_saved_in_place_of_the_models_own(base: Model, tmp_path: Path) -> None:
    setup = set_up(base, CHAT, chat_template="plain")
    assert setup.identity_parts()["chat"].keys() == {"chat_template"}
    assert setup.card_parts()["chat_template"] == "plain"
    save_chat_files(setup, base, tmp_path / "lora")
    assert read_saved_template(tmp_path / "lora") == BUILT_IN["plain"]
    assert read_saved_stop_ids(tmp_path / "lora") == (2,)


def test_questions_in_a_plain_style_leave_the_template_alone(base: Model, tmp_path: Path) -> None:
    setup = set_up(base, QUESTION)
    assert not setup.is_used and setup.warnings == [] and setup.identity_parts() == {}
    assert setup.stops.new == () and setup.stops.end == 2
    save_chat_files(setup, base, tmp_path / "lora")
    assert read_saved_stop_ids(tmp_path / "lora") == (2,)


@pytest.mark.parametrize(
    ("rows", "settings"),
    [
        ([QUESTION], {"chat_template": "plain"}),
        ([QUESTION], {"chat_template_kwargs": ["a=1"]}),
        ([CHAT], {"chat_template": "plain", "prompt_style": "qa"}),
    ],
)
def test_flags_without_effect_are_refused(rows: list[Any], settings: dict[str, Any], base: Model) -> None:
    with pytest.raises(KmmluError, match="for conversations and --prompt-style chat"):
        set_up(base, *rows, **settings)


def test_a_malformed_variable_is_refused_when_parsing() -> None:
    with pytest.raises(ValueError, match="NAME=VALUE"):
        TrainConfig(data=["rows.jsonl"], chat_template_kwargs=["thinking"])


def test_a_variable_that_the_template_does_not_read_is_refused(base: Model) -> None:
    with pytest.raises(KmmluError, match="reads no variable of that name"):
        set_up(base, CHAT, chat_template_kwargs=["thinking=true"])
    assert set_up(base, QUESTION, CHAT, prompt_style="chat").is_used


def test_a_base_without_a_template_is_trained_and_saved_with_plain(base: Model, tmp_path: Path) -> None:
    (Path(base.path) / "chat_template.jinja").unlink()
    setup = set_up(base, CHAT)
    assert setup.identity_parts() == {} and setup.card_parts()["chat_template"] == "plain"
    save_chat_files(setup, base, tmp_path / "lora")
    assert read_saved_template(tmp_path / "lora") == BUILT_IN["plain"]
    alone = set_up(base, QUESTION)
    save_chat_files(alone, base, tmp_path / "other")
    assert read_saved_template(tmp_path / "other") is None


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{% for m in messages %}", "is not valid Jinja"),
        ("{{ messages[-1]['role'] }}", "leaves out the instruction and the question"),
        ("{{ raise_exception('no') }}", "refuses a system and a user turn"),
        (None, "no such file"),
    ],
)
def test_a_template_file_that_cannot_be_used_is_refused_without_a_tokenizer(
    text: str | None, part: str, tmp_path: Path
) -> None:
    path = tmp_path / "own.jinja"
    if text is not None:
        path.write_text(text)
    config = TrainConfig(data=["rows.jsonl"], chat_template=str(path))
    with pytest.raises(KmmluError, match=part):
        check_chat_flags(config, [CHAT])


def test_usable_templates_and_names_pass_without_a_tokenizer(tmp_path: Path) -> None:
    for name, source in BUILT_IN.items():
        path = tmp_path / f"{name}.jinja"
        path.write_text(source)
        check_chat_flags(TrainConfig(data=["rows.jsonl"], chat_template=str(path)), [CHAT])
    check_chat_flags(TrainConfig(data=["rows.jsonl"], chat_template="rag"), [CHAT])  # one of the tokenizer's
    unread = TrainConfig(
        data=["rows.jsonl"], chat_template=str(tmp_path / "plain.jinja"), chat_template_kwargs=["x=1"]
    )
    with pytest.raises(KmmluError, match="reads no variable of that name"):
        check_chat_flags(unread, [CHAT])
    with pytest.raises(KmmluError, match="are for conversations"):
        check_chat_flags(TrainConfig(data=["rows.jsonl"], chat_template="plain"), [QUESTION])


def test_the_value_of_a_thinking_switch_is_said(base: Model, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="kmmlu_fast")
    set_up(base, CHAT)
    assert "has the switch" not in caplog.text
    switched = f"{{% if enable_thinking %}}!{{% endif %}}{BUILT_IN['chatml']}"
    path = Path(base.path) / "own.jinja"
    path.write_text(switched)
    set_up(base, CHAT, chat_template=str(path))
    assert "has the switch enable_thinking: False for chats and questions, and in evaluation" in caplog.text
    set_up(base, CHAT, chat_template=str(path), chat_template_kwargs=["enable_thinking=true"])
    assert "has the switch enable_thinking: True for chats" in caplog.text
