"""What an engine has done since its start: requests, and tokens of prompts and outputs.

In: Responses. Out: counts with units in their names, and the share of prompt tokens served by the prefix
cache. Knows nothing of a particular engine.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from kmmlu_fast.core.schema import Candidates, Response


def cache_hit_rate(prompt_tokens: int, cached_tokens: int) -> float:
    """The share of prompt tokens that came from the prefix cache, 0-1, to four places."""
    return round(cached_tokens / max(1, prompt_tokens), 4)


@dataclass(slots=True)
class Counters:
    """Counts of the responses that arrived."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0

    def add(self, response: Response, output_tokens: int | None = None) -> None:
        """Count a response; ``output_tokens`` if the engine reports how many it generated."""
        if output_tokens is None:
            output_tokens = sum(len(completion.token_ids) for completion in response.completions)
            output_tokens += isinstance(response.request.want, Candidates)  # one token, for its logits
        self.requests += 1
        self.prompt_tokens += len(response.request.token_ids)
        self.cached_tokens += response.cached_tokens
        self.output_tokens += output_tokens

    def counts(self) -> dict[str, int]:
        return asdict(self)

    def stats(self) -> dict[str, Any]:
        """The counts and the hit rate, as engines report them."""
        rate = cache_hit_rate(self.prompt_tokens, self.cached_tokens)
        return {**self.counts(), "prefix_cache_hit_rate": rate}


def stats_between(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """``after`` with every count reduced by its value in ``before``; other values are kept."""
    counts = {
        key: after[key] - before.get(key, 0)
        for key, value in after.items()
        if isinstance(value, int) and not isinstance(value, bool)
    }
    stats = {**after, **counts}
    if counts.get("prompt_tokens") and "cached_tokens" in counts:
        stats["prefix_cache_hit_rate"] = cache_hit_rate(counts["prompt_tokens"], counts["cached_tokens"])
    return stats
