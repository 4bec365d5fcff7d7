"""Loss on plain text: tokens are weighted alike over a language's texts."""

from __future__ import annotations

from kmmlu_fast.core.schema import Continuation, Request, Response
from kmmlu_fast.integrations.text_loss import text_loss_requests, text_losses


class Bytes:
    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": list(text.encode())}


def test_both_languages_are_asked_for_all_tokens_but_the_first() -> None:
    requests = text_loss_requests(Bytes())
    assert {request.stage for request in requests} == {"en", "ko"}
    assert all(request.want == Continuation(len(request.token_ids) - 1) for request in requests)
    assert len({request.question_id for request in requests}) == len(requests)


def test_loss_is_per_token() -> None:
    def response(stage: str, tokens: int, logprob: float) -> Response:
        ids = tuple(range(tokens + 1))
        request = Request(question_id="t", stage=stage, token_ids=ids, want=Continuation(tokens))
        return Response(request, logprobs=(logprob,))

    losses = text_losses([response("en", 10, -30.0), response("en", 30, -30.0), response("ko", 5, -20.0)])
    assert losses == {"en": 1.5, "ko": 4.0}
