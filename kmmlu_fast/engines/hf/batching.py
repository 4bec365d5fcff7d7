"""Which requests go through a model together: by length, and by the tokens that they begin with.

In: requests of one kind and one adapter. Out: batches within a budget of padded tokens, and how many first
tokens a batch has in common, which are then computed once. Pure; knows nothing of torch or of meanings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from kmmlu_fast.core.schema import Continuation, Generation, Request


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What one forward pass may hold."""

    tokens: int  # padded tokens that are computed
    rows: int
    cached_tokens: int  # padded tokens of prompt and output whose keys and values are kept while generating

    def after_out_of_memory(self, rows: int, tokens_a_row: int) -> BatchLimits:
        """Half of what did not fit."""
        padded = rows * tokens_a_row
        return BatchLimits(
            max(1, min(self.tokens, padded // 2)),
            max(1, min(self.rows, rows // 2)),
            max(1, min(self.cached_tokens, padded // 2)),
        )


@dataclass(frozen=True, slots=True)
class ScoringBatch:
    """Requests of one adapter, scored in one forward; the first ``shared_tokens`` of all are the same."""

    requests: Sequence[Request]
    shared_tokens: int = 0

    @property
    def longest_suffix_tokens(self) -> int:
        """Tokens of the longest row, without the shared ones."""
        return max(len(request.token_ids) for request in self.requests) - self.shared_tokens

    @property
    def shared_prefix(self) -> tuple[int, ...]:
        return self.requests[0].token_ids[: self.shared_tokens]


def scored_tokens(request: Request) -> int:
    """How many of the prompt's own last tokens are scored; 0 where what comes after them is."""
    return request.want.num_tokens if isinstance(request.want, Continuation) else 0


@dataclass(frozen=True, slots=True)
class GenerationRow:
    """One sample of a request that generates ``want``."""

    request: Request
    want: Generation
    sample: int = 0

    @property
    def tokens(self) -> int:
        """Of the prompt and of the longest output."""
        return len(self.request.token_ids) + self.want.max_tokens


def generation_rows(request: Request) -> list[GenerationRow]:
    """One row a sample; none for a request that is scored."""
    want = request.want
    return (
        [GenerationRow(request, want, n) for n in range(want.num_samples)]
        if isinstance(want, Generation)
        else []
    )


def scoring_batches(
    requests: Sequence[Request], limits: BatchLimits, least_saved_tokens: int | None
) -> Iterator[ScoringBatch]:
    """Batches for scoring: those with a prefix worth ``least_saved_tokens`` (None: never), then the rest.

    Requests come out in another order than they went in, each exactly once.
    """
    alone: list[Request] = []
    for group in _prefix_groups(requests) if least_saved_tokens is not None else [_PrefixGroup([*requests])]:
        if least_saved_tokens is None or group.saved_tokens < least_saved_tokens:
            alone += group.requests
        else:
            yield from _batches_by_length(group.requests, limits, group.shared_tokens)
    yield from _batches_by_length(alone, limits, 0)


def generating_batches(rows: Iterable[GenerationRow], limits: BatchLimits) -> Iterator[list[GenerationRow]]:
    """Batches for generation: of like output and prompt length, within the cache's budget."""
    batch: list[GenerationRow] = []
    for row in sorted(rows, key=lambda row: (row.want.max_tokens, len(row.request.token_ids))):
        longest = max([row.tokens, *(other.tokens for other in batch)])
        if batch and (len(batch) == limits.rows or (len(batch) + 1) * longest > limits.cached_tokens):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


@dataclass(slots=True)
class _PrefixGroup:
    """Requests that begin alike. ``shared_tokens`` leaves each the tokens after which something is read."""

    requests: list[Request] = field(default_factory=list)
    shared_tokens: int = 0

    @property
    def saved_tokens(self) -> int:
        return (len(self.requests) - 1) * self.shared_tokens


def _prefix_groups(requests: Sequence[Request]) -> Iterator[_PrefixGroup]:
    """Sorted by their tokens, requests with a common prefix are neighbours; a group ends where one more would
    save nothing."""
    group = _PrefixGroup()
    for request in sorted(requests, key=lambda request: request.token_ids):
        own = len(request.token_ids) - (scored_tokens(request) + 1)
        if not group.requests:
            group = _PrefixGroup([request], own)
            continue
        shared = min(
            own, _common_prefix_length(group.requests[-1].token_ids, request.token_ids, group.shared_tokens)
        )
        if len(group.requests) * shared >= group.saved_tokens and shared > 0:
            group.requests.append(request)
            group.shared_tokens = shared
        else:
            yield group
            group = _PrefixGroup([request], own)
    if group.requests:
        yield group


def _common_prefix_length(one: Sequence[int], two: Sequence[int], most: int) -> int:
    """Length of the common prefix, at most ``most``."""
    most = min(most, len(one), len(two))
    if one[:most] == two[:most]:
        return most
    return next(place for place in range(most) if one[place] != two[place])


def _batches_by_length(
    requests: Sequence[Request], limits: BatchLimits, shared_tokens: int
) -> Iterator[ScoringBatch]:
    batch: list[Request] = []
    for request in sorted(requests, key=lambda request: len(request.token_ids)):
        tokens = (len(batch) + 1) * (len(request.token_ids) - shared_tokens)
        if batch and (len(batch) == limits.rows or tokens > limits.tokens):
            yield ScoringBatch(batch, shared_tokens)
            batch = []
        batch.append(request)
    if batch:
        yield ScoringBatch(batch, shared_tokens)
