"""Thoughts and answers: vLLM's parsers, the parser of each template, and what is never read as an answer."""

from __future__ import annotations

import importlib.util
import re
from typing import Any

import pytest
from template_cases import OWN, SHIPPED, tokenizer_with

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.schema import Completion, Generation, Response
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.prompting.answer_extraction import ExtractedAnswer
from kmmlu_fast.prompting.cot_digest import PROBE
from kmmlu_fast.prompting.cot_tokens import build_chain_of_thought
from kmmlu_fast.prompting.reasoning_parsers import (
    ANY_PARSER,
    PARSERS,
    UNREADABLE,
    choose_parser,
    find_parser,
    parser_faults,
)
from kmmlu_fast.prompting.thoughts import THOUGHTS, Thought

MARKS = sorted({mark for p in PARSERS.values() for mark in (*p.openers, *p.closers, *p.answer_marks)})
MORE = (
    "<|channel>",
    "<assistant>",
    "<tool_call>",
    "</tool_call>",
    "<|open|>",
    "<|close|>",
    "<|sep|>",
    "</",
    ">",
)


class Letters:
    """A tokenizer as far as vLLM's parsers look: each mark is a token, and else each character."""

    is_fast, bos_token, eos_token, eos_token_id, chat_template = True, "<s>", "</s>", 999, None

    def __init__(self) -> None:
        marks = dict.fromkeys((*MORE, *MARKS))
        del marks["<|channel>thought"]  # two tokens
        self.vocab = {mark: index for index, mark in enumerate(marks)}
        self.vocab |= {"Ġ</": 500, "think": 501, "[TOOL_CALLS]": 502, "[ARGS]": 503, "[CALL_ID]": 504}
        self.all_special_ids, self.all_special_tokens = list(self.vocab.values()), list(self.vocab)
        self.added_tokens_encoder = self.vocab

    def get_vocab(self) -> dict[str, int]:
        return self.vocab

    def convert_tokens_to_ids(self, token: str) -> int | None:
        return self.vocab.get(token)

    def encode(self, text: str, **settings: Any) -> list[int]:
        marks = "|".join(map(re.escape, sorted(self.vocab, key=len, reverse=True)))
        return [
            self.vocab.setdefault(piece, len(self.vocab) + 600) for piece in re.findall(f"{marks}|.", text)
        ]

    def decode(self, ids: Any, **settings: Any) -> str:
        names = {index: text for text, index in self.vocab.items()}
        return "".join(names.get(index, "") for index in ([ids] if isinstance(ids, int) else ids))

    def __len__(self) -> int:
        return 5000


class AnyRequest:
    """A request with nothing set."""

    def __getattr__(self, name: str) -> None:
        return None


def vllm_content(name: str, text: str) -> str | None:
    """What vLLM's own parser takes for the answer."""
    from vllm.reasoning import ReasoningParserManager

    kind = ReasoningParserManager.get_reasoning_parser(name)
    switches = {"enable_thinking": True, "thinking": True, "reasoning_effort": "high"}
    content = kind(Letters(), chat_template_kwargs=switches).extract_reasoning(text, AnyRequest())[1]
    return content or None


# vLLM has no parser of texts for the first two; the third leaves the thought in the answer.
WITHOUT_PEER = {"openai_gptoss", "cohere_command3", "cohere_command4", "minimax_m2_append_think"}
MARKED = {
    "hunyuan_a13b": ("<think>\n{}\n</think>\n<answer>\n", "{}"),
    "gemma4": ("<|channel>thought\n{}<channel|>", "{}"),
    "granite": ("Here is my thought process:{}Here is my response:", "{}"),
    "inkling": (
        "<|content_thinking|>{}<|end_message|><|message_model|><|content_text|>",
        "{}<|end_message|>",
    ),
    "muse_glimmer": (" to=self<|message|>{}<|eom|><|start|>assistant to=user<|message|>", "{}<|eot|>"),
    "openai_gptoss": (
        "<|channel|>analysis<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>",
        "{}<|return|>",
    ),
}


def marked(name: str) -> tuple[str, str]:
    """A thought, and an answer after it, as models of that parser write them: texts with ``{}``."""
    parser = PARSERS[name]
    return MARKED.get(name, (f"{parser.openers[0]}{{}}{parser.closers[0]}", "{}"))


@pytest.mark.parametrize("name", sorted(PARSERS))
def test_answers_are_vllms_and_never_stand_in_a_thought(name: str) -> None:
    thought, answer = marked(name)
    parser = PARSERS[name]
    in_thought = not parser.unmarked
    whole = thought.format("정답: A") + answer.format("정답: B")
    cut = whole[: whole.index("정답: A") + 5]
    twice = thought.format("정답: A") + answer.format("정답: A") + whole
    assert (parser.find_answer(whole, in_thought) or "").strip() == "정답: B"
    assert (
        parser.find_answer(thought.format("") + answer.format("정답: B"), in_thought) or ""
    ).strip() == "정답: B"
    assert parser.find_answer(cut, in_thought) is None
    assert parser.find_answer(cut) is None  # the model was not expected to think
    assert (parser.find_answer(twice, in_thought) or "").strip() == "정답: B"
    assert parser.find_answer(twice[: twice.rindex("정답: A") + 5], in_thought) is None
    assert parser.find_answer("정답: B", in_thought) == ("정답: B" if parser.unmarked else None)
    if name in WITHOUT_PEER or importlib.util.find_spec("vllm") is None:
        return
    assert (vllm_content(name, whole) or "").strip() == "정답: B"
    stricter = ("granite", "hunyuan_a13b", "olmo3")  # vLLM takes an open thought for the answer
    assert (vllm_content(name, cut) is None) != (name in stricter)
    assert vllm_content(name, "정답: B") == parser.find_answer("정답: B", in_thought)


def test_every_parser_of_the_installed_vllm_is_known() -> None:
    pytest.importorskip("vllm")
    from vllm.reasoning import ReasoningParserManager

    names = set(ReasoningParserManager.lazy_parsers) | set(ReasoningParserManager.reasoning_parsers)
    assert names == PARSERS.keys() | UNREADABLE.keys()


SHIPPED_PARSERS = {
    "deepseek": "deepseek_r1",
    "diffusion_gemma": "gemma4",
    "gemma4": "gemma4",
    "glm4moe": "glm45",
    "gptoss": "openai_gptoss",
    "lfm2_2_5": "deepseek_r1",
    "muse_glimmer": "muse_glimmer",
    "nemotron": "nemotron_v3",
    "qwen3_instruct": "",
    "qwen3_vl": "",
    "qwen3": "qwen3",
}


@pytest.mark.parametrize("name", [*SHIPPED, *OWN])
def test_the_parser_is_told_from_the_template(name: str) -> None:
    method = build_chain_of_thought("chat", tokenizer_with({**SHIPPED, **OWN}[name]))
    own = {
        "thought_left_open": "deepseek_r1",
        "thought_closed": "deepseek_r1",
        "thought_by_switch": "deepseek_r1",
    }
    expected = next((parser for start, parser in SHIPPED_PARSERS.items() if name.startswith(start)), "")
    assert method.parser.name == own.get(name, expected)
    # A run of today keeps its fingerprint, unless its thoughts were read as answers.
    assert method.parser_matters == name.startswith(("gptoss", "muse"))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("{{ '[THINK]' }}", "mistral"),
        ("{{ '<|START_THINKING|>' }}", "cohere_command3"),
        ("{{ '<seed:think>' }}", "seed_oss"),
        ("{{ '<mm:think>' }}", "minimax_m3"),
        ("Here is my thought process: then", "granite"),
        ("{{ '</think>\\n<answer>' }}", "hunyuan_a13b"),
        ("{{ '[|assistant|]<think>' }}", "deepseek_r1"),
        ("{{ message.content }}", ""),
    ],
)
def test_families_are_told_by_their_marks(text: str, name: str) -> None:
    assert choose_parser(text).name == name


def test_an_open_thought_decides_before_the_templates_text() -> None:
    assert choose_parser("</think>", Thought("<seed:think>", "</seed:think>")).name == "seed_oss"
    own = choose_parser("no mark", Thought("<musing>", "</musing>"))
    assert own.find_answer("정답: A</musing>정답: B", True) == "정답: B"
    exaone = choose_parser("<thought>", Thought("<thought>", "</thought>"))
    assert exaone.finishing_text == "\n</thought>\n"


@pytest.mark.parametrize("thought", [thought for thought in THOUGHTS if "|" not in thought.opener])
def test_a_thought_that_nobody_expected_is_not_the_answer(thought: Thought) -> None:
    assert ANY_PARSER.find_answer(f"{thought.opener}정답: A") is None
    assert ANY_PARSER.find_answer(f"{thought.opener}정답: A{thought.closer}정답: B") == "정답: B"
    assert ANY_PARSER.find_answer("정답: B") == "정답: B"


@pytest.mark.skipif("gptoss" not in SHIPPED, reason="needs TRL's templates")
def test_channels_are_read_and_a_cut_analysis_is_ended_before_the_answer_is_forced() -> None:
    tokenizer = tokenizer_with(SHIPPED["gptoss"])
    method = build_chain_of_thought("chat", tokenizer)
    thought, answer = marked("openai_gptoss")
    *_, reason = method.start(PROBE, [[5, 6], [5]], None)
    assert isinstance(reason.want, Generation) and reason.want.keep_special and not reason.want.stop
    whole = Completion(thought.format("보기 A는 아니다.\n정답: A\n") + answer.format("정답: B"), (7,), "stop")
    assert method.follow_up(Response(reason, completions=(whole,))) == []
    assert method.read_completion(whole, PROBE.options) == ExtractedAnswer("B", "final_line")
    cut = Completion("<|channel|>analysis<|message|>정답: A\n", (7, 8), "length")
    assert [request.stage for request in method.follow_up(Response(reason, completions=(cut,)))] == [
        "forced-0"
    ]
    ids = method.forcing_ids(cut)
    assert tokenizer.decode(ids[2:]).startswith("<|end|><|start|>assistant<|channel|>final<|message|>")


def test_a_parser_that_is_named_reads_thoughts_of_a_template_that_does_not_show_them() -> None:
    tokenizer = tokenizer_with(OWN["stripping"])
    plain = build_chain_of_thought("chat", tokenizer)
    assert not plain.thinking and "reasoning_parser" not in plain.decoding([])
    named = build_chain_of_thought("chat", tokenizer, reasoning_parser="seed_oss")
    assert named.thinking and named.in_thought and named.decoding([])["reasoning_parser"] == "seed_oss"
    assert named.find_answer("정답: A</seed:think>정답: B") == "정답: B"
    # What the template says anyway changes nothing when it is said again.
    for name in ("thought_left_open", "thought_closed"):
        tokenizer = tokenizer_with(OWN[name])
        said = build_chain_of_thought("chat", tokenizer, reasoning_parser="deepseek_r1")
        assert said == build_chain_of_thought("chat", tokenizer)


def test_names_that_cannot_be_used_are_refused_before_anything_is_loaded() -> None:
    with pytest.raises(ConfigError, match="no parser of that name; vLLM's are cohere_command3, "):
        find_parser("qwen")
    assert "tokenizer_config.json" in parser_faults("hf")[0]
    for flags, message in (
        ({"reasoning_parser": "qwen3"}, "--reasoning-parser goes with --output-type cot"),
        ({"reasoning_parser": "qwen", "output_type": "cot"}, "no parser of that name"),
        ({"reasoning_parser": "qwen3", "output_type": "cot", "prompt_style": "qa"}, "--prompt-style chat"),
    ):
        with pytest.raises(ValueError, match=message):
            EvalConfig(model="demo", **flags)
