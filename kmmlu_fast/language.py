"""What compare and report say, in English and Korean.

In: a language and a key with its values. Out: a text. Knows nothing of how numbers come about.
Numbers are formatted here too, so that both languages and all outputs show them alike.
"""

from __future__ import annotations

from collections.abc import Callable

from kmmlu_fast.subjects import SUBJECTS, SUPERCATEGORY_KO

_TEXTS: dict[str, tuple[str, str]] = {
    # verdict
    "no_difference": (
        "No significant difference between {first} and {second}: {diff} (95 % interval {low} to {high}, p = {p}).",
        "{first}와(과) {second} 사이에 유의한 차이가 없습니다: {diff} (95 % 신뢰구간 {low} ~ {high}, p = {p}).",
    ),
    "better": (
        "{second} is better than {first}: {diff} (95 % interval {low} to {high}, p {p}).",
        "{second}이(가) {first}보다 낫습니다: {diff} (95 % 신뢰구간 {low} ~ {high}, p {p}).",
    ),
    "worse": (
        "{second} is worse than {first}: {diff} (95 % interval {low} to {high}, p {p}).",
        "{second}이(가) {first}보다 못합니다: {diff} (95 % 신뢰구간 {low} ~ {high}, p {p}).",
    ),
    "same": ("{first} and {second} answered every question alike right or wrong.", "{first}와(과) {second}은(는) 모든 문항의 정오가 같습니다."),
    "of_which": (
        "{diff}, of which {prior} is letter prior and {rest} remains at equal letter shares (95 % interval {low} to {high}).",
        "{diff} 중 {prior}는 선택지 글자 편향이고, 글자 비율을 맞추면 {rest}가 남습니다 (95 % 신뢰구간 {low} ~ {high}).",
    ),
    "of_which_marginals": (
        "{diff}, of which {prior} is letter prior and {rest} remains (95 % interval {low} to {high}; from letter shares alone, there are no log-probabilities).",
        "{diff} 중 {prior}는 선택지 글자 편향이고 {rest}가 남습니다 (95 % 신뢰구간 {low} ~ {high}; 로그확률이 없어 글자 비율만으로 계산).",
    ),
    "all_prior": (
        "The change is letter habit, not knowledge: nothing significant remains without it.",
        "이 변화는 지식이 아니라 글자 편향입니다: 편향을 빼면 유의하게 남는 것이 없습니다.",
    ),
    "partly_prior": ("Letter habit is a significant part of the change.", "글자 편향이 변화의 유의한 일부를 차지합니다."),
    "not_prior": ("Letter habit does not explain the change.", "글자 편향으로는 이 변화가 설명되지 않습니다."),
    "hidden": (
        "Behind it, what does not depend on letters changed by {rest}, hidden by a letter prior of {prior}.",
        "그 이면에는 글자와 무관한 변화 {rest}이(가) 글자 편향 {prior}에 가려져 있습니다.",
    ),
    "opposite": (
        "Micro and macro go opposite ways ({micro} over questions, {macro} over subjects): large and small subjects changed differently.",
        "micro와 macro의 방향이 반대입니다 (문항 평균 {micro}, 과목 평균 {macro}): 큰 과목과 작은 과목이 다르게 변했습니다.",
    ),
    "subjects_changed": (
        "{count} of {total} subjects changed significantly (Holm): {up} up, {down} down{names}.",
        "{total}개 과목 중 {count}개가 유의하게 변했습니다 (Holm): 상승 {up}, 하락 {down}{names}.",
    ),
    "subjects_unchanged": (
        "No single subject changed significantly after Holm's correction; {n} questions show {mde} or more.",
        "Holm 보정 후 유의하게 변한 과목은 없습니다; {n}문항이면 {mde} 이상의 차이만 보입니다.",
    ),
    "clean": (
        "Without the {count} questions that overlap training data: {diff} (95 % interval {low} to {high}, p {p}).",
        "학습 데이터와 겹치는 {count}문항을 빼면: {diff} (95 % 신뢰구간 {low} ~ {high}, p {p}).",
    ),
    "clean_none": ("No compared question is on the overlap list.", "비교한 문항 중 겹침 목록에 있는 것은 없습니다."),
    "debiased": ("With option rotations (debiased): {diff} (95 % interval {low} to {high}, p {p}).",
                 "선택지 순환(편향 제거) 기준: {diff} (95 % 신뢰구간 {low} ~ {high}, p {p})."),
    "readable": (
        "{up} right answers come from questions where {first} was unparsed; {down} were lost to unparsed answers of {second}.",
        "정답 중 {up}개는 {first}에서 판독 불가였던 문항이고, {down}개는 {second}의 판독 불가로 잃었습니다.",
    ),
    "prompts_differ": (
        "CAUTION: the runs were asked differently ({what}); the difference mixes model and prompt.",
        "주의: 두 실행의 프롬프트가 다릅니다 ({what}). 차이에는 모델과 프롬프트의 영향이 섞여 있습니다.",
    ),
    "intersection": (
        "CAUTION: compared on the {n} shared questions only; left out: {a} only in {first}, {b} only in {second}, {c} with two different keys.",
        "주의: 공통 {n}문항만 비교했습니다. 제외: {first}에만 {a}, {second}에만 {b}, 정답이 다른 문항 {c}.",
    ),
    "not_comparable": ("{first} and {second} were not compared: {why}", "{first}와(과) {second}은(는) 비교하지 않았습니다: {why}"),
    # headings and columns
    "run": ("run", "실행"), "accuracy": ("accuracy", "정확도"), "difference": ("difference", "차이"), "interval": ("95 % interval", "95 % 신뢰구간"),
    "p": ("p (mid-p)", "p (mid-p)"), "discordant": ("b / c", "b / c"), "first": ("first", "기준"), "second": ("second", "비교"),
    "micro": ("micro (over questions)", "micro (문항 평균)"), "macro": ("macro (over subjects)", "macro (과목 평균)"),
    "short_micro": ("micro", "micro"), "short_macro": ("macro", "macro"),
    "balanced": ("balanced (over letters)", "균형 정확도 (글자 평균)"), "short_balanced": ("balanced", "균형"),
    "expected": ("from letter habit alone", "글자 편향만으로 얻는 정확도"),
    "matched": ("at the key's letter shares", "정답 글자 비율로 맞춘 정확도"),
    "debiased_row": ("debiased (option rotations)", "편향 제거 (선택지 순환)"),
    "clean_row": ("clean (without {count} overlapping)", "겹침 제외 ({count}문항 제외)"), "short_clean": ("clean", "겹침 제외"),
    "key": ("key", "정답"), "letter": ("letter", "글자"), "share": ("share", "비율"), "recall": ("recall", "재현율"), "unparsed": ("unparsed", "판독 불가"),
    "forced": ("forced", "강제 응답"),
    "supercategory": ("supercategory", "대분류"), "subject": ("subject", "과목"), "questions": ("questions", "문항"), "correct": ("correct", "정답 수"),
    "holm": ("p (Holm)", "p (Holm)"), "bh": ("p (BH)", "p (BH)"), "mde": ("detectable", "검출 가능"),
    "tokens": ("tokens / question", "문항당 토큰"), "seconds": ("seconds", "초"), "all_runs": ("All runs", "전체 실행"),
    "most_changed": ("Subjects that changed most", "가장 많이 변한 과목"), "all_subjects": ("All subjects", "전체 과목"),
    "letters_title": ("Letters", "글자"), "against": ("against {name}", "{name} 대비"), "letter_prior": ("letter prior", "글자 편향"),
    "significant_note": ("b, c: only the first / only the second right.  * significant after Holm's correction.  detectable: smallest true change seen with 80 % power.", "b, c: 기준만 / 비교만 정답.  * Holm 보정 후 유의.  검출 가능: 검정력 80 %로 볼 수 있는 최소 변화."),
    "only_scores": ("scores by subject only", "과목별 점수만"),
}  # fmt: skip

LANGUAGES = ("en", "ko")
Texts = Callable[..., str]


def texts(lang: str, more: dict[str, tuple[str, str]] | None = None) -> Texts:
    """``t(key, **values)`` in that language; ``more`` adds texts that only one output needs."""
    column = LANGUAGES.index(lang)
    table = {**_TEXTS, **(more or {})}

    def translate(key: str, **values: object) -> str:
        return table[key][column].format(**values) if values else table[key][column]

    return translate


def subject_name(name: str, lang: str) -> str:
    """Config name in English with spaces, or the Korean name."""
    subject = SUBJECTS.get(name)
    return subject.korean if lang == "ko" and subject else name.replace("-", " ")


def supercategory_name(name: str, lang: str) -> str:
    return SUPERCATEGORY_KO.get(name, name) if lang == "ko" else name


def percent(value: float | None, digits: int = 2) -> str:
    """0.5625 -> "56.25"."""
    return "–" if value is None else f"{100 * value:.{digits}f}"


def points(value: float | None, digits: int = 2, unit: bool = True) -> str:
    """0.0133 -> "+1.33 pp"; never "-0.00"."""
    if value is None:
        return "–"
    rounded = round(100 * value, digits) + 0.0
    return f"{rounded:+.{digits}f}{' pp' if unit else ''}".replace("-", "−")


def p_text(value: float | None) -> str:
    """0.0527 -> "0.053"; below 0.001 "< 0.001"."""
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def p_clause(value: float | None) -> str:
    """The same after the word p: "= 0.053" or "< 0.001"."""
    text = p_text(value)
    return text if text.startswith("<") else f"= {text}"
