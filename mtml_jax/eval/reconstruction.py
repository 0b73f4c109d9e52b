"""Persona reconstruction by itself (section 3.5.2): how much of a speaker the first n turns tell.

The model is not adapted: it reads what the training task reads at turn n and writes down
the speaker's statements. The paper proposes to leave the other side's utterances out, so
that the two personas cannot mix; that is the second variant.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from mtml_jax.config import LossConfig, TileShape
from mtml_jax.data.encode import Encoding, Example, encode_dialogue, own_side
from mtml_jax.data.packing import pack, stack
from mtml_jax.data.records import Dialogue
from mtml_jax.data.text import persona_text
from mtml_jax.data.vocab import Vocabulary
from mtml_jax.eval import metrics
from mtml_jax.model import losses
from mtml_jax.sharding import map_personas
from mtml_jax.types import Examples, Params, TokenSums

BOTH_SIDES, OWN_ONLY = VARIANTS = ("both_sides", "own_only")
CASES_A_GROUP = 8  # contexts that are decoded side by side


class Subject(NamedTuple):
    """A dialogue whose speaker is reconstructed.

    Attributes:
      persona: index of its persona.
      dialogue: with statements.
      other: a dialogue of another persona with statements, the baseline.
    """

    persona: int
    dialogue: Dialogue
    other: Dialogue


class Case(NamedTuple):
    """One context to reconstruct from.

    Attributes:
      subject: index of the subject.
      variant: one of `VARIANTS`.
      turns_seen: n, counted from 1.
      example: what is read and what is to be written.
      other: the context after as many turns of the other persona's dialogue, or after all
        of them where it has fewer.
    """

    subject: int
    variant: str
    turns_seen: int
    example: Example
    other: tuple[int, ...]


class Reconstructions(NamedTuple):
    """What comes out of groups of cases, each with leading axes [group, case].

    Attributes:
      ids: int32 [..., T], the persona as the model writes it.
      forced: TokenSums [..., 2] of the true persona by teacher forcing, given its own
        context and the other one.
    """

    ids: jax.Array
    forced: TokenSums


class Scored(NamedTuple):
    """What the model makes of one case.

    Attributes:
      subject: index of the subject.
      variant: one of `VARIANTS`.
      turns_seen: n, counted from 1.
      text: the persona as the model writes it.
      nll: of the true persona in nats, given its own context and the other one.
      tokens: of the true persona, end-of-sequence included.
    """

    subject: int
    variant: str
    turns_seen: int
    text: str
    nll: tuple[float, float]
    tokens: int


def list_cases(subjects: Iterable[Subject], encoding: Encoding) -> Iterator[Case]:
    """Every number of turns of every subject, in both variants.

    The context after n turns is, for `both_sides`, that of the training task: all earlier
    utterances and the current one of the other side. For `own_only` it is what the speaker
    said in the n - 1 turns before, so the reply of turn n is in neither; for n = 1 that is
    silence. Contexts that are too long keep their end.
    """
    for number, subject in enumerate(subjects):
        for variant in VARIANTS:
            examples, others = (
                encode_dialogue(_heard(dialogue, variant), encoding)[0]
                for dialogue in (subject.dialogue, subject.other)
            )
            for seen, example in enumerate(examples, start=1):
                other = others[min(seen, len(others)) - 1].context
                yield Case(number, variant, seen, example, other)


def _heard(dialogue, variant):
    return dialogue if variant == BOTH_SIDES else own_side(dialogue)


def pack_cases(
    cases: Sequence[Case], shape: TileShape, groups: int, *, distinct_start: bool
) -> Examples:
    """Packs a context and a persona a tile, so that each has token sums of its own.

    Args:
      cases: at least one and at most `groups * CASES_A_GROUP`; what is left of the room is
        filled with copies of them.
      shape: slots of a context and of a persona.
      groups: number of groups G.
      distinct_start: whether the persona task has a start token of its own.

    Returns:
      Examples with leading axes [G, CASES_A_GROUP, 2], the true persona with its own context
      and with the other one, a tile of one row each; no responses.
    """
    single = TileShape(rows=1, context=shape.context, response=0, persona=shape.persona)
    packed = [
        stack(
            [
                pack(
                    [Example(context, (), case.example.persona)],
                    single,
                    1,
                    tasks=("persona",),
                    distinct_start=distinct_start,
                )
                for context in (case.example.context, case.other)
            ]
        )
        for case in cases
    ]
    flat = stack([packed[i % len(packed)] for i in range(groups * CASES_A_GROUP)])
    return jax.tree.map(lambda x: x.reshape(groups, CASES_A_GROUP, *x.shape[1:]), flat)


def reconstruct(
    params: Params,
    groups: Examples,
    *,
    decode: Callable,
    config: LossConfig,
    mesh: Mesh,
    chunk: int = 1,
) -> Reconstructions:
    """Writes the persona of every case, and scores the true one by L_rec (eq. 5).

    Args:
      params: the initial parameters phi.
      groups: from `pack_cases`; the leading axis is shared by the devices.
      decode: (params, contexts) -> Replies, for `CASES_A_GROUP` contexts.
      config: model sizes.
      mesh: devices; its size divides the number of groups.
      chunk: groups vmapped at a time on a device.

    Returns:
      Reconstructions.
    """

    def one(params, group):
        contexts = jax.tree.map(lambda x: x[:, 0, 0, 0], group[0].context)
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), group)

        def force(example):
            return losses.weighted_loss(
                params, example, losses.PERSONA_ONLY, config=config
            )[1].persona

        forced = jax.tree.map(lambda x: x.reshape(-1, 2), jax.lax.map(force, flat))
        return Reconstructions(decode(params, contexts).ids, forced)

    return map_personas(one, mesh, chunk)(params, groups)


def score_cases(
    cases: Iterable[Case],
    program: Callable[[Examples], Reconstructions],
    encoding: Encoding,
    groups: int,
    *,
    distinct_start: bool,
) -> Iterator[Scored]:
    """Runs cases through a compiled `reconstruct`, as many at a time as `groups` hold.

    Args:
      cases: from `list_cases` with the same encoding.
      program: groups of examples -> Reconstructions.
      encoding: words and slots.
      groups: that the program takes at a time.
      distinct_start: whether the persona task has a start token of its own.

    Yields:
      Scored, in the order of the cases.
    """
    cases = iter(cases)
    while some := list(itertools.islice(cases, groups * CASES_A_GROUP)):
        packed = pack_cases(some, encoding.shape, groups, distinct_start=distinct_start)
        found = jax.tree.map(
            lambda x: x.reshape(-1, x.shape[-1]), jax.device_get(program(packed))
        )
        for n, case in enumerate(some):
            yield Scored(
                case.subject,
                case.variant,
                case.turns_seen,
                encoding.vocabulary.decode(found.ids[n]),
                tuple(found.forced.nll[n].tolist()),
                int(found.forced.tokens[n, 0]),
            )


def summarise_cases(
    subjects: Sequence[Subject],
    scored: Iterable[Scored],
    vocabulary: Vocabulary,
    *,
    seed: int,
    resamples: int = 1000,
) -> list[dict]:
    """The scores against the number of turns seen, each with its interval over personas.

    True statements are taken as the vocabulary reads them: a word it lacks is `<unk>` on
    both sides. A row counts the dialogues that have so many turns, and no others.

    Args:
      subjects: the dialogues.
      scored: what the model makes of them.
      vocabulary: the model's words.
      seed: of the resamples.
      resamples: of personas, for intervals at 95 %.

    Returns:
      A row for each variant and number of turns: "variant", "turns_seen", "dialogues",
      "personas", "tokens", and "scores", a table of name -> {"value", "low", "high"}:
      token_f1 and statement_recall (means over dialogues) and ppl (over all tokens). With
      "_shuffled" the first two are of the same text against another persona's statements,
      and ppl is of the same true persona after another persona's dialogue, so that the
      tokens are the same; "_own_minus_shuffled" is paired.
    """

    @functools.cache
    def read(statements):
        """The persona and its statements as the vocabulary reads them."""

        def known(some):
            return vocabulary.decode(vocabulary.encode(persona_text(some)))

        return known(statements), tuple(known([statement]) for statement in statements)

    kept: dict[tuple[str, int], list[tuple[int, list[float]]]] = {}
    for case in scored:
        subject = subjects[case.subject]
        numbers = [1.0, *case.nll, case.tokens]
        for statements in (subject.dialogue.statements, subject.other.statements):
            whole, single = read(statements)
            numbers.append(metrics.token_f1(case.text, whole))
            numbers.append(metrics.statement_recall(case.text, single))
        kept.setdefault((case.variant, case.turns_seen), []).append((subject.persona, numbers))
    rows = []
    for variant, seen in sorted(kept, key=lambda place: (VARIANTS.index(place[0]), place[1])):
        sums = _by_persona(kept[variant, seen])
        total = sums.sum(axis=0)
        rows.append(
            {
                "variant": variant,
                "turns_seen": seen,
                "dialogues": int(total[0]),
                "personas": len(sums),
                "tokens": int(total[3]),
                "scores": {
                    name: _with_interval(score, sums, seed, resamples)
                    for name, score in _score_table().items()
                },
            }
        )
    return rows


def _score_table() -> dict[str, Callable[[np.ndarray], float]]:
    """Name -> what makes the score of the sums that `summarise_cases` collects.

    Sums: dialogues; nll, own and shuffled; tokens; F1 and recall of own, of shuffled.
    """
    own = {
        "token_f1": lambda s: s[4] / s[0],
        "statement_recall": lambda s: s[5] / s[0],
        "ppl": lambda s: metrics.perplexity(s[1], s[3]),
    }
    shuffled = {
        "token_f1": lambda s: s[6] / s[0],
        "statement_recall": lambda s: s[7] / s[0],
        "ppl": lambda s: metrics.perplexity(s[2], s[3]),
    }
    table = {}
    for name in own:
        table[name] = own[name]
        table[f"{name}_shuffled"] = shuffled[name]
        table[f"{name}_own_minus_shuffled"] = functools.partial(
            lambda name, s: own[name](s) - shuffled[name](s), name
        )
    return table


def _by_persona(numbered):
    """Sums of each persona's rows, [personas, numbers]."""
    places = {p: n for n, p in enumerate(sorted({persona for persona, _ in numbered}))}
    sums = np.zeros((len(places), len(numbered[0][1])))
    for persona, numbers in numbered:
        sums[places[persona]] += numbers
    return sums


def _with_interval(score, sums, seed, resamples):
    low, high = metrics.bootstrap_interval(
        lambda drawn: score(sums[drawn].sum(axis=0)), len(sums), seed=seed, resamples=resamples
    )
    return {"value": float(score(sums.sum(axis=0))), "low": low, "high": high}
