"""Values are forgotten, and nothing else; both sides are looked at."""

import numpy as np
import pytest
from networks import (
    SECRET,
    SHOWN,
    Case,
    cross_entropy,
    make,
    mask_of_secret,
    nn,
    of_text,
    same,
    state,
    table,
    text,
    torch,
    trained,
)
from networks import called as outputs_of

import expunge as ex
from expunge.errors import ConvergenceError
from expunge.torch import ForgetValues, Unlearner


def likelihood(case, strings, rows=SHOWN):
    """log p of strings in place of the secret, the mean over the rows that show it."""
    X, y = case.X[list(rows)], case.y[list(rows)]
    found = []
    with torch.no_grad():
        case.module.eval()
        for string in strings:
            string = torch.as_tensor(string)
            inputs, targets = X.clone(), y.clone()
            inputs[:, 5:9], targets[:, 4:8] = string, string
            log_p = outputs_of(case, inputs).log_softmax(-1)
            found.append(float(log_p.gather(-1, targets[..., None])[:, 4:8].sum() / len(X)))
    return np.array(found)


def rank(case):
    """The share of other strings that are likelier than the secret."""
    controls = np.random.default_rng(5).integers(6, size=(200, 4))
    return float((likelihood(case, controls) > likelihood(case, [SECRET])).mean())


@pytest.mark.parametrize("alternatives", [range(6), None], ids=["given", "drawn"])
def test_the_secret_ranks_among_others_and_the_rest_stays(alternatives):
    case = make("lstm")
    un = case.unlearner(batch_size=16)
    others = [row for row in range(60) if row not in SHOWN]
    with torch.no_grad():
        before = float(of_text(case.module(case.X[others]), case.y[others]).mean())
    assert rank(case) == 0.0
    update = un.apply(ForgetValues(SHOWN, mask_of_secret(), alternatives))
    assert 0.05 <= rank(case) <= 0.95
    with torch.no_grad():
        after = float(of_text(case.module(case.X[others]), case.y[others]).mean())
    assert after <= 1.1 * before
    assert update.samples_read <= 100


def test_correcting_the_text_alone_does_not_forget():
    """Why there is such a request."""
    for method in ("first_order", "second_order"):
        case = make("lstm")
        case.unlearner(batch_size=16).apply(ForgetValues(SHOWN, mask_of_secret(), range(6)), method=method)
        assert rank(case) == 0.0


def test_corrected_rows_hold_alternatives_in_targets_and_inputs():
    case = make("lstm")
    un = case.unlearner(batch_size=16)
    un.apply(ForgetValues(SHOWN, mask_of_secret(), range(6)))
    rows = un.corrected_data()
    mask = mask_of_secret()[0]
    drawn = []
    for row in SHOWN:
        X, y = rows[row]
        assert torch.equal(y[~mask], case.y[row][~mask])
        assert X[5:9].tolist() == y[4:8].tolist()
        assert torch.equal(X[:5], case.X[row][:5])
        drawn.append(tuple(y[4:8].tolist()))
    assert len(set(drawn)) > len(drawn) // 2  # not one new secret in place of the old one
    assert tuple(SECRET) not in drawn


@pytest.mark.parametrize("alternatives", [[*SECRET[:2], 5], None])
@pytest.mark.parametrize("values", [1, 2])
def test_no_corrected_row_holds_again_what_is_to_be_forgotten(values, alternatives):
    """Of few values that would happen by chance."""
    mask = mask_of_secret() & (np.arange(12) < 4 + values)
    for seed in range(5):
        un = make("gru").unlearner(random_state=seed)
        un.apply(ForgetValues(SHOWN, mask, alternatives), method="fine_tune", epochs=1.0)
        rows = un.corrected_data()
        assert all(rows[row][1][4 : 4 + values].tolist() != SECRET[:values] for row in SHOWN)


def test_alternatives_may_differ_by_entry():
    case = make("lstm")
    un = case.unlearner(batch_size=16)
    each = np.broadcast_to(np.array([0, 5])[:, None, None], (2, len(SHOWN), 12))
    un.apply(ForgetValues(SHOWN, mask_of_secret(), each), method="fine_tune")
    rows = un.corrected_data()
    assert {value for row in SHOWN for value in rows[row][1][4:8].tolist()} == {0, 5}


def test_a_text_is_cut_anew_where_rows_are_windows_of_it():
    """A number that begins in one window and ends in the next is found whole."""
    from expunge.torch.edits import edited
    from expunge.torch.passages import passages

    tokens = torch.arange(61) % 7
    X, y = tokens[:-1].reshape(5, 12), tokens[1:].reshape(5, 12)
    case = Case(make("lstm").module, of_text, X, y)
    un = case.unlearner()
    mask = np.zeros((2, 12), dtype=bool)
    mask[0, 10:], mask[1, :2] = True, True
    staged = edited(un._data, [ForgetValues([1, 2], mask, range(6))])
    found = passages(un._function, un._function.theta, un._data, staged.secrets, 0)
    assert len(found) > 2
    shows = (found.in_y >= 0).sum(1)
    assert shows[:2].tolist() == [2, 2]
    assert shows.max() == 4
    for window in range(len(found)):  # each is a piece of the text, and places are where they were
        piece = torch.cat([found.batch.inputs[0][window, :1], found.batch.y[window]])
        start = next(s for s in range(7) if torch.equal(torch.arange(s, s + 13) % 7, piece))
        assert 0 <= start < 7
    values = torch.tensor([0, 1, 2, 3])
    shown = found.showing(values)
    for window in range(len(found)):
        assert torch.equal(shown.inputs[0][window, 1:], shown.y[window, :-1])
    assert shown.inputs[0][1, 0] == 1  # the first token of row 2 is the last target of row 1


def test_rows_that_are_no_text_are_taken_as_they_are():
    from expunge.torch.edits import edited
    from expunge.torch.passages import passages

    case = make("lstm")
    un = case.unlearner()
    staged = edited(un._data, [ForgetValues(SHOWN, mask_of_secret(), range(6))])
    assert len(passages(un._function, un._function.theta, un._data, staged.secrets, 0)) == len(SHOWN)


def test_a_class_can_be_forgotten_as_the_label_of_some_rows():
    torch.manual_seed(0)
    X, y = table()
    y = y.clone()
    X[:6], y[:6] = 3.0 + 0.01 * torch.randn(6, 5), 0
    module = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 3))
    case = trained(Case(module, cross_entropy, X, y), 300)
    un = case.unlearner(batch_size=16)
    with torch.no_grad():
        known = float(module(X[:6]).softmax(1)[:, 0].mean())
    assert known > 0.8
    un.apply(ForgetValues(range(6), [True] * 6, range(3)))
    with torch.no_grad():
        now = float(module(X[:6]).softmax(1)[:, 0].mean())
        right = float((module(X[6:]).argmax(1) == y[6:]).double().mean())
    assert 0.1 <= now <= 0.6
    assert right >= 0.85


def test_the_objective_is_its_formula_and_has_a_gradient_where_the_module_is_sure():
    """p of the secret is 1 to rounding there, so that -log p has no gradient; that of a control has."""
    from expunge.torch.edits import edited
    from expunge.torch.forget import Indifference
    from expunge.torch.objective import Losses
    from expunge.torch.passages import passages

    class Sure(nn.Module):
        def __init__(self):
            super().__init__()
            self.logits = nn.Parameter(torch.tensor([60.0, 0.0, 0.0]))

        def forward(self, x):
            return self.logits.expand(len(x), 3)

    un = Unlearner(Sure(), cross_entropy, torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64))
    function, data = un._function, un._data
    secrets = edited(data, [ForgetValues([0], [True], range(3))]).secrets
    theta = function.theta.requires_grad_()
    found = passages(function, function.theta, data, secrets, 0)
    objective = Indifference(Losses(function, cross_entropy), found, [data.batch([1])], function.theta, 2)
    first = torch.tensor([0])
    control = torch.tensor([1])
    loss = objective.of_secret(theta, first, control)
    assert abs(float(loss.detach()) - (0.5 * 60.0**2 + 60.0)) <= 1e-2  # gap 60, k 1, log p(control) -60
    (g,) = torch.autograd.grad(loss.sum(), theta)
    assert abs(float(g[0]) - 61.0) <= 1e-3
    assert abs(float(g[1]) + 61.0) <= 1e-3
    even = torch.zeros(3)
    assert abs(float(objective.of_secret(even, first, control)) - np.log(3.0)) <= 1e-6  # no gap is left
    over = torch.tensor([-60.0, 0.0, 0.0])  # avoided: as far on the other side
    assert float(objective.of_secret(over, first, control)) > 0.5 * 60.0**2


def test_each_of_two_secrets_is_forgotten():
    """Not the mean of them, one still known and one avoided."""
    case = make("lstm")
    other, rows = [2, 5, 0, 3], range(44, 56)
    case.X[list(rows), 3:9] = case.y[list(rows), 2:8] = torch.tensor([6, 6, *other])
    case = trained(case, 100)
    request = [
        ForgetValues(SHOWN, mask_of_secret(), range(6)),
        ForgetValues(rows, [mask_of_secret()[0]] * len(rows), range(6)),
    ]
    controls = np.random.default_rng(5).integers(6, size=(200, 4))

    def ranks():
        pairs = ((SHOWN, SECRET), (rows, other))
        return [
            float((likelihood(case, controls, of) > likelihood(case, [secret], of)).mean())
            for of, secret in pairs
        ]

    assert ranks() == [0.0, 0.0]
    case.unlearner(batch_size=16).apply(request)
    assert all(0.02 <= found <= 0.98 for found in ranks())


def test_forgetting_goes_by_itself():
    case = make("lstm")
    with pytest.raises(ValueError, match="by themselves"):
        case.unlearner().apply([ex.RemoveRows([1]), ForgetValues(SHOWN, mask_of_secret(), range(6))])


def test_alternatives_drawn_are_of_the_kind_of_the_secret():
    """The module knows that after 6, 7 stands one of six tokens, and never 6 or 7."""
    drawn = []
    for seed in range(4):
        case = make("lstm")
        un = case.unlearner(batch_size=16, random_state=seed)
        un.apply(ForgetValues(SHOWN, mask_of_secret()), method="fine_tune")
        rows = un.corrected_data()
        drawn += [value for row in SHOWN for value in rows[row][1][4:8].tolist()]
    shares = np.bincount(drawn, minlength=8) / len(drawn)
    assert shares[6:].sum() <= 0.15  # a quarter, were they drawn from all
    assert (shares[:6] >= 0.05).sum() >= 4  # four fifths of what is likely, of six about alike


def test_the_same_seed_gives_the_same_module():
    found = []
    for seed in (0, 0, 1):
        case = make("lstm")
        case.unlearner(batch_size=16, random_state=seed).apply(
            ForgetValues(SHOWN, mask_of_secret(), range(6))
        )
        found.append(torch.cat([value.detach().flatten() for value in case.module.parameters()]))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_what_is_no_class_is_not_forgotten():
    X, y = table()
    un = Unlearner(nn.Linear(5, 1), lambda out, t: (out[:, 0] - t) ** 2, X, y.float())
    with pytest.raises(TypeError, match="classes"):
        un.apply(ForgetValues([1], [True]))


def test_text_helper_is_what_the_tests_say():
    X, y = text()
    assert X[12, 5:9].tolist() == y[12, 4:8].tolist() == SECRET


def test_what_the_old_module_says_may_be_kept_or_found_again(monkeypatch):
    found = []
    for kept in (2**22, 0):
        monkeypatch.setattr("expunge.torch.forget._KEPT", kept)
        case = make("lstm")
        case.unlearner(batch_size=16).apply(ForgetValues(SHOWN, mask_of_secret(), range(6)))
        found.append(torch.cat([value.detach().flatten() for value in case.module.parameters()]))
    assert torch.allclose(found[0], found[1], atol=1e-3)


def test_forgetting_calls_the_module_on_a_batch_at_most():
    case, seen = make("lstm"), []
    case.module.register_forward_hook(lambda _, args, __: seen.append(len(args[0])))
    case.unlearner(batch_size=9).apply(ForgetValues(SHOWN, mask_of_secret(), range(6)))
    assert max(seen) <= 9


@pytest.mark.parametrize("method", ["auto", "fine_tune"])
def test_values_that_are_no_classes_are_named_and_nothing_changes(method):
    case = make("lstm")
    before = state(case.module)
    mask = mask_of_secret()
    each = np.zeros((2, len(SHOWN), 11), dtype=int)
    padded = case.y.clone()
    padded[SHOWN[0], 6:] = -100
    beyond = case.y.clone()
    beyond[SHOWN[1], 5] = 8
    for y, alternatives, message in (
        (case.y, range(9), "alternatives contain 8, but the module has 8 classes"),
        (case.y, [SECRET[1]], "alternatives of row 10 are, for some value, no other than that one"),
        (case.y, each, r"shape \(2, 8, 11\), expected .* \(k, 8, 12\)"),
        (padded, range(6), "the mask of row 10 is True where its target is -100, which is padding"),
        (beyond, range(6), "a masked target is 8, but the module has 8 classes"),
    ):
        un = Unlearner(case.module, case.loss, case.X, y)
        with pytest.raises(ValueError, match=message):
            un.apply(ForgetValues(SHOWN, mask, alternatives), method=method)
        same(before, state(case.module))
        assert all(torch.equal(kept, row) for (_, kept), row in zip(un.corrected_data(), y, strict=True))


@pytest.mark.parametrize(
    ("steps", "lr", "message"),
    [
        (8, None, "so few steps are never enough, expected 20 at least"),
        (24, 1e-6, "the module prefers 0% of control values to those"),
        (24, 3.0, "the loss of other rows is .* expected 1.25 times .* at most"),
    ],
)
def test_an_error_says_what_was_not_reached(steps, lr, message):
    case = make("lstm")
    un = case.unlearner(batch_size=16)
    before = state(case.module)
    with pytest.raises(ConvergenceError, match=message):
        un.apply(ForgetValues(SHOWN, mask_of_secret(), range(6)), method="forget", steps=steps, lr=lr)
    same(before, state(case.module))
