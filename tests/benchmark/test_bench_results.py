"""The tables of the benchmarks are written by the run that measured them, and pages quote no others."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from expunge import benchmark

report = pytest.importorskip("report", reason="bench/ is not beside the tests")

ROOT = Path(report.__file__).resolve().parents[1]
RESULTS = sorted((ROOT / "bench" / "results").rglob("*.md"))
MACHINE = benchmark.machine() | {
    "cpu": "Intel(R) Xeon(R) Gold 6330 CPU @ 2.00GHz",
    "cores": 2,
    "isa": "x86-64-v4",
    "openblas_coretype": None,
}


@pytest.fixture(autouse=True)
def head(monkeypatch):
    """Sets the commit that is checked out; abc at first."""

    def check_out(commit):
        monkeypatch.setattr(report, "commit", lambda: commit)

    check_out("abc")
    return check_out


def row(case, rival="NumPy", ratio="1.50", note=""):
    return {"case": case, "rival": rival, "ratio": ratio, "note": note}


ROWS = [row("sum[1, 2]"), row("sum[3]", "SciPy", "0.97", "short")]


def suite(remarks=("sums: one line",), rows=ROWS):
    return report.Suite("Sums, beside others.\n\nOf numbers.\n", MACHINE, list(remarks), list(rows))


# The writer


def test_a_file_holds_what_the_suite_found_under_what_it_depends_on():
    title, about, origin, remarks, lost, table = suite().markdown(["command"]).split("\n\n")
    assert title == "# Sums, beside others"
    assert about == "Of numbers."
    expected = [*benchmark.header(MACHINE), "scikit-learn ", "commit abc", "command"]
    found = [line.removeprefix("    ") for line in origin.splitlines()]
    assert [line.startswith(start) for line, start in zip(found, expected, strict=True)] == [True] * 6
    assert remarks == "- sums: one line"
    assert lost.endswith("above 1 ours is faster.\nBelow 1: sum[3] beside SciPy (0.97).")
    assert table.splitlines() == [
        "| case | rival | ratio | note |",
        "|---|---|---|---|",
        "| sum[1, 2] | NumPy | 1.50 |  |",
        "| sum[3] | SciPy | 0.97 | short |",
    ]


def test_what_was_not_found_leaves_no_gap():
    assert "\n\n\n" not in suite(rows=[]).markdown(["command"])
    assert suite(rows=[{"model": "a"}]).markdown([]).endswith("- sums: one line\n\n| model |\n|---|\n| a |\n")


def test_outside_of_a_clone_no_commit_is_named(head):
    head("")
    assert "commit" not in suite().markdown([])


def test_a_machine_is_named_by_processor_cores_and_instruction_set():
    assert report.folder_of(MACHINE) == "intel-xeon-gold-6330-2-cores-x86-64-v4"
    chosen = report.folder_of(MACHINE | {"openblas_coretype": "Haswell"})
    assert chosen == "intel-xeon-gold-6330-2-cores-x86-64-v4-haswell"  # another column, another file


def test_suites_that_ran_are_replaced_and_others_kept(tmp_path):
    first, second = report.write(tmp_path, {"sums": suite(), "fits": suite()}, "old")
    assert first == tmp_path / report.folder_of(MACHINE) / "sums.md"
    first.write_text("old")
    second.write_text("kept")
    assert report.write(tmp_path, {"sums": suite()}, "new") == [first]
    assert first.read_text(encoding="utf-8") == suite().markdown(["new"])
    assert second.read_text() == "kept"


def test_cases_that_did_not_run_again_are_kept(tmp_path):
    (path,) = report.write(tmp_path, {"sums": suite()}, "all")
    again = suite(["more: new", "sums: two"], [row("sum[1, 2]", "a"), row("sum[1, 2]", "b"), row("sum[4]")])
    report.write(tmp_path, {"sums": again}, "some")
    rows = [
        row("sum[1, 2]", "a"),
        row("sum[1, 2]", "b"),
        row("sum[3]", "SciPy", "0.97", "short"),
        row("sum[4]"),
    ]
    together = suite(["sums: two", "more: new"], rows)
    assert path.read_text(encoding="utf-8") == together.markdown(["all", "some"])
    report.write(tmp_path, {"sums": again}, "some")
    assert path.read_text(encoding="utf-8") == together.markdown(["all", "some"])


@pytest.mark.parametrize("change", ["commit", "changes", "machine"])
def test_figures_of_another_commit_or_machine_are_not_kept(head, change):
    if change == "changes":
        head("abc, with changes")  # nobody knows which
    old, new = suite().markdown(["old"]), suite([], [row("sum[4]")])
    if change == "commit":
        head("abd")
    if change == "machine":
        new.machine = MACHINE | {"numpy": "0.1"}
    assert new.markdown(["new"], old) == new.markdown(["new"])


def test_a_run_is_named_by_the_command_that_repeats_it(monkeypatch):
    monkeypatch.delenv("EXPUNGE_DATA", raising=False)
    assert report.run_of(["bench", "-k", "a or b"]).startswith("python -m pytest bench -k 'a or b'")
    monkeypatch.setenv("EXPUNGE_DATA", "/somewhere")
    assert report.run_of(["bench"]).startswith("EXPUNGE_DATA=... python -m pytest bench")


SUITE = '''"""Sums."""
from expunge import benchmark

def test_sum(compare, record_line):
    compare(lambda: 1, {"other": lambda: 1}, check=lambda *_: None, rounds=1)
    record_line("sum: a line")

def test_threads(record_line):
    with benchmark.use_threads(2):
        record_line("threads: another")
'''


@pytest.mark.slow
@pytest.mark.parametrize("passes", [True, False])
def test_results_are_written_where_all_cases_pass(tmp_path, passes):
    shutil.copy(ROOT / "bench" / "conftest.py", tmp_path)
    (tmp_path / "bench_sums.py").write_text(SUITE + ("" if passes else "    assert False\n"))
    folders = [
        str(ROOT / "bench"),
        str(Path(benchmark.__file__).parents[2]),
        os.environ.get("PYTHONPATH", ""),
    ]
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    arguments = [
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:hypothesispytest",
        "-o",
        "python_files=bench_*.py",
        "--results",
        "out",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments, "."],
        cwd=tmp_path,
        env=alone | {"PYTHONPATH": os.pathsep.join(filter(None, folders))},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == (0 if passes else 1), done.stdout + done.stderr
    assert "| sum | " in done.stdout
    written = list((tmp_path / "out").rglob("*.md"))
    if not passes:
        assert written == []
        assert "nothing is written to out: not every case passed" in done.stdout
        return
    assert [path.name for path in written] == ["sums.md"]
    text = written[0].read_text(encoding="utf-8")
    assert text in done.stdout
    assert text.startswith("# Sums\n")
    assert "- sum: a line\n- threads: another\n" in text
    assert re.search(r"^\| sum \| \S+ \| other \| \d+\.\d\d \|  \|$", text, re.MULTILINE)
    assert ", 1 thread\n" in text


# The pages


def section(page, heading):
    return re.search(rf"^## {heading}$(.*?)(?=^## |\Z)", page.read_text("utf-8"), re.M | re.S)[1]


def rows_of(text):
    """Cells of each row of a Markdown table, the heading left out."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: "-".join(path.parts[-2:]))
def test_results_name_machine_versions_commit_and_command(path):
    text = path.read_text("utf-8")
    for start in ("machine: ", "expunge ", "NumPy ", "scikit-learn ", "commit "):
        assert f"\n    {start}" in text
    assert re.search(r"\n    .*python -m (pytest |bench\.)", text)
    assert "with changes" not in text


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: "-".join(path.parts[-2:]))
def test_every_kernel_that_loses_has_its_reason(path):
    lost = re.search(r"^Below 1: (.*)\.$", path.read_text("utf-8"), re.M)
    if lost is None or lost[1] == "none":
        return
    reasons = section(ROOT / "bench" / "README.md", "Where ours loses")
    names = {case.partition("[")[0] for case in lost[1].split("; ")}
    assert [name for name in names if f"`{name}`" not in reasons] == []


def test_figures_of_the_readme_are_those_of_the_results():
    figures = section(ROOT / "README.md", "Figures")
    path = ROOT / re.search(r"\]\((bench/results/\S+)\)", figures)[1]
    measured = {}
    for case, ms, rival, ratio, _ in rows_of(path.read_text("utf-8")):
        measured[case, rival] = ms, ratio
    rows = rows_of(figures)
    assert len(rows) == 5
    rivals = "newton-cholesky, cold", "newton-cholesky, warm", "lbfgs, default tol, cold"
    for request, ms, *ratios in rows:
        found = [measured[f"exact[{request}-1e-09]", rival] for rival in rivals]
        assert [ms, *ratios] == [found[0][0], *(f"{ratio}×" for _, ratio in found)]
    for line in re.findall(r"^    (.*)$", figures, re.MULTILINE):
        assert f"    {line}\n" in path.read_text("utf-8")


def test_pages_are_short():
    for page, lines in (("README.md", 100), ("bench/README.md", 120)):
        assert (ROOT / page).read_text("utf-8").count("\n") <= lines


def sections(path):
    """Title -> rows of the table under it, as dictionaries by its heading."""
    parts = re.split(r"^## ", path.read_text("utf-8"), flags=re.M)
    return {part.partition("\n")[0]: list(report.rows_of(part.splitlines())) for part in parts[1:]}


@pytest.mark.parametrize(("page", "results"), [("forget_a_number", "networks"), ("results", "paper-full")])
def test_figures_of_a_page_are_those_of_the_results(page, results):
    text = (ROOT / "docs" / f"{page}.md").read_text("utf-8")
    (path,) = {
        ROOT / "docs" / link for link in re.findall(rf"\]\((\S+{results}\.md)\)", text) if "results" in link
    }
    measured = [row for rows in sections(path.resolve()).values() for row in rows]
    quoted = [row for part in text.split("\n\n") for row in report.rows_of(part.splitlines())]
    assert len(quoted) > 40
    for row in quoted:
        assert any(row.items() <= found.items() for found in measured), row


def test_figures_in_the_prose_of_networks_are_those_of_the_results():
    """Two that stand beside each other are medians of one row, or of one column."""
    page = ROOT / "docs" / "forget_a_number.md"
    path = page.parent / re.search(r"\]\((\S+results\S+networks\.md)\)", page.read_text("utf-8"))[1]
    told = section(page, "Other requests")
    pairs = re.findall(r"\b(\d+(?:\.\d+)?)(?: %| spreads)?(?: on \w+ \w+)?\s+beside (\d+(?:\.\d+)?)", told)
    assert len(pairs) >= 8
    for pair in pairs:
        assert any(
            set(pair) <= {cell.partition(" (")[0] for cell in cells}
            for rows in sections(path).values()
            for cells in [*(row.values() for row in rows), *([row[key] for row in rows] for key in rows[0])]
        ), pair
