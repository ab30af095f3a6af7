"""The task that most tests run: is a number even?"""

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
REPLIES = [" yes, it is even\n", " no, it is odd\n"]
PROMPT = """---
format: completion
stop: ["\\n"]
answer: {end: [",", "\\n"]}
rationale: {start: ",", end: "\\n"}
---
Is {{ number }} even?
Answer:"""


def write_seeds(path: Path, numbers: range) -> None:
    rows = [{"id": f"n{n}", "number": n, "target": "no" if n % 2 else "yes"} for n in numbers]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
