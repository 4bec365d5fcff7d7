"""What a program reads of a search: numbers that hold wherever asking stopped."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from made_searches import EFFECT, grid, make_config, make_result

from kmmlu_fast.improvement.search_report import write_search_report


def test_p_of_a_fixed_number_of_questions_is_not_told_of_one_that_the_answers_chose(tmp_path: Path) -> None:
    config = make_config(tmp_path, Path("sample"))
    result = make_result(grid([10, 20], [4, 8]), [400, 402, 398, 412])
    config.output_dir.mkdir()
    for verdicts, p_value in (({"best-s0": "undecided"}, None), ({}, 0.01)):
        found = replace(result.confirmation, effect=replace(EFFECT, p_value=0.01), verdicts=verdicts)
        page = write_search_report(config, replace(result, confirmation=found))
        stored = json.loads((config.output_dir / "result.json").read_text())["confirmation"]
        assert stored["effect"]["p_value"] == p_value and stored["effect"]["questions"] == 225
        assert stored["questions_by_adapter"] == {"best-s0": 500}
        assert stored["base_by_adapter"] == {"best-s0": 0.4}
        assert "against the base without examples in the prompt" in page.read_text(encoding="utf-8")
