"""Which requests go through a model together: by length, and by their shared prefix.

In: requests of one kind and one adapter. Out: batches within a budget of padded tokens, each with the length
of its shared prefix, which is then computed once. Pure; knows nothing of torch or of meanings.
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
    cached_tokens: int  # padded tokens of prompt and output in the key-value cache while generating

    def after_out_of_memory(self, rows: int, tokens_per_row: int) -> BatchLimits:
        """Half of the batch that did not fit."""
        padded = rows * tokens_per_row
        return BatchLimits(
            max(1, min(self.tokens, padded // 2)),
            max(1, min(self.rows, rows // 2)),
            max(1, min(self.cached_tokens, padded // 2)),
        )


@dataclass(frozen=True, slots=True)
class ScoringBatch:
    """Requests of one adapter, scored in one forward pass; all share their first ``shared_tokens``."""

    requests: Sequence[Request]
    shared_tokens: int = 0

    @property
    def longest_suffix_tokens(self) -> int:
        """Tokens of the longest row, without its shared prefix."""
        return max(len(request.token_ids) for request in self.requests) - self.shared_tokens

    @property
    def shared_prefix(self) -> tuple[int, ...]:
        return self.requests[0].token_ids[: self.shared_tokens]


def scored_tokens(request: Request) -> int:
    """Number of final prompt tokens that are scored; 0 if the tokens after the prompt are."""
    return request.want.num_tokens if isinstance(request.want, Continuation) else 0


@dataclass(frozen=True, slots=True)
class GenerationRow:
    """One sample of a generation request; ``want`` is the request's."""

    request: Request
    want: Generation
    sample: int = 0

    @property
    def tokens(self) -> int:
        """Tokens of the prompt and of the longest output."""
        return len(self.request.token_ids) + self.want.max_tokens


def generation_rows(request: Request) -> list[GenerationRow]:
    """One row per sample; none for a request that is scored."""
    want = request.want
    if not isinstance(want, Generation):
        return []
    return [GenerationRow(request, want, sample) for sample in range(want.num_samples)]


def scoring_batches(
    requests: Sequence[Request], limits: BatchLimits, least_saved_tokens: int | None
) -> Iterator[ScoringBatch]:
    """Batches for scoring: groups whose prefix saves ``least_saved_tokens`` (None: no groups), then the rest.

    Each request comes out once, not in the order of ``requests``.
    """
    if least_saved_tokens is None:
        yield from _batches_by_length(requests, limits, 0)
        return
    ungrouped: list[Request] = []
    for group in _prefix_groups(requests):
        if group.saved_tokens < least_saved_tokens:
            ungrouped += group.requests
        else:
            yield from _batches_by_length(group.requests, limits, group.shared_tokens)
    yield from _batches_by_length(ungrouped, limits, 0)


def generating_batches(rows: Iterable[GenerationRow], limits: BatchLimits) -> Iterator[list[GenerationRow]]:
    """Batches for generation: of similar output and prompt length, within the cache's budget."""
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
    """Requests with a shared prefix, which excludes the tokens after which a probability is read."""

    requests: list[Request] = field(default_factory=list)
    shared_tokens: int = 0

    @property
    def saved_tokens(self) -> int:
        return (len(self.requests) - 1) * self.shared_tokens


def _prefix_groups(requests: Sequence[Request]) -> Iterator[_PrefixGroup]:
    """Groups of requests with a common prefix, which are neighbours when sorted by tokens; a group ends when
    one more request would save nothing.
    """
    group = _PrefixGroup()
    for request in sorted(requests, key=lambda request: request.token_ids):
        shareable = len(request.token_ids) - (scored_tokens(request) + 1)
        if not group.requests:
            group = _PrefixGroup([request], shareable)
            continue
        most = min(shareable, group.shared_tokens)
        shared = _common_prefix_length(group.requests[-1].token_ids, request.token_ids, most)
        if len(group.requests) * shared >= group.saved_tokens and shared > 0:
            group.requests.append(request)
            group.shared_tokens = shared
        else:
            yield group
            group = _PrefixGroup([request], shareable)
    if group.requests:
        yield group


def _common_prefix_length(one: Sequence[int], two: Sequence[int], most: int) -> int:
    """Length of the common prefix, at most ``most``."""
    most = min(most, len(one), len(two))
    if one[:most] == two[:most]:
        return most
    return next(index for index in range(most) if one[index] != two[index])


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
