"""Which rows a weighted source gives: by seed, file name and row, not by where the file lies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.data.mixture import draw_count, parse_mixture_source, read_mixture


def test_a_moved_file_gives_the_same_rows() -> None:
    here = [draw_count(0.5, 7, "/one/place/rows.jsonl", number) for number in range(200)]
    assert here == [draw_count(0.5, 7, "elsewhere/rows.jsonl", number) for number in range(200)]
    assert here != [draw_count(0.5, 7, "/one/place/other.jsonl", number) for number in range(200)]
    assert here != [draw_count(0.5, 8, "/one/place/rows.jsonl", number) for number in range(200)]


def test_weights_are_expected_counts() -> None:
    counts = [draw_count(1.25, 1, "rows.jsonl", number) for number in range(4000)]
    assert set(counts) == {1, 2} and 0.22 < sum(count == 2 for count in counts) / 4000 < 0.28
    assert {draw_count(2.0, 1, "rows.jsonl", number) for number in range(50)} == {2}


def test_appended_rows_change_no_earlier_draw(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"instruction": f"{n}번 질문", "output": f"답 {n}"} for n in range(60)]

    def drawn(count: int) -> list[int]:
        path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows[:count]))
        taken, (share,) = read_mixture([parse_mixture_source(f"{path}:0.4")], seed=3)
        assert share.rows == count and share.taken == len(taken)
        return [row.number for row in taken]

    first = drawn(30)
    assert 0 < len(first) < 30 and drawn(60)[: len(first)] == first


@pytest.mark.parametrize("weight", ["0", "-1", "101", "x"])
def test_weights_that_mean_nothing_are_refused(tmp_path: Path, weight: str) -> None:
    (tmp_path / "rows.jsonl").write_text("{}")
    with pytest.raises(ConfigError, match="weight"):
        parse_mixture_source(f"{tmp_path / 'rows.jsonl'}:{weight}")
