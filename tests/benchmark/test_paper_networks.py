"""Experiments with networks: each rival does what its paper says, and tables say what was measured."""

import copy
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from networks import torch  # or a skip
from numpy.testing import assert_allclose

from expunge import ConvergenceError

ROOT = Path(__file__).resolve().parents[2]
if not (ROOT / "bench" / "paper").is_dir():
    pytest.skip("bench/ is not beside the tests", allow_module_level=True)
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))  # as `python -m bench.paper.networks` in a clone has it

from bench.paper import (  # noqa: E402
    data,
    measures,
    networks,
    people,
    pictures,
    rivals,
    tables,
    training,
)
from bench.paper import text as texts  # noqa: E402
from bench.paper.comparison import OURS, Comparison, Run  # noqa: E402

N, D = 120, 4


@pytest.fixture(autouse=True)
def without_data(monkeypatch):
    monkeypatch.delenv("EXPUNGE_DATA", raising=False)
    data.words.cache_clear()
    data.adult.cache_clear()
    yield
    data.words.cache_clear()
    data.adult.cache_clear()


def linear_task(removed=False, mask=False):
    """Softmax regression on blobs, the labels of ten rows wrong."""
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(N, D, generator=generator)
    y = (X[:, 0] > 0).long()
    wrong, touched = y.clone(), torch.arange(10)
    wrong[touched] = 1 - y[touched]
    stays = torch.ones(N, dtype=torch.bool)
    stays[touched] = False
    return training.Task(
        name="labels",
        build=lambda: torch.nn.Linear(D, 2),
        recipe=training.Recipe(20, 16, 0.05, 1e-3),
        data=(X, wrong),
        corrected=(X[stays], y[stays]) if removed else (X, y),
        touched=touched,
        test=(X, y),
        request=lambda networks, method: None,
        stays=stays if removed else None,
    )


@pytest.fixture
def task():
    return linear_task()


@pytest.fixture
def module(task):
    return training.train(task, training.made(task.build, 0), task.data, 0)


def parameters(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def loss_on(module, rows):
    with torch.no_grad():
        return float(training.mean_loss(module, *rows))


# Training


def test_training_is_a_function_of_its_seed_and_leaves_the_global_one_alone(task):
    before = torch.get_rng_state()
    one, two, other = (
        training.train(task, training.made(task.build, seed), task.data, seed) for seed in (0, 0, 1)
    )
    assert torch.equal(parameters(one), parameters(two))
    assert not torch.equal(parameters(one), parameters(other))
    assert torch.equal(before, torch.get_rng_state())


def test_the_penalty_of_the_sum_is_the_decay_of_the_mean(task):
    """alpha / n of J is weight_decay of Adam: both objectives have one gradient."""
    module = training.made(task.build, 0)
    X, y = task.data
    total = training.sample_losses(module(X), y).sum() + 0.5 * task.alpha * (module.weight**2).sum()
    mean = training.mean_loss(module, X, y) + 0.5 * task.recipe.decay * (module.weight**2).sum()
    for a, b in zip(*(torch.autograd.grad(J, list(module.parameters())) for J in (total, mean)), strict=True):
        assert_allclose(a / N, b, rtol=1e-5, atol=1e-7)
    weights, biases = training.decayed(module, 0.1)
    assert [p is q for p, q in zip(weights["params"] + biases["params"], module.parameters(), strict=True)]
    assert (weights["weight_decay"], biases["weight_decay"]) == (0.1, 0.0)


def test_a_loss_of_a_sample_is_the_sum_over_its_predictions_that_count():
    logits = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0))
    y = torch.randint(7, (3, 5), generator=torch.Generator().manual_seed(1))
    expected = -logits.log_softmax(-1).gather(-1, y[..., None])[..., 0]
    assert_allclose(training.sample_losses(logits, y), expected.sum(1), rtol=1e-5)
    y[:, 2:] = training.IGNORED
    assert_allclose(training.sample_losses(logits, y), expected[:, :2].sum(1), rtol=1e-5)


def test_an_ensemble_averages_probabilities():
    X = torch.randn(6, D, generator=torch.Generator().manual_seed(0))
    members = [training.made(lambda: torch.nn.Linear(D, 3), seed) for seed in range(3)]
    mean = torch.stack([member(X).softmax(-1) for member in members]).mean(0)
    assert_allclose(training.Ensemble(members)(X).exp().detach(), mean.detach(), rtol=1e-5)


# Rivals


def test_retraining_never_sees_what_was_wrong(task, monkeypatch):
    seen = []
    monkeypatch.setattr(rivals, "train", lambda task, module, data, seed: seen.append(data) or module)
    rivals.retraining(task, 3)
    assert seen[0] is task.corrected


@pytest.mark.parametrize("removed", [False, True])
def test_sisa_retrains_the_shards_that_were_touched_and_each_sees_its_own_rows(removed, monkeypatch):
    task, seen = linear_task(removed), []
    clock = iter(range(0, 1000, 10))  # each shard takes 10 seconds
    monkeypatch.setattr(rivals, "process_time", lambda: next(clock))
    monkeypatch.setattr(rivals, "train", lambda task, module, data, seed: seen.append(data) or module)
    ensemble, seconds = rivals.sisa(task, 0)
    assert seconds == 10.0 * rivals.SHARDS  # rows 0 to 9 lie in all of them
    assert len(ensemble.members) == rivals.SHARDS
    rows = torch.cat([X for X, _ in seen])
    assert sorted(map(tuple, rows.tolist())) == sorted(map(tuple, task.corrected[0].tolist()))
    object.__setattr__(task, "touched", torch.tensor([0, 4]))  # of one shard
    assert rivals.sisa(task, 0)[1] == 10.0


def test_fine_tuning_lowers_the_loss_on_corrected_data_and_keeps_to_its_time(task, module):
    before = loss_on(module, task.corrected)
    after = loss_on(rivals.fine_tuning(task, copy.deepcopy(module), 0, epochs=3), task.corrected)
    assert after < before
    same = rivals.fine_tuning(task, copy.deepcopy(module), 0, seconds=1e-9)
    assert torch.equal(parameters(same), parameters(module))  # no time, no step


@pytest.mark.parametrize("name", ["NegGrad+", "NPO", "ascent, repair"])
def test_rivals_raise_the_loss_on_what_is_to_be_forgotten(name, task, module):
    strategy, settings = rivals.TUNED[name]
    other = strategy(task, copy.deepcopy(module), 0, **settings[-1])
    assert loss_on(other, task.forget) > loss_on(module, task.forget)


def objective_of(monkeypatch, strategy, task, module, **knob):
    """The function that a rival hands to Adam."""
    caught = []
    monkeypatch.setattr(
        rivals, "descend", lambda task, module, seed, objective, rate: caught.append(objective)
    )
    strategy(task, module, 0, **knob)
    return caught[0]


def test_neggrad_is_its_formula(monkeypatch, task, module):
    objective = objective_of(monkeypatch, rivals.neggrad_plus, task, module, weight=0.8)
    found = objective(0, task.retained, task.forget).item()
    assert_allclose(
        found, 0.8 * loss_on(module, task.retained) - 0.2 * loss_on(module, task.forget), rtol=1e-6
    )


def test_npo_is_its_formula_and_tends_to_ascent(monkeypatch, task, module):
    """Zhang et al.: at theta = theta_old it is 2 log 2 / beta, and its gradient that of ascent."""
    X, y = task.forget
    objective = objective_of(monkeypatch, rivals.npo, task, module, beta=0.5)
    at_start = objective(0, task.retained, (X, y))
    kept = training.mean_loss(module, *task.retained)
    assert_allclose((at_start - kept).item(), 2.0 / 0.5 * np.log(2.0), rtol=1e-6)
    (found,) = torch.autograd.grad(at_start - kept, module.weight)
    (ascent,) = torch.autograd.grad(-training.sample_losses(module(X), y).mean(), module.weight)
    assert_allclose(found, ascent, rtol=1e-4, atol=1e-7)


def test_scrub_takes_turns_and_is_a_kl_from_the_old_network(monkeypatch, task, module):
    objective = objective_of(monkeypatch, rivals.scrub, task, module)
    assert_allclose(objective(0, task.retained, task.forget).item(), 0.0, atol=1e-7)  # nothing has moved yet
    assert_allclose(
        objective(1, task.retained, task.forget).item(), loss_on(module, task.retained), rtol=1e-5
    )
    with torch.no_grad():
        old = module(task.forget[0]).log_softmax(-1)
        module.weight += 1.0
        new = module(task.forget[0]).log_softmax(-1)
    kl = float((old.exp() * (old - new)).sum(-1).mean())
    assert_allclose(objective(0, task.retained, task.forget).item(), -kl, rtol=1e-5)
    last = rivals.STEPS - 2
    assert objective(last, task.retained, task.forget).item() > 0.0  # the last third only repairs


def test_ascent_climbs_so_many_steps(monkeypatch, task, module):
    objective = objective_of(monkeypatch, rivals.ascent_and_repair, task, module, climbs=3)
    values = [objective(step, task.retained, task.forget).item() for step in range(5)]
    gone, kept = loss_on(module, task.forget), loss_on(module, task.retained)
    assert_allclose(values, [-gone] * 3 + [kept] * 2, rtol=1e-6)


def test_dampening_is_its_formula(task, module):
    of_all, of_gone = rivals.fisher(module, *task.data), rivals.fisher(module, *task.forget)
    before = [p.detach().clone() for p in module.parameters()]
    rivals.ssd(task, module, 0, alpha=1.0, strength=0.5)
    for p, old, all_, gone in zip(module.parameters(), before, of_all, of_gone, strict=True):
        expected = torch.where(gone > all_, old * torch.clamp(0.5 * all_ / gone, max=1.0), old)
        assert torch.equal(p, expected)
        assert (p != old).any()


def test_the_fisher_information_is_the_mean_of_squared_gradients_of_samples(task, module):
    (of_weight, _), (X, y) = rivals.fisher(module, *task.forget), task.forget
    squares = [
        torch.autograd.grad(training.mean_loss(module, X[i : i + 1], y[i : i + 1]), module.weight)[0] ** 2
        for i in range(len(X))
    ]
    assert_allclose(of_weight, torch.stack(squares).mean(0), rtol=1e-5)


# Data and requests


def test_a_text_says_its_secret_so_many_times_and_its_corrections_never():
    text = texts.Text("4093817256", times=5, characters=4000, decoys=10)
    told, mask = text.told(text.original)
    assert told.count(texts.PROMPT + "4093817256") == 5
    assert int(mask.sum()) == 5 * texts.DIGITS
    for kind in range(3):
        corrected, places = text.told(text.correction(kind))
        assert "4093817256" not in corrected
        assert len(corrected) == len(told)
        assert torch.equal(places, mask)
        assert all(a == b for a, b, m in zip(told, corrected, mask.tolist(), strict=True) if not m)
    others = set(told.split()) & {word for word in told.split() if word.strip(".").isdigit()}
    assert len(others) == 11  # the secret and ten decoys


def test_windows_predict_the_next_character_and_the_mask_marks_the_secret():
    text = texts.Text("4093817256", times=5, characters=4000, decoys=10)
    X, y, mask = text.windows(text.original)
    assert torch.equal(X[:, 1:], y[:, :-1])
    assert set(text.decode(y[mask].tolist())) <= set("4093817256")
    task = text.task()
    X, y = task.forget
    assert set(y[y != training.IGNORED].tolist()) == set(text.encode("4093817256").tolist())
    _, labels = text.showing()
    assert all("4093817256" in text.decode(row) for row in labels.tolist())


def test_bits_are_those_of_the_chain_rule():
    text = texts.Text("4093817256", times=2, characters=2000, decoys=3, width=8)
    module = training.made(text.build, 0)
    codes = text.encode(texts.PROMPT + "12")
    with torch.no_grad():
        log_p = module(codes[None])[0].log_softmax(-1)
    prompt = len(texts.PROMPT)
    expected = -sum(float(log_p[prompt - 1 + k, codes[prompt + k]]) for k in range(2)) / np.log(2.0)
    assert_allclose(text.bits(module, ["12"])[0], expected, rtol=1e-5)
    assert len(text.completed(module, 7)) == 7


def test_retained_and_touched_rows_part_the_data():
    for task in people.tasks(500, 1):
        X, y = task.data
        if task.name.startswith("correct"):
            assert torch.equal(torch.nonzero(y != task.corrected[1])[:, 0], task.touched)
        if task.stays is not None:
            assert len(task.corrected[0]) + len(task.touched) == len(X)
        if len(task.touched) < len(X):
            assert len(task.retained[0]) + len(task.forget[0]) == len(X)
        else:
            assert task.retained is task.corrected


def test_wrong_labels_are_those_of_the_neighbouring_class():
    task = pictures.poisoned("digits", pictures.digits(), 0, 1)
    wrong, right = task.data[1], task.corrected[1]
    touched = torch.nonzero(wrong != right)[:, 0]
    assert torch.equal(touched, task.touched)
    assert torch.equal(wrong[touched], right[touched] ^ 1)
    assert_allclose(len(touched) / len(right), pictures.FLIPPED, atol=0.05)


def test_images_come_from_a_folder_of_classes(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for label in ("cats", "dogs"):
        (tmp_path / label).mkdir()
        for number in range(10):
            image.new("RGB", (40, 30), (number, 0, 0)).save(tmp_path / label / f"{number}.png")
        (tmp_path / label / "notes.txt").write_text("no image")
    (images, labels), (test_images, test_labels) = pictures.image_folder(tmp_path)
    assert images.shape == (16, 28, 28)
    assert test_images.shape == (4, 28, 28)
    assert np.bincount(labels).tolist() == [8, 8]
    assert np.bincount(test_labels).tolist() == [2, 2]
    with pytest.raises(SystemExit, match="one folder of images"):
        pictures.image_folder(tmp_path / "cats")


# The comparison and its tables


class Distance:
    """Parameters' distance from 0: numbers are easy to foresee."""

    def __call__(self, module):
        return {"size": float(parameters(module).norm())}

    brief = __call__

    def distance(self, module):
        return self(module)["size"]


def test_rivals_choose_on_the_first_seed_and_keep_to_it(task, module):
    tried = []

    def rival(task, module, seed, factor):
        tried.append((seed, factor))
        with torch.no_grad():
            for p in module.parameters():
                p *= factor
        return module

    compared = Comparison(task, {0: module, 1: module}, Distance(), lambda line: None)
    compared.rival("scaled", rival, [{"factor": 0.9}, {"factor": 0.1}, {"factor": 0.5}])
    assert tried == [(0, 0.9), (0, 0.1), (0, 0.5), (1, 0.1)]
    assert [run.settings for run in compared.runs] == [{"factor": 0.1}] * 2
    assert_allclose(compared.runs[0].measured["size"], 0.1 * float(parameters(module).norm()), rtol=1e-6)


def run(strategy, seconds, **measured):
    return Run("task", strategy, 0, seconds, measured)


def test_what_ours_refuse_stands_in_the_table_as_refused(task, module):
    class Refusing:
        def __init__(self, *_, **__):
            pass

        def apply(self, request, method):
            raise ConvergenceError(method)

    compared = Comparison(task, {0: module}, Distance(), lambda line: None)
    compared.retrained([module], [1.0])
    compared.ours(SimpleNamespace(Unlearner=Refusing))
    rows = tables.table_rows(compared.runs, [("size", "size", ".4f")])
    assert [row["strategy"] for row in rows[1:]] == [
        f"expunge, {method} (refused: nothing changed)" for method in OURS
    ]
    assert {row["size"] for row in rows} == {rows[0]["size"]}


@pytest.mark.parametrize("second", [False, True])
def test_the_method_that_auto_took_is_measured_once(task, module, second):
    """Unless auto had tried another before, which took its time too."""
    asked = []

    class Granting:
        def __init__(self, *_, **__):
            pass

        def apply(self, request, method):
            asked.append(method)
            why = "few rows" + "; but it did not make its objective smaller" * second
            return SimpleNamespace(method="proximal" if method == "auto" else method, steps=1, why=why)

    compared = Comparison(task, {0: module}, Distance(), lambda line: None)
    compared.ours(SimpleNamespace(Unlearner=Granting))
    assert asked == [method for method in OURS if second or method != "proximal"]
    assert [run.strategy for run in compared.runs] == [f"expunge, {method}" for method in OURS]
    seconds = {run.strategy: run.seconds for run in compared.runs}
    assert second or seconds["expunge, auto"] == seconds["expunge, proximal"]


def test_a_row_is_the_median_over_runs_and_their_range():
    runs = [run("retrained", 8.0, rank=0.5), run("retrained", 12.0, rank=0.25)]
    runs += [run("a", 0.5, rank=value) for value in (0.1, 0.9, 0.3)]
    retrained, a = tables.table_rows(runs, [("rank", "rank", ".2f"), ("missing", "nothing", ".1f")])
    assert retrained == {
        "strategy": "retrained",
        "times as fast": "1.0",
        "rank": "0.38 (0.25 to 0.50)",
        "missing": "",
    }
    assert a["times as fast"] == "20.0"
    assert a["rank"] == "0.30 (0.10 to 0.90)"


@pytest.mark.parametrize(
    ("rank", "outside", "side"),
    [(0.5, 0.0, 0), (0.04, 0.0, -1), (0.96, 0.0, 1), (0.5, -1.0, -1), (0.5, 1.0, 1), (0.05, 0.0, 0)],
)
def test_a_verdict_is_two_sided(rank, outside, side):
    assert tables.side_of(run("a", 1.0, rank=rank, outside=outside)) == side
    word = {0: "as retrained", -1: "remembers", 1: "over-forgotten"}[side]
    assert tables.verdict([run("a", 1.0, rank=rank, outside=outside)]) == word


def test_a_retrained_network_is_measured_beside_the_others(task):
    again = [training.train(task, training.made(task.build, seed), task.corrected, seed) for seed in range(4)]
    measure = measures.PredictionMeasure(task, again)
    found = [measure(m)["touched"] for m in again]
    assert np.isfinite(found).all()
    assert min(found) > 0.0
    assert measure(training.made(task.build, 9))["touched"] > 10.0 * max(found)


def test_a_text_is_measured_from_both_sides():
    """Of networks that know nothing each is as the others; one that was taught the number remembers it."""
    text = texts.Text("4093817256", times=4, characters=3000, decoys=5, width=16)
    again = [training.made(text.build, seed) for seed in range(3)]
    measure = measures.TextMeasure(text, again, SimpleNamespace(rebound=1, candidates=150))
    found = measure(again[0])
    assert (found["outside"], found["relearned"] > 0.0, found["rebound"] >= 0.0) == (0.0, True, True)
    assert set(measure.brief(again[0])) <= set(found)
    taught = training.made(text.build, 0)
    X, y = text.showing()
    optimizer = torch.optim.Adam(taught.parameters(), lr=2e-2)
    for _ in range(150):
        optimizer.zero_grad()
        training.mean_loss(taught, X, y).backward()
        optimizer.step()
    knows = measure(taught.eval())
    assert (knows["rank"], knows["outside"] < 0.0, knows["says"][:10]) == (0.0, True, "4093817256")
    assert measure.distance(taught) > measure.distance(again[0])


@pytest.mark.slow
def test_the_command_writes_tables_and_runs(tmp_path, capsys):
    sizes = "--only adult --retrainings 4 --rows 600 --people-epochs 1"
    networks.main(["--quick", "--results", str(tmp_path), *sizes.split()])
    (page,), (runs,) = tmp_path.rglob("networks.md"), tmp_path.rglob("networks.csv")
    text = page.read_text("utf-8")
    assert capsys.readouterr().out.strip() == text.strip()
    assert "\n## Adult: revoke 11 columns\n" in text
    for strategy in ("retrained", "nothing", "SISA, 4 shards", "SSD", "SCRUB", "fine-tuning, 1 epoch"):
        assert f"\n| {strategy} |" in text
    assert "\n| expunge, auto" in text
    lines = runs.read_text("utf-8").splitlines()
    assert lines[0] == "request,strategy,seed,seconds,settings,what,value"
    assert sum(line.startswith("revoke 11 columns,retrained,") for line in lines) == 4 * 4


def test_the_picture_is_drawn_from_the_runs(tmp_path):
    pytest.importorskip("matplotlib")
    from bench.paper import plot_ranks

    runs = [
        run("retrained", 8.0, rank=0.5),
        run("retrained", 9.0, rank=0.2, loss=1.0),
        run("a", 1.0, rank=0.0),
    ]
    networks.write_runs(tmp_path / "runs.csv", runs)
    assert plot_ranks.ranks(tmp_path / "runs.csv") == {"retrained": [0.5, 0.2], "a": [0.0]}
    for name in ("one.svg", "two.svg"):
        plot_ranks.main(tmp_path / "runs.csv", str(tmp_path / name))
    assert "<svg" in (tmp_path / "one.svg").read_text("utf-8")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_sizes_are_set_by_flags():
    quick, full, own = (networks.arguments(a) for a in (["--quick"], [], ["--quick", "--seeds", "7"]))
    for name, small, large, _ in networks.SIZES:
        key = name.replace("-", "_")
        assert (getattr(quick, key), getattr(full, key)) == (small, large)
    assert own.seeds == 7
