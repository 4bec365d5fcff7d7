"""A function asked about one frame again and again computes once."""

import polars as pl

from kmmlu_fast.analysis.latest import keep_latest


def test_it_computes_once_for_a_frame_and_anew_for_an_equal_one() -> None:
    asked: list[pl.DataFrame] = []

    @keep_latest
    def height(frame: pl.DataFrame) -> int:
        asked.append(frame)
        return frame.height

    one, twin, taller = (pl.DataFrame({"a": range(rows)}) for rows in (2, 2, 3))
    assert [height(frame) for frame in (one, one, taller, taller, twin)] == [2, 2, 3, 3, 2]
    assert [frame is same for frame, same in zip(asked, (one, taller, twin), strict=True)] == [True] * 3
