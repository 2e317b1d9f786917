"""Links of pages that point out of the docs folder, and the check of the built site."""

from __future__ import annotations

import posixpath
import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)")
CODE = re.compile(r"(^```.*?^```[^\n]*$|`[^`\n]*\]\([^`\n]*`)", re.MULTILINE | re.DOTALL)
ASKED_FOR = {("link", "href"), ("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src")}
OWN = {"README.md": "index.md"}


def project_page(path: Path, root: Path) -> str:
    """Where a page from beside the docs folder lies in the site.

    Example:
        >>> project_page(Path("/a/benchmarks/gpu.md"), Path("/a"))
        'project/benchmarks/gpu.md'
    """
    return f"project/{path.relative_to(root).as_posix()}".replace("README.md", "about.md")


def within_the_site(markdown: str, page: str, root: Path, pages: set[str]) -> str:
    """Markdown of a page whose links lead to pages of the site, or are plain words where there is none.

    Args:
        markdown: the page.
        page: its path in the site.
        root: of the repository.
        pages: all paths in the site.
    """
    here = page.removeprefix("project/") if page.startswith("project/") else f"docs/{page}"

    def mended(match: re.Match[str]) -> str:
        words, target = match.groups()
        path, _, anchor = target.partition("#")
        if not path or urlsplit(target).scheme:
            return match[0]
        place = posixpath.normpath(posixpath.join(posixpath.dirname(here), path))
        found = _page_of(place, root)
        if found not in pages:
            return words
        relative = posixpath.relpath(found, posixpath.dirname(page) or ".")
        return f"[{words}]({relative}{f'#{anchor}' if anchor else ''})"

    parts = CODE.split(markdown)
    return "".join(part if part.startswith("`") else LINK.sub(mended, part) for part in parts)


def pipes_in_code(markdown: str) -> str:
    """Markdown whose tables have plain bars in their code, as Python-Markdown takes them.

    Example:
        >>> pipes_in_code("| `a \\\\| b` |")
        '| `a | b` |'
    """

    def row(line: str) -> str:
        return re.sub(r"`[^`]+`", lambda code: code[0].replace("\\|", "|"), line)

    return "\n".join(row(line) if line.startswith("|") else line for line in markdown.split("\n"))


def _page_of(place: str, root: Path) -> str:
    if place in OWN:
        return OWN[place]
    if place.startswith("docs/"):
        return place.removeprefix("docs/")
    return project_page(root / place, root)


class _Page(HTMLParser):
    """Anchors of a page, what it links to, and what a browser would fetch for it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take down what one tag names."""
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if values.get(name)}
        self.links += [values[name] for name in ("href", "src") if name in values]
        if not (tag == "link" and values.get("rel") in ("canonical", "next", "prev")):
            self.fetched += [values[name] for kind, name in ASKED_FOR if kind == tag and name in values]


def problems(site: Path) -> Iterator[str]:
    """What is wrong with the links of a built site, a line each.

    Links within it must end at a file, and at an anchor of it; links to elsewhere must be well formed, and
    are not followed; nothing but links may name another host.

    Args:
        site: the folder of the built site.
    """
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        name = path.relative_to(site).as_posix()
        for target in sorted(set(page.fetched)):
            if urlsplit(target).netloc:
                yield f"{name}: asks another host for {target}"
        for target in sorted(set(page.links)):
            if problem := _problem(target, path, site, pages):
                yield f"{name}: {target}: {problem}"


def _problem(target: str, path: Path, site: Path, pages: dict[Path, _Page]) -> str | None:
    parts = urlsplit(target)
    if parts.scheme in ("data", "mailto", "javascript"):
        return None
    if parts.scheme or parts.netloc:
        fine = parts.scheme == "https" and re.fullmatch(r"[\w-]+(\.[\w-]+)+", parts.netloc)
        return None if fine else "no address of the form https://host/path"
    if path.name == "404.html":  # its links start at the root of wherever it is served
        return None
    place = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if place.is_dir():
        place = place / "index.html"
    if not place.is_file():
        return "no such file"
    if not place.is_relative_to(site.resolve()):
        return "outside of the site"
    anchor = unquote(parts.fragment)
    if anchor and not anchor.startswith("__") and place in pages and anchor not in pages[place].anchors:
        return f"no anchor #{anchor} there"
    return None


def main(site: str = "site") -> int:
    """Print what is wrong with a built site; 1 where anything is."""
    folder = Path(site).resolve()
    found = list(problems(folder))
    heavy = [path for path in sorted(folder.rglob("*.html")) if path.stat().st_size > 1_500_000]
    found += [f"{path.relative_to(folder)}: more than 1.5 MB" for path in heavy]
    count = len(list(folder.rglob("*.html")))
    print("\n".join([*found, f"{count} pages, {len(found)} problems with links"]))
    return 1 if found or not count else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
