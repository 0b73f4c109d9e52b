"""A trained model and the personas that it is tested on."""

import functools
import hashlib
import json
from typing import NamedTuple

from mtml_jax.config import TrainConfig, restored_config
from mtml_jax.data.demo import demo_facts
from mtml_jax.data.encode import EncodedPersona, Encoding
from mtml_jax.data.load import load_split
from mtml_jax.data.personas import group_personas, require_conversations
from mtml_jax.data.prepare import encode_personas
from mtml_jax.data.records import Persona
from mtml_jax.data.vocab import Vocabulary
from mtml_jax.runs.checkpoint import restore_params
from mtml_jax.runs.folder import load_run
from mtml_jax.strategies import STRATEGIES


class Run(NamedTuple):
    """A trained model and the personas it is tested on.

    Attributes:
      config: the run's settings.
      vocabulary: the run's words.
      params: of the checkpoint.
      step: that the checkpoint was saved at.
      personas: of the split, as text.
      encoded: the same as ids.
      known_statements: all statements of the train split.
      facts: speaker -> facts, of the demo corpus; else empty.
      notes: sentences on the data.
    """

    config: TrainConfig
    vocabulary: Vocabulary
    params: dict
    step: int
    personas: list[Persona]
    encoded: list[EncodedPersona]
    known_statements: set[str]
    facts: dict[str, dict[str, str]]
    notes: list[str]


def load(given) -> Run:
    """Reads the run and the personas of the split.

    Raises:
      FileNotFoundError: there is no run, checkpoint or split.
      ValueError: they do not fit together, or the data cannot be read.
    """
    saved, text = load_run(given.workdir)
    config = restored_config(saved)
    vocabulary = Vocabulary.from_text(text)
    restored = restore_params(given.workdir, given.checkpoint)
    words = restored.params["embedding"].shape[0]
    if words != len(vocabulary):
        raise ValueError(
            f"{given.workdir}: found a checkpoint of {words:,} words and a vocabulary of "
            f"{len(vocabulary):,}, want the vocabulary.txt that it was trained with"
        )
    if given.persona_at_test and not STRATEGIES[config.strategy].persona_in_context:
        raise ValueError(
            f"got --persona_at_test for a run of {config.strategy}, want a run of std_p: the "
            "others never saw statements in a context"
        )
    source = given.data or saved["data"]
    # The run's own file is split as it was for training; another one by the flags.
    how = {} if given.data else saved
    read = functools.partial(
        load_split,
        source,
        given.data_dir,
        split_seed=how.get("split_seed", given.split_seed),
        skip_bad=given.skip_bad or how.get("skip_bad", False),
    )
    dialogues, notes = read(given.split)
    train, _ = read("train")
    personas, alone = require_conversations(group_personas(dialogues))
    encoding = Encoding(vocabulary, config.shape, given.persona_at_test)
    encoded, counts = encode_personas(personas, encoding)
    notes = notes + [
        f"{given.split}: {len(personas):,} personas, {counts['examples']:,} turns; left out "
        f"{len(alone):,} personas with a single conversation; cut to their slots "
        f"{counts['contexts']:,} contexts, {counts['responses']:,} responses"
    ]
    return Run(
        config,
        vocabulary,
        restored.params,
        restored.step,
        personas,
        encoded,
        {statement for dialogue in train for statement in dialogue.statements},
        demo_facts(given.split) if source == "demo" else {},
        notes,
    )


def fingerprint(personas: list[Persona]) -> str:
    """Digits that stand for who is tested on what."""
    digest = hashlib.sha256()
    for persona in personas:
        for dialogue in persona.dialogues:
            said = [text for turn in dialogue.turns for text in (turn.context, turn.response)]
            whole = [persona.name, dialogue.conversation, *dialogue.statements, *said]
            digest.update(json.dumps(whole).encode())
    return digest.hexdigest()[:16]
