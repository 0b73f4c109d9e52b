"""Define the pytrees that pass through jit: examples, episodes, token sums, training state."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

Params = Any  # nested dict of arrays


@struct.dataclass
class Tokens:
    """Token sequences laid side by side, one segment each.

    Attributes:
      ids: int32 [..., S] word ids.
      segment: int32 [..., S], the number of the sequence within its tile, counted
        from 1; 0 for padding. Tokens attend only to tokens of their own segment.
      position: int32 [..., S], counted from 0 within each sequence.
    """

    ids: jax.Array
    segment: jax.Array
    position: jax.Array


@struct.dataclass
class Targets:
    """Target sequences laid side by side for teacher forcing, one segment per example and task.

    Attributes:
      inputs: Tokens [..., T], the decoder's inputs, start token first.
      ids: int32 [..., T], the tokens to predict, end-of-sequence last.
      reads: int32 [..., T], the segment of the context that a token attends to; 0 for padding.
      task: int32 [..., T], the task that the token's loss counts for, an index into
        `strategies.TASKS`.
    """

    inputs: Tokens
    ids: jax.Array
    reads: jax.Array
    task: jax.Array


@struct.dataclass
class Tiles:
    """Turns of one persona, packed into tiles of one shape: context -> response, persona.

    A tile (axis N) is the unit of work. Its contexts lie in R rows of S slots each, which
    keeps attention among them short; its targets of all tasks lie in one stream of T slots.
    Occupied tiles come first.

    Attributes:
      context: Tokens [N, R, S].
      targets: Targets [N, T].
    """

    context: Tokens
    targets: Targets


Examples = tuple[Tiles, ...]  # the turns of one persona, in tiles of one or two shapes


@struct.dataclass
class Episode:
    """One persona's two disjoint sets (section 2.2: T^i and O^i)."""

    support: Examples
    query: Examples


@struct.dataclass
class TokenSums:
    """A loss before division: the summed negative log-likelihood in nats, and its tokens."""

    nll: jax.Array
    tokens: jax.Array

    @classmethod
    def zero(cls) -> "TokenSums":
        return cls(jnp.zeros(()), jnp.zeros(()))

    def __add__(self, other: "TokenSums") -> "TokenSums":
        return TokenSums(self.nll + other.nll, self.tokens + other.tokens)


@struct.dataclass
class TaskSums:
    """Token sums of the two tasks; a task without targets counts no tokens."""

    response: TokenSums
    persona: TokenSums


@struct.dataclass
class Rates:
    """Settings that are traced, so that changing them needs no compilation.

    Attributes:
      alpha: weight of the response loss against the persona loss (eq. 6).
      inner_lr: step size of the inner update (eq. 11, eta_t).
      outer_lr: step size of the outer update (eq. 14, eta_o).
    """

    alpha: jax.Array
    inner_lr: jax.Array
    outer_lr: jax.Array


@struct.dataclass
class MetaState:
    """The state that training carries from step to step.

    Attributes:
      params: the initial parameters phi.
      opt_state: the outer optimiser's state.
      step: int32 scalar, finished outer updates; the next iteration is step + 1.
    """

    params: Params
    opt_state: Any
    step: jax.Array
