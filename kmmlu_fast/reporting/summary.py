"""The table that eval leaves on the terminal.

In: finished runs. Out: Rich tables on stdout. Knows nothing of how the numbers came about.
"""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kmmlu_fast.core.foreign import clean
from kmmlu_fast.data.subjects import group_order
from kmmlu_fast.reporting.early import decision_lines, early_lines, recorded
from kmmlu_fast.reporting.language import percent, subject_name, supercategory_name, texts
from kmmlu_fast.reporting.reasoning import comparison_lines
from kmmlu_fast.reporting.tables import print_fitted, wide_console
from kmmlu_fast.runs.run import Run

_MOST_GROUPS = 6  # columns of supercategories

_LIMITED = (
    "{state}: with --limit micro is over an equal number of questions a subject, so near macro; "
    "compare and report weight subjects by their full sizes"
)

# The English text is the key; what is in braces is filled in afterwards, in either language.
_KO = {
    "{exam}, {questions} questions of {subjects} subjects, accuracy in %": (
        "{exam}, {subjects}개 과목 {questions}문항 정확도(%)"
    ),
    "model state": "모델 상태",
    "95 % interval": "95 % 신뢰구간",
    "micro": "micro(문항 평균)",
    "macro": "macro(과목 평균)",
    "unparsed": "미판독",
    "always {letter}": "항상 {letter}",
    "majority per subject": "과목별 최빈 글자",
    "guessing": "무작위 추측",
    "letter shares in %: a model that favours one letter fools its accuracy": (
        "글자 비율(%): 한 글자에 치우친 모델은 정확도를 왜곡합니다"
    ),
    "key": "정답",
    "{state}: predicted": "{state}: 예측",
    "{state}: recall": "{state}: 재현율",
    "{state}: weakest subjects: {names}": "{state}: 취약 과목: {names}",
    "{state}: micro {raw} raw, {debiased} debiased over rotations": (
        "{state}: micro 원래 {raw}, 선택지 순환 평균 {debiased}"
    ),
    "{state}: {count} answers forced; accuracy with these counted wrong {accuracy}": (
        "{state}: 강제 응답 {count}개, 이를 오답으로 센 정확도 {accuracy}"
    ),
    "{state}: {questions} questions in {seconds} s ({rate} questions/s, {tokens} prompt tokens/s)": (
        "{state}: {questions}문항 {seconds}초({rate}문항/초, 프롬프트 {tokens}토큰/초)"
    ),
    _LIMITED: (
        "{state}: --limit는 과목마다 같은 수의 문항을 물으므로 여기의 micro는 macro에 가깝습니다. "
        "compare와 report는 과목별 전체 문항 수로 가중합니다"
    ),
    "; engine start {start} s; prefix cache hit rate {hits}": (
        ", 엔진 시작 {start}초, 접두사 캐시 적중률 {hits}"
    ),
    "{state}: adapter applied, largest shift {nats} nats": (
        "{state}: 어댑터 적용 확인, 최대 로그 확률 변화 {nats} nats"
    ),
    "run directory: {path}": "실행 디렉터리: {path}",
}


def print_summary(runs: list[Run], lang: str = "en") -> None:
    """Headline, letters and weakest subjects of each run; names the run directories last."""
    console = wide_console()

    def t(text: str, **values: Any) -> str:
        return (_KO[text] if lang == "ko" else text).format(**values)

    by_exam: dict[str, list[Run]] = {}
    for run in runs:
        by_exam.setdefault(run.exam, []).append(run)
    early = [some for some in by_exam.values() if any(run.prefix is not None for run in some)]
    complete = [some for some in by_exam.values() if some not in early]
    for some in complete:
        for title, table in (_headline(some, t, lang), _letters(some, t)):
            console.print(title, highlight=False, markup=False)
            print_fitted(console, table, 1, 2, 3, len(table.columns) - 1)
    for some in complete:
        for run in some:
            _print_notes(console, run, t, lang)
        for pair in recorded(some):
            lines = decision_lines(pair, texts(lang, "early"))
            console.print(
                "\n".join(_titled(lines, some[0], by_exam)), highlight=False, markup=False, soft_wrap=True
            )
    for some in early:
        print("\n".join(_titled(early_lines(some, recorded(some), lang), some[0], by_exam)))
    for run in runs:
        print(clean(t("run directory: {path}", path=run.path)))


def _titled(lines: list[str], run: Run, by_exam: dict[str, list[Run]]) -> list[str]:
    """The lines under the exam's name, where there are several exams."""
    return [f"{_exam(run)}:", *lines] if len(by_exam) > 1 else lines


def _state(run: Run) -> str:
    return clean(run.state)


def _exam(run: Run) -> str:
    return clean(run.exam_title)


def _headline(runs: list[Run], t: Any, lang: str) -> tuple[str, Table]:
    found = runs[0].metrics
    heading = "{exam}, {questions} questions of {subjects} subjects, accuracy in %"
    title = t(
        heading, exam=_exam(runs[0]), questions=f"{found['num_questions']:,}", subjects=len(found["subjects"])
    )
    table = Table(box=SIMPLE)
    table.add_column(t("model state"))
    for name in ("micro", "95 % interval", "macro"):
        table.add_column(t(name), justify="right")
    groups = group_order(set(runs[0].metrics["supercategories"]))[:_MOST_GROUPS]
    for name in groups:
        table.add_column(supercategory_name(name, lang), justify="right")
    table.add_column(t("unparsed"), justify="right")
    for run in runs:
        found = run.metrics
        micro = found["micro"]
        table.add_row(
            Text(_state(run)),
            percent(micro["accuracy"]),
            f"{percent(micro['ci_low'])}–{percent(micro['ci_high'])}",
            percent(found["macro"]["accuracy"]),
            *(percent(found["supercategories"][name]["accuracy"], 1) for name in groups),
            f"{found['unparsed']:,}",
        )
    baselines = runs[0].metrics["baselines"]
    best = baselines["best_constant"]
    table.add_section()
    table.add_row(
        t("always {letter}", letter=best["letter"]),
        percent(best["accuracy"]),
        *[""] * (len(table.columns) - 2),
    )
    if run.exam != "kmmlu":
        table.add_row(t("guessing"), percent(baselines["uniform"]), *[""] * (len(table.columns) - 2))
    table.add_row(
        t("majority per subject"), percent(baselines["subject_majority"]), *[""] * (len(table.columns) - 2)
    )
    return title, table


def _letters(runs: list[Run], t: Any) -> tuple[str, Table]:
    table = Table(box=SIMPLE)
    table.add_column("")
    letters = list(runs[0].metrics["answer_letter_share"])
    for letter in letters:
        table.add_column(letter, justify="right")
    table.add_row(
        t("key"), *(percent(runs[0].metrics["answer_letter_share"][letter], 1) for letter in letters)
    )
    for run in runs:
        shares = run.metrics["predicted_letter_share"]
        table.add_row(
            Text(t("{state}: predicted", state=_state(run))),
            *(percent(shares[letter], 1) for letter in letters),
        )
        recall = run.metrics["recall"]
        shown = (percent(recall[letter], 1) for letter in letters)
        table.add_row(Text(t("{state}: recall", state=_state(run))), *shown)
    return t("letter shares in %: a model that favours one letter fools its accuracy"), table


def _print_notes(console: Console, run: Run, t: Any, lang: str) -> None:
    found = run.metrics
    weakest = sorted(found["subjects"].items(), key=lambda item: item[1]["accuracy"])[:5]
    names = ", ".join(
        f"{subject_name(name, lang) if lang == 'ko' else name} {percent(score['accuracy'], 0)}"
        for name, score in weakest
    )
    state, micro = _state(run), found["micro"]["accuracy"]
    lines = [t("{state}: weakest subjects: {names}", state=state, names=names)]
    if (run.config.get("config") or {}).get("limit"):
        lines.append(t(_LIMITED, state=state))
    if (debiased := found.get("accuracy_debiased")) is not None:
        rotated = "{state}: micro {raw} raw, {debiased} debiased over rotations"
        lines.append(t(rotated, state=state, raw=percent(micro), debiased=percent(debiased)))
    if found.get("forced"):
        without = percent(found["accuracy_without_forced"])
        text = "{state}: {count} answers forced; accuracy with these counted wrong {accuracy}"
        lines.append(t(text, state=state, count=f"{found['forced']:,}", accuracy=without))
    speed, engine = found["speed"], found["engine"]
    rate = t(
        "{state}: {questions} questions in {seconds} s ({rate} questions/s, {tokens} prompt tokens/s)",
        state=state,
        questions=f"{speed['questions']:,}",
        seconds=f"{speed['seconds']:.1f}",
        rate=speed["questions_per_sec"],
        tokens=f"{speed['prompt_tokens_per_sec']:,.0f}",
    )
    hits = f"{engine.get('prefix_cache_hit_rate', 0):.1%}"
    lines.append(
        rate
        + t(
            "; engine start {start} s; prefix cache hit rate {hits}",
            start=engine.get("start_sec", 0),
            hits=hits,
        )
    )
    lines += [f"{state}: {line}" for line in comparison_lines(found.get("reasoning") or {})]
    if found.get("adapter_shift"):
        nats = f"{found['adapter_shift']['largest_nats']:.4f}"
        lines.append(t("{state}: adapter applied, largest shift {nats} nats", state=state, nats=nats))
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
