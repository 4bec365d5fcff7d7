"""Declared protocols: their wording byte for byte, their answer rules, and declarations that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import make_tiny_tokenizer

from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.schema import Completion, Question, Response
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.prompting.method_choice import choose_method, choose_style
from kmmlu_fast.prompting.methods import GenerateUntil
from kmmlu_fast.prompting.prompts import render_prompt
from kmmlu_fast.prompting.protocols import find_protocol, shipped_protocol_names

ASKED = Question(
    question_id="Law/test/3",
    subject="Law",
    supercategory="HUMSS",
    split="test",
    row=3,
    question=" {options}는 무엇인가? ",
    options=("빨강", "{text}", "파랑", "하양"),
    answer="C",
)
OWN = """
name: {name}
title: my own
source: https://example.org
output_type: generate_until
num_fewshot: 0
wording:
  template: "Q {{question}}\\n{{options}}"
  option: "[{{letter}}] {{text}} "
answer: {{pattern: "정답은 ([A-D])"}}
"""


def config(*flags: str) -> EvalConfig:
    return parse_config(EvalConfig, ["--model", "m", *flags], "eval")


def test_every_shipped_protocol_is_named_in_the_help_and_has_a_source() -> None:
    description = str(EvalConfig.model_fields["protocol"].description)
    for name in shipped_protocol_names():
        protocol = find_protocol(name)
        assert protocol.name == name and protocol.source.startswith("https://") and name in description


def test_simple_evals_wording_byte_for_byte() -> None:
    # common.py: QUERY_TEMPLATE_MULTICHOICE, stripped, formatted with Question, A, B, C, D
    expected = (
        "Answer the following multiple choice question. The last line of your response should be of the"
        " following format: 'Answer: $LETTER' (without quotes) where LETTER is one of ABCD. Think step by"
        " step before answering.\n\n {options}는 무엇인가? \n\nA) 빨강\nB) {text}\nC) 파랑\nD) 하양"
    )
    tokenizer = make_tiny_tokenizer(chat=True)
    style = find_protocol("simple-evals").style
    rendered = render_prompt(ASKED, [], style, tokenizer, reasoning=True)
    assert rendered.text == f"<|im_start|>user\n{expected}<|im_end|>\n<|im_start|>assistant\n"
    assert not rendered.add_special_tokens


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("파랑이다.\n\nAnswer: C", "C"),
        ("**Answer: $C$**", "C"),
        ("Answer: $\\boxed{b}$", "B"),
        ("answer : D 그리고 Answer: A", "D"),
        ("Answer: E", None),
        ("정답은 C", None),
        ("", None),
    ],
)
def test_simple_evals_answers_are_read_as_there(text: str, letter: str | None) -> None:
    settings = config("--protocol", "simple-evals")
    tokenizer = make_tiny_tokenizer(chat=True)
    method, *_ = choose_method(
        settings, choose_style(settings, [], tokenizer), [ASKED], {"Law": []}, tokenizer
    )
    assert isinstance(method, GenerateUntil) and (method.temperature, method.max_tokens) == (0.5, 1024)
    (request,) = method.start(ASKED, [[1, 2]], None)
    found = method.finish(ASKED, [Response(request, completions=(Completion(text, (1,), "stop"),))])
    assert found.prediction == letter and found.read_by == ("pattern" if letter else None)


def test_a_protocol_is_the_same_run_as_its_flags() -> None:
    by_name = config("--protocol", "kmmlu-direct")
    by_hand = config("--output-type", "generate_until")
    for settings in (by_name, by_hand):
        assert choose_style(settings, [], None) == "lm-eval"
    tokenizer = make_tiny_tokenizer()
    methods = [
        choose_method(each, "lm-eval", [ASKED], {"Law": []}, tokenizer)[0] for each in (by_name, by_hand)
    ]
    assert methods[0].decoding([ASKED]) == methods[1].decoding([ASKED])
    assert config("--protocol", "LM_Eval").letter_form == "lm-eval"


def test_flags_that_contradict_a_protocol_are_refused() -> None:
    with pytest.raises(
        ConfigError, match="--protocol lm-eval fixes --num-fewshot 0, not 5: leave --num-fewshot out"
    ):
        config("--protocol", "lm-eval", "--num-fewshot", "5")
    with pytest.raises(ConfigError, match="wording of its own: leave --prompt-style out"):
        config("--protocol", "simple-evals", "--prompt-style", "chat")
    with pytest.raises(ConfigError, match="did you mean simple-evals"):
        config("--protocol", "simple-eval")
    with pytest.raises(ConfigError, match="give one of them"):
        config("--protocol", "lm-eval", "--protocols", "lm-eval,bare-letter")
    with pytest.raises(ConfigError, match="names one twice"):
        config("--protocols", "lm-eval,lm-eval")
    with pytest.raises(ConfigError, match="what stops early"):
        config("--protocols", "lm-eval,bare-letter", "--until-precise", "1")
    assert config("--protocol", "lm-eval", "--num-fewshot", "0").num_fewshot == 0


def test_each_protocol_has_its_own_settings_and_keeps_the_others() -> None:
    each = config("--protocols", "lm-eval,kmmlu-paper,bare-letter", "--limit", "3").by_protocol()
    assert [one.num_fewshot for one in each] == [0, 5, 0]
    assert [one.letter_form for one in each] == ["lm-eval", None, "bare"]
    assert {one.limit for one in each} == {3} and all(one.protocols == [] for one in each)


def test_a_declaration_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(OWN.format(name="own-wording"), encoding="utf-8")
    settings = config("--protocol", str(path))
    style = choose_style(settings, [], None)
    rendered = render_prompt(ASKED, [], style)
    assert rendered.text == "Q {options}는 무엇인가?\n[A] 빨강 [B] {text} [C] 파랑 [D] 하양 "
    other = tmp_path / "other.yaml"
    other.write_text(OWN.format(name="own-wording").replace("Q {", "다른 {"), encoding="utf-8")
    with pytest.raises(ConfigError, match="two wordings are called 'own-wording'"):
        config("--protocol", str(other))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (('"정답은 ([A-D])"', '"정답은 ["'), "is not a regular expression"),
        (("([A-D])", "[A-D]"), "has no group for the letter"),
        (("generate_until", "multiple_choice"), "answer goes with output_type generate_until"),
        (("num_fewshot: 0", "num_fewshot: 2"), "exemplars have letters only"),
        (("{options}", ""), "leaves out {options}"),
        (("title: my own", "titel: my own"), "titel Extra inputs"),
        (("wording:", "prompt_style: qa\nwording:"), "either prompt_style or wording"),
        (("name: faulty", "name: [1"), "is not valid YAML"),
    ],
)
def test_faulty_declarations_say_what_is_wrong(change: tuple[str, str], problem: str, tmp_path: Path) -> None:
    path = tmp_path / "faulty.yaml"
    text = OWN.format(name="faulty")
    assert change[0] in text
    path.write_text(text.replace(*change), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"faulty\.yaml") as caught:
        config("--protocol", str(path))
    assert problem in str(caught.value)


def test_a_missing_declaration_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        config("--protocol", str(tmp_path / "none.yaml"))


def test_the_documented_declaration_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "howto" / "protocols.md").read_text(encoding="utf-8")
    path = tmp_path / "mine.yaml"
    path.write_text(page.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    protocol = find_protocol(str(path))
    assert protocol.name == "mine" and protocol.answer is not None and protocol.wording is not None
    table = [name for name in shipped_protocol_names() if f"| `{name}` |" in page]
    assert tuple(table) == shipped_protocol_names()
