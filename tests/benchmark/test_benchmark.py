"""``python -m expunge bench``: a case for every kernel, answers compared first, errors before the work."""

import inspect
import json
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import expunge.cli as command
from expunge import benchmark, build_info, kernels

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmark.md"
CASES = benchmark.cases()
SMALL = "gradient_difference, 10 x 100"


def first_case(kernel):
    return next(case for case in CASES if case.kernel == kernel)


def without(monkeypatch, *packages):
    """As if these packages were not installed."""

    def absent(name):
        if name.partition(".")[0] in packages:
            raise ImportError(name)
        return import_module(name)

    for module in (benchmark.timing, benchmark.results):
        monkeypatch.setattr(module, "import_module", absent)


@pytest.fixture
def nothing_runs(monkeypatch):
    def refuse(*_):
        raise AssertionError("this had to be refused before anything ran")

    monkeypatch.setattr(benchmark, "run", refuse)


# What there is


def test_every_kernel_has_a_case():
    assert {case.kernel.partition(".")[0] for case in CASES} == set(kernels.__all__)


def test_every_edit_of_a_factor_has_a_case():
    public = {
        name
        for name, member in vars(kernels.CholeskyFactor).items()
        if inspect.isfunction(member) and not name.startswith("_")
    }
    cased = [case.kernel.partition(".")[2] for case in CASES if case.kernel.startswith("CholeskyFactor")]
    assert set(cased) == {"", *public}


@pytest.mark.parametrize("kernel", [name for name in kernels.__all__ if name != "CholeskyFactor"])
def test_what_takes_rows_is_timed_dense_at_two_sizes_in_float32_and_in_csr(kernel):
    found = [case for case in CASES if case.kernel == kernel]
    assert sorted(case.layout for case in found) == ["CSR", "float32", "float64", "float64"]
    assert len({case.shape for case in found if case.layout == "float64"}) == 2
    for case in found:
        X = case.data()[0]
        assert X.shape == case.shape
        assert X.dtype == ("float32" if case.layout == "float32" else "float64")
        assert isinstance(X, np.ndarray) == (case.layout != "CSR")


def test_cases_differ_in_name():
    assert len(set(map(str, CASES))) == len(CASES)


# Answers come first


def off(answer):
    return tuple(map(off, answer)) if isinstance(answer, tuple) else answer * (1.0 + 1e-9)


@pytest.mark.parametrize("kernel", [name for name in kernels.__all__ if name[0].islower()])
@pytest.mark.parametrize("layout", ["float64", "float32", "CSR"])
def test_a_wrong_kernel_is_named(monkeypatch, kernel, layout):
    case = next(case for case in CASES if (case.kernel, case.layout) == (kernel, layout))
    right = getattr(kernels, kernel)
    monkeypatch.setattr(kernels, kernel, lambda *given, **named: off(right(*given, **named)))
    with pytest.raises(benchmark.DisagreementError, match=rf"^{kernel}, .*{layout}: .* differ by 1.0e-09 of"):
        benchmark.run(case, 1e-9)


@pytest.mark.parametrize("name", ["", "solve", "update", "downdate", "append", "delete"])
def test_a_wrong_factor_is_named(monkeypatch, name):
    class Wrong(kernels.CholeskyFactor):
        def solve(self, b):
            return off(super().solve(b))

        @property
        def lower(self):
            return off(super().lower)

    monkeypatch.setattr(kernels, "CholeskyFactor", Wrong)
    kernel = f"CholeskyFactor.{name}".removesuffix(".")
    with pytest.raises(benchmark.DisagreementError, match=f"^{kernel}, 100 x 100"):
        benchmark.run(first_case(kernel), 1e-9)


def test_a_row_that_stays_in_the_statistics_is_noticed(monkeypatch):
    right = kernels.AnchoredStatistics.subtract
    calls = []

    def forgetful(self, X, y, sample_weight=None):
        calls.append(1)
        if len(calls) != 7:
            right(self, X, y, sample_weight)

    monkeypatch.setattr(kernels.AnchoredStatistics, "subtract", forgetful)
    with pytest.raises(benchmark.DisagreementError, match=r"^AnchoredStatistics, 20000 x 100"):
        benchmark.run(first_case("AnchoredStatistics"), 1e-9)


@pytest.mark.parametrize(
    "spoil", [off, lambda g: g[:-1], lambda g: g[None], lambda g: np.full_like(g, np.nan), lambda g: 0.0 * g]
)
def test_a_wrong_rival_is_named(spoil):
    case = first_case("gradient")

    def task(*data):
        right = case.task(*data)
        return replace(right, rivals={**right.rivals, "spoilt": lambda: spoil(right.rivals["NumPy"]())})

    with np.errstate(divide="ignore"), pytest.raises(benchmark.DisagreementError, match="rival 'spoilt'"):
        benchmark.run(replace(case, task=task), 1e-9)


def test_the_command_fails_where_answers_differ(monkeypatch):
    right = kernels.gram
    monkeypatch.setattr(kernels, "gram", lambda X, w: off(right(X, w)))
    with pytest.raises(SystemExit, match=r"^error: gram, 2000 x 50, float64: the kernel and its rival"):
        command.main(["bench", "--filter", "gram", "--seconds", "1e-9"])


# How it measures, on a clock of ours


def test_the_figure_is_the_median_of_the_ratios_of_rounds(monkeypatch):
    clock, order = [0.0], []
    spent = {"ours": iter([9.0, 1.0, 10.0, 100.0]), "slow": iter([9.0, 4.0, 100.0, 300.0])}
    spent["quick"] = iter([9.0, 1.0, 5.0, 10.0])

    def side(name):
        def work(*given):
            order.append((name, given))
            clock[0] += next(spent[name])
            return 1.0

        return work

    def fresh():
        clock[0] += 1000.0  # which nobody is charged for
        return (len(order),)

    task = benchmark.Task(side("ours"), {name: side(name) for name in ("slow", "quick")}, fresh)
    monkeypatch.setattr(benchmark.timing, "perf_counter", lambda: clock[0])
    result = benchmark.run(benchmark.Case("none", (1, 1), "none", lambda: task, tuple), 1e-9)
    assert result.rounds == 3
    assert result.milliseconds == 1e3 * 10.0
    assert [(rival.name, rival.ratio) for rival in result.rivals] == [("quick", 0.5), ("slow", 4.0)]
    assert result.rivals[1].quartiles == (3.5, 7.0)
    names = [name for name, _ in order]
    rounds = [names[3 * k : 3 * k + 3] for k in range(4)]
    assert all(sorted(turn) == ["ours", "quick", "slow"] for turn in rounds)
    assert {turn[0] for turn in rounds[1:]} == {"ours", "quick", "slow"}
    assert [given for name, given in order if name != "ours"] == [()] * 8
    given = [given for name, given in order if name == "ours"]
    assert len(set(given)) == 4  # anew for each call


def test_time_and_rounds_end_a_case(monkeypatch):
    clock = [0.0]

    def second():
        clock[0] += 1.0
        return 1.0

    task = benchmark.Task(second, {"other": second})
    case = benchmark.Case("none", (1, 1), "none", lambda: task, tuple)
    monkeypatch.setattr(benchmark.timing, "perf_counter", lambda: clock[0])
    assert benchmark.run(case, 20.0).rounds == 10
    assert benchmark.run(case, 1e9).rounds == benchmark.MAX_ROUNDS


# The machine


def test_blas_has_one_thread_while_it_runs():
    control = pytest.importorskip("threadpoolctl")
    before = control.threadpool_info()
    with benchmark.use_threads(1):
        machine = benchmark.machine()
    assert control.threadpool_info() == before
    if not any(pool["user_api"] == "blas" for pool in before):
        pytest.skip("threadpoolctl knows no BLAS here")
    assert {blas["threads"] for blas in machine["blas"]} == {1}
    assert machine["threadpoolctl"] == control.__version__
    assert "not limited" not in benchmark.header(machine)[-1]
    two = {**machine, "blas": [{**machine["blas"][0], "threads": 2}]}
    assert benchmark.header(two)[-1].endswith("2 threads")


def test_without_threadpoolctl_the_header_says_that_threads_are_not_limited(monkeypatch, capsys):
    without(monkeypatch, "threadpoolctl")
    assert command.main(["bench", "--filter", SMALL, "--seconds", "1e-9", "--json", "-"]) == 0
    out, err = capsys.readouterr()
    assert "BLAS threads not limited: pip install threadpoolctl" in err
    machine = json.loads(out)["machine"]
    assert machine["threadpoolctl"] is None
    assert [blas["threads"] for blas in machine["blas"]] == [None, None]  # NumPy's and SciPy's
    assert all(blas["name"] for blas in machine["blas"])


def test_the_header_names_what_the_figures_depend_on():
    text = "\n".join(benchmark.header(benchmark.machine()))
    build = build_info()
    for part in (build["isa"], build["eigen"], build["compiler"], np.__version__, "cores", "BLAS", "SciPy"):
        assert part in text


def test_the_header_says_whether_blas_is_as_shipped(monkeypatch):
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    shipped = benchmark.machine()
    assert "; BLAS as shipped: " in benchmark.header(shipped)[-1]
    monkeypatch.setenv("OPENBLAS_CORETYPE", "SkylakeX")
    forced = benchmark.machine()
    assert "; BLAS with OPENBLAS_CORETYPE=SkylakeX: " in benchmark.header(forced)[-1]
    assert benchmark.differing(shipped, forced) == ["openblas_coretype: None then, SkylakeX now"]


# The command


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """JSON and output of a run of everything, as short as it gets."""
    file = tmp_path_factory.mktemp("bench") / "all.json"
    done = subprocess.run(
        [sys.executable, "-m", "expunge", "bench", "--seconds", "1e-9", "--json", str(file)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return file, done.stdout


@pytest.mark.slow
def test_the_json_is_complete(whole):
    data = json.loads(whole[0].read_text())
    assert set(data) == {"schema", "machine", "seconds", "results"}
    assert (data["schema"], data["seconds"]) == (benchmark.SCHEMA, 1e-9)
    assert set(data["machine"]) == set(benchmark.machine())
    found = [(result["kernel"], tuple(result["shape"]), result["layout"]) for result in data["results"]]
    assert found == [(case.kernel, case.shape, case.layout) for case in CASES]
    for result in data["results"]:
        assert result["rounds"] >= benchmark.MIN_ROUNDS
        assert result["rivals"]
        ratios = [rival["ratio"] for rival in result["rivals"]]
        assert ratios == sorted(ratios)
        for rival in result["rivals"]:
            low, high = rival["quartiles"]
            assert 0.0 < low <= rival["ratio"] <= high < math.inf
            assert rival["milliseconds"] > 0.0


@pytest.mark.slow
def test_the_table_has_a_line_for_every_rival(whole):
    results = benchmark.read(whole[0])[1]
    for result in results:
        lines = command.bench.lines_of(result)
        assert len(lines) == len(result.rivals)
        assert "\n".join(lines) in whole[1]
        assert lines[0].split()[:4] == [result.kernel, str(result.shape[0]), "x", str(result.shape[1])]


@pytest.mark.slow
@pytest.mark.skipif(not PAGE.exists(), reason="docs/ is not beside the tests")
def test_the_guide_describes_every_field_of_the_json(whole):
    section = PAGE.read_text("utf-8")
    data = json.loads(whole[0].read_text())
    for part in (data, data["machine"], data["machine"]["blas"][0], data["results"][0]):
        assert [name for name in part if f"`{name}`" not in section] == []
    assert [name for name in data["results"][0]["rivals"][0] if f"`{name}`" not in section] == []


def test_a_filter_chooses_cases(capsys):
    assert command.main(["bench", "--filter", SMALL, "--seconds", "1e-9", "--json", "-"]) == 0
    out, err = capsys.readouterr()
    assert [result["shape"] for result in json.loads(out)["results"]] == [[10, 100]]
    assert "gradient_difference           10 x 100" in err  # the table makes way for the JSON
    assert "hessian" not in err


@pytest.mark.slow
def test_a_terminal_that_knows_no_formulas_still_gets_the_table():
    arguments = ["--filter", "gram, 2000 x 50", "--seconds", "1e-9"]
    done = subprocess.run(
        [sys.executable, "-X", "utf8=0", "-m", "expunge", "bench", *arguments],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"X?(wX)" in done.stdout


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_plot_is_written(tmp_path, ending, capsys):
    pytest.importorskip("matplotlib")
    file = tmp_path / f"bench.{ending}"
    assert command.main(["bench", "--filter", "2000 x 50", "--seconds", "1e-9", "--plot", str(file)]) == 0
    content = file.read_bytes()
    assert content.startswith(b"\x89PNG" if ending == "png" else b"<?xml")
    assert len(content) > 5000


def test_one_case_with_one_rival_can_be_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    result = benchmark.Result(
        "gram", (1, 1), "float64", 1.0, 3, (benchmark.Rival("x", 2.0, 2.0, (1.0, 3.0)),)
    )
    benchmark.plot(tmp_path / "one.pdf", benchmark.machine(), [result])
    assert (tmp_path / "one.pdf").stat().st_size > 1000


# Refused before anything runs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--filter", "inverse"],
            "no case has 'inverse' in its name: there are loss_and_gradient, gradient,",
        ),
        (["--json", "missing/out.json"], "out.json: No such file or directory"),
        (["--json", "."], "Is a directory"),
        (["--plot", "missing/out.png"], "out.png: No such file or directory"),
        (["--plot", "out.bmp9"], "out.bmp9: matplotlib draws files that end in"),
        (["--against", "missing.json"], "missing.json: No such file or directory"),
        (["--seconds", "0"], "--seconds"),
        (["--seconds", "nan"], "--seconds"),
        (["--seconds", "inf"], "--seconds"),
        (["--seconds", "soon"], "--seconds"),
    ],
)
def test_bad_arguments_are_answered_before_anything_runs(
    tmp_path, monkeypatch, nothing_runs, arguments, message, capsys
):
    if arguments[0] == "--plot":
        pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        command.main(["bench", *arguments])
    assert caught.value.code not in (0, None)
    assert message in str(caught.value.code) + capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_plot_without_matplotlib_names_the_extra(tmp_path, monkeypatch, nothing_runs):
    without(monkeypatch, "matplotlib")
    with pytest.raises(SystemExit, match="a plot needs matplotlib: pip install matplotlib"):
        command.main(["bench", "--plot", str(tmp_path / "bench.png")])
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_kept_until_the_figures_are(tmp_path, monkeypatch):
    file = tmp_path / "out.json"
    file.write_text("old")

    def fail(*_):
        raise benchmark.DisagreementError("planted")

    monkeypatch.setattr(benchmark, "run", fail)
    with pytest.raises(SystemExit, match="error: planted"):
        command.main(["bench", "--json", str(file)])
    assert file.read_text() == "old"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"schema": 0, "machine": {}, "results": []}',
        '{"schema": 1, "machine": {}, "results": [{"kernel": "gram"}]}',
        '{"schema": 1, "machine": 3, "results": []}',
        "\xff",
    ],
)
def test_a_file_of_something_else_is_not_compared_with(tmp_path, nothing_runs, content):
    file = tmp_path / "old.json"
    file.write_text(content, encoding="latin-1")
    with pytest.raises(SystemExit, match=r"^error: .*old.json is not a file that `python -m expunge bench"):
        command.main(["bench", "--against", str(file)])


# Two runs compared


@pytest.mark.slow
def test_a_run_is_read_as_it_was_written(whole):
    machine, results = benchmark.read(whole[0])
    assert benchmark.report(machine, 1e-9, results) == whole[0].read_text()


def slower(result, times):
    """The same with ours `times` as slow, the rivals as they were."""
    rivals = tuple(replace(rival, ratio=rival.ratio / times) for rival in result.rivals)
    return replace(result, milliseconds=result.milliseconds * times, rivals=rivals)


@pytest.mark.slow
def test_changes_are_told_by_the_ratios_to_the_rivals_of_both(whole):
    _, results = benchmark.read(whole[0])
    then = [slower(result, 2.0) for result in results[:5]]
    then[0] = replace(then[0], rivals=then[0].rivals[:1])
    then[1] = replace(then[1], shape=(3, 3))
    then[2] = replace(then[2], rivals=())
    then[3] = replace(then[3], milliseconds=7.0)  # another machine: only the ratios count
    found = benchmark.changes(then, results)
    assert [change.now for change in found] == [results[0], results[3], results[4]]
    assert [round(change.faster, 12) for change in found] == [2.0, 2.0, 2.0]
    assert found[1].milliseconds_then == 7.0


@pytest.mark.slow
def test_the_command_compares_with_a_file(whole, tmp_path, monkeypatch, capsys):
    machine, results = benchmark.read(whole[0])
    now = iter([result for result, case in zip(results, CASES, strict=True) if SMALL in str(case)])
    monkeypatch.setattr(benchmark, "run", lambda *_: next(now))
    old = tmp_path / "old.json"
    old.write_text(
        benchmark.report(
            {**machine, "cpu": "abacus", "expunge": "0.0.1"}, 1.0, [slower(result, 1.5) for result in results]
        )
    )
    assert command.main(["bench", "--filter", SMALL, "--against", str(old)]) == 0
    out = capsys.readouterr().out
    assert f"against {old}, expunge 0.0.1" in out
    assert "not the same: cpu: abacus then, " in out
    assert re.search(r"\ngradient_difference +10 x 100 +float64 +\S+ +\S+ +1\.50\n", out)
    assert out.count("not the same") == 1


def test_the_same_machine_differs_in_nothing():
    machine = benchmark.machine()
    assert benchmark.differing(machine, machine) == []
    assert benchmark.differing({}, machine)
