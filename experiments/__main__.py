"""List the commands: `python -m experiments`."""

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent


def commands() -> dict[str, str]:
    """Maps the name of every command to what it does, the first sentence of its file."""
    files = {path.stem: path for path in HERE.glob("*.py") if path.stem != "__main__"}
    files |= {path.parent.name: path for path in HERE.glob("*/__main__.py")}
    found = {}
    for name, path in sorted(files.items()):
        text = path.read_text(encoding="utf-8")
        if re.search(r"^    app\.run\(main, ", text, re.MULTILINE):
            found[name] = ast.get_docstring(ast.parse(text)).split("\n")[0].split(": `")[0].rstrip(".")
    return found


if __name__ == "__main__":
    width = max(map(len, commands()))
    for command, what in commands().items():
        print(f"python -m experiments.{command:<{width}}  {what}")
    print("--help shows a command's settings.")
