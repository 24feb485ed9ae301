"""Plants bugs in a copy of the package, one at a time, and says which of them the tests notice.

    python tests/mutants.py                     # the tests beside this file
    python tests/mutants.py --tests DIR         # those of another checkout
    python tests/mutants.py --only sign,lock    # some of the bugs, by parts of their names
    python tests/mutants.py --cpp               # bugs in the core instead: cmake builds one set for each

A bug is a name, the test files that should notice it, in whichever room, the likeliest first, and lines of
the package with what is written in their place. Lines that are not there, or are there twice, end the script:
the code has moved, and the bug must move with it (--list looks, and runs nothing). First the tests must pass
without a bug; but for --only and --unchecked. The exit status is 1 if a bug went unnoticed.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

ROOT = Path(__file__).resolve().parents[1]

BUGS = r"""
# More than two classes
= classes: the profile residual of two  [classes]
- flow = hypot(sqrt(outputs - 2) * float(np.abs(g_0).sum()), float(np.linalg.norm(g_0)))
+ flow = float(np.linalg.norm(g_0))
= classes: columns of the first class alone are revoked  [classes]
- blocks = np.arange(self.outputs)[:, None] * (d + int(self.fit_intercept))
+ blocks = np.zeros(self.outputs, dtype=np.intp)[:, None] * (d + int(self.fit_intercept))
= classes: intercepts of a scikit-learn model are not centred  [classes]
- theta = centred(theta, problem.outputs)
+ theta = theta.copy()
= classes: two that are left begin at the wrong sign  [classes]
- difference: Float = rest[1] - rest[0]
+ difference: Float = rest[0] - rest[1]
= classes: the weight of a class that left is another's  [classes]
- class_weights=None if weights is None else np.delete(weights, number),
+ class_weights=None if weights is None else weights[:-1],
= classes: people of a class that left are not forgotten  [classes]
- changes.append((names, "left", [*names.left, left]))
+ changes.append((names, "left", names.left))

# What rows of a class count
= class weight of the old label  [class_weight]
- self.register.set_targets(rows, y, self._relabelled(rows, y))
+ self.register.set_targets(rows, y)
= class weight of the old label in a stream  [class_weight]
- self._relabelled(rows, targets),
+ None,
= class weight alone after a correction  [class_weight]
- return weighed(self.class_weights, np.asarray(y), None if self.own is None else self.own[rows])
+ return weighed(self.class_weights, np.asarray(y), None)
= class weight: own weights of rows that were refused  [class_weight]
- self._before("own")
+ self._before("weighted")
= class weight: own weights under other numbers in a file  [class_weight]
- data.own[numbers] = s
+ data.own[: numbers.size] = s
= class weight counted twice by who fits to the corrected data  [class_weight]
- s = data.own_weights(data.register.live()) if data.weighted else None
+ s = data.register.of(data.register.live())[2] if data.weighted else None
= class weight not counted of rows by value  [class_weight]
- s = weighed(self.class_weights, y, own)
+ s = own
= class weight not counted by an audit  [class_weight]
- weights = spec.weights(y, sample_weight)
+ weights = sample_weight
= class weight not counted by private training  [class_weight]
- weights = problem.weights(problem.encode(y, matrix.shape[0]), sample_weight)
+ weights = sample_weight
= class weight changed in place  [class_weight]
- self._parameters = tuple(map(copy, self._read(model)))
+ self._parameters = self._read(model)
= class weight left out of files  [class_weight]
- entries["class_weight"] = problem.class_weights
+ pass

# Losses with means e^eta, and penalties that move
= E34: a first step as if the curvature stayed  [losses]
- return float(np.log1p(reach / L)) / reach if reach > 0.0 else 1.0 / L
+ return 1.0 / L
= E34: who is left without a best intercept is not asked  [losses]
- if touched.rows.any and self.problem.needs_targets:
+ if touched.rows.any and self.problem.needs_targets and self.data is None:
= E6: a Hessian without targets  [objective reference]
- without = curvature and not chosen.curvature_of_targets
+ without = curvature
= E36: a penalised intercept that is free  [linear_svc]
- penalty[d] = self.alpha / self.intercept_scaling**2
+ penalty[d] = self.alpha
= E36: columns moved beside a penalised intercept  [linear_svc]
- return self.fit_intercept and self.intercept_scaling is None
+ return self.fit_intercept
= E35: the penalty of before  [mean_penalty]
- return self if self.per_weight is None else replace(self, alpha=self.per_weight * weight)
+ return self if self.per_weight is None else replace(self, alpha=self.per_weight * 120.0)
= E35: the penalty's pull left out of E3  [mean_penalty]
- difference = _core.Evaluation(value, difference.gradient + pull)
+ difference = _core.Evaluation(value, difference.gradient)
= E35: a failed request keeps its penalty  [mean_penalty]
- data.undone_with(engine, "problem")
+ pass

# How theta is chosen
= the longest row as the data came  [data]
- self.largest_norm = max(self.largest_norm, norm)
+ self.largest_norm = max(self.largest_norm, 0.0 * norm)
= the ball of the data as they came  [data]
- self.ball, norm = _around(self.ball, X, shift, self.stored_columns(self.kept))
+ _, norm = _around(self.ball, X, shift, self.stored_columns(self.kept))
= a distance is not looked at  [distance]
- if distance <= within:
+ if distance < inf:
= arguments that are gone through once are read twice  [streams]
- return list(value) if isinstance(value, Iterator) else value
+ return value
= sign of a second-order step  [methods unlearner data]
- return theta - factor.solve(g)
+ return theta + factor.solve(g)
= first-order step twice too long  [methods unlearner data]
- return 1.0 / (float(np.max(alpha))
+ return 2.0 / (float(np.max(alpha))
= safe step forgets rows that came  [methods unlearner data]
- added = gram.added + power_of_two_above(touched.rows.gained_norm(self.problem.fit_intercept))
+ added = gram.added
= stale factor: of another theta  [methods unlearner data streams sparse solver]
- return self.problem.constant_hessian or np.array_equal(anchor.theta, theta)
+ return True
= stale factor: after cancellation  [methods unlearner data streams]
- if edited.cancelled:  # to be assembled anew
+ if False:
= a tenth is promised where nothing was asked for  [distance]
- WITHIN = 0.01  # standard errors
+ WITHIN = 0.1  # standard errors
= certificates rest on the default whatever was given  [distance release]
- return default_tolerance(rows, parameters) if self.tolerance is None else self.tolerance
+ return default_tolerance(rows, parameters)
= default tolerance of a few rows  [measure]
- additions = rows / TOGETHER + TOGETHER + 4.0 * parameters + 64.0
+ additions = 64.0
= a Hessian without a factor serves on  [row_norms]
- if anchor is not None and not anchor.has_factor:
+ if False:
= attached rows keep the Hessian of the sums  [row_norms]
- state = attached._anchored_at(start.objective, here, start.block)
+ state = engine.state
= a file forgets the tolerance beside a distance  [forged]
- return Promise.checked(tolerance, None if within == np.inf else within)
+ return Promise.checked(tolerance if within == np.inf else None, None if within == np.inf else within)
= tolerance compared the wrong way  [methods unlearner data streams]
- return residual <= most and distance <= within
+ return residual >= most and distance <= within
= a chord step is kept whatever its bound  [chord_streams]
- if engine.promise.is_kept(*step[1:]):
+ if True:
= iterations after chord steps begin with the gradient of another theta  [chord_streams streams]
- chords.at, chords.statistics
+ start.at, chords.statistics
= tolerance not compared, detached  [by_value detached]
- if method == "auto" and not self.promise.is_kept(bound, distance):
+ if False:
= the measured residual is of the old theta  [methods unlearner data]
- at = start.objective.evaluate(theta)
+ at = start.objective.evaluate(start.theta)
= influence function without the pull of dropped columns  [methods unlearner data]
- g[staged.dropped] = pull[staged.dropped]
+ g[staged.dropped] = 0.0
= noise of the objective forgotten in the influence function  [release mechanisms budget certificate]
- pull = engine.problem.alpha * old.theta + engine.problem.noise_on(staged.columns)
+ pull = engine.problem.alpha * old.theta

# Data
= off by one: the row behind the last  [bad_input data methods unlearner]
- if ordered[0] < 0 or ordered[-1] >= size:
+ if ordered[0] < 0 or ordered[-1] > size:
= off by one: a slice  [data methods unlearner]
- np.arange(*given.indices(size)
+ np.arange(*given.indices(size - 1)
= a row given twice  [bad_input]
- twice = ordered[1:][ordered[1:] == ordered[:-1]]
+ twice = ordered[2:][ordered[2:] == ordered[:-2]]
= a mask of another length  [bad_input]
- if array.shape != (size,):
-             raise ValueError(f"{what} mask
+ if array.size > size:
+             raise ValueError(f"{what} mask
= weight of added rows ignored  [data methods unlearner]
- self.register.add(y, np.ones(y.size) if counted is None else counted)
+ self.register.add(y, np.ones(y.size))
= added rows in the wrong columns  [data methods unlearner]
- wide[:, columns] = X
+ wide[:, : columns.size] = X
= corrected sparse cells: zeros stay  [sparse solver data methods unlearner]
- stay = ~replaced[X.indices]
+ stay = np.ones(X.indices.size, dtype=bool)
= rows of the overlay out of order  [data methods unlearner sparse solver]
- return take(X, np.argsort(np.concatenate([np.flatnonzero(base), np.flatnonzero(~base)])))
+ return X
= corrected rows hide from a revocation  [sparse solver data methods unlearner]
- found = np.append(found, rows_with_values(self.overlay_X.matrix(), at)[0])
+ found = np.append(found, np.zeros(self.overlay_X.matrix().shape[0], dtype=bool))
= class emptied unnoticed, detached  [by_value detached]
- if self.classes and counts.min() == 0:
+ if False:
= swapped classes  [adopt data methods unlearner]
- targets[found] = target
+ targets[found] = len(self.classes) - 1 - target
= swapped predictions  [estimators states]
- labels: NDArray[Any] = model.classes_[chosen]
+ labels: NDArray[Any] = model.classes_[len(model.classes_) - 1 - chosen]
= intercept penalised  [objective arguments factor]
- penalty[:d] = array
+ penalty[:] = array if array.ndim == 0 else np.resize(array, penalty.size)
= penalty beside the columns  [objective arguments factor]
- penalty[:d] = array
+ penalty[:d] = np.flip(np.broadcast_to(array, d))
= negative weights accepted  [objective arguments factor estimators states]
- if _lowest(weights) < 0:
+ if _lowest(weights) < -1:
= strided X is taken as it lies  [arrays]
- return np.array(X, order="C")
+ return X
= duplicates are not summed  [arrays]
-     X = X.copy()
-     X.sum_duplicates()
+     X = X.copy()
+     X.sort_indices()

# All of a request or nothing, one at a time
= rollback forgotten  [bad_input]
- assign_all(self._touched.undo[::-1])  # the first values last
+ pass
= rollback in the wrong order  [bad_input]
- assign_all(self._touched.undo[::-1])  # the first values last
+ assign_all(self._touched.undo)
= half an assignment stays  [bad_input interrupts waiting]
- any(back)
+ pass
= lock dropped  [streams interrupts waiting]
- self._lock, self._verb = RLock(), Verb()
+ self._lock, self._verb = __import__("contextlib").nullcontext(), Verb()
= asked in the middle of a request  [interrupts waiting]
- if self._busy and self._inside_another():
+ if False:
= a changed model goes unnoticed  [bad_input saved forged panels]
- if not np.array_equal(theta_of(self.model), theta):
+ if False:

# Certificates
= noise scale: one world instead of two  [certified release mechanisms budget certificate audit]
- return 2 if self.against == "retraining" else 1
+ return 1
= noise scale: a tenth too small  [certified release mechanisms budget certificate audit]
- grid_of(self.shift / Fraction(accounting.mu(self.epsilon, self.delta)), self.theta_bound)
+ grid_of(self.shift * 9 / 10 / Fraction(accounting.mu(self.epsilon, self.delta)), self.theta_bound)
= grid of cells: without the square root of d  [certified release mechanisms budget certificate audit]
- width = _root(d) * self.shift
+ width = self.shift
= missing rounding term of a bound  [release mechanisms budget certificate certified]
- return min(self.residual + self.floor, self.distance)
+ return min(self.residual, self.distance)
= missing rounding term of a sum  [release mechanisms budget certificate certified]
- rounding = 1.0 + 2.0 * (gradient.size + 8) * 2.0**-53
+ rounding = 1.0
= floor without the penalty  [mechanisms measure]
- + lost + 4 * (abs(pull) + abs(noise))
+ + lost
= floor without errors in eta  [measure]
- rounding = (TOGETHER + blocks + 7) * size + lost
+ rounding = (TOGETHER + blocks + 7) * size
= theta_bound not compared  [release mechanisms budget certificate worlds]
- and not np.abs(coef).max() <= self.theta_bound:
+ and False:
= objective noise hides too much  [release mechanisms budget certificate certified]
- return sigma * accounting.guo_mu(epsilon, delta)
+ return sigma * accounting.mu(epsilon, delta)
= the same noise twice  [release mechanisms budget certificate noise]
- (random_state, 1 + draws)
+ (random_state, 1)
= noise of revoked columns stays  [release mechanisms budget certificate worlds]
- problem = problem.with_noise(problem.noise.without(~engine.data.kept))
+ problem = problem.with_noise(problem.noise.without(engine.data.kept & False))
= noise in the objective is to hide a distance  [release]
- by_distance = terms.mechanism != "objective"
+ by_distance = True
= composed releases: the largest alone  [accounting]
- return math.hypot(*(_as_mu(value
+ return max(0.0, *(_as_mu(value

# What leaks
= receipt tells a residual's digits  [receipts updates worlds]
- return residual if settled else power_of_two_above(residual)
+ return residual
= receipt tells the order of rows  [receipts updates]
- sorted(_code(what, code(member), key) for member in members)
+ list(_code(what, code(member), key) for member in members)
= receipt tells a bound's digits  [receipts]
- _kept(update["residual_bound"], update["settled"] and measured),
+ _kept(update["residual_bound"], update["settled"]),
= a changed receipt passes  [receipts updates]
- or not hmac.compare_digest(
+ or None is hmac.compare_digest(
= pickled Update tells the step  [receipts updates worlds methods unlearner data]
- "step": None,
+ "step": self.step,
= entry residual tells of rows that left  [worlds]
- return self._on_entry.rounded() if self._fitted.engine.data.changed else self._on_entry
+ return self._on_entry
# Whether a model and its data belong together
= no model is too far from its data  [right_data]
- if away <= limit:
+ if away >= 0.0:
= an unconverged model is polished whatever it is worth  [right_data]
- if early is None or not objective.evaluate(theta).value <= _first_value(model, objective, theta.size):
+ if early is None:
= distance of a squared loss in units of y  [right_data]
- variance = 2.0 * minimum.value / rows if objective.quadratic else 1.0
+ variance = 1.0
= exact solvers are trusted like others  [right_data adoption_tables]
- limit = (EXACT_SOLVER if exact else ANY_SOLVER) * sqrt(theta.size)
+ limit = ANY_SOLVER * sqrt(theta.size)
= parameters changed on the model go unnoticed  [right_data]
- if self._read(self.model) != self._parameters:
+ if False:
= a forked child keeps the lock  [first_sight]
- os.register_at_fork(after_in_child=_begin_anew)
+ pass
= a mask equals its 0 and 1  [first_sight]
- return one.shape == other.shape and masks[0] == masks[1] and bool(np.all(one == other))
+ return one.shape == other.shape and bool(np.all(one == other))
= pickled statistics keep their digits  [first_sight]
- kept = self._statistics.round_up()
+ kept = self._statistics.fold()
= certificate pickles its residual  [release mechanisms budget certificate worlds]
- return replace(self, residual=None, residual_bound=None, floor=None)
+ return self

# Files
= files that others read  [archive damage saved forged panels]
- _MODE = 0o600
+ _MODE = 0o644
= checksum not compared  [archive damage]
- if header + array.tobytes() != expected:
+ if False:
= CRC not compared  [archive damage saved forged panels]
- if zlib.crc32(values.data, zlib.crc32(header)) != member.crc:
+ if False:
= a failed save leaves its file  [archive damage]
-             temporary.unlink(missing_ok=True)
-             raise
+             raise

# Data sets and figures
= rows for tests are standardized by themselves  [datasets]
- X_test=(data.X_test - mean) / deviation)
+ X_test=(data.X_test - data.X_test.mean(axis=0)) / deviation)
= the smaller class is 1  [datasets]
- return np.asarray(y == classes[1], dtype=np.float64)
+ return np.asarray(y == classes[0], dtype=np.float64)
= a split takes no heed of classes  [datasets]
- X, values, test_size=test_size, random_state=random_state, stratify=classes
+ X, values, test_size=test_size, random_state=random_state
= rows of Adult for tests always come first  [datasets]
- test = test[::-1].copy()
+ break_off = POSITIVE_IN_TEST
= numbers of Adult are standardized over all rows  [datasets]
- StandardScaler().fit(numbers[~test])
+ StandardScaler().fit(numbers)
= the environment goes before the argument  [datasets]
- named = os.environ.get("EXPUNGE_DATA") if folder is None else folder
+ named = os.environ.get("EXPUNGE_DATA") or folder
= any version of OpenML will do  [datasets]
- if (found.details["name"], str(found.details["version"])) != (wanted.name, str(wanted.version)):
+ if found.details["name"] != wanted.name:
= missing cells make a column text  [datasets]
- if any(np.isnan(values[i]) and str(cells[i]).lower() not in MISSING for i in wrong):
+ if wrong:
= losses of the other axis  [plots]
- self.points_ = ax.scatter(self.retrained, self.unlearned,
+ self.points_ = ax.scatter(self.unlearned, self.retrained,
= what is not proven is drawn as nothing  [plots]
- self.infinite_ = at_edge(np.isinf(self.distances), 1.0, "^", "nothing proven")
+ self.infinite_ = None
= seconds a request  [plots]
- rate = _positive(record, "requests", 1.0) / seconds
+ rate = seconds / _positive(record, "requests", 1.0)
= means of what was timed  [plots]
- float(np.median(found[size]))
+ float(np.mean(found[size]))
# Baselines
= fine-tuning adds the whole penalty to every batch  [descent]
- penalty = engine.problem.penalty(engine.data.n_columns) / n
+ penalty = engine.problem.penalty(engine.data.n_columns)
= warm retraining is cold  [retraining]
- theta = theta if self._warm else np.zeros_like(theta)
+ theta = np.zeros_like(theta)
= scikit-learn starts at 0  [retraining]
- fit.coef_, fit.intercept_ = coef[None], intercept if problem.fit_intercept else np.zeros(1)
+ fit.coef_, fit.intercept_ = 0.0 * coef[None], intercept if problem.fit_intercept else np.zeros(1)
= SISA trains from the first slice  [sisa]
- theta = checkpoints[k][start - 1] if start else None
+ start, theta = 0, None
= SISA trains every shard  [sisa]
- first = self._first_slices(places[rows])
+ first = dict.fromkeys(range(self._deal.shards), 0)
= SISA forgets who was moved by a revoked column  [sisa]
- rows = np.unique(np.concatenate([data.register.touched(), *touched.revoked_rows]))
+ rows = data.register.touched()
= a removal by Guo et al. on the full gradient  [one_step]
- theta = theta - H.solve(engine.difference_at(theta).gradient)
+ theta = theta - H.solve(engine.objective().evaluate(theta).gradient)
= influence is rescaled the wrong way  [one_step]
- step += v * (d1[i] / (1.0 - h))
+ step += v * (d1[i] * (1.0 - h))
= the projective update of a model with the rows in it  [one_step]
- t = A @ np.linalg.solve(np.eye(m) - d2[:, None] * A, d1)
+ t = A @ d1
= DeltaGrad keeps the touched rows in its pairs  [descent]
- change = g - touched - old.gradients[t]
+ change = g - old.gradients[t]
= DeltaGrad goes on from the first path for ever  [descent]
- self._memory.put(engine.state.theta, w, new)
+ self._memory.put(engine.state.theta, w, old)
= privacy without the Jacobian  [private]
- mu = accounting.mu(one - log1p(curvature / alpha), one_delta)
+ mu = accounting.mu(one, one_delta)
= privacy counts a changed row once  [private]
- counted += len(rows) * (1 if named["kind"] in ("RemoveRows", "AddRows") else 2)
+ counted += len(rows)
= privacy trains anew with the old noise  [private]
- problem = engine.problem.with_noise(engine.problem.noise.again())
+ problem = engine.problem
= occluded features count as their mean  [face]
- over_x = problem.moved(self._engine.state.theta, shift, None)  # where 0 is 0
+ shift, over_x = None, self._engine.state.theta
"""

CPP_BUGS = r"""
= downdate adds  [factor statistics]
- add_product(left, W, -1.0)
+ add_product(left, W, 1.0)
= missing rounding term of the penalty  [objective arguments factor statistics streams]
- known(roundoff * rounding + penalty_rounding(theta))
+ known(roundoff * rounding)
= rows of a request that was rolled back stay in the overlay  [memory bad_input]
- overlay_.truncate(to.overlay);
+ ;
= E34: c left out of the bound  [losses]
- end.nonlinear = c * R * psi_ratio(c * R * length) * q;  // E10, E34
+ end.nonlinear = R * psi_ratio(R * length) * q;
= E36: kinks are not looked at  [linear_svc]
- return nu / std::sqrt(least) < J.kink_gap(theta) ? nu : none;
+ return nu;
= E34: c too small  [losses]
- double remainder() const { return std::max(a(), b()); }
+ double remainder() const { return std::min(a(), b()); }
= E35: the penalty's pull left out of the statistics  [mean_penalty]
- s.gradient += pull;
+ s.gradient += 0.0 * pull;
= bound without its nonlinear term  [statistics streams]
- const double bound = nonlinear + gradient.e;  // E10
+ const double bound = gradient.e;
= distance without its nonlinear term  [distance]
- w = rho * psi_ratio(rho) * std::sqrt(q);
+ w = 0.0;
= distance as if H did not change from the anchor on  [distance two_anchors]
- far = std::exp(0.5 * rho) / std::sqrt(1.0 - share);
+ far = 1.0;
= the longest row from before the edit  [two_anchors long_streams]
- s.tallies.largest_norm = std::max(s.tallies.largest_norm, fold ? norm_above(norm) : norm);
+ (void)norm;
= rows as long at theta as at the anchor  [two_anchors distance]
- quadratic() ? 0.0 : here.far * norms.row
+ quadratic() ? 0.0 : norms.row
= rows of length 0 in a distance  [two_anchors distance]
- quadratic() ? 0.0 : here.far * norms.row
+ 0.0
= what rounding left in J counts as residuals  [distance]
- const double squares = 2.0 * (J - error) - penalty * (1.0 + 1e-12);
+ const double squares = 2.0 * J - penalty * (1.0 + 1e-12);
= a leverage of 1 but for rounding is taken at its word  [distance]
- least = std::max(smallest, digits * rounding() * std::max(before, v2));
+ least = smallest + 0.0 * digits * std::max(before, v2);
= rows that join leave the longest as it was  [row_norms]
- if (!(longest <= longest_[k])) all.longest_[k] = longest;
+ (void)longest;
= the least eigenvalue is guessed, not proven  [row_norms]
- if (!factor_in_place(less)) return std::max(0.0, share * guess - rounding);
+ return 3.0 * guess - rounding;
= rows are measured from their mean, and a step is not  [row_norms]
- std::abs(change(d) + norms_->m.dot(of_columns))
+ std::abs(change(d))
= rows about a centre, as if that were their mean  [row_norms]
- row = longest_[0] + (norms_->m - intercept.head(d) / intercept(d)).norm();
+ row = longest_[0];
= rows are as long in one norm as in another  [row_norms]
- least = std::min(least, of->longest_[j] * stretched);
+ least = std::min(least, of->longest_[j] + 0.0 * stretched);
= rows are as long about one centre as about another  [row_norms]
- least += std::sqrt(gap.dot(inverse.cwiseProduct(gap)));
+ (void)gap;
= of merged rows, those of one are measured  [row_norms]
- for (const RowNorms* of : {this, &other}) {
+ for (const RowNorms* of : {this, this}) {
= a pickle tells how long a row was that left  [row_norms]
- for (double& length : longest) length = norm_above(length);
+ ;
= an anchor forgets what it went through  [row_norms]
- roundoff * (2.0 * J.additions() + 5.0) * ever + past.rounding;
+ roundoff * (2.0 * J.additions() + 5.0) * trace;
= a ball's mean is its centre, for gradients  [row_norms]
- .norm() + std::abs(g(d)) * ball.radius;
+ .norm();
= the trace without the intercept forgets edits  [row_norms]
- diagonal.head(diagonal.size() - 1).sum() + inverse_gain_ - inverse_last_
+ diagonal.head(diagonal.size() - 1).sum()
= the penalty alone, with the gradient of the raw intercept  [row_norms]
- pulled -= g(d) * m;
+ ;
= chord step as if curvatures had not moved  [two_anchors]
- w = kappa * std::sqrt(q) + (1.0 + kappa) * w;
+ w = (1.0 + kappa) * w;
= chord step without what theta_b adds to a remainder  [two_anchors]
- end.nonlinear = R * root * std::sqrt(q) + (1.0 + kappa) * end.nonlinear;
+ end.nonlinear = R * root * std::sqrt(q) + end.nonlinear;
= kappa from before the edit  [two_anchors]
- edited.moved.add(joined);
+ ;
= kappa of the last rows alone  [two_anchors]
- largest = largest < other.largest ? other.largest : largest;
+ largest = other.largest;
= a Hessian that shrank by kappa counts whole  [two_anchors]
- far /= std::sqrt(std::max(0.0, 1.0 - kappa));
+ far /= 1.0;
= distance of coefficients: half of the half  [coefficient_distance]
- of_rows = mu < 2.0 ? 0.5 :
+ of_rows = mu < 2.0 ? 0.25 :
= distance of coefficients as if H did not change on the way to the minimum  [coefficient_distance]
- far *= std::exp(0.5 * row * expunge::standard_errors(nu, row));
+ far *= 1.0 + 0.0 * (nu + row);
= distance of coefficients with the curvature of the anchor  [coefficient_distance]
- std::max(1.0, least / largest / (far * far))
+ std::max(1.0, least / largest)
= distance of coefficients as if all penalties were the least  [coefficient_distance]
- std::max(1.0, least / largest / (far * far))
+ std::max(1.0, least / lambda / (far * far) + 0.0 * largest)
= a stream keeps what it refused  [streams]
- void RowRegister::undo() { go_back(request_); }
+ void RowRegister::undo() {}
"""


@dataclass(frozen=True)
class Bug:
    name: str
    tests: list[str]
    before: str
    after: str


def bugs_in(text):
    found = []
    for block in re.split(r"^= ", re.sub(r"^(#.*)?\n", "", text, flags=re.M), flags=re.M)[1:]:
        title, *lines = block.splitlines()
        name, tests = re.fullmatch(r"(.*?) +\[(.*)\]", title).groups()
        before, after = ("\n".join(line[2:] for line in lines if line[0] == side) for side in "-+")
        found.append(Bug(name, tests.split(), before, after))
    return found


def place_of(bug, sources):
    """The one file that holds the text."""
    counts = {path: path.read_text().count(bug.before) for path in sources}
    holders = [path for path, count in counts.items() if count]
    if sum(counts.values()) != 1:
        raise SystemExit(f"{bug.name}: stands {sum(counts.values())} times, in {holders}: {bug.before}")
    return holders[0]


def plant(bug, path):
    path.write_text(path.read_text().replace(bug.before, bug.after))


def build(root):
    """One instruction set of the core of this copy, into its package."""
    import pybind11

    configure = ["cmake", "-S", root, "-B", root / "build", "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release"]
    configure += ["-DEXPUNGE_ISAS=", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"]
    for command in (configure, ["cmake", "--build", root / "build"]):
        subprocess.run(command, check=True, capture_output=True)
    for old in (root / "python" / "expunge").glob("_*.so"):
        old.unlink()
    for module in (root / "build").glob("_*.so"):
        shutil.copy(module, root / "python" / "expunge")


def caught_by(names, folder, tests, timeout):
    """The test of these files that fails first with the package of this folder, or None; slow ones last."""
    files = [path for name in names for path in sorted(tests.rglob(f"test_{name}.py"))]
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--tb=no"]
    known = "slow:" in (tests.parent / "pyproject.toml").read_text()  # a marker that an older suite lacks
    for stage in (["-m", "not slow"], ["-m", "slow"]) if known else ([],):
        try:
            ended = subprocess.run(
                [*command, *stage, *files],
                cwd=tests.parent,
                env=environment,
                capture_output=True,
                text=True,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired:
            return f"no end in {timeout:.0f} s"
        if ended.returncode == 4:
            raise SystemExit(f"pytest did not run: {ended.stderr}")
        if ended.returncode not in (0, 5):  # 5: there are none
            found = re.search(r"^(?:FAILED|ERROR) (\S+)", ended.stdout, re.M)
            return Path(found[1]).name if found else f"pytest's exit status {ended.returncode}"
    return None


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tests", type=Path, default=ROOT / "tests", help="folder of the tests to judge")
    parser.add_argument("--root", type=Path, default=ROOT, help="checkout whose package gets the bugs")
    parser.add_argument("--only", default="", help="parts of names, separated by commas")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds for one bug")
    parser.add_argument("--cpp", action="store_true", help="bugs in the core")
    parser.add_argument("--unchecked", action="store_true", help="skip the run without a bug")
    parser.add_argument("--list", action="store_true", help="look for the lines alone")
    options = parser.parse_args()
    bugs = [
        b
        for b in bugs_in(CPP_BUGS if options.cpp else BUGS)
        if any(part in b.name for part in options.only.split(","))
    ]
    root, tests = options.root.resolve(), options.tests.resolve()
    folder, kinds = ("cpp", (".cpp", ".hpp")) if options.cpp else ("python/expunge", (".py",))
    sources = sorted(path for path in (root / folder).rglob("*") if path.suffix in kinds)
    places = [place_of(bug, sources).relative_to(root) for bug in bugs]
    if not (options.list or options.only or options.unchecked):
        names = sorted({name for bug in bugs for name in bug.tests})
        if test := caught_by(names, root / "python", tests, 10 * options.timeout):
            raise SystemExit(f"without any bug, {test} fails")
    missed = 0
    for bug, place in zip(bugs, places, strict=True):
        if options.list:
            print(f"{place!s:32} {bug.name}")
            continue
        started = perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder)
            shutil.copytree(root / "python", copy / "python", ignore=shutil.ignore_patterns("__pycache__"))
            if options.cpp:
                for part in ("cpp", "cmake"):
                    shutil.copytree(root / part, copy / part)
                shutil.copy(root / "CMakeLists.txt", copy)
            plant(bug, copy / place)
            if options.cpp:
                build(copy)
            test = caught_by(bug.tests, copy / "python", tests, options.timeout)
        missed += test is None
        verdict = "MISSED" if test is None else "caught"
        print(f"{verdict} {bug.name:60} {perf_counter() - started:5.0f} s  {test or ''}", flush=True)
    if not options.list:
        print(f"{len(bugs) - missed} of {len(bugs)} caught")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
