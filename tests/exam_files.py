"""Small files in the very schema of every shipped declaration, with invented questions: no hub, no text of
any real exam.

``write_exam(folder, name, rows)`` writes them and returns the folder; ``right(name, row)`` is the letter
that each row's key stands for.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

LETTERS = "ABCDEFGHIJ"
ROWS = 200


def options_of(row: int, count: int) -> list[str]:
    return [f"{row}에 {place}을 더한 값은 {row + place}" for place in range(count)]


def place_of(row: int, count: int) -> int:
    return (row * 7 + 3) % count


def count_of(name: str, row: int) -> int:
    """How many options a row of that exam has."""
    if name in ("click", "kmmlu-pro"):
        return 4 + row % 2
    return {"kobalt": 10, "csatqa": 5, "haerae": 5, "kormedmcqa": 5, "kbl": 5}.get(name, 4)


def right(name: str, row: int) -> str:
    return LETTERS[place_of(row, count_of(name, row))]


def _lettered(row: int, count: int, letters: str) -> dict[str, str]:
    return dict(zip(letters, options_of(row, count), strict=False))


def _kmmlu(row: int) -> dict[str, Any]:
    return {
        "question": f"{row}번째 물음",
        "answer": place_of(row, 4) + 1,
        **_lettered(row, 4, "ABCD"),
        "Category": "Math",
    }


def _redux(row: int) -> dict[str, Any]:
    return {
        "question": f"{row}번째 물음",
        "options": options_of(row, 4),
        "solution": place_of(row, 4) + 1,
        "category": "수학",
    }


def _pro(row: int) -> dict[str, Any]:
    count = count_of("kmmlu-pro", row)
    return {
        "question": f"{row}번째 물음",
        "options": options_of(row, count),
        "solution": str(place_of(row, count) + 1),
        "license_name": "가상 자격",
        "subject": "가상 과목",
    }


def _click(row: int) -> dict[str, Any]:
    count = count_of("click", row)
    options = options_of(row, count)
    return {
        "id": f"{'CSAT_korean' if count == 5 else 'KHB'}_{row}_1",
        "paragraph": "지문이다." if row % 3 else "",
        "question": f"{row}번째 물음",
        "choices": options,
        "answer": options[place_of(row, count)],
    }


def _haerae(row: int) -> dict[str, Any]:
    options = options_of(row, 5)
    lines = "\n".join(f"({letter}) {text}" for letter, text in zip(LETTERS, options, strict=False))
    return {
        "query": f"다음을 고르시오.\n### 질문: {row}번째 물음\n### 선택지:\n{lines}\n### 정답:",
        "answer": f"({right('haerae', row)})",
        **_lettered(row, 5, "abcde"),
    }


def _kormed(row: int) -> dict[str, Any]:
    return {
        "subject": "doctor",
        "year": 2022,
        "question": f"{row}번째 물음",
        **_lettered(row, 5, "ABCDE"),
        "answer": place_of(row, 5) + 1,
    }


def _kbl(row: int) -> dict[str, Any]:
    return {"question": f"{row}번째 물음", **_lettered(row, 5, "ABCDE"), "gt": right("kbl", row)}


def _kobalt(row: int) -> dict[str, Any]:
    lines = "\n".join(f"{letter}: {text}" for letter, text in zip(LETTERS, options_of(row, 10), strict=True))
    return {
        "ID": str(row),
        "Class": "Syntax",
        "Level": 1 + row % 3,
        "Question": f"{row}번째 물음\n\n{lines}",
        "Answer": right("kobalt", row),
    }


def _global(row: int) -> dict[str, Any]:
    options = dict(zip(("option_a", "option_b", "option_c", "option_d"), options_of(row, 4), strict=True))
    return {
        "sample_id": f"x/{row}",
        "subject": "anatomy",
        "subject_category": "STEM",
        "question": f"{row}번째 물음",
        **options,
        "answer": right("global-mmlu-ko", row),
    }


def _csatqa(row: int) -> dict[str, Any]:
    options = {f"option#{place + 1}": text for place, text in enumerate(options_of(row, 5))}
    return {
        "test_number": "1",
        "context": "지문이다.",
        "question": f"{row}번째 물음",
        "gold": place_of(row, 5) + 1,
        **options,
    }


ROW_OF: dict[str, Callable[[int], dict[str, Any]]] = {
    "kmmlu": _kmmlu,
    "kmmlu-hard": _kmmlu,
    "kmmlu-redux": _redux,
    "kmmlu-pro": _pro,
    "click": _click,
    "haerae": _haerae,
    "kormedmcqa": _kormed,
    "kbl": _kbl,
    "kobalt": _kobalt,
    "global-mmlu-ko": _global,
    "csatqa": _csatqa,
}
CONFIGS = {
    "kmmlu": ["Math"],
    "kmmlu-hard": ["math"],
    "haerae": ["general_knowledge"],
    "kormedmcqa": ["doctor"],
    "kbl": ["bar_exam_civil_2012"],
    "global-mmlu-ko": ["ko"],
    "csatqa": ["GR"],
}
SPLITS = {"click": "train", "kobalt": "raw"}


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_exam(folder: Path, name: str, rows: int = ROWS) -> Path:
    """``rows`` rows of the exam's test split, a file a config, as its data set is laid out."""
    if name == "kobest":
        return _write_kobest(folder, rows)
    for config in CONFIGS.get(name, [""]):
        split = SPLITS.get(name, "test")
        made = [ROW_OF[name](row) for row in range(rows)]
        if name == "kmmlu":  # its own reader takes CSV only
            path = folder / "data" / f"{config.lower()}-{split}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, list(made[0]))
                writer.writeheader()
                writer.writerows(made)
        else:
            write_jsonl(folder / config / f"{split}.jsonl", made)
    return folder


def _write_kobest(folder: Path, rows: int) -> Path:
    boolq = [
        {"paragraph": "지문이다.", "question": f"{row}번째 물음인가?", "label": row % 2}
        for row in range(rows)
    ]
    copa = [
        {
            "premise": f"{row}번째 일이다.",
            "question": "원인" if row % 2 else "결과",
            "alternative_1": "가",
            "alternative_2": "나",
            "label": row % 2,
        }
        for row in range(rows)
    ]
    hellaswag = [
        {
            "context": f"{row}번째 이야기.",
            **{f"ending_{place + 1}": text for place, text in enumerate(options_of(row, 4))},
            "label": place_of(row, 4),
        }
        for row in range(rows)
    ]
    for name, made in (("boolq", boolq), ("copa", copa), ("hellaswag", hellaswag)):
        write_jsonl(folder / f"{name}-test.jsonl", made)
    return folder
