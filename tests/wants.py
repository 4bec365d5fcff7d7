"""What a request wants, as the one kind that a test expects it to be."""

from __future__ import annotations

from kmmlu_fast.core.schema import Candidates, Generation, Request


def text_of(request: Request) -> Generation:
    """What is generated; fails where the request is scored."""
    assert isinstance(request.want, Generation)
    return request.want


def candidates_of(request: Request) -> tuple[int, ...]:
    """The tokens whose log-probabilities are wanted; fails where something else is."""
    assert isinstance(request.want, Candidates)
    return request.want.token_ids
