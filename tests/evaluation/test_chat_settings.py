"""An evaluation's template and stop tokens: of the flags, of the adapters, of the base."""

from __future__ import annotations

import datetime
import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from template_cases import OWN

from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.core.digests import compute_fingerprint
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.schema import Generation
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.plan import EvalPlan, make_eval_plan
from kmmlu_fast.models.tokens import open_tokenizer
from kmmlu_fast.prompting.chat_template import BUILT_IN, _open_own_template


def plan_of(model: Path, *flags: str) -> EvalPlan:
    fixed = ["--model", str(model), "--dataset", "sample", "--subjects", "Law", "--limit", "2"]
    plan = make_eval_plan(parse_config(EvalConfig, [*fixed, *flags], "eval"))
    plan.close()
    return plan


def chat_parts(plan: EvalPlan) -> set[str]:
    return {name for name in plan.parts if name.startswith("chat")}


@pytest.fixture
def trained(lora: Path, tmp_path: Path) -> Path:
    """An adapter with the files that training saves beside it."""
    folder = tmp_path / "trained"
    shutil.copytree(lora, folder)
    (folder / "chat_template.jinja").write_text(BUILT_IN["plain"], encoding="utf-8")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [4, 2]}))
    return folder


def test_a_file_of_the_users_is_used_and_is_in_the_fingerprint(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text(OWN["thought_by_switch"], encoding="utf-8")
    chat = ("--prompt-style", "chat", "--chat-template", str(path))
    plan, switched = (
        plan_of(model, *chat),
        plan_of(model, *chat, "--chat-template-kwargs", "skip_think=false"),
    )
    assert chat_parts(plan) == {"chat_template"}
    assert chat_parts(switched) == {"chat_template", "chat_template_kwargs"}
    assert plan.parts["template_digest"] != switched.parts["template_digest"]
    assert any("closed without a thought" in note for note in switched.notes)


def test_flags_without_effect_are_refused(model: Path) -> None:
    with pytest.raises(ConfigError, match="go with --prompt-style chat"):
        plan_of(model, "--chat-template", "plain")
    with pytest.raises(ConfigError, match="--chat-template-kwargs goes with --prompt-style chat, not qa"):
        plan_of(model, "--prompt-style", "qa", "--chat-template-kwargs", "a=1")
    with pytest.raises(ConfigError, match="--thinking goes with --output-type cot"):
        plan_of(model, "--prompt-style", "chat", "--thinking")


def test_the_adapters_template_asks_base_and_adapter(model: Path, trained: Path) -> None:
    plan = plan_of(model, "--prompt-style", "chat", "--adapter", str(trained))
    assert chat_parts(plan) == {"chat_template"}
    assert any("trained was trained with the chat template in trained" in note for note in plan.notes)
    lm_eval = plan_of(model, "--adapter", str(trained))
    assert chat_parts(lm_eval) == set() and not any("template" in note for note in lm_eval.notes)


def test_an_adapter_with_the_bases_own_template_changes_nothing(model: Path, trained: Path) -> None:
    own = (model / "chat_template.jinja").read_text(encoding="utf-8")
    (trained / "chat_template.jinja").write_text("{# saved #}" + own, encoding="utf-8")
    alone = plan_of(model, "--prompt-style", "chat")
    plan = plan_of(model, "--prompt-style", "chat", "--adapter", str(trained))
    assert plan.parts == alone.parts and plan.notes == []


def test_adapters_of_two_templates_are_not_asked_together(model: Path, trained: Path, lora: Path) -> None:
    flags = ("--prompt-style", "chat", "--adapter", f"a={trained}", "--adapter", f"b={lora}")
    with pytest.raises(ConfigError, match="a, b were trained with different chat templates"):
        plan_of(model, *flags)
    plan = plan_of(model, *flags, "--chat-template", "chatml")
    assert any("adapter a was trained with another chat template" in note for note in plan.notes)


@pytest.mark.parametrize("output_type", ["cot", "generate_until"])
def test_generation_stops_where_the_adapter_was_trained_to(
    output_type: str, model: Path, trained: Path
) -> None:
    plan = plan_of(model, "--prompt-style", "chat", "--adapter", str(trained), "--output-type", output_type)
    assert plan.parts["decoding"]["stop_token_ids"] == [4]
    assert any("end its answers with <|im_end|> (4)" in note for note in plan.notes)
    item = plan.asked[0]
    requests: list[Any] = plan.method.start(item.question, [[1]] * 2, None)
    (text,) = [request.want for request in requests if isinstance(request.want, Generation)]
    assert text.stop_ids == (4,)
    alone = plan_of(model, "--prompt-style", "chat", "--output-type", output_type)
    assert "stop_token_ids" not in alone.parts["decoding"]


def test_asked_on_two_days_it_is_one_run(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "dated.jinja"
    path.write_text(OWN["date"], encoding="utf-8")
    seen = set()
    for day in (datetime.datetime(2026, 11, 30), datetime.datetime(2027, 1, 2)):
        fake = type("Fake", (datetime.datetime,), {"now": classmethod(lambda cls, tz=None, day=day: day)})
        monkeypatch.setattr(datetime, "datetime", fake)
        monkeypatch.setattr(time, "time", day.timestamp)
        monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", fake, raising=False)
        _open_own_template.cache_clear()
        assert datetime.datetime.now() == day
        plan = plan_of(model, "--prompt-style", "chat", "--chat-template", str(path))
        prompt = open_tokenizer(plan.model).decode(plan.asked[0].token_id_lists()[0])
        assert "26 Jul 2024" in prompt
        seen.add((compute_fingerprint(plan.parts), plan.parts["chat_template_date"], prompt))
    assert len(seen) == 1
