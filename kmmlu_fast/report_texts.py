"""Texts that only the HTML report needs, English and Korean, in ``language``'s form.

In: nothing. Out: a table for ``language.texts`` and the explorer's words. Knows nothing of layout.
"""

from __future__ import annotations

REPORT_TEXTS: dict[str, tuple[str, str]] = {
    "title": ("KMMLU report: {names}", "KMMLU 보고서: {names}"),
    "sections": ("Sections", "목차"), "theme": ("Light or dark", "밝게 / 어둡게"), "summary": ("Summary", "요약"), "charts": ("Charts", "차트"),
    "matrix": ("Subjects by run", "과목별 × 실행별"), "explorer": ("Questions", "문항"), "facts": ("Run facts", "실행 정보"), "method": ("How to read this", "읽는 법"),
    "base": ("base", "기준"), "against_base": ("Δ base, pp", "기준 대비, pp"), "show_table": ("Show all {count} subjects", "{count}개 과목 모두 보기"),
    "other_verdicts": ("Verdicts of {count} more comparisons with the base", "기준과 비교한 나머지 {count}건의 판정"),
    "eyebrow_pair": ("{n} questions · {subjects} subjects · {split} · question by question", "{n}문항 · {subjects}과목 · {split} · 문항별 비교"),
    "eyebrow_one": ("{n} questions · {subjects} subjects · {split}", "{n}문항 · {subjects}과목 · {split}"),
    "unit_pair": ("micro accuracy, percentage points", "micro 정확도 차이 (%p)"), "unit_one": ("micro accuracy, %", "micro 정확도, %"),
    "one_run": (
        "{name} answers {micro} % of the questions rightly (95 % interval {low} to {high}); the mean over subjects is {macro} %.",
        "{name}의 문항 정답률은 {micro} % (95 % 신뢰구간 {low} ~ {high}), 과목 평균은 {macro} %입니다.",
    ),
    "one_baseline": (
        "Always answering {letter} would score {constant} %; its own letter habit alone, {expected} %.",
        "항상 {letter}만 답하면 {constant} %, 이 모델의 글자 편향만으로는 {expected} %입니다.",
    ),
    "one_scores": ("Only scores by subject are known, not single answers.", "과목별 점수만 있고 개별 답안은 없습니다."),
    "card_prior": ("of which letter prior", "그중 글자 편향"), "card_prior_sub": ("{rest} remains", "나머지 {rest}"),
    "card_changed": ("changed answers", "바뀐 정오"), "card_changed_sub": ("{b} lost, {c} gained", "{b} 잃음, {c} 얻음"),
    "card_subjects": ("subjects changed (Holm)", "유의하게 변한 과목 (Holm)"), "card_subjects_sub": ("{up} up, {down} down of {total}", "{total}개 중 상승 {up}, 하락 {down}"),
    "card_clean": ("without overlapping questions", "겹치는 문항 제외"), "card_clean_sub": ("{count} left out", "{count}문항 제외"),
    "card_unparsed": ("unparsed", "판독 불가"), "card_unparsed_sub": ("counted as wrong", "오답으로 계산"),
    "card_constant": ("always {letter}", "항상 {letter}"), "card_constant_sub": ("best constant answer", "최고의 고정 답"),
    "card_balanced_sub": ("mean recall over letters", "글자별 재현율 평균"), "card_macro_sub": ("mean over {n} subjects", "{n}과목 평균"),
    "runs_note": (
        "Best micro accuracy first; bars with 95 % intervals. Differences that are significant (McNemar mid-p < 0.05, one test a run) are coloured.",
        "micro 정확도순. 막대와 95 % 신뢰구간. 유의한 차이(McNemar mid-p < 0.05, 실행마다 검정 1회)만 색으로 표시합니다.",
    ),
    "matrix_note": ("Accuracy in %, weakest subjects of the base first; the stronger the colour, the higher.", "정확도(%), 기준 실행의 약한 과목부터. 진할수록 높습니다."),
    "subjects_note": (
        "Every subject of {first} → {second}: McNemar mid-p, corrected for {count} tests by Holm and by Benjamini-Hochberg; “detectable” is the smallest true change "
        "that this many questions show with 80 % power. Click a heading to sort.",
        "{first} → {second}의 모든 과목: McNemar mid-p를 {count}개 검정에 대해 Holm, Benjamini-Hochberg로 보정했습니다. “검출 가능”은 이 문항 수로 검정력 80 %에서 볼 수 있는 최소 변화입니다. 제목을 누르면 정렬됩니다.",
    ),
    "explorer_note": (
        "Every question with its key and each run's answer (? = unparsed). Open one to see options, probabilities and generated text.",
        "모든 문항의 정답과 각 실행의 답 (? = 판독 불가). 문항을 열면 선택지, 확률, 생성문이 보입니다.",
    ),
    "explorer_no_texts": ("Give --dataset to see the questions' texts.", "문항 본문을 보려면 --dataset을 지정하세요."),
    "loading": ("Unpacking…", "여는 중…"), "noscript": ("The question table needs JavaScript; everything above does not.", "문항 표에는 JavaScript가 필요합니다."),
    "licence": ("KMMLU is CC-BY-ND-4.0: keep reports that hold question texts to yourself", "KMMLU는 CC-BY-ND-4.0입니다. 문항 본문이 든 보고서는 공개하지 마세요"),
    # charts
    "accuracy_axis": ("accuracy", "정확도"), "change_axis": ("change", "변화"), "share_axis": ("share of answers", "응답 비율"),
    "confidence_axis": ("confidence", "확신도"), "step_axis": ("optimiser step", "최적화 단계"), "loss_axis": ("loss (nats a token)", "손실 (nats/토큰)"), "drawn_axis": ("questions drawn", "추출 문항 수"),
    "changes_title": ("What changed, subject by subject", "과목별 변화"),
    "changes_note": ("Sorted by change, with 95 % intervals; coloured where significant after Holm's correction.", "변화량순, 95 % 신뢰구간. Holm 보정 후 유의한 과목만 색으로 표시합니다."),
    "groups_title": ("Supercategories", "대분류"), "groups_note": ("Accuracy with 95 % Wilson intervals.", "정확도와 95 % Wilson 신뢰구간."),
    "letters_chart": ("Letter shares against the key", "정답 대비 글자 비율"),
    "letters_note": ("A model without letter habit that knew everything would match the key.", "글자 편향 없이 모두 아는 모델이라면 정답 비율과 같습니다."),
    "weak_title": ("Weakest subjects of {name}", "{name}의 약한 과목"), "weak_note": ("With 95 % intervals.", "95 % 신뢰구간 포함."),
    "constant_legend": ("best constant letter in that subject", "해당 과목의 최고 고정 답"), "human_legend": ("mean human accuracy (diamond)", "사람 평균 정확도 (마름모)"),
    "calibration_title": ("Calibration", "보정도"), "calibration_note": ("Confidence against accuracy in ten bins. {errors}", "확신도 구간별 정확도. {errors}"),
    "cost_title": ("Accuracy against {what}", "정확도와 {what}"), "cost_note": ("One dot a run, with 95 % intervals.", "실행마다 점 하나, 95 % 신뢰구간."),
    "cost_tokens": ("tokens a question", "문항당 토큰"), "cost_seconds": ("seconds", "소요 시간(초)"),
    "training_title": ("Training of {name}", "{name} 학습"), "training_note": ("Training loss, and loss on held-out rows.", "학습 손실과 검증 손실."),
    "train_line": ("training", "학습"), "validation_line": ("held out", "검증"),
    "plan_title": ("Where the training questions came from", "학습 문항의 출처"), "plan_note": ("Questions drawn a subject.", "과목별 추출 문항 수."),
    "plan_weak": ("by errors", "오답 비례"), "plan_uniform": ("uniform", "균등"),
    # facts
    "facts_protocol": ("Protocol", "프로토콜"), "facts_environment": ("Environment", "환경"), "facts_speed": ("Speed", "속도"), "facts_config": ("Configuration", "설정"),
    "facts_source": ("Source", "출처"), "facts_adapter": ("Adapter", "어댑터"),
    # method
    "method_1": (
        "Differences are paired: both runs answered the same questions. b and c count the questions that only one of them has right; the p-value is McNemar's exact test as mid-p. "
        "Intervals of micro, macro and supercategories come from a bootstrap that resamples questions within each subject ({replicates} replicates, seed {seed}); a single subject's is Bonett and Price's.",
        "모든 차이는 같은 문항에 대한 대응 비교입니다. b와 c는 한쪽만 맞힌 문항 수이고 p값은 McNemar 정확검정의 mid-p입니다. micro, macro, 대분류의 신뢰구간은 과목 안에서 문항을 재추출한 부트스트랩({replicates}회, 시드 {seed}), 개별 과목은 Bonett-Price 구간입니다.",
    ),
    "method_2": (
        "Letter prior: KMMLU's test key is skewed (about 10 / 30 / 30 / 30), so learning which letters are common gains points without knowledge. Where both runs have log-probabilities, each is re-weighted by "
        "four offsets until its predicted shares equal the key's, and what is left of the difference “remains”. Otherwise the change of the accuracy that letter shares alone would give is taken as letter prior.",
        "글자 편향: KMMLU test의 정답은 A가 드물어(약 10/30/30/30) 흔한 글자만 익혀도 지식 없이 점수가 오릅니다. 두 실행에 모두 로그확률이 있으면 예측 비율이 정답 비율과 같아지도록 글자별 오프셋 4개를 더한 뒤 남는 차이를 “나머지”로 봅니다. 없으면 글자 비율만으로 얻는 정확도의 변화를 글자 편향으로 봅니다.",
    ),
    "method_3": (
        "Micro is the accuracy over questions, macro the mean of subject accuracies. Unparsed answers count as wrong. “Clean” leaves out questions that overlap training data.",
        "micro는 문항 전체, macro는 과목 정확도의 평균입니다. 판독 불가는 오답으로 계산합니다. “겹침 제외”는 학습 데이터와 겹치는 문항을 뺀 값입니다.",
    ),
    "method_texts": (
        "Of the generated texts, {count} were left out to keep the page small.", "페이지 크기를 위해 생성문 {count}개를 생략했습니다.",
    ),
}  # fmt: skip

EXPLORER_WORDS: dict[str, tuple[str, str]] = {
    "search": ("Search questions, options, ids…", "문항, 선택지, ID 검색…"), "all_subjects": ("All subjects", "전체 과목"), "subject": ("Subject", "과목"),
    "outcome": ("Outcome", "결과"), "order": ("Order", "정렬"), "first": ("First run", "첫째 실행"), "second": ("Second run", "둘째 실행"),
    "all": ("All questions", "모든 문항"), "gained": ("Gained: first wrong, second right", "얻음: 첫째 오답, 둘째 정답"),
    "lost": ("Lost: first right, second wrong", "잃음: 첫째 정답, 둘째 오답"), "differ": ("Answers differ", "답이 다름"), "wrong_a": ("First wrong", "첫째 오답"),
    "wrong_b": ("Second wrong", "둘째 오답"), "all_wrong": ("All runs wrong", "모든 실행 오답"), "all_right": ("All runs right", "모든 실행 정답"),
    "unparsed": ("Unparsed", "판독 불가"), "forced": ("forced", "강제 응답"), "overlap": ("overlaps training data", "학습 데이터와 겹침"),
    "order_file": ("In file order", "파일 순서"), "order_confident": ("Most confident first", "확신 높은 순"), "order_unsure": ("Least confident first", "확신 낮은 순"),
    "count": ("{found} of {all} questions · page {page} of {pages}", "{all}문항 중 {found} · {page}/{pages}쪽"), "back": ("Previous page", "이전 쪽"), "next": ("Next page", "다음 쪽"),
    "nothing": ("No question fits these filters.", "조건에 맞는 문항이 없습니다."), "key": ("key", "정답"), "human": ("human accuracy", "사람 정확도"),
    "run": ("run", "실행"), "prediction": ("answer", "답"),
}  # fmt: skip
