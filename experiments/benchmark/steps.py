"""Measure outer steps: time and memory, next to the operations counted from their data."""

import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax

from experiments.benchmark.measuring import product_ceiling, summarise
from experiments.benchmark.slots import real_row_shares, real_shares
from mtml_jax.config import TrainConfig
from mtml_jax.config_decoder import LlamaConfig
from mtml_jax.data.episodes import sample_episodes, training_batch
from mtml_jax.data.prepare import Prepared
from mtml_jax.meta.cost import StepCount, count_step, mode_of
from mtml_jax.meta.cost_decoder import DecoderStepCount, count_decoder_step
from mtml_jax.progress import ProgressBar
from mtml_jax.sharding import Placement, persona_mesh, replicate, split_personas
from mtml_jax.strategies import STRATEGIES
from mtml_jax.train.memory_plan import lower_steps
from mtml_jax.train.rates import rates_at
from mtml_jax.train.resume import initial_state, read_base


@dataclasses.dataclass
class Setting:
    """One phase of a configuration, compiled, with the batches that it is timed on."""

    config: TrainConfig
    phase: int  # index of the phase in its strategy
    step: Any  # compiled (state, batch, rates, base) -> (state, metrics)
    compile_seconds: float
    batches: list  # real batches on the devices
    counts: list[StepCount | DecoderStepCount]  # the counted work of each batch
    shares: list[dict[str, float]]  # the real share of each batch's slots, from `slots`
    seconds: list[list[float]] = dataclasses.field(default_factory=list)  # one list for each round

    @property
    def name(self) -> str:
        several = len(STRATEGIES[self.config.strategy].phases) > 1
        return self.config.strategy + (f", phase {self.phase + 1}" if several else "")


def variants(
    config: TrainConfig, strategies: Iterable[str], gradients: Iterable[str],
    chunks: Iterable[int | None], remats: Iterable[bool],
) -> Iterator[TrainConfig]:  # fmt: skip
    """Yields every combination; strategies without an inner step have no gradient mode to vary."""
    for strategy in strategies:
        for gradient, chunk, remat in itertools.product(
            gradients if STRATEGIES[strategy].adapts else [config.gradient], chunks, remats
        ):
            model = dataclasses.replace(config.model, remat=remat)
            yield dataclasses.replace(
                config, strategy=strategy, gradient=gradient, persona_chunk=chunk, model=model
            )


def measure_steps(
    configs: Iterable[TrainConfig], data_of: Callable[[TrainConfig], Prepared],
    batches: int, repeats: int, say: Callable[[str], None],
) -> list[dict[str, Any]]:  # fmt: skip
    """Times all configurations alternately, so that a slow minute of the machine affects them all.

    Args:
      configs: the configurations; those of a pretrained decoder share its base.
      data_of: returns the prepared corpus for a configuration.
      batches: number of real training batches, from step 0; phases take them in turn.
      repeats: number of timed rounds, after one that warms up.
      say: prints a line for the user.

    Returns:
      The row of the ceiling, then one row for each configuration; see `_row`.
    """
    # Compile every phase of every configuration.
    configs = list(configs)
    mesh = persona_mesh(configs[0].meta_batch)
    base = replicate(read_base(configs[0]), mesh)
    settings = []
    for config in configs:
        chunk = f"chunk {config.persona_chunk or 'default'}{', remat' * config.model.remat}"
        for setting in _compile(config, data_of(config), mesh, batches, base):
            memory = setting.step.memory_analysis().temp_size_in_bytes
            say(
                f"{setting.name}, {mode_of(config)}, {chunk}: compiled in "
                f"{setting.compile_seconds:.1f} s, {memory / 1e6:,.0f} MB of temporary memory"
            )
            settings.append(setting)

    # Time them in rounds, between two measurements of the ceiling.
    rates = replicate(rates_at(configs[0], 0), mesh)
    ceilings = [product_ceiling(mesh, configs[0].model.dtype)]
    rounds = repeats + 1  # the first one warms up
    total = rounds * sum(len(setting.batches) for setting in settings)
    with ProgressBar(total=total, desc="steps", unit="step", leave=False) as bar:
        for _ in range(rounds):
            for setting in settings:
                # A new state, because a step donates its state's memory; the same one for all.
                state = initial_state(setting.config, data_of(setting.config), base)
                state = replicate(state, mesh)
                seconds = []
                for batch in setting.batches:
                    jax.block_until_ready((state, batch))
                    clock = time.perf_counter()
                    with jax.transfer_guard("disallow"):
                        state, metrics = setting.step(state, batch, rates, base)
                    jax.block_until_ready((state, metrics))
                    seconds.append(time.perf_counter() - clock)
                    bar.update()
                setting.seconds.append(seconds)
    ceilings.append(product_ceiling(mesh, configs[0].model.dtype))

    # Make rows of the times, and compare them.
    ceiling = max(ceilings)
    what = f"products of large square matrices, {configs[0].model.dtype}, "
    what += f"one on each of {mesh.size} devices at once"
    rows = [{"row": "ceiling", "what": what, "operations_per_second": ceiling,
             "before_and_after": ceilings}]  # fmt: skip
    for _, group in itertools.groupby(settings, key=lambda setting: setting.config):
        phases = list(group)
        rows += [_row(setting.name, [setting], ceiling) for setting in phases]
        if len(phases) > 1:
            rows.append(_row(f"{phases[0].config.strategy}, mean", phases, ceiling))
    _compare(rows)
    return rows


def _compile(config, data, mesh, batches, base):
    """Yields a `Setting` for each phase of a configuration."""
    strategy = STRATEGIES[config.strategy]
    state = replicate(initial_state(config, data, base), mesh)
    rates = replicate(rates_at(config, 0), mesh)
    lowering = lower_steps(config, Placement(mesh))
    for number, (tasks, lower) in enumerate(zip(strategy.phases, lowering)):
        steps = [s for s in range(batches) if strategy.phase_of(s) == number]
        packed = [training_batch(data, config, s, devices=mesh.size) for s in steps]
        triples = [sample_episodes(data.train, config.meta_batch, config.seed, s) for s in steps]
        placed = [split_personas(batch, mesh) for batch in packed]
        clock = time.perf_counter()
        compiled = lower(state, placed[0], rates, base).compile()
        seconds = time.perf_counter() - clock
        if isinstance(config.model, LlamaConfig):
            counts = [count_decoder_step(some, tasks, config.model) for some in triples]
            shares = [real_row_shares(batch) for batch in packed]
        else:
            words = len(data.vocabulary)
            counts = [count_step(some, tasks, config.model, words) for some in triples]
            shares = [real_shares(batch, config.model, words) for batch in packed]
        yield Setting(config, number, compiled, seconds, placed, counts, shares)


def _row(name, phases, ceiling):
    """Makes a row of the times of one phase, or of all phases of a configuration in turn."""
    config = phases[0].config
    mode = mode_of(config)
    rounds = [[s for p in phases for s in p.seconds[n]] for n in range(len(phases[0].seconds))]
    means = [statistics.fmean(seconds) for seconds in rounds[1:]]
    median = statistics.median(means)
    counts = [count for p in phases for count in p.counts]
    shares = [share for p in phases for share in p.shares]
    operations = statistics.fmean(count.operations(mode) for count in counts)
    memory = [p.step.memory_analysis() for p in phases]
    return {
        "row": "steps", "what": name, "strategy": config.strategy, "gradient": mode,
        "persona_chunk": config.persona_chunk, "remat": config.model.remat,
        **summarise(means),
        "seconds": rounds[1:],
        "batches": len(rounds[0]),
        "tokens_per_second": statistics.fmean(c.tokens for c in counts) / median,
        "temporary_bytes": max(m.temp_size_in_bytes for m in memory),
        "compile": max(p.compile_seconds for p in phases),
        "operations": operations,
        "achieved": operations / median,
        "achieved_share": operations / median / ceiling,
        "real_shares": {k: statistics.fmean(share[k] for share in shares) for k in shares[0]},
    }  # fmt: skip


def _compare(rows):
    """Adds each row's ratio to the first-order row that is otherwise the same, and to mtml's."""

    keys = ("strategy", "gradient", "persona_chunk", "remat", "what")
    references = {"to_first_order": {"gradient": "first_order"},
                  "to_mtml": {"strategy": "mtml", "what": "mtml"}}  # fmt: skip
    for row in rows[1:]:
        for name, changes in references.items():
            wanted = {key: row[key] for key in keys} | changes
            alike = (o for o in rows if all(o.get(k) == v for k, v in wanted.items()))
            other = next(alike, row)
            if other is not row:
                row[name] = {
                    "measured": row["median"] / other["median"],
                    "counted": row["operations"] / other["operations"],
                }
