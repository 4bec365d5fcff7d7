"""Loss on plain English and Korean texts: what a training forgets besides the exam.

In: a tokenizer, later responses. Out: requests, and nats per token by language. Knows nothing of trainers.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from kmmlu_fast.core.schema import Continuation, Request, Response

_FILE = Path(__file__).with_name("texts.yaml")


def text_loss_requests(tokenizer: Any) -> list[Request]:
    """One request per packaged text: the log-probability of all its tokens but the first."""
    requests = []
    for language, texts in yaml.safe_load(_FILE.read_text(encoding="utf-8")).items():
        for place, text in enumerate(texts):
            ids = tuple(tokenizer(text)["input_ids"])
            requests.append(
                Request(
                    question_id=f"text/{language}/{place}",
                    stage=language,
                    token_ids=ids,
                    want=Continuation(len(ids) - 1),
                )
            )
    return requests


def text_losses(responses: Iterable[Response]) -> dict[str, float]:
    """Nats per token by language, over all its texts."""
    sums: dict[str, float] = {}
    tokens: dict[str, int] = {}
    for response in responses:
        language = response.request.stage
        sums[language] = sums.get(language, 0.0) - response.logprobs[0]
        tokens[language] = tokens.get(language, 0) + len(response.request.token_ids) - 1
    return {language: total / tokens[language] for language, total in sums.items()}
