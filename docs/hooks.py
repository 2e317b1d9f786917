"""Hooks of mkdocs: pages made from the code, links out of the folder, equations, and the navigation.

The navigation of mkdocs.yml may name pages that are not there, which are left out, and folders as
`methods/*`. What it does not name is added at its end, so that a new page is always reached.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from generator import api, equations, figures, labs, links, methods, metrics

ROOT = Path(__file__).parents[1]
PROJECT = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
SHIM = "https://unpkg.com/iframe-worker/shim"
OTHERS = ("benchmarks/*.md", "benchmarks/*/*.md", "examples/*/README.md")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Let fenced blocks of `math` become MathML."""
    extension = config.mdx_configs.setdefault("pymdownx.superfences", {})
    extension["custom_fences"] = [{"name": "math", "class": "math", "format": equations.fence}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and take the navigation for what is there."""
    for path, text in generated_pages():
        files.append(File.generated(config, path, content=text))
    present = [file.src_uri for file in files.documentation_pages() if not file.inclusion.is_excluded()]
    named: set[str] = set()
    config.nav = [entry for item in config.nav or [] if (entry := _existing(item, present, named))]
    rest = [path for path in present if path not in named]
    if rest:
        config.nav.append({"More": rest})
    return files


def generated_pages() -> Iterator[tuple[str, str]]:
    """Path within the site and text of every page that is made from the code."""
    yield from methods.pages()
    yield from metrics.pages()
    yield from labs.pages()
    yield from api.pages()
    found = [ROOT / name for name in PROJECT]
    found += sorted(path for pattern in OTHERS for path in ROOT.glob(pattern))
    for path in found:
        yield links.project_page(path, ROOT), path.read_text(encoding="utf-8")


def _existing(item: Any, present: list[str], named: set[str]) -> Any:
    """An entry of the navigation without the pages that are not there; None where nothing is left."""
    if isinstance(item, dict):
        ((title, inner),) = item.items()
        left = _existing(inner, present, named)
        return {title: left} if left else None
    if isinstance(item, list):
        return [path for each in item for path in _expanded(each, present, named)] or None
    return next(iter(_expanded(item, present, named)), None)


def _expanded(path: str, present: list[str], named: set[str]) -> list[str]:
    prefix = path.removesuffix("*")
    taken = [
        name
        for name in present
        if name not in named and (name == path or (path != prefix and name.startswith(prefix)))
    ]
    named.update(taken)
    return taken


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Mend links that leave the folder of the docs, and put figures into their places."""
    text = links.within_the_site(markdown, page.file.src_uri, ROOT, {file.src_uri for file in files})
    return figures.inserted(links.pipes_in_code(text))


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Set equations within lines."""
    return equations.inline(html)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Take the site's own stand-in for workers, not another host's, and give the search its name."""
    output = output.replace(SHIM, "../" * page.url.count("/") + "assets/search.js")
    return output.replace('role="dialog"', 'role="dialog" aria-label="Search"')


def on_post_template(output: str, template_name: str, config: MkDocsConfig) -> str:
    """Likewise for the page of what is not found, which is served from the root."""
    output = output.replace(SHIM, "/assets/search.js")
    return output.replace('role="dialog"', 'role="dialog" aria-label="Search"')
