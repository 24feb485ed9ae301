"""What modules hold beside what is trained: buffers, frozen statistics, and other names of parameters."""

import copy

import pytest
from networks import (
    Case,
    cross_entropy,
    make,
    nn,
    of_text,
    same,
    same_but_tensors,
    state,
    table,
    torch,
    trained,
)

import expunge as ex
from expunge.errors import ConvergenceError
from expunge.torch import Unlearner, head

METHODS = ("first_order", "second_order", "proximal", "fine_tune")


class Counting(nn.Module):
    """Notes in its buffers how often it was called, in place and by another tensor; its outputs show it."""

    def __init__(self, inside):
        super().__init__()
        self.inside = inside
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("rows", torch.zeros((), dtype=torch.int64), persistent=False)

    def forward(self, X):
        self.calls += 1.0
        self.rows = self.rows + len(X)
        return self.inside(X) * (1.0 + 0.01 * self.calls)


def counting(name="batch norm"):
    case = make(name)
    case.module = Counting(case.module)
    case.module(case.X)
    return case


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["mlp", "batch norm"])
def test_buffers_that_the_module_changes_are_those_of_the_caller(name, method):
    """Afterwards, and at each look at J, so that two looks at one theta agree."""
    case = counting(name)
    un = case.unlearner(batch_size=16)
    before = state(case.module)
    objects = dict(case.module.named_buffers())
    assert un.loss() == un.loss()
    same(before, state(case.module))
    update = un.apply(ex.RemoveRows([2, 5]), method=method)
    after = state(case.module)["tensors"]
    for key in ("calls", "rows"):
        assert torch.equal(after[key], before["tensors"][key])
    assert all(value is objects[key] for key, value in case.module.named_buffers())
    if update.objective == "J":
        assert abs(un.loss() - update.objective_after) <= 1e-6 * update.objective_after


def test_a_request_that_fails_leaves_buffers_that_the_module_changes():
    case = counting()
    un = case.unlearner()
    before = state(case.module)
    with pytest.raises(ConvergenceError):
        un.apply(ex.RemoveRows([1]), method="fine_tune", lr=10.0)
    same(before, state(case.module))


class Keeping(nn.Module):
    """Keeps what its last forward pass gave."""

    def __init__(self, inside):
        super().__init__()
        self.inside, self.passes = inside, 0

    def forward(self, X):
        self.passes += 1
        self.last = self.inside(X)
        return self.last


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("kind", [nn.utils.weight_norm, nn.utils.spectral_norm, Keeping])
def test_what_a_module_keeps_of_a_forward_pass_is_what_it_kept(kind):
    """The old weight_norm keeps its weight: one of another theta says what a refused request had tried."""
    torch.manual_seed(0)
    X, y = table()
    module = nn.Sequential(kind(nn.Linear(5, 8)), nn.Tanh(), nn.Linear(8, 3)).eval()
    with torch.no_grad():
        module(X)
    un = Unlearner(module, cross_entropy, X, y, alpha=0.1)
    before = state(module)
    with pytest.raises(ConvergenceError):
        un.apply(ex.RemoveRows([1]), method="fine_tune", lr=1e3)
    same(before, state(module))
    for method in ("first_order", "fine_tune"):
        un.apply(
            ex.RemoveRows([2, 5]) if method == "first_order" else ex.CorrectLabels([3], 0), method=method
        )
        same_but_tensors(before, state(module))
        copied = copy.deepcopy(module)  # an error where a tensor of a graph is kept
        assert torch.equal(copied(X), module(X))
        with torch.no_grad():
            module(X)
        before = state(module)


@pytest.mark.filterwarnings("ignore:.*deprecated")
@pytest.mark.parametrize("kind", [Counting, torch.jit.script])
def test_features_of_a_head_leave_the_module_as_it_is(kind):
    X, y = table()
    backbone = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8))
    backbone(X)
    module = kind(backbone)
    before = state(module)
    un = head(module, X, (y > 0).long(), batch_size=16)
    un.apply(ex.RemoveRows([1]))
    un.predict(X)
    same(before, state(module))


def normalised(affine=True):
    torch.manual_seed(0)
    X, y = table()
    module = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8, affine=affine), nn.ReLU(), nn.Linear(8, 3))
    return trained(Case(module, cross_entropy, X, y))


def in_eval_mode(module):
    module.eval()


def only_norm_in_eval_mode(module):
    module.train()
    module[1].eval()


def norm_without_grad(module):
    module[1].requires_grad_(False)


def first_without_grad(module):
    module[0].requires_grad_(False)


@pytest.mark.parametrize(
    ("prepared", "parameters", "affine", "frozen"),
    [
        (nn.Module.train, None, True, False),
        (in_eval_mode, None, True, False),  # as networks in use are
        (only_norm_in_eval_mode, None, True, True),
        (norm_without_grad, None, True, True),
        (first_without_grad, None, True, False),
        (nn.Module.train, "3", True, True),
        (nn.Module.train, ["1", "3"], True, False),
        (nn.Module.train, None, False, False),
        (nn.Module.train, "3", False, True),
        (first_without_grad, None, False, True),
    ],
)
def test_running_means_that_are_frozen_stay(prepared, parameters, affine, frozen):
    case = normalised(affine)
    prepared(case.module)
    mean = case.module[1].running_mean.clone()
    un = case.unlearner(parameters=parameters)
    update = un.apply(ex.RemoveRows(range(20)), method="second_order")
    assert update.objective_after < update.objective_before
    assert torch.equal(case.module[1].running_mean, mean) == frozen
    if not frozen:
        with torch.no_grad():
            hidden = case.module[0](case.X[20:])
        assert torch.allclose(case.module[1].running_mean, hidden.mean(0), atol=1e-5)


def test_a_tied_parameter_goes_by_each_of_its_names():
    found = []
    for name in ("embedding.weight", "out.weight", "out", ["embedding", "out"]):
        case = make("tied")
        un = case.unlearner(parameters=name, alpha={"out.weight": 2.0})
        un.apply(ex.RemoveRows([2]), method="second_order")
        found.append(case.module.out.weight.detach())
        assert case.module.out.weight is case.module.embedding.weight
    assert all(torch.equal(found[0], other) for other in found[1:])
    module, X, y = case.module, case.X, case.y
    with pytest.raises(ValueError, match=r"two names of embedding\.weight"):
        Unlearner(module, of_text, X, y, alpha={"out.weight": 2.0, "embedding.weight": 1.0})
    bare = Unlearner(module, of_text, X, y).loss()
    both = Unlearner(module, of_text, X, y, alpha={"out.weight": 2.0, "embedding.weight": 2.0}).loss()
    assert abs(both - bare - float((module.out.weight.detach().double() ** 2).sum())) <= 1e-4


class Twice(nn.Module):
    """Uses its BatchNorm twice in a forward pass, and has one that it does not use."""

    def __init__(self):
        super().__init__()
        self.inside, self.unused = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8)), nn.BatchNorm1d(8)
        self.out = nn.Linear(16, 3)

    def forward(self, X):
        return self.out(
            torch.cat([self.inside(X).relu(), self.inside(3 * torch.cat([X, X + 1])).relu()[len(X) :]], 1)
        )


@pytest.mark.parametrize(("method", "batch_size"), list(zip(METHODS, (512, 40) * 2, strict=True)))
def test_a_batch_norm_that_is_used_twice_has_the_mean_over_its_uses(batch_size, method):
    torch.manual_seed(0)
    X, y = table()
    case = trained(Case(Twice(), cross_entropy, X, y), 300)
    case.module.eval()
    case.module.unused.running_mean.fill_(0.5)
    un = case.unlearner(batch_size=batch_size)
    before = un.loss()
    update = un.apply(ex.RemoveRows([0]), method=method)
    with torch.no_grad():
        uses = [case.module.inside[0](Z[1:]) for Z in (X, 3 * X, 3 * (X + 1))]
    norm = case.module.inside[1]
    assert torch.allclose(norm.running_mean, torch.cat(uses).mean(0), atol=1e-4)
    if batch_size > 90:  # torch's own are means of variances of each use
        large = torch.cat(uses[1:])
        expected = (uses[0].var(0) + 2.0 * large.var(0)) / 3.0
        assert torch.allclose(norm.running_var, expected, rtol=1e-4)
    assert torch.equal(case.module.unused.running_mean, torch.full((8,), 0.5))
    assert un.loss() <= 1.02 * before
    assert update.loss_after <= 1.02 * update.loss_before


@pytest.mark.parametrize(("method", "options"), [("second_order", {}), ("fine_tune", {"epochs": 0.1})])
def test_statistics_found_anew_that_spoil_the_module_are_no_success(method, options):
    """J of the module as it was handed over, with its own running means, is looked at too."""
    case = normalised()
    case.X[0] = 300.0  # a row that the module never saw: it would move the means of all others
    case.module.eval()
    un = case.unlearner()
    before = state(case.module)
    with pytest.raises(ConvergenceError, match="found anew"):
        un.apply(ex.CorrectLabels([1], [1 - min(int(case.y[1]), 1)]), method=method, **options)
    same(before, state(case.module))
    assert len(un) == 90


class Centred(nn.Module):
    """Puts another tensor in the place of its buffer while it is trained."""

    def __init__(self):
        super().__init__()
        self.register_buffer("centre", torch.zeros(5))
        self.linear = nn.Linear(5, 3)

    def forward(self, X):
        if self.training:
            self.centre = 0.5 * self.centre + 0.5 * X.detach().mean(0)
        return self.linear(X - self.centre)


def put_another_state(module):
    other = {key: value + 0.5 for key, value in module.state_dict().items()}
    module.load_state_dict(other, assign=True)


def put_another_parameter(module):
    module.linear.weight = nn.Parameter(module.linear.weight.detach() + 0.5)


def train_a_little(module):
    module(5.0 + table()[0])


@pytest.mark.parametrize(
    "change", [put_another_state, put_another_parameter, train_a_little, nn.Module.double]
)
@pytest.mark.parametrize("parameters", [None, "linear.weight", "object"])
def test_the_module_is_taken_as_it_is_when_a_request_comes(change, parameters):
    torch.manual_seed(0)
    X, y = table()
    module = Centred()
    chosen = [module.linear.weight] if parameters == "object" else parameters
    double = change is nn.Module.double

    def call(outputs, y):
        return cross_entropy(outputs.double(), y)

    un = Unlearner(module, call, X.double() if double else X, y, alpha=0.1, parameters=chosen)
    change(module)
    module.eval()
    weight, centre = module.linear.weight.detach().clone(), module.centre.clone()
    with torch.no_grad():
        expected = float(call(module(X.double() if double else X), y).sum() + 0.05 * weight.square().sum())
    assert abs(un.loss() - expected) <= 1e-5 * expected
    update = un.apply(ex.RemoveRows([3]), method="second_order")
    assert not torch.equal(module.linear.weight, weight)
    assert torch.equal(module.centre, centre)
    assert abs(un.loss() - update.objective_after) <= 1e-5 * expected


def test_a_parameter_that_is_gone_is_an_error_before_anything_changes():
    module = Centred()
    X, y = table()
    un = Unlearner(module, cross_entropy, X, y, parameters="linear.weight")
    module.linear = nn.Sequential(nn.Linear(5, 3))
    before = state(module)
    with pytest.raises(ValueError, match="no trained parameter is"):
        un.apply(ex.RemoveRows([3]), method="first_order")
    same(before, state(module))
    assert len(un) == 90


@pytest.mark.filterwarnings("ignore:.*deprecated")
def test_data_parallel_is_refused_with_what_to_pass():
    module = nn.DataParallel(nn.Linear(5, 3))
    with pytest.raises(TypeError, match=r"pass the module that it holds, \.module"):
        Unlearner(module, cross_entropy, *table())


def test_scripted_modules_are_refused_and_a_head_leaves_their_dropout():
    X, y = table()
    inside = nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.5))
    module = torch.jit.script(inside).train()
    with pytest.raises(TypeError, match="pass the module that was scripted"):
        Unlearner(nn.Sequential(module, nn.Linear(8, 3)), cross_entropy, X, y)
    head(module, X, (y > 0).long())
    assert module.training
    assert not torch.equal(module(X), module(X))


class Decaying(nn.Module):
    """A norm of one's own, whose momentum means what PyTorch's does not."""

    def __init__(self, scales):
        super().__init__()
        self.momentum = 0.9
        self.register_buffer("running_mean", torch.full((5,), 0.5))
        self.register_buffer("running_var", torch.full((5,), 2.0) if scales else None)
        self.weight = nn.Parameter(torch.ones(5))

    def forward(self, X):
        scale = 1.0 if self.running_var is None else self.running_var.rsqrt()
        return self.weight * (X - self.running_mean) * scale


@pytest.mark.parametrize("scales", [True, False])
def test_norms_that_are_not_of_pytorch_keep_their_running_means(scales):
    torch.manual_seed(0)
    case = trained(Case(nn.Sequential(Decaying(scales), nn.Linear(5, 3)), cross_entropy, *table()))
    before = {name: value.clone() for name, value in case.module.named_buffers()}
    update = case.unlearner().apply(ex.RemoveRows([0]), method="second_order")
    assert update.objective_after < update.objective_before
    assert all(torch.equal(before[name], value) for name, value in case.module.named_buffers())


def test_norms_may_share_their_running_means():
    torch.manual_seed(0)
    X, y = table()
    first, second = nn.BatchNorm1d(5), nn.BatchNorm1d(5)
    second.running_mean, second.running_var = first.running_mean, first.running_var
    case = Case(nn.Sequential(first, second, nn.Linear(5, 3)), cross_entropy, 4.0 + X, y)
    case.unlearner().apply(ex.RemoveRows([0]), method="first_order")
    with torch.no_grad():
        normal = torch.nn.functional.batch_norm(case.X[1:], None, None, training=True)
    assert second.running_mean is first.running_mean
    assert torch.allclose(first.running_mean, 0.5 * case.X[1:].mean(0) + 0.5 * normal.mean(0), atol=0.05)


def test_running_means_of_instances_are_found_anew():
    torch.manual_seed(0)
    X, y = table()
    X = X[:, None, :] * torch.ones(1, 2, 1) + 3.0
    norm = nn.InstanceNorm1d(2, affine=True, track_running_stats=True)
    case = trained(Case(nn.Sequential(norm, nn.Flatten(), nn.Linear(10, 3)), cross_entropy, X, y))
    case.unlearner(batch_size=50).apply(ex.RemoveRows([0]), method="first_order")
    assert torch.allclose(norm.running_mean, X[1:].mean((0, 2)), atol=1e-4)


class Shifting(nn.Module):
    """Changes what it is called with, in place."""

    def __init__(self):
        super().__init__()
        self.inside = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))

    def forward(self, X):
        X -= 1.0
        X *= 1.5
        return self.inside(X)


@pytest.mark.parametrize(
    ("method", "options"), [("proximal", {"lr": 1e-3}), ("second_order", {"sample": 40})]
)
def test_a_forward_pass_may_change_its_inputs_in_place(method, options):
    torch.manual_seed(0)
    X, y = table()
    module = Shifting()
    twin = nn.Sequential(module.inside)
    found = []
    for one, rows in ((module, X), (twin, 1.5 * (X - 1.0))):
        torch.manual_seed(0)
        for part in module.inside[::2]:
            part.reset_parameters()
        un = Unlearner(one, cross_entropy, rows, y, alpha=0.1)
        un.apply(ex.CorrectLabels([0, 1], [1, 2]), method=method, **options)
        found.append(torch.cat([value.detach().flatten() for value in module.parameters()]))
    assert torch.allclose(*found, atol=1e-6)
