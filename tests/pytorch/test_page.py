"""The page of networks and the examples in docstrings run."""

import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import networks  # noqa: F401, skips without PyTorch
import pytest

import expunge.torch

PAGE = Path(__file__).resolve().parents[2] / "docs" / "networks.md"


@pytest.mark.skipif(not PAGE.exists(), reason="docs/networks.md is not beside the tests")
def test_examples_of_the_page_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    assert text.count("\n") <= 250
    namespace = {"__name__": "__main__"}
    for found in re.finditer(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
        line = text.count("\n", 0, found.start(1))
        exec(compile("\n" * line + found[1], str(PAGE), "exec"), namespace)


def test_examples_in_docstrings_run():
    for module in pkgutil.iter_modules(expunge.torch.__path__, "expunge.torch."):
        result = doctest.testmod(
            importlib.import_module(module.name), optionflags=doctest.NORMALIZE_WHITESPACE
        )
        assert result.failed == 0, module.name


def test_expunge_alone_does_not_load_it():
    code = "import sys, expunge, expunge.metrics; print({'torch', 'expunge.torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_public_names_are_documented_with_an_example():
    assert expunge.torch.__all__ == sorted(expunge.torch.__all__)
    for name in expunge.torch.__all__:
        value = getattr(expunge.torch, name)
        assert ">>> " in value.__doc__ or name == "Head", name  # head makes it
        parameters = re.search(r"Parameters\n\s*-+\n(.+?)\n\n", value.__doc__, re.DOTALL)
        if inspect.isfunction(value) and parameters is not None:
            documented = ", ".join(re.findall(r"^\s*(\*{0,2}\w[\w, ]*?) : ", parameters[1], re.MULTILINE))
            asked = set(inspect.signature(value).parameters)
            assert {word.strip("*") for word in documented.split(", ")} == asked
        for member in vars(value).values() if isinstance(value, type) else ():
            if inspect.isfunction(member) and not member.__name__.startswith("_"):
                assert inspect.getdoc(member), f"{name}.{member.__name__}"
