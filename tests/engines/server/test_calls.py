"""Requests in groups that one call carries: neighbours that want the same of the same model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kmmlu_fast.core.schema import Adapter, Candidates, Continuation, Generation, Request, Want
from kmmlu_fast.engines.server.calls import CallSource

LORA = Adapter(name="lora", path=Path("lora"), adapter_id=1, rank=4, digest="")


def request(number: int, want: Want | None = None, adapter: Adapter | None = None) -> Request:
    return Request(
        question_id=f"Invented/test/{number}",
        stage="a",
        token_ids=(number,),
        want=want or Candidates((1, 2, 3, 4)),
        adapter=adapter,
    )


def numbers(source: CallSource, room: int) -> list[int]:
    return [one.token_ids[0] for one in source.next_call(room)]


def test_calls_end_where_the_wish_or_the_model_changes() -> None:
    requests = [
        *map(request, range(5)),
        request(5, Candidates((1, 2))),
        request(6, Candidates((1, 2)), LORA),
        request(7, Continuation(2), LORA),
        request(8, Continuation(2), LORA),
        request(9, Continuation(3), LORA),
    ]
    source = CallSource(requests, 3)
    calls = [numbers(source, 100) for _ in range(8)]
    assert calls == [[0, 1, 2], [3, 4], [5], [6], [7, 8], [9], [], []]


def test_texts_are_calls_of_their_own_and_room_is_kept() -> None:
    text = Generation(max_tokens=4)
    source = CallSource([request(0, text), request(1, text), request(2), request(3), request(4)], 8)
    assert [numbers(source, room) for room in (5, 5, 2, 0, -1, 5)] == [[0], [1], [2, 3], [], [], [4]]


def test_follow_ups_go_first_and_nothing_is_lost_or_pulled_early() -> None:
    pulled: list[int] = []

    def requests() -> Iterator[Request]:
        for number in range(6):
            pulled.append(number)
            yield request(number, Candidates((number // 2, 9)))

    source = CallSource(requests(), 4)
    assert numbers(source, 4) == [0, 1] and pulled == [0, 1, 2]  # 2 was looked at, and waits
    source.add_follow_ups([request(10), request(11)])
    assert source.peek() == request(10)
    assert [numbers(source, 4) for _ in range(4)] == [[10, 11], [2, 3], [4, 5], []]
