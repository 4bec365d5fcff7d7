"""The answer-reading ladder: a table of invented Korean endings, each rung's use, and
properties over arbitrary texts.
"""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kmmlu_fast.prompting.answer_extraction import EXPLICIT, LADDER, STRICT, ExtractedAnswer, extract_answer

STATEMENTS = ("손익계산서", "대차대조표", "현금흐름표", "자본변동표")
NESTED = ("자산", "총자산", "자산과 부채", "부채")
NUMBERS = ("3", "4", "5", "6")
UNITS = ("12 kN", "24 kN", "2.5 kN", "25 kN")
VITAMINS = ("비타민 A", "비타민 B", "비타민 C", "비타민 D")
CIRCLED = ("①, ②", "②, ③", "①, ③", "③, ④")
TWINS = ("완속 충전", "급속 충전", "급속 충전", "무선 충전")
FORMS = ("A형 간염", "B형 간염", "D형 간염", "C형 간염")

# (text, options, letter, rung)
TABLE: list[tuple[str, tuple[str, ...] | None, str | None, str | None]] = [
    # the asked-for line
    ("자산을 나타내는 표를 묻고 있다.\n정답: B", STATEMENTS, "B", "final_line"),
    ("풀이를 마친다.\n정답: C\n", None, "C", "final_line"),
    ("풀이를 마친다.\n\n정답：D", None, "D", "final_line"),
    ("풀이를 마친다.\n**정답: A**", None, "A", "final_line"),
    ("풀이를 마친다.\n**정답:** A", None, "A", "final_line"),
    ("풀이를 마친다.\n정답: (C)", None, "C", "final_line"),
    ("풀이를 마친다.\n정답: Ｄ.", None, "D", "final_line"),
    ("풀이를 마친다.\n### 정답: B", None, "B", "final_line"),
    ("풀이를 마친다.\n최종 정답: B<|im_end|>", None, "B", "final_line"),
    ("먼저 정답: A 라고 적었으나 단위를 놓쳤다.\n정답: D", None, "D", "final_line"),
    ("<think>A 같다. 정답: A</think>\n\n다시 보면 B이다.\n정답: B", None, "B", "final_line"),
    ("정답: \\boxed{C}", None, "C", "final_line"),
    ("정답: $\\text{B}$", None, "B", "boxed_or_final"),
    # boxed
    ("따라서 구하는 값은 다음과 같다.\n$$\\boxed{B}$$", STATEMENTS, "B", "boxed"),
    ("식을 정리하면 \\boxed{\\text{D}} 를 얻는다", None, "D", "boxed"),
    ("\\boxed{③}", STATEMENTS, "C", "boxed"),
    ("\\boxed{A. 손익계산서}", STATEMENTS, "A", "boxed"),
    ("\\boxed{2번}", NUMBERS, "B", "boxed"),
    ("먼저 \\boxed{A}를 얻지만 부호를 고치면 \\boxed{(B)}가 남는다", None, "B", "boxed"),
    ("최대 하중은 \\boxed{24} 이다", UNITS, None, None),
    # stated
    ("재무 상태를 나타내므로 정답은 B입니다.", STATEMENTS, "B", "stated"),
    ("따라서 정답은 (C)이다.", None, "C", "stated"),
    ("따라서 정답은 ②번입니다.", None, "B", "stated"),
    ("정답은 ④", None, "D", "stated"),
    ("정답은 3번이다.", NUMBERS, "C", "stated"),
    ("정답은 3번이다.", STATEMENTS, "C", "stated"),
    ("정답은 2입니다.", STATEMENTS, "B", "stated"),
    ("정답 번호는 4번입니다.", None, "D", "stated"),
    ("답: (B)", None, "B", "stated"),
    ("답 : ①", None, "A", "stated"),
    ("답은 D.", None, "D", "stated"),
    ("답안: A", None, "A", "stated"),
    ("정답 B", None, "B", "stated"),
    ("정답은 바로 C입니다.", None, "C", "stated"),
    ("정답은 보기 (D)입니다.", None, "D", "stated"),
    ("정답은 선택지 A가 된다.", None, "A", "stated"),
    ("정답: B. 대차대조표", STATEMENTS, "B", "stated"),
    ("정답: B\n\n이유: 특정 시점의 재무 상태를 나타내기 때문이다.", STATEMENTS, "B", "stated"),
    ("정답: B (대차대조표)", STATEMENTS, "B", "stated"),
    ("정답은 **B**입니다.", None, "B", "stated"),
    ("정답은 'B'입니다.", None, "B", "stated"),
    ("정답은 「C」이다.", None, "C", "stated"),
    ("정답은 Ｂ이다.", None, "B", "stated"),
    ("정답은 Ⓒ입니다.", None, "C", "stated"),
    ("정답은 ⑵입니다.", None, "B", "stated"),
    ("정답:\nD", None, "D", "stated"),
    ("【정답】 ③", None, "C", "stated"),
    ("[정답] 2", STATEMENTS, "B", "stated"),
    ("정 답 : ④", None, "D", "stated"),
    ("### 정답\n\n**B. 대차대조표**", STATEMENTS, "B", "stated"),
    ("따라서 정답은 보기 B인 '대차대조표'입니다.", STATEMENTS, "B", "stated"),
    ("선택지 C가 올바른 답입니다.", STATEMENTS, "C", "stated"),
    ("정답은 B라고 할 수 있습니다.", STATEMENTS, "B", "stated"),
    ("A를 선택하지 않은 이유는 기간 때문이고, 정답은 D이다.", STATEMENTS, "D", "stated"),
    ("B가 가장 적절한 답이라고 판단된다.", STATEMENTS, "B", "stated"),
    ("정답은 \\(\\boxed{A}\\) 입니다.", None, "A", "boxed"),
    ("The answer is C.", None, "C", "stated"),
    ("Answer: (D)", None, "D", "stated"),
    ("정답은 A, B, C, D 중 B입니다.", None, "B", "stated"),
    ("A는 수익을, C는 현금을 다루므로 B가 정답입니다.", STATEMENTS, "B", "stated"),
    ("B(대차대조표)가 정답이다.", STATEMENTS, "B", "stated"),
    ("(D) 자본변동표가 정답으로 가장 알맞다.", STATEMENTS, "D", "stated"),
    ("나머지는 틀렸으므로 ③이 정답이다.", None, "C", "stated"),
    ("그래서 저는 C를 선택합니다.", None, "C", "stated"),
    ("결국 2번을 고른다.", None, "B", "stated"),
    ("처음에는 정답은 A라고 보았다. 그러나 이자를 더하면 정답은 D이다.", None, "D", "stated"),
    ("답: A\n다시 계산하면 값이 다르다.\n답: C", None, "C", "stated"),
    ("정답은 A가 아니라 B입니다. 그러므로 정답은 B이다.", None, "B", "stated"),
    ("정답이 A라면 단위가 맞지 않는다. 정답은 C다.", None, "C", "stated"),
    ("정답은 A일까? 그렇지 않다. 답은 B다.", None, "B", "stated"),
    ("정답은 A로 보이지만 예외가 있어 D가 정답이다.", None, "D", "stated"),
    ("A가 정답이 아닌 이유는 이자 때문이며 정답은 B이다", None, "B", "stated"),
    ("오답: A, C, D / 정답: B로 한다", None, "B", "stated"),
    ("정답은 C이므로 나머지는 볼 필요가 없다.", VITAMINS, "C", "stated"),
    # stated with the option's text
    ("따라서 정답은 대차대조표입니다.", STATEMENTS, "B", "stated_option"),
    ("정답: 현금흐름표", STATEMENTS, "C", "stated_option"),
    ("답은 '자본변동표'이다.", STATEMENTS, "D", "stated_option"),
    ("정답은 3입니다.", NUMBERS, "A", "stated_option"),
    ("정답은 25 kN이다.", UNITS, "D", "stated_option"),
    ("정답은 2.5 kN이다.", UNITS, "C", "stated_option"),
    ("정답은 비타민 C입니다.", ("비타민 C", "칼슘", "철분", "요오드"), "A", "stated_option"),
    ("정답은 C형 간염입니다.", FORMS, "D", "stated_option"),
    ("정답은 총자산이다.", NESTED, "B", "stated_option"),
    ("정답은 자산과 부채입니다.", NESTED, "C", "stated_option"),
    ("정답은 ①, ③입니다.", CIRCLED, "C", "stated_option"),
    # bold
    ("재무 상태를 보여 주는 표:\n**B. 대차대조표**", STATEMENTS, "B", "bold"),
    ("고르면\n\n**(D)** 가 남아 있다", STATEMENTS, "D", "bold"),
    ("이 가운데 알맞은 것: **③ 현금흐름표**", STATEMENTS, "C", "bold"),
    # a label line
    ("B", None, "B", "label_line"),
    (" C", None, "C", "label_line"),
    ("(A)", None, "A", "label_line"),
    ("②", None, "B", "label_line"),
    ("4", STATEMENTS, "D", "label_line"),
    ("B. 대차대조표", STATEMENTS, "B", "label_line"),
    ("③ 현금흐름표", STATEMENTS, "C", "label_line"),
    ("D\n\n해설: 자본의 변동을 기간별로 보여 준다.", STATEMENTS, "D", "label_line"),
    ("계산 결과 24 kN을 얻는다.\nB", UNITS, "B", "label_line"),
    # concluded
    ("조건을 모두 만족하는 보기는 (A)가 아니라 (B)입니다.", None, "B", "concluded"),
    ("따라서 옳지 않은 것은 C이다.", None, "C", "concluded"),
    ("그러므로 알맞은 보기는 ④번이다.", None, "D", "concluded"),
    ("A는 수익, B는 재무 상태를 나타낸다. 따라서 B입니다.", STATEMENTS, "B", "concluded"),
    ("조건에 맞는 것은 (C)에 해당한다.", None, "C", "concluded"),
    ("(A) 손익계산서가 아니라 (B) 대차대조표에 해당한다.", STATEMENTS, "B", "concluded"),
    ("그러므로 빈칸에 들어갈 말은 보기 (A)이며 이는 법에 정해져 있다.", None, "A", "concluded"),
    ("정답은 다음과 같습니다: B", None, "B", "concluded"),
    ("x = 4이므로 ∴ C", None, "C", "concluded"),
    # the option's text in the last sentence
    ("특정 시점의 재무 상태를 나타내는 것은 대차대조표이다.", STATEMENTS, "B", "closing_option"),
    ("두 값을 더하면 24 kN입니다.", UNITS, "B", "closing_option"),
    ("결국 남는 것은 '현금흐름표'입니다.", STATEMENTS, "C", "closing_option"),
    (
        "이 증상은 비타민 C가 모자랄 때 나타난다. 즉 필요한 것은 비타민 C이다.",
        ("비타민 C", "칼슘", "철분", "요오드"),
        "A",
        "closing_option",
    ),
    # nothing to read: better forced than invented
    ("", None, None, None),
    ("   \n\n", STATEMENTS, None, None),
    ("각 보기를 차례로 살펴보자.", STATEMENTS, None, None),
    ("정답은", None, None, None),
    ("정답: E", None, None, None),
    ("정답은 5번입니다.", None, None, None),
    ("정답은 A와 B입니다.", STATEMENTS, None, None),
    ("정답은 A 또는 C로 보인다.", STATEMENTS, None, None),
    ("A와 B가 정답이다.", STATEMENTS, None, None),
    ("정답은 A형 간염이다.", None, None, None),
    ("정답은 CPU이다.", None, None, None),
    ("정답은 3개이다.", None, None, None),
    ("정답은 2.5이다.", None, None, None),
    ("정답은 1,200원입니다.", None, None, None),
    ("정답은 A가 아닙니다.", None, None, None),
    ("오답은 A이다", None, None, None),
    ("대답은 A처럼 보인다", None, None, None),
    ("A는 틀린 설명이다.", STATEMENTS, None, None),
    (
        "**A. 손익계산서**: 기간의 성과\n**B. 대차대조표**: 시점의 상태\n**C. 현금흐름표**: 현금의",
        STATEMENTS,
        None,
        None,
    ),
    ("A. 손익계산서\nB. 대차대조표\nC. 현금흐름표\nD. 자본변동표", STATEMENTS, None, None),
    ("다음을 비교하면 (A)와 (C)가 남는다.", STATEMENTS, None, None),
    ("따라서 필요한 것은 비타민 C이다.", ("비타민 B", "칼슘", "철분", "요오드"), None, None),
    ("정답은 급속 충전이다.", TWINS, None, None),
    ("정답은 ①입니다.", CIRCLED, None, None),
    ("정답은 7입니다.", NUMBERS, None, None),
    ("<think>정답: B\n그런데 다시 생각하면", None, None, None),
    ("甲이 乙에게 A를 팔고 丙이 이를 샀다.", STATEMENTS, None, None),
]
TABLE = [
    (text, options, letter, "final_line" if rung == "boxed_or_final" else rung)
    for text, options, letter, rung in TABLE
]


@pytest.mark.parametrize(
    ("text", "options", "letter", "rung"), TABLE, ids=[f"{i}-{row[0][-24:]!r}" for i, row in enumerate(TABLE)]
)
def test_ending_is_read(
    text: str, options: tuple[str, ...] | None, letter: str | None, rung: str | None
) -> None:
    assert extract_answer(text, options) == ExtractedAnswer(letter, rung)


def test_table_is_large_and_uses_every_rung() -> None:
    assert sum(row[2] is not None for row in TABLE) >= 80
    assert {row[3] for row in TABLE if row[3]} == set(LADDER)


@pytest.mark.parametrize("removed", list(LADDER))
def test_without_a_rung_some_ending_is_no_longer_read(removed: str) -> None:
    shorter = {name: rung for name, rung in LADDER.items() if name != removed}
    lost = [row[0] for row in TABLE if extract_answer(row[0], row[1], ladder=shorter).letter != row[2]]
    if removed == "final_line":  # the lenient rungs read its letters too; what it adds is the strict count
        lost = [
            row[0]
            for row in TABLE
            if (extract_answer(row[0], row[1], ladder=shorter).rung in STRICT) != (row[3] in STRICT)
        ]
    assert lost


def test_thinking_that_did_not_end_reads_as_nothing() -> None:
    assert extract_answer("아마 B일 것이다.\n정답: B", in_thought=True) == ExtractedAnswer(None, None)
    assert extract_answer("아마 A일 것이다.</think>\n\n정답: B", in_thought=True) == ExtractedAnswer(
        "B", "final_line"
    )


def test_what_is_strict_is_explicit_too() -> None:
    assert set(STRICT) < set(EXPLICIT) < set(LADDER)


FORMS_OF = {letter: (letter, str(i + 1), chr(0x2460 + i)) for i, letter in enumerate("ABCD")}
IGNORED = str.maketrans("", "", "*_`#$\\{}\u200b\u200c\u200d\u2060\ufeff")
PIECES = (
    "정답|답|은 |: |：|A|B|Ｃ|D|①|③|２|4|번|입니다|이다|.|\n| |(|)|**|\\boxed{|}|가 아니라 |와 |를"
    " 선택|정답이다|대차대조표|비타민 C"
    "|<think>|</think>|따라서 |것은 |오|E|7|kN"
)
FRAGMENTS = st.sampled_from(PIECES.split("|"))
TEXTS = st.one_of(st.text(), st.lists(FRAGMENTS, max_size=25).map("".join))
OPTIONS = st.one_of(st.none(), st.lists(st.one_of(st.text(max_size=8), FRAGMENTS), min_size=4, max_size=4))


def squeezed(text: str) -> str:
    """Without white space and markup, in compatibility forms."""
    plain = unicodedata.normalize("NFKC", text.replace("\\boxed", "").translate(IGNORED))
    return "".join(plain.split())


@settings(max_examples=600, deadline=None)
@given(text=TEXTS, options=OPTIONS, thinking=st.booleans())
def test_never_raises_and_never_invents_a_letter(
    text: str, options: list[str] | None, thinking: bool
) -> None:
    letter, rung = (reading := extract_answer(text, options, in_thought=thinking)).letter, reading.rung
    assert (letter is None) == (rung is None)
    if letter is None:
        return
    assert rung in LADDER
    folded = unicodedata.normalize("NFKC", text).upper()
    named = any(unicodedata.normalize("NFKC", form) in folded for form in FORMS_OF[letter])
    if rung in ("stated_option", "closing_option"):
        assert options is not None
        assert squeezed(options["ABCD".index(letter)]).strip(".,;:!?\"'“”‘’()[]") in squeezed(text)
    else:
        assert named


@given(letter=st.sampled_from("ABCD"), before=st.text(alphabet="가나다라마바사 ,\n", max_size=60))
def test_the_asked_for_line_is_always_read(letter: str, before: str) -> None:
    assert extract_answer(f"{before}\n정답: {letter}") == ExtractedAnswer(letter, "final_line")


@pytest.mark.parametrize(
    "piece",
    ["정답은 ", "(", "A와 ", "**", "가 정답", "\\boxed{", "A ", "대차대조표 ", "아니 ", "A를 ", "\n", " "],
)
def test_long_and_hostile_texts_come_to_an_end(piece: str) -> None:
    assert extract_answer(piece * 5000 + "\n정답: C", STATEMENTS) == ExtractedAnswer("C", "final_line")
    assert extract_answer(piece * 5000, STATEMENTS).letter in (None, "B", "A")
