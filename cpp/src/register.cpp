#include "expunge/register.hpp"

#include <algorithm>
#include <functional>
#include <numeric>
#include <stdexcept>
#include <string>

#include "expunge/errors.hpp"

namespace expunge {

void WeightedTargets::append(const VectorRef& y, const VectorRef& s) {
    require_size("s", s.size(), y.size());
    const Index wanted = size_ + y.size();
    if (wanted > capacity_) {
        const Index capacity = std::max(wanted, 2 * size_);
        const auto grown = [&](const std::shared_ptr<double[]>& old) {
            std::shared_ptr<double[]> memory(new double[static_cast<std::size_t>(capacity)]);
            std::copy_n(old.get(), size_, memory.get());
            return memory;
        };
        auto targets = grown(y_), weights = grown(s_);
        y_ = std::move(targets);
        s_ = std::move(weights);
        capacity_ = capacity;
    }
    std::copy_n(y.data(), y.size(), y_.get() + size_);
    std::copy_n(s.data(), s.size(), s_.get() + size_);
    size_ = wanted;
}

RowRegister::RowRegister(const VectorRef& y, const VectorRef& s, Index classes)
    : place_(static_cast<std::size_t>(y.size())), base_(y, s), counts_(2, 0), classes_(classes) {
    if (classes < 0 || classes == 1)
        throw std::invalid_argument("there are two classes or more, or none: got " + std::to_string(classes));
    if (classes > std::max<Index>(2, y.size()))
        throw std::invalid_argument("there are " + std::to_string(classes) + " classes, but " +
                                    std::to_string(y.size()) + " rows");
    counts_.resize(static_cast<std::size_t>(std::max<Index>(2, classes)), 0);
    require_classes(y);
    std::iota(place_.begin(), place_.end(), Index(0));
    count({place_, y, s}, 1);
    begin();
}

RowRegister::RowRegister(const VectorRef& y, const VectorRef& s, Index classes, RowNumbers numbers,
                         Index count)
    : RowRegister(y, s, classes) {
    require_size("numbers", static_cast<Index>(numbers.size()), y.size());
    if (count < y.size())
        throw std::invalid_argument("there are " + std::to_string(y.size()) + " rows, but " +
                                    std::to_string(count) + " numbers were given out");
    Index before = -1;
    for (const Index row : numbers) {
        if (row <= before || row >= count)
            throw std::invalid_argument("row numbers must ascend from 0 to " + std::to_string(count - 1) +
                                        ", none twice: got " + std::to_string(row));
        before = row;
    }
    place_.assign(static_cast<std::size_t>(count), -1);
    for (std::size_t i = 0; i < numbers.size(); ++i)
        place_[static_cast<std::size_t>(numbers[i])] = static_cast<Index>(i);
    begin();
}

void RowRegister::require_classes(const VectorRef& y) const {
    for (Index i = 0; classes_ > 0 && i < y.size(); ++i)
        if (!(y(i) >= 0.0) || !(y(i) < static_cast<double>(classes_)))
            throw std::invalid_argument("target " + std::to_string(y(i)) + " is not the number of a class");
}

std::vector<Index> RowRegister::live() const {
    std::vector<Index> rows;
    rows.reserve(place_.size());
    for (Index row = 0; row < row_count(); ++row)
        if (place(row) >= 0) rows.push_back(row);
    return rows;
}

void RowRegister::require_given_out(RowNumbers rows) const {
    for (const Index row : rows)
        if (row < 0 || row >= row_count())
            throw std::out_of_range("row " + std::to_string(row) +
                                    " was never given out: there are rows 0 to " +
                                    std::to_string(row_count() - 1));
}

RowRegister::Side RowRegister::of(RowNumbers rows) const {
    require_given_out(rows);
    const auto m = static_cast<Index>(rows.size());
    Side side{std::vector<Index>(rows.size()), Vector::Zero(m), Vector::Zero(m)};
    for (Index i = 0; i < m; ++i) {
        const Index at = place(rows[static_cast<std::size_t>(i)]);
        side.places[static_cast<std::size_t>(i)] = at;
        if (at < 0) continue;
        side.y(i) = y(at);
        side.s(i) = s(at);
    }
    return side;
}

void RowRegister::begin() {
    notes_.clear();
    began_ = request_ = mark();
}

void RowRegister::proceed() { request_ = mark(); }

void RowRegister::go_back(const Mark& to) {
    while (notes_.size() > to.notes) {
        const Note& was = notes_.back();
        place_[static_cast<std::size_t>(was.row)] = was.place;
        y(was.place) = was.y;
        s(was.place) = was.s;
        notes_.pop_back();
    }
    place_.resize(static_cast<std::size_t>(to.row_count));
    overlay_.truncate(to.overlay);
    abandoned_places_ = to.abandoned_places;
    counts_ = to.counts;
}

void RowRegister::undo() { go_back(request_); }

void RowRegister::rollback() {
    go_back(began_);
    request_ = began_;
}

void RowRegister::require(RowNumbers rows) const {
    require_given_out(rows);
    for (const Index row : rows)
        if (place(row) < 0)
            throw std::invalid_argument("row " + std::to_string(row) +
                                        " was removed before: it is no longer in the data");
    if (std::adjacent_find(rows.begin(), rows.end(), std::greater_equal<>()) == rows.end()) return;
    std::vector<Index> sorted(rows.begin(), rows.end());
    std::sort(sorted.begin(), sorted.end());
    if (const auto twice = std::adjacent_find(sorted.begin(), sorted.end()); twice != sorted.end())
        throw std::invalid_argument("row " + std::to_string(*twice) + " is given more than once");
}

void RowRegister::note(Index row) {
    const Index at = place(row);
    notes_.push_back({row, at, y(at), s(at)});
}

// The row at this place has left it.
void RowRegister::leave(Index place) {
    s(place) = 0.0;
    abandoned_places_ += place >= base_.size();
}

void RowRegister::remove(RowNumbers rows) {
    require(rows);
    notes_.reserve(notes_.size() + rows.size());
    for (const Index row : rows) {
        note(row);
        remove(row);
    }
}

void RowRegister::set_targets(RowNumbers rows, const VectorRef& targets, const VectorRef& weights) {
    require(rows);
    const auto m = static_cast<Index>(rows.size());
    if (targets.size() != m && targets.size() != 1)
        throw std::invalid_argument(std::to_string(targets.size()) + " targets for " + std::to_string(m) +
                                    " rows");
    if (weights.size() > 0) require_size("s", weights.size(), targets.size());
    require_classes(targets);
    notes_.reserve(notes_.size() + rows.size());
    for (Index i = 0; i < m; ++i) {
        const Index row = rows[static_cast<std::size_t>(i)], at = place(row), k = targets.size() == 1 ? 0 : i;
        note(row);
        y(at) = targets(k);
        if (weights.size() > 0) s(at) = weights(k);
    }
}

void RowRegister::relocate(RowNumbers rows) {
    require(rows);
    const Side now = of(rows);
    notes_.reserve(notes_.size() + rows.size());
    Index to = base_.size() + overlay_.size();
    overlay_.append(now.y, now.s);
    for (const Index row : rows) {
        note(row);
        leave(place(row));
        place_[static_cast<std::size_t>(row)] = to++;
    }
}

void RowRegister::add(const VectorRef& targets, const VectorRef& weights) {
    require_classes(targets);
    const std::size_t first = place_.size(), wanted = first + static_cast<std::size_t>(targets.size());
    const Index to = base_.size() + overlay_.size();
    if (wanted > place_.capacity()) place_.reserve(std::max(wanted, 2 * first));
    overlay_.append(targets, weights);
    place_.resize(wanted);
    std::iota(place_.begin() + static_cast<std::ptrdiff_t>(first), place_.end(), to);
}

void RowRegister::count(const Side& side, Index sign) {
    for (Index i = 0; i < side.s.size(); ++i)
        if (side.s(i) > 0.0) counts_[classes_ > 0 ? static_cast<std::size_t>(side.y(i)) : 0] += sign;
}

// The first note of each row that was there before this request, ascending by row.
std::vector<std::size_t> RowRegister::first_notes() const {
    std::vector<std::size_t> first;
    for (std::size_t i = request_.notes; i < notes_.size(); ++i)
        if (notes_[i].row < request_.row_count) first.push_back(i);
    const auto by_row = [&](std::size_t i, std::size_t j) { return notes_[i].row < notes_[j].row; };
    const auto same_row = [&](std::size_t i, std::size_t j) { return notes_[i].row == notes_[j].row; };
    if (!std::is_sorted(first.begin(), first.end(), by_row))
        std::stable_sort(first.begin(), first.end(), by_row);
    first.erase(std::unique(first.begin(), first.end(), same_row), first.end());
    return first;
}

std::vector<Index> RowRegister::touched() const {
    std::vector<Index> rows;
    for (const std::size_t i : first_notes()) rows.push_back(notes_[i].row);
    for (Index row = request_.row_count; row < row_count(); ++row) rows.push_back(row);
    return rows;
}

RowRegister::Change RowRegister::change() {
    const std::vector<std::size_t> first = first_notes();
    Change change;
    const auto m = static_cast<Index>(first.size());
    const auto sized = [](Side& side, Index size) {
        side.places.reserve(static_cast<std::size_t>(size));
        side.y.resize(size);
        side.s.resize(size);
    };
    sized(change.before, m);
    sized(change.after, m);
    for (Index i = 0; i < m; ++i) {
        const Note& was = notes_[first[static_cast<std::size_t>(i)]];
        const Index now = place(was.row);
        change.before.places.push_back(was.place);
        change.before.y(i) = was.y;
        change.before.s(i) = was.s;
        change.after.places.push_back(now < 0 ? was.place : now);
        change.after.y(i) = now < 0 ? was.y : y(now);
        change.after.s(i) = now < 0 ? 0.0 : s(now);
        change.moved = change.moved || change.after.places.back() != was.place;
    }
    edited_rows_ = m + row_count() - request_.row_count;
    for (Index row = request_.row_count; row < row_count(); ++row)
        if (place(row) >= 0) change.joined.places.push_back(place(row));
    const auto joined = static_cast<Index>(change.joined.places.size());
    sized(change.joined, joined);
    for (Index i = 0; i < joined; ++i) {
        change.joined.y(i) = y(change.joined.places[static_cast<std::size_t>(i)]);
        change.joined.s(i) = s(change.joined.places[static_cast<std::size_t>(i)]);
    }

    counts_ = request_.counts;
    count(change.before, -1);
    count(change.after, 1);
    count(change.joined, 1);
    if (weighted_rows() <= 0) throw std::invalid_argument("no row of positive weight would be left");
    if (classes_ > 0 && *std::min_element(counts_.begin(), counts_.end()) <= 0)
        throw std::invalid_argument("no row of positive weight would be left of one of the " +
                                    (classes_ == 2 ? std::string("two classes")
                                                   : std::to_string(classes_) + " classes: RevokeClass takes "
                                                                                "a class out"));
    return change;
}

std::pair<RowRegister, std::vector<Index>> RowRegister::compacted() const {
    RowRegister smaller(*this);
    smaller.notes_.clear();
    smaller.overlay_ = WeightedTargets();
    smaller.abandoned_places_ = 0;
    const Index n = base_.size();
    std::vector<Index> moved;
    for (const Index row : live())
        if (place(row) >= n) moved.push_back(row);
    Side were = of(moved);
    for (std::size_t i = 0; i < moved.size(); ++i)
        smaller.place_[static_cast<std::size_t>(moved[i])] = n + static_cast<Index>(i);
    smaller.overlay_.append(were.y, were.s);
    smaller.begin();
    return {std::move(smaller), std::move(were.places)};
}

RowRegister RowRegister::without_class(Index k) const {
    if (classes_ < 3 || k < 0 || k >= classes_)
        throw std::invalid_argument("class " + std::to_string(k) + " of " + std::to_string(classes_) +
                                    " cannot leave: two have to stay");
    const auto copied = [](const WeightedTargets& part) {
        return WeightedTargets(Eigen::Map<const Vector>(part.targets().get(), part.size()),
                               Eigen::Map<const Vector>(part.weights().get(), part.size()));
    };
    RowRegister fewer(*this);
    fewer.notes_.clear();
    fewer.base_ = copied(base_);
    fewer.overlay_ = copied(overlay_);
    const auto number = static_cast<double>(k), last = static_cast<double>(classes_ - 1);
    for (const Index row : live())
        if (y(place(row)) == number) fewer.remove(row);
    for (Index at = 0; at < base_.size() + overlay_.size(); ++at)
        if (double& target = fewer.y(at); target > number || target == last) target -= 1.0;
    fewer.counts_.erase(fewer.counts_.begin() + static_cast<std::ptrdiff_t>(k));
    fewer.classes_ -= 1;
    fewer.begin();
    return fewer;
}

}  // namespace expunge
