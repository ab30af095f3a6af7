"""Check every Markdown file: links lead somewhere, prose is wrapped at 100 columns.

    python -m docs.check

A line may be longer where it cannot be broken: in a table, a code block, a heading, a link alone.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
COLUMNS = 100
LINK = re.compile(r"!?\[[^\]]*\]\(([^()\s]+(?:\([^()]*\))?[^()\s]*)\)")
CODE = re.compile(r"`[^`]*`")


def pages() -> list[Path]:
    """Return the Markdown files that git knows or would add."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "*.md", ":!prompts"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in names.splitlines() if (ROOT / name).exists()]


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line number, line) of everything that is neither code block nor front matter."""
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```") or (number == 1 and line == "---"):
            fenced = not fenced
        elif fenced and line == "---":
            fenced = False
        elif not fenced and not line.startswith("    "):
            yield number, line


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    found: set[str] = set()
    for _, line in prose(page.read_text()):
        if match := re.match(r"#+ (.*)", line):
            title = re.sub(r"[^\w\- ]", "", match.group(1).lower())
            found.add(title.strip().replace(" ", "-"))
        found |= set(re.findall(r'<a (?:id|name)="([^"]+)"', line))
    return found


def broken_links(page: Path) -> Iterator[str]:
    """Yield a complaint for each relative link that leads nowhere."""
    for number, line in prose(page.read_text()):
        for target in LINK.findall(CODE.sub("", line)):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            path = (page.parent / name).resolve() if name else page
            where = f"{page.relative_to(ROOT)}:{number}"
            if not path.exists():
                yield f"{where}: {target}: there is no such file"
            elif anchor and path.suffix == ".md" and anchor not in anchors(path):
                yield f"{where}: {target}: {path.name} has no such heading"


def wide_lines(page: Path) -> Iterator[str]:
    """Yield a complaint for each line of prose over 100 columns that could be broken."""
    for number, line in prose(page.read_text()):
        unbreakable = line.startswith(("|", "#")) or " " not in line.strip()
        if len(line) > COLUMNS and not unbreakable:
            yield f"{page.relative_to(ROOT)}:{number}: {len(line)} columns, at most {COLUMNS}"


def main() -> int:
    """Print every complaint; return 1 if there is one."""
    complaints = [text for page in pages() for text in (*broken_links(page), *wide_lines(page))]
    print("\n".join(complaints) or "all links lead somewhere; prose is wrapped")
    return int(bool(complaints))


if __name__ == "__main__":
    sys.exit(main())
