"""Turn a dialogue into the trunk and the branches that a pretrained decoder reads.

The speaker is the template's assistant and the other side its user. The trunk is the
conversation, whose replies are predicted. After each reply a branch asks for the persona in
words and predicts the statements. Text is encoded as it was written.
"""

from collections.abc import Iterable, Sequence

from mtml_jax.data.records import Dialogue
from mtml_jax.data.rows import Strand
from mtml_jax.data.subwords import Subwords
from mtml_jax.strategies import TASKS

QUESTION = "Describe yourself in a few short sentences."  # asks for the persona


def dialogue_strands(
    dialogue: Dialogue,
    subwords: Subwords,
    *,
    tasks: Sequence[str] = TASKS,
    persona_in_context: bool = False,
) -> list[Strand]:
    """Encodes one dialogue.

    Args:
      dialogue: seen from the speaker's side.
      subwords: the decoder's tokenizer.
      tasks: the tasks whose tokens are predicted; without "persona" there are no branches.
      persona_in_context: whether the statements stand in a system message at the beginning.

    Returns:
      The trunk, and a branch after each reply if the dialogue has statements. A reply and a
      persona end with the token that ends a message, which is predicted, too.
    """
    statements = statements_text(dialogue.statements)
    ids = [*subwords.begin]
    if persona_in_context and statements:
        ids += subwords.message("system", statements)
    predicted: list[int] = []
    forks = []
    for turn in dialogue.turns:
        if turn.context:
            ids += subwords.message("user", turn.context)
        ids += subwords.opening("assistant")
        reply = [*subwords.encode(turn.response), subwords.end]
        predicted += range(len(ids), len(ids) + len(reply))
        ids += [*reply, *subwords.closing[1:]]
        forks.append(len(ids))
    trunk = Strand(tuple(ids), tuple(predicted) if "response" in tasks else ())
    if "persona" not in tasks or not statements:
        return [trunk]
    asked = (*subwords.message("user", QUESTION), *subwords.opening("assistant"))
    answer = (*subwords.encode(statements), subwords.end)
    targets = tuple(range(len(asked), len(asked) + len(answer)))
    branches = (
        Strand((*asked, *answer), targets, task=TASKS.index("persona"), fork=fork)
        for fork in forks
    )
    return [trunk, *branches]


def statements_text(statements: Iterable[str]) -> str:
    """Joins persona statements, sorted, into one text; they keep their punctuation."""
    return " ".join(sorted(statements))
