"""The architecture as tests: who depends on whom, what the stub promises, what is compiled and documented."""

import ast
import datetime
import doctest
import importlib
import importlib.metadata
import inspect
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from starting import each_start

import expunge
from expunge import (
    _core,
    accounting,
    audit,
    baselines,
    datasets,
    kernels,
    metrics,
    plots,
    receipts,
    reference,
    updates,
)
from expunge.losses import LOSSES, get_loss

PUBLIC_MODULES = (  # what users import from
    expunge,
    accounting,
    audit,
    baselines,
    datasets,
    kernels,
    metrics,
    plots,
    receipts,
    reference,
    updates,
)
REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = Path(expunge.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
ISAS = expunge.build_info()["available"]

needs_repository = pytest.mark.skipif(
    not ((REPOSITORY / "cpp").is_dir() and (REPOSITORY / "python" / "bindings").is_dir()),
    reason="the sources do not lie beside these tests",
)
each_isa = pytest.mark.parametrize("isa", ISAS)


def each_module(rule):
    """A test of the rule in every module."""

    def test():
        for path in MODULES:
            rule(path)

    return test


def kernels_of(isa):
    """The module of kernels compiled for that instruction set."""
    return importlib.import_module(f"expunge._kernels_{isa.replace('-', '_')}")


def without_comments(source):
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", source, flags=re.DOTALL)


def cpp_files(*folders):
    files = [
        path
        for folder in folders
        for path in sorted((REPOSITORY / folder).rglob("*"))
        if path.suffix in (".hpp", ".cpp")
    ]
    assert files
    return files


def imports(path):
    """(dots, module, name or None) of every import statement in a Python file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.level, node.module or "", alias.name) for alias in node.names)


# Who may depend on whom


@needs_repository
def test_the_core_includes_only_eigen_the_standard_library_and_itself():
    for path in cpp_files("cpp"):
        for bracket, name in re.findall(
            r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', path.read_text(), re.MULTILINE
        ):
            if bracket == "<":
                allowed = name.startswith("Eigen/") or re.fullmatch(r"[a-z_0-9]+", name)
            else:
                allowed = any(
                    (base / name).is_file() for base in (path.parent, REPOSITORY / "cpp" / "include")
                )
            assert allowed, f"{path.name} includes {name}"


@needs_repository
def test_the_core_knows_nothing_of_python_and_prints_nothing():
    words = (
        r"\bPy[A-Z_]\w*|\bpybind11\b|\bpy::|\bNPY_|<iostream>|\bcout\b|\bcerr\b|\bclog\b|printf\b|\bf?puts\b"
    )
    for path in cpp_files("cpp/include", "cpp/src", "cpp/kernels"):
        found = re.search(words, without_comments(path.read_text()))
        assert not found, f"{path.name}: {found[0]}"


@needs_repository
def test_the_core_never_forms_an_inverse():
    for path in cpp_files("cpp/include", "cpp/src", "cpp/kernels"):
        assert not re.search(r"[.>]inverse\s*\(", without_comments(path.read_text())), path.name


@needs_repository
def test_build_files_ask_for_no_machine_of_their_own_and_no_inexact_mathematics():
    names = ("CMakeLists.txt", "pyproject.toml", "CMakePresets.json")
    files = [REPOSITORY / name for name in names] + list((REPOSITORY / "cmake").glob("*"))
    files += (REPOSITORY / "cpp").rglob("CMakeLists.txt")
    files = [path for path in files if path.is_file()]
    assert len(files) >= 3
    for path in files:
        found = re.search(r"-m(?:arch|tune)=native|-ffast[-]math|-Ofast|/fp:fast", path.read_text())
        assert not found, f"{path.name}: {found[0]}"


@each_module
def test_compiled_modules_are_reached_through_core_alone(path):
    refers = re.search(r"\b_native\b|\b_kernels_\w|\b_kernels_\{", path.read_text())
    assert bool(refers) == (path.name == "_core.py")


def test_the_reference_imports_only_numpy_scipy_losses_and_errors():
    for name in ("reference", "reference_noise"):
        for dots, module, _ in imports(PACKAGE / f"{name}.py"):
            allowed = (
                {"losses", "errors", "_parameters"}
                if dots
                else {"numpy", "scipy", "__future__", "collections", "fractions"}
            )
            assert module.split(".")[0] in allowed, module
    for name in ("losses", "errors", "_parameters"):
        for dots, module, _ in imports(PACKAGE / f"{name}.py"):
            assert not dots
            assert module.split(".")[0] in {"numpy", "scipy", "__future__", *sys.stdlib_module_names}, module


@each_module
def test_runtime_dependencies_are_the_declared_ones(path):
    allowed = {"numpy", "scipy", "sklearn", "expunge", *sys.stdlib_module_names}
    if path.is_relative_to(PACKAGE / "torch"):  # nothing else imports that
        allowed.add("torch")
    for dots, module, _ in imports(path):
        assert dots or module.split(".")[0] in allowed, module


def test_only_who_asks_imports_torch():
    graph = {path: set(imported_when_run(path)) for path in MODULES}
    inside = {path for path in graph if path.is_relative_to(PACKAGE / "torch")}
    assert inside
    for path in set(graph) - inside:
        assert not any(module.startswith("expunge.torch") for module in graph[path]), path


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # as where it is not installed
import expunge
assert "torch" not in " ".join(name for name in sys.modules if name.startswith("expunge"))
try:
    import expunge.torch
except ImportError as error:
    print(error)
"""


def test_without_torch_all_works_but_asking_for_it_names_the_extra():
    (done,) = starts(WITHOUT_TORCH, {})
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "expunge.torch needs PyTorch 2.3 or later: pip install 'expunge[torch]'"


@needs_repository
def test_torch_is_in_no_other_extra():
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras.pop("torch") == ["torch>=2.3"]
    assert not re.search(r"\btorch\b", str(extras))


def external_names(tree):
    """Names that a file binds to other packages' modules and objects."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) and not getattr(node, "level", 0):
            for alias in node.names:
                yield (alias.asname or alias.name).split(".")[0]


NAMED_TUPLE = {"_asdict", "_fields", "_replace"}  # public: the underscore keeps them apart from fields


def is_private(name):
    dunder = name.startswith("__") and name.endswith("__")
    return name.startswith("_") and not dunder and name not in NAMED_TUPLE


@each_module
def test_no_private_name_of_another_package_is_used(path):
    for dots, module, name in imports(path):
        if not dots and module.split(".")[0] not in ("expunge", "__future__"):
            parts = [*module.split("."), *([name] if name else [])]
            assert not any(part.startswith("_") for part in parts), ".".join(parts)
    tree = ast.parse(path.read_text())
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    external = set(external_names(tree))
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Attribute) and is_private(node.attr)):
            continue
        root = node.value
        while isinstance(root, ast.Attribute):
            root = root.value
        text = ast.unparse(node)
        if isinstance(root, ast.Name):
            assert root.id not in external, text
            # of an object of unknown class: only what this file defines, or its own self
            assert root.id in ("self", "cls", "_core") or node.attr in own, text
        else:
            assert node.attr in own, text


# How large things may be


def code_lines(node):
    """Lines of a function without its docstring."""
    first = node.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return node.end_lineno - node.lineno + 1 - (first.end_lineno - first.lineno + 1 if documented else 0)


@each_module
def test_files_classes_and_functions_fit_a_mind(path):
    text = path.read_text()
    assert text.count("\n") <= 600
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            assert node.end_lineno - node.lineno < 500, node.name
        if isinstance(node, ast.FunctionDef):
            assert code_lines(node) <= 60, node.name


def test_public_methods_of_an_unlearner_are_short():
    tree = ast.parse((PACKAGE / "unlearner.py").read_text())
    face = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Unlearner")
    for node in face.body:
        if isinstance(node, ast.FunctionDef) and not is_private(node.name):
            body = node.body[1:] if isinstance(node.body[0], ast.Expr) else node.body
            assert sum(item.end_lineno - item.lineno + 1 for item in body) <= 12, node.name


@needs_repository
def test_files_of_the_core_fit_a_mind():
    for path in cpp_files("cpp", "python/bindings"):
        assert path.read_text().count("\n") <= 600, path.name


def module_of(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_when_run(path):
    """Modules of the package that are imported as a file is, not within its functions or for types alone."""
    inside = module_of(path).split(".")
    package = inside if path.name == "__init__.py" else inside[:-1]
    known = {module_of(other) for other in MODULES}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            module = ".".join([*base, *(node.module.split(".") if node.module else [])])
            for alias in node.names:
                yield f"{module}.{alias.name}" if f"{module}.{alias.name}" in known else module


def test_no_modules_import_each_other_in_a_circle():
    graph = {module_of(path): set(imported_when_run(path)) for path in MODULES}
    graph = {name: found for name, found in graph.items() if name != "expunge"}  # its face imports them all
    while leaves := {name for name, found in graph.items() if not found & set(graph)}:
        graph = {name: found for name, found in graph.items() if name not in leaves}
    assert graph == {}


@each_module
def test_only_problem_makes_objectives_and_knows_how_theta_is_laid_out(path):
    text = path.read_text()
    if path.name == "problem.py" or path.is_relative_to(PACKAGE / "audit"):
        return
    assert "_core.Objective(" not in text


@each_module
def test_only_the_command_line_prints(path):
    if path.is_relative_to(PACKAGE / "cli"):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"line {node.lineno}"
        if isinstance(node, ast.Attribute):
            assert ast.unparse(node) not in ("sys.stdout", "sys.stderr"), f"line {node.lineno}"


# The stub


def signature(function):
    """(argument, default or None) of a function given as an AST, self left out."""
    arguments = function.args
    assert [arguments.vararg, arguments.kwarg, *arguments.kwonlyargs] == [None, None]
    names = [argument.arg for argument in arguments.posonlyargs + arguments.args]
    defaults = [ast.unparse(default) for default in arguments.defaults]
    pairs = list(zip(names, [None] * (len(names) - len(defaults)) + defaults, strict=True))
    return pairs[1:] if pairs and pairs[0][0] == "self" else pairs


def stub_of(nodes):
    """name -> signature, "property", or the same for the members of a class."""
    members = {}
    for node in nodes:
        if isinstance(node, ast.ClassDef):
            members[node.name] = stub_of(node.body)
        elif isinstance(node, ast.FunctionDef):
            is_property = any(ast.unparse(decorator) == "property" for decorator in node.decorator_list)
            members[node.name] = "property" if is_property else signature(node)
    return members


def extension_of(namespace):
    """The same of what pybind11 made: it writes each signature into the first line of the docstring."""
    members = {}
    for name, value in vars(namespace).items():
        if name == "__init__" and not isinstance(namespace, type):
            continue
        if name.startswith("_") and (name != "__init__" or value.__doc__ == object.__init__.__doc__):
            continue
        if isinstance(value, staticmethod):
            value = value.__func__
        if isinstance(value, type):
            members[name] = extension_of(value)
        elif isinstance(value, property):
            members[name] = "property"
        elif callable(value):
            first, *rest = value.__doc__.strip().splitlines()
            assert not any(re.match(rf"\d+\. {name}\(", line) for line in rest), f"{name} is overloaded"
            members[name] = signature(ast.parse(f"def {first}: ...").body[0])
    return members


def test_the_stub_is_the_extension():
    stub = stub_of(ast.parse((PACKAGE / "_core.pyi").read_text()).body)
    assert stub.pop("build_info") == list(inspect.signature(_core.build_info).parameters)  # Python's own
    extension = extension_of(_core._module)
    for private in ("supported_isas", "compiled_with"):  # what _core.py builds build_info from
        assert extension.pop(private) == []
    assert extension.pop("use_kernels") == [("table", None)]
    assert extension == stub


def test_core_offers_what_the_stub_says_from_the_chosen_extension():
    stub = stub_of(ast.parse((PACKAGE / "_core.pyi").read_text()).body)
    for name in set(stub) - {"build_info"}:
        assert getattr(_core, name) is getattr(_core._module, name)
    public = {name for name, value in vars(_core).items() if not name.startswith("_") and callable(value)}
    assert public - {"Any"} == set(stub)


# Instruction sets


def starts(code, *environments):
    """Fresh processes, which find the package that is tested."""
    paths = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return each_start(code, *environments, without=["EXPUNGE_ISA"], PYTHONPATH=os.pathsep.join(paths))


PRINT_ISA = "from expunge import build_info; print(build_info()['isa'])"


@each_isa
def test_every_module_reports_its_instruction_set(isa):
    kernels = kernels_of(isa)
    assert kernels.isa == isa
    assert ("AVX512" in kernels.simd) == (isa == "x86-64-v4")
    assert ("AVX" in kernels.simd) == (isa in ("x86-64-v3", "x86-64-v4"))


def test_the_kernels_in_use_are_those_of_the_chosen_instruction_set():
    info = expunge.build_info()
    assert _core._kernels is kernels_of(info["isa"])
    assert info["simd"] == _core._kernels.simd


def test_kernels_are_taken_from_a_table_of_kernels_alone():
    capsule = datetime.datetime_CAPI
    with pytest.raises(ValueError, match="must be that of a module of kernels"):
        _core._module.use_kernels(capsule)


@pytest.mark.slow
def test_the_environment_picks_the_instruction_set_or_the_best_one_is_the_default():
    asked = [*({"EXPUNGE_ISA": isa} for isa in ISAS), {}, {"EXPUNGE_ISA": "altivec"}]
    *chosen, default, unknown = starts(PRINT_ISA, *asked)
    assert [done.stdout.strip() for done in chosen] == list(ISAS)
    assert default.stdout.strip() == ISAS[-1]
    assert ISAS[0] == "baseline"
    assert list(ISAS) == [isa for isa in ("baseline", "x86-64-v3", "x86-64-v4") if isa in ISAS]
    assert unknown.returncode != 0
    last = unknown.stderr.strip().splitlines()[-1]
    assert last == f"ImportError: EXPUNGE_ISA='altivec' is not available: choose one of {', '.join(ISAS)}"


def test_build_info_says_what_was_compiled():
    info = expunge.build_info()
    assert set(info) == {"isa", "available", "simd", "eigen", "compiler"}
    assert info["isa"] in info["available"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", info["eigen"])
    assert tuple(map(int, info["eigen"].split("."))) >= (3, 4, 0)
    assert re.match(r"(gcc|clang|msvc) \S+", info["compiler"])
    info["isa"] = "spoilt"
    assert expunge.build_info()["isa"] != "spoilt"


@pytest.mark.parametrize(
    "module", [_core._module, *map(kernels_of, ISAS)], ids=lambda module: module.__name__
)
def test_no_blas_and_no_openmp_is_linked(module):
    if not sys.platform.startswith("linux") or shutil.which("ldd") is None:
        pytest.skip("ldd is not here")
    listing = subprocess.run(["ldd", module.__file__], capture_output=True, text=True, check=True).stdout
    assert "libstdc++" in listing or "libc" in listing
    assert not re.search(r"blas|lapack|mkl|gomp|libomp|iomp", listing, re.IGNORECASE)


# Losses


def test_the_core_and_python_know_the_same_losses():
    with pytest.raises(ValueError) as raised:
        _core.Objective([], "hinge", np.zeros(1), False)
    known = re.fullmatch(r"unknown loss 'hinge': choose one of (.*)", str(raised.value))[1]
    names = (name if loss.power is None else "tweedie(power)" for name, loss in LOSSES.items())
    assert known.split(", ") == list(dict.fromkeys(names))
    for name in (
        "tweedie(1)",
        "tweedie(1.0)",
        "tweedie(2.5)",
        "tweedie(nan)",
        "tweedie(1.5",
        "tweedie(1.5)x",
        "tweedie",
    ):
        with pytest.raises(ValueError, match="unknown loss"):
            _core.Objective([], name, np.zeros(1), False)
        with pytest.raises(ValueError, match="unknown loss"):
            get_loss(name)
    for name in ("tweedie(2)", "tweedie(1.7)", "tweedie(1.0000000000000002)"):
        _core.Objective([], name, np.zeros(1), False)
        assert get_loss(get_loss(name).name) is get_loss(name)


@pytest.mark.isa
@pytest.mark.parametrize("loss", [loss for loss in LOSSES if np.isfinite(LOSSES[loss].max_d3)])
def test_max_d2_and_max_d3_are_those_of_the_compiled_loss(loss):
    eta = np.linspace(-8.0, 8.0, 2001)
    h = eta[1] - eta[0]

    def d2(at):
        return kernels.hessian([[1.0]], [at], alpha=0.0, loss=loss)[0, 0]

    values = np.array([d2(at) for at in eta])
    assert_allclose(values.max(), LOSSES[loss].max_d2, rtol=1e-12)
    slopes = np.abs(values[2:] - values[:-2]) / (2 * h)
    # O(h^2) of the difference, and of the distance from a grid point to the maximum
    assert_allclose(slopes.max(), LOSSES[loss].max_d3, atol=h**2)


@needs_repository
def test_the_constants_of_a_loss_are_written_alike_in_both_languages():
    source = without_comments((REPOSITORY / "cpp/include/expunge/losses.hpp").read_text())
    found = re.findall(
        r'name = "(\w+)";\s*static constexpr double max_d2 = ([^,]+), max_d3 = ([^,;]+)', source
    )
    names = dict.fromkeys(name.partition("(")[0] for name in LOSSES)
    assert [name for name, *_ in found] == list(names)
    numbers = {"std::numeric_limits<double>::infinity()": np.inf}
    for name, *written in found:
        loss = next(loss for loss in LOSSES.values() if loss.name.partition("(")[0] == name)
        for key, text, value in zip(("d2", "d3"), written, (loss.max_d2, loss.max_d3), strict=True):
            numbers[f"max_{key}"] = (
                numbers.get(text) or numbers.get(text.removeprefix("Logistic::")) or float(text)
            )
            assert_allclose(numbers[f"max_{key}"], value, rtol=1e-15)


# Documentation


def public_objects():
    """name -> every public function and class."""
    found = {}
    for module in PUBLIC_MODULES:
        for name in module.__all__:
            value = getattr(module, name)
            if not inspect.ismodule(value):
                found[f"{module.__name__}.{name}"] = value
    return found


PUBLIC = public_objects()


def sections(docstring):
    """The headings of a numpydoc docstring."""
    return re.findall(r"^(\w[\w ]*)\n-{3,}$", inspect.cleandoc(docstring), re.MULTILINE)


def test_public_names_are_documented_with_an_example():
    for name, value in PUBLIC.items():
        if isinstance(value, type) and issubclass(value, BaseException):
            assert len(value.__doc__) > 20, name
            continue  # raised, not called
        documented = sections(value.__doc__ or "")
        assert "Examples" in documented, name
        assert ">>> " in value.__doc__, name
        if inspect.isfunction(value):
            assert "Returns" in documented, name
            if inspect.signature(value).parameters:
                assert "Parameters" in documented, name


def test_public_methods_are_documented():
    for value in PUBLIC.values():
        for name, member in vars(value).items() if isinstance(value, type) else ():
            if not name.startswith("_") and (callable(member) or isinstance(member, property)):
                assert inspect.getdoc(member), f"{value.__name__}.{name}"


def test_all_names_exist_and_are_sorted():
    for module in PUBLIC_MODULES:
        assert list(module.__all__) == sorted(module.__all__)
        assert all(hasattr(module, name) for name in module.__all__)
    assert kernels.__all__ == reference.__all__


@pytest.mark.parametrize("name", kernels.__all__)
def test_kernels_and_their_twins_take_the_same_arguments(name):
    def arguments(module):
        parameters = inspect.signature(getattr(module, name)).parameters.values()
        return [(p.name, p.kind, p.default) for p in parameters]

    assert arguments(kernels) == arguments(reference)


@pytest.mark.parametrize("module", [kernels, reference])
@pytest.mark.parametrize("name", kernels.__all__)
def test_every_parameter_of_a_kernel_is_documented(module, name):
    value = getattr(module, name)
    section = re.search(r"Parameters\n-+\n(.+?)\n\n\w+\n---", value.__doc__, re.DOTALL)[1]
    entries = re.findall(r"^(\w.*?) : ", section, re.MULTILINE)
    assert ", ".join(entries).split(", ") == list(inspect.signature(value).parameters)


def importable():
    """Dotted names of all modules but the compiled ones and those that run when imported."""
    names = [module_of(path) for path in MODULES]
    absent = () if find_spec("torch") else ("expunge.torch",)
    return [name for name in names if not name.startswith(("expunge.__main__", *absent))]


@pytest.mark.slow
def test_examples_in_docstrings_run():
    shown = {"expunge", *(value.__module__ for value in PUBLIC.values())} - {"expunge.errors"}
    for name in importable():
        result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
        assert result.failed == 0, name
        assert result.attempted > 0 or name not in shown, name


# The distribution


def test_the_version_is_that_of_the_installed_distribution():
    try:
        version = importlib.metadata.version("expunge")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("expunge is not installed as a distribution")
    assert expunge.__version__ == version
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", version)


def test_the_package_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").is_file()
    assert (PACKAGE / "_core.pyi").is_file()
