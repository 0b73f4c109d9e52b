"""Load a trained model and the personas that it is tested on."""

import functools
import hashlib
import json
import os
from typing import NamedTuple

from mtml_jax.config import DataConfig, TrainConfig
from mtml_jax.config_eval import Checkpoint
from mtml_jax.data.demo import demo_facts
from mtml_jax.data.encode import EncodedPersona, Encoding
from mtml_jax.data.layout import encoding_of
from mtml_jax.data.load import load_split
from mtml_jax.data.personas import group_personas, require_conversations
from mtml_jax.data.prepare import encode_personas
from mtml_jax.data.records import Persona
from mtml_jax.data.strands import RowEncoding
from mtml_jax.runs.folder import load_run, source_of
from mtml_jax.runs.trained import load_trained
from mtml_jax.strategies import STRATEGIES


class Run(NamedTuple):
    """A trained model and the personas that it is tested on."""

    config: TrainConfig  # settings of the run
    encoding: Encoding | RowEncoding  # how the run's model reads dialogues
    params: dict  # parameters of the checkpoint
    base: dict | None  # frozen parameters, of a pretrained decoder
    step: int  # outer step of the checkpoint
    personas: list[Persona]  # personas of the split, as text
    encoded: list[EncodedPersona]  # the same personas as ids
    known_statements: set[str]  # all statements of the train split
    facts: dict[str, dict[str, str]]  # speaker -> facts, for the demo corpus; otherwise empty
    notes: list[str]  # sentences on the data


def load_for_test(
    workdir: str | os.PathLike, *, checkpoint: Checkpoint = "best", split: str = "test",
    persona_at_test: bool = False, source: DataConfig = DataConfig(data=None)
) -> Run:
    """Loads a run and the personas of a split.

    Persona statements stand in front of contexts with `persona_at_test`. Without a name, the
    corpus of `source` is the one that the run was trained on.

    Raises:
      FileNotFoundError: there is no run, checkpoint or split.
      ValueError: they do not fit together, or the data cannot be read.
    """
    model = load_trained(workdir, checkpoint)
    config = model.config
    saved, _ = load_run(workdir)
    reads = STRATEGIES[config.strategy].persona_in_context or config.init_from
    if persona_at_test and not reads:
        raise ValueError(
            f"expected a run of std_p for --persona_at_test, got a run of {config.strategy}: it "
            "never saw statements in a context"
        )
    source = source_of(saved, source)
    read = functools.partial(
        load_split, str(source.data), source.data_dir, split_seed=source.split_seed,
        skip_bad=source.skip_bad
    )
    dialogues, notes = read(split)
    train, _ = read("train")
    personas, single = require_conversations(group_personas(dialogues))
    encoding = encoding_of(config, model.vocabulary, persona_in_context=persona_at_test)
    encoded, counts, _ = encode_personas(personas, encoding)
    notes = notes + [
        f"{split}: {len(personas):,} personas, {counts['examples']:,} turns; left out "
        f"{len(single):,} personas with a single conversation; {encoding.cut(counts)}"
    ]
    return Run(
        config, encoding, model.params, model.base, model.step, personas, encoded,
        {statement for dialogue in train for statement in dialogue.statements},
        demo_facts(split) if source.data == "demo" else {}, notes
    )


def fingerprint(personas: list[Persona]) -> str:
    """A digest of the personas and dialogues that are tested on."""
    digest = hashlib.sha256()
    for persona in personas:
        for dialogue in persona.dialogues:
            said = [text for turn in dialogue.turns for text in (turn.context, turn.response)]
            whole = [persona.name, dialogue.conversation, *dialogue.statements, *said]
            digest.update(json.dumps(whole).encode())
    return digest.hexdigest()[:16]
