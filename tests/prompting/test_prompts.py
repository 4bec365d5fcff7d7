"""Prompts, character by character, and the letters' tokens, checked on real tokenizers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tiny import make_tiny_tokenizer

from kmmlu_fast.core.digests import tokens_digest
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.schema import LETTERS, Question
from kmmlu_fast.prompting.prompt_styles import STYLES, PromptStyle
from kmmlu_fast.prompting.prompts import (
    Prompt,
    continuation_ids,
    encode_prompts,
    format_question,
    letter_tokens,
    render_prompt,
    template_digest,
)

SKY = Question(
    question_id="Law/test/0",
    subject="Law",
    supercategory="HUMSS",
    split="test",
    row=0,
    question="  맑은 날 하늘의 색은? ",
    options=("빨강", "검정", " 파랑", "하양"),
    answer="C",
)
SEA = Question(
    question_id="Law/dev/0",
    subject="Law",
    supercategory="HUMSS",
    split="dev",
    row=0,
    question="바닷물의 맛은?",
    options=("단맛", "쓴맛", "신맛", "짠맛"),
    answer="D",
)


def test_lm_eval_zero_shot_golden() -> None:
    # the question is stripped, the options are not, the colon is U+FF1A
    expected = "맑은 날 하늘의 색은?\nA. 빨강\nB. 검정\nC.  파랑\nD. 하양\n정답\uff1a"
    assert render_prompt(SKY, [], "lm-eval") == Prompt(expected, add_special_tokens=True)


def test_lm_eval_few_shot_golden() -> None:
    expected = (
        "바닷물의 맛은?\nA. 단맛\nB. 쓴맛\nC. 신맛\nD. 짠맛\n정답\uff1a D\n\n"
        + render_prompt(SKY, [], "lm-eval").text
    )
    assert render_prompt(SKY, [SEA], "lm-eval").text == expected


def test_braces_and_percent_signs_stay_in_templates_and_in_questions() -> None:
    style = PromptStyle(
        name="odd",
        prefix="",
        cue="정답:",
        delimiter=" ",
        template="{question} 100 % {unknown} %(letters)s\n{options}\n{cue}",
        option="{letter}: 50%% {text} {cue}|",
    )
    odd = replace(SKY, question="{letters} 5 % %s", options=("{text}", "%d", "{", "%"))
    assert format_question(odd, style) == (
        "{letters} 5 % %s 100 % {unknown} %(letters)s\n"
        "A: 50%% {text} {cue}|B: 50%% %d {cue}|C: 50%% { {cue}|D: 50%% % {cue}|\n정답:"
    )


def test_qa_golden() -> None:
    assert (
        render_prompt(SKY, [], "qa").text
        == "문제: 맑은 날 하늘의 색은?\nA. 빨강\nB. 검정\nC.  파랑\nD. 하양\n정답:"
    )


def test_chat_golden_has_turns_and_no_second_bos() -> None:
    tokenizer = make_tiny_tokenizer(bos=True, chat=True)
    prompt = render_prompt(SKY, [SEA], "chat", tokenizer)
    assert (
        prompt.text == "<|im_start|>system\n다음은 객관식 문제입니다. A, B, C, D 중 정답의 알파벳 하나만"
        " 답하세요.<|im_end|>\n"
        "<|im_start|>user\n바닷물의 맛은?\nA. 단맛\nB. 쓴맛\nC. 신맛\nD. 짠맛\n정답\uff1a<|im_end|>\n"
        "<|im_start|>assistant\nD<|im_end|>\n"
        "<|im_start|>user\n맑은 날 하늘의 색은?\nA. 빨강\nB. 검정\nC.  파랑\nD. 하양\n정답\uff1a<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    [ids] = encode_prompts(tokenizer, [prompt])
    assert tokenizer.bos_token_id not in ids


def test_bos_comes_from_the_tokenizer_once() -> None:
    tokenizer = make_tiny_tokenizer(bos=True)
    [ids] = encode_prompts(tokenizer, [render_prompt(SKY, [], "lm-eval")])
    assert ids[0] == tokenizer.bos_token_id and tokenizer.bos_token_id not in ids[1:]


@pytest.mark.parametrize("style", STYLES)
def test_letters_are_one_token_each_and_the_ones_that_follow(style: str) -> None:
    tokenizer = make_tiny_tokenizer(chat=True)
    prompts = [render_prompt(SKY, [], style, tokenizer), render_prompt(SEA, [SKY], style, tokenizer)]
    found = letter_tokens(tokenizer, prompts, encode_prompts(tokenizer, prompts), style)
    delimiter = "" if style == "chat" else " "
    assert found.ids is not None
    assert [tokenizer.decode([i]) for i in found.ids] == [delimiter + letter for letter in LETTERS]


def test_a_letter_of_several_tokens_is_noticed_and_named() -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE({symbol: i for i, symbol in enumerate(alphabet)}, []))
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw)
    prompts = [render_prompt(SKY, [], "lm-eval")]
    found = letter_tokens(tokenizer, prompts, encode_prompts(tokenizer, prompts), "lm-eval")
    assert found.ids is None and "' A' is 2 tokens" in found.reason
    assert len(continuation_ids(tokenizer, prompts[0], " A")) == 2


@pytest.mark.parametrize(("words", "distinct"), [("ABCD", True), ("AB", False)])
def test_letters_that_are_one_and_the_same_token_are_no_letters(words: str, distinct: bool) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: place for place, word in enumerate(["[UNK]", *words])}  # other letters: unknown
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="[UNK]")
    prompts = [render_prompt(SKY, [], "lm-eval")]
    found = letter_tokens(tokenizer, prompts, encode_prompts(tokenizer, prompts), "lm-eval")
    assert (found.ids is not None) == distinct and ("not distinct" in found.reason) != distinct


def test_chat_without_a_template_is_refused() -> None:
    with pytest.raises(ConfigError, match="chat template"):
        render_prompt(SKY, [], "chat", make_tiny_tokenizer())


def test_digests_see_wording_and_tokens() -> None:
    assert template_digest("lm-eval") != template_digest("qa")
    assert (
        template_digest("lm-eval")
        == template_digest("lm-eval")
        != template_digest("lm-eval", instruction="골라라")
    )
    assert tokens_digest([1, 2]) == tokens_digest((1, 2)) != tokens_digest([12])
