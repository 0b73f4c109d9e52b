"""Reconstruct personas from the first n turns of a dialogue, without adapting (section 3.5.2).

The initial model reads what the training task reads at turn n, and writes down the speaker's
statements. The paper proposes to leave the other side's utterances out, so that the two
personas cannot mix; that is the second variant.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from mtml_jax.config import LossConfig, TileShape
from mtml_jax.data.encode import Encoding, Example, encode_dialogue, own_side
from mtml_jax.data.packing import pack, stack
from mtml_jax.data.records import Dialogue
from mtml_jax.model import losses
from mtml_jax.sharding import map_personas
from mtml_jax.types import Examples, Params, TokenSums

BOTH_SIDES, OWN_ONLY = VARIANTS = ("both_sides", "own_only")
CASES_A_GROUP = 8  # contexts that are decoded side by side


class Subject(NamedTuple):
    """A dialogue whose speaker is reconstructed."""

    persona: int  # index of its persona
    dialogue: Dialogue  # a dialogue with statements
    other: Dialogue  # a dialogue of another persona with statements, the baseline


class Case(NamedTuple):
    """One context to reconstruct from."""

    subject: int  # index of the subject
    variant: str  # one of `VARIANTS`
    turns_seen: int  # n, counted from 1
    example: Example  # the context and the true persona
    # the context after as many turns of the other persona's dialogue, or after all that it has
    other: tuple[int, ...]


class Reconstructions(NamedTuple):
    """Reconstructions of groups of cases, each with leading axes [group, case]."""

    ids: jax.Array  # int32 [..., T], the persona as the model writes it
    # [..., 2]: the true persona by teacher forcing, after its own context and after the other one
    forced: TokenSums


class Scored(NamedTuple):
    """The reconstruction of one case."""

    subject: int  # index of the subject
    variant: str  # one of `VARIANTS`
    turns_seen: int  # n, counted from 1
    text: str  # the persona as the model writes it
    # negative log-likelihood of the true persona in nats, after its own and the other context
    nll: tuple[float, float]
    tokens: int  # number of tokens of the true persona, end-of-sequence included


def list_cases(subjects: Iterable[Subject], encoding: Encoding) -> Iterator[Case]:
    """Every number of turns of every subject, in both variants.

    For `both_sides`, the context after n turns is that of the training task: all earlier
    utterances and the current one of the other side. For `own_only` it is the speaker's
    utterances of the n - 1 turns before, and silence for n = 1. The reply of turn n is in
    neither. Contexts that are too long keep their end.
    """
    for number, subject in enumerate(subjects):
        for variant in VARIANTS:
            examples, others = (
                encode_dialogue(d if variant == BOTH_SIDES else own_side(d), encoding)[0]
                for d in (subject.dialogue, subject.other)
            )
            for seen, example in enumerate(examples, start=1):
                other = others[min(seen, len(others)) - 1].context
                yield Case(number, variant, seen, example, other)


def pack_cases(
    cases: Sequence[Case], shape: TileShape, groups: int, *, distinct_start: bool
) -> Examples:
    """Packs one context and one persona per tile, so that each has token sums of its own.

    There are at least one case and at most `groups * CASES_A_GROUP`; copies fill the rest.

    Returns:
      Examples with leading axes [G, CASES_A_GROUP, 2]: the true persona with its own context
      and with the other one, each in a tile of one row, without responses.
    """
    single = TileShape(rows=1, context=shape.context, response=0, persona=shape.persona)

    def lay(context, persona):
        examples = [Example(context, (), persona)]
        return pack(examples, single, 1, tasks=("persona",), distinct_start=distinct_start)

    packed = [
        stack([lay(context, case.example.persona) for context in (case.example.context, case.other)])
        for case in cases
    ]
    flat = stack([packed[i % len(packed)] for i in range(groups * CASES_A_GROUP)])
    return jax.tree.map(lambda x: x.reshape(groups, CASES_A_GROUP, *x.shape[1:]), flat)


def reconstruct(
    params: Params, groups: Examples, *, decode: Callable, config: LossConfig, mesh: Mesh,
    chunk: int = 1
) -> Reconstructions:
    """Writes the persona of every case, and scores the true one by L_rec (eq. 5).

    Args:
      params: the initial parameters phi.
      groups: from `pack_cases`; the leading axis is shared by the devices.
      decode: (params, contexts) -> Replies, for `CASES_A_GROUP` contexts.
      config: model sizes.
      mesh: devices; its size divides the number of groups.
      chunk: groups vmapped at a time on a device.
    """

    def one(params, group):
        contexts = jax.tree.map(lambda x: x[:, 0, 0, 0], group[0].context)
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), group)

        def force(example):
            _, sums = losses.weighted_loss(params, example, losses.PERSONA_ONLY, config=config)
            return sums.persona

        forced = jax.tree.map(lambda x: x.reshape(-1, 2), jax.lax.map(force, flat))
        return Reconstructions(decode(params, contexts).ids, forced)

    return map_personas(one, mesh, chunk)(params, groups)


def score_cases(
    cases: Iterable[Case], program: Callable[[Examples], Reconstructions], encoding: Encoding,
    groups: int, *, distinct_start: bool
) -> Iterator[Scored]:
    """Runs cases through a compiled `reconstruct`, as many at a time as `groups` hold.

    `cases` are from `list_cases` with the same encoding; `groups` is the number of groups that
    the program takes at a time. Yields Scored in the order of the cases.
    """
    cases = iter(cases)
    while some := list(itertools.islice(cases, groups * CASES_A_GROUP)):
        packed = pack_cases(some, encoding.shape, groups, distinct_start=distinct_start)
        found = jax.device_get(program(packed))
        found = jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), found)
        for n, case in enumerate(some):
            yield Scored(
                case.subject, case.variant, case.turns_seen,
                encoding.vocabulary.decode(found.ids[n]), tuple(found.forced.nll[n].tolist()),
                int(found.forced.tokens[n, 0])
            )
