"""Reconstruct personas from the first n turns of a dialogue, without adapting (section 3.5.2).

The initial model reads what the training task reads at turn n, and writes down the speaker's
statements. The paper proposes to leave the other side's utterances out, so that the two
personas cannot mix; that is the second variant.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from mtml_jax.config import LossConfig, TileShape
from mtml_jax.data.encode import Encoding, own_side
from mtml_jax.data.layout import Size, lay_out, lay_out_contexts
from mtml_jax.data.packing import stack
from mtml_jax.data.records import Dialogue
from mtml_jax.data.strands import RowEncoding
from mtml_jax.model import losses
from mtml_jax.sharding import map_personas
from mtml_jax.types import Examples, Params, Tokens, TokenSums

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
    example: Any  # the context and the true persona
    # the example of the other persona after as many turns, or after all that its dialogue has
    other: Any


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


class Group(NamedTuple):
    """Arrays of `CASES_A_GROUP` cases."""

    examples: Examples  # [CASES_A_GROUP, 2]: the true persona after its own context, and the other
    contexts: Tokens  # [CASES_A_GROUP, S], to decode personas from


def list_cases(
    subjects: Iterable[Subject], encoding: Encoding | RowEncoding
) -> Iterator[Case]:
    """Every number of turns of every subject, in both variants.

    For `both_sides`, the context after n turns is that of the training task. The Transformer
    reads all earlier utterances and the current one of the other side; for `own_only` the
    speaker's utterances of the n - 1 turns before, and silence for n = 1; the reply of turn n is
    in neither. A pretrained decoder reads the reply of turn n, too. Contexts that are too long
    keep their end.
    """
    for number, subject in enumerate(subjects):
        for variant in VARIANTS:
            examples, others = (
                encoding.by_turns_seen(d if variant == BOTH_SIDES else own_side(d))
                for d in (subject.dialogue, subject.other)
            )
            for seen, example in enumerate(examples, start=1):
                yield Case(number, variant, seen, example, others[min(seen, len(others)) - 1])


def pack_cases(
    cases: Sequence[Case], encoding: Encoding | RowEncoding, groups: int
) -> Group:
    """Packs one context and one persona per array, so that each has token sums of its own.

    There are at least one case and at most `groups * CASES_A_GROUP`; copies fill the rest.

    Returns:
      Group with a leading axis of groups.
    """
    if isinstance(encoding, Encoding):
        shape = encoding.shape  # a tile of one row, without responses
        narrow = TileShape(rows=1, context=shape.context, response=0, persona=shape.persona)
        size: Size = (1,)
        encoding = dataclasses.replace(encoding, shape=narrow)
    else:
        size = (encoding.shape.tokens, encoding.max_persona + 1)
    packed: list[Any] = [
        stack([
            lay_out([encoding.elsewhere(case.example, read)], encoding, size, ("persona",))
            for read in (case.example, case.other)
        ])
        for case in cases
    ]  # fmt: skip
    count = groups * CASES_A_GROUP
    chosen = [i % len(cases) for i in range(count)]
    contexts = [encoding.asked(cases[i].example) for i in chosen]
    flat = Group(stack([packed[i] for i in chosen]), lay_out_contexts(contexts, encoding, count))
    return jax.tree.map(lambda x: x.reshape(groups, CASES_A_GROUP, *x.shape[1:]), flat)


def reconstruct(
    params: Params, groups: Group, base=None, *, decode: Callable, config: LossConfig, mesh: Mesh,
    chunk: int = 1
) -> Reconstructions:
    """Writes the persona of every case, and scores the true one by L_rec (eq. 5).

    Args:
      params: the initial parameters phi.
      groups: from `pack_cases`; the leading axis is shared by the devices.
      base: frozen parameters, see `losses.weighted_loss`.
      decode: (params, contexts, base=base) -> Replies, for `CASES_A_GROUP` contexts.
      config: model sizes.
      mesh: devices; its size divides the number of groups.
      chunk: groups vmapped at a time on a device.
    """

    def one(shared, group):
        params, base = shared
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), group.examples)

        def force(example):
            _, sums = losses.weighted_loss(
                params, example, losses.PERSONA_ONLY, config=config, base=base
            )
            return sums.persona

        forced = jax.tree.map(lambda x: x.reshape(-1, 2), jax.lax.map(force, flat))
        return Reconstructions(decode(params, group.contexts, base=base).ids, forced)

    return map_personas(one, mesh, chunk)((params, base), groups)


def score_cases(
    cases: Iterable[Case], program: Callable[[Group], Reconstructions],
    encoding: Encoding | RowEncoding, groups: int
) -> Iterator[Scored]:
    """Runs cases through a compiled `reconstruct`, as many at a time as `groups` hold.

    `cases` are from `list_cases` with the same encoding; `groups` is the number of groups that
    the program takes at a time. Yields Scored in the order of the cases.
    """
    cases = iter(cases)
    while some := list(itertools.islice(cases, groups * CASES_A_GROUP)):
        found = jax.device_get(program(pack_cases(some, encoding, groups)))
        found = jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), found)
        for n, case in enumerate(some):
            yield Scored(
                case.subject, case.variant, case.turns_seen,
                encoding.words(found.ids[n]), tuple(found.forced.nll[n].tolist()),
                int(found.forced.tokens[n, 0])
            )
