"""The code in README.md, docs/ and examples/ runs, and what the pages refer to is there."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from starting import each_start

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(page for folder in (".", "docs", "bench", "examples") for page in (ROOT / folder).glob("*.md"))
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SOURCES = sorted(
    path
    for folder in ("python", "cpp", "examples", "bench")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".py", ".pyi", ".cpp", ".hpp"}
)

pytestmark = pytest.mark.skipif(
    not (ROOT / "docs" / "derivation.md").exists(),
    reason=f"docs/ is not beside the tests, in {ROOT}: the suite runs away from the source tree",
)


def name(path):
    return path.relative_to(ROOT).as_posix()


def text_of(page):
    return page.read_text(encoding="utf-8")


def python_blocks(page):
    """(line number, code) of each ```python block."""
    text = text_of(page)
    return [
        (text.count("\n", 0, found.start(1)), found[1])
        for found in re.finditer(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    ]


def need_frames(code):
    """Skips where the code wants a frame library that is not installed."""
    if "as_frame=True" in code or "import pandas" in code:
        pytest.importorskip("pandas")
    if "expunge.torch" in code and getattr(find_spec("torch"), "origin", None) is None:
        pytest.skip("PyTorch is not installed: pip install 'expunge[torch]'")
    if "matplotlib" in code or "expunge.plots" in code:
        pytest.importorskip("matplotlib").use("agg")  # no windows
    if "import polars" in code:
        pytest.importorskip("polars")


def with_code():
    """Pages, one of which runs an audit."""
    for page in PAGES:
        if python_blocks(page):
            audits = "audit_certificate(" in text_of(page)
            yield pytest.param(page, marks=[pytest.mark.slow] if audits else [], id=name(page))


@pytest.mark.parametrize("page", list(with_code()))
def test_python_blocks_run(page, tmp_path, monkeypatch):
    """In order, in one namespace."""
    monkeypatch.chdir(tmp_path)
    blocks = python_blocks(page)
    need_frames("".join(code for _, code in blocks))
    namespace = {"__name__": "__main__"}
    for line, code in blocks:
        exec(compile("\n" * line + code, str(page), "exec"), namespace)


@pytest.mark.slow
def test_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "import os, runpy\nrunpy.run_path(os.environ['EXAMPLE'], run_name='__main__')"
    for example, done in zip(
        EXAMPLES, each_start(code, *({"EXAMPLE": str(e)} for e in EXAMPLES)), strict=True
    ):
        assert done.returncode == 0, (example, done.stdout + done.stderr)
        assert done.stdout, example
        assert "Warning" not in done.stderr, example


def test_there_are_examples_and_pages():
    assert EXAMPLES
    assert {"README.md", "docs/guide.md", "docs/adding_a_loss.md", "docs/data.md"} <= set(map(name, PAGES))


def test_cited_equations_are_defined():
    """An E-number names one equation of docs/derivation.md."""
    defined = re.findall(r"^\*\*(E\d+)\*\*", text_of(ROOT / "docs" / "derivation.md"), flags=re.MULTILINE)
    assert len(defined) == len(set(defined))
    cited = {
        (equation, name(path))
        for path in [*SOURCES, *PAGES]
        for equation in re.findall(r"\bE\d{1,2}\b", text_of(path))
        if name(path) != "docs/derivation.md"
    }
    assert {equation for equation, _ in cited} >= {"E1", "E3", "E5", "E11"}
    assert sorted(citation for citation in cited if citation[0] not in defined) == []


def anchors(page):
    """Names of a page's headings, as GitHub links to them."""
    headings = re.findall(r"^#+ (.+)$", text_of(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_relative_links_resolve(page):
    prose = re.sub(r"^```.*?^```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []
