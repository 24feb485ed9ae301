#pragma once
#include <algorithm>
#include <memory>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "expunge/types.hpp"

namespace expunge {

// Targets and weights of rows that are stored side by side. Appending may move them to larger memory; whoever
// shares the old memory still has it.
class WeightedTargets {
public:
    WeightedTargets() = default;
    WeightedTargets(const VectorRef& y, const VectorRef& s) { append(y, s); }

    Index size() const { return size_; }
    double& y(Index i) const { return y_[i]; }
    double& s(Index i) const { return s_[i]; }
    const std::shared_ptr<double[]>& targets() const { return y_; }
    const std::shared_ptr<double[]>& weights() const { return s_; }

    void append(const VectorRef& y, const VectorRef& s);
    void truncate(Index size) { size_ = std::min(size_, size); }

private:
    std::shared_ptr<double[]> y_, s_;
    Index size_ = 0, capacity_ = 0;
};

// Which rows are in the data (E2). For every row number it knows the place where the row is stored, its
// target and its weight. The first places are the rows of the X that was handed over (the base). The overlay
// follows: rows that were added, and rows whose values were corrected. A place that no row has any more has
// weight 0. One request at a time: from begin() on it notes what rows were, so that change() can tell and
// rollback() can restore it. A stream of requests begins once, and proceeds from each to the next.
class RowRegister {
public:
    using RowNumbers = std::span<const Index>;
    struct Side {
        std::vector<Index> places;
        Vector y, s;
    };

    // `classes`: how many there are, of targets 0, 1, ..., each of which must keep a row of positive weight;
    // 0 where targets are none.
    RowRegister(const VectorRef& y, const VectorRef& s, Index classes);
    // The same, where the rows at places 0, 1, ... have these numbers, which ascend. Of the `count` numbers
    // that were given out, the others have left. Arguments that do not fit throw, here as everywhere, and
    // nothing has changed.
    RowRegister(const VectorRef& y, const VectorRef& s, Index classes, RowNumbers numbers, Index count);

    Index row_count() const { return static_cast<Index>(place_.size()); }           // given out so far
    Index place(Index row) const { return place_[static_cast<std::size_t>(row)]; }  // -1: it has left
    Side of(RowNumbers rows) const;   // for one that has left, place -1 and weight 0
    std::vector<Index> live() const;  // numbers, ascending
    const WeightedTargets& base() const { return base_; }
    const WeightedTargets& overlay() const { return overlay_; }
    // Places of the overlay that no row will have again.
    Index abandoned_places() const { return abandoned_places_; }
    // Whether these are most of it.
    bool wants_compaction() const { return 2 * abandoned_places_ > overlay_.size(); }
    const std::vector<Index>& counts() const { return counts_; }  // rows of positive weight in each class
    Index weighted_rows() const { return std::accumulate(counts_.begin(), counts_.end(), Index(0)); }

    void begin();
    void proceed();   // to the next request of a stream: this one stands unless all is rolled back
    void undo();      // this request alone
    void rollback();  // to the last begin(), or to what was given at first

    // Rows in the data, each named once:
    void require(RowNumbers rows) const;  // throws for any others
    void remove(RowNumbers rows);
    // (m,), or one for all; weights follow where there are any, as many
    void set_targets(RowNumbers rows, const VectorRef& y, const VectorRef& s = Vector());
    void relocate(RowNumbers rows);                    // to the end of the overlay, in this order
    void add(const VectorRef& y, const VectorRef& s);  // new numbers, at the end of the overlay

    struct Change {
        Side before, after;  // of rows that were there before; one that left keeps its place, at weight 0
        Side joined;         // of rows that were added, and are there still
        bool moved = false;  // whether the values of a row changed
    };
    // By this request. Throws where too few rows would be left.
    Change change();
    Index edited_rows() const { return edited_rows_; }  // rows that change() found edited or added
    std::vector<Index> touched() const;                 // their numbers, ascending

    // The register without abandoned places: the overlay's rows in the order of their numbers. And where in
    // the overlay they were.
    std::pair<RowRegister, std::vector<Index>> compacted() const;

    // The register without a class: its rows have left, and the classes above it have the number below.
    RowRegister without_class(Index k) const;

private:
    struct Note {  // what a row was
        Index row, place;
        double y, s;
    };
    struct Mark {  // where a request begins
        std::size_t notes = 0;
        Index row_count = 0, overlay = 0, abandoned_places = 0;
        std::vector<Index> counts = {};
    };
    Mark mark() const { return {notes_.size(), row_count(), overlay_.size(), abandoned_places_, counts_}; }
    void go_back(const Mark& to);
    double& y(Index place) const {
        return place < base_.size() ? base_.y(place) : overlay_.y(place - base_.size());
    }
    double& s(Index place) const {
        return place < base_.size() ? base_.s(place) : overlay_.s(place - base_.size());
    }
    void require_given_out(RowNumbers rows) const;
    void require_classes(const VectorRef& y) const;  // throws for targets that are no numbers of classes
    std::vector<std::size_t> first_notes() const;
    void note(Index row);
    void leave(Index place);
    void remove(Index row) {
        leave(place(row));
        place_[static_cast<std::size_t>(row)] = -1;
    }
    void count(const Side& side, Index sign);

    std::vector<Index> place_;
    WeightedTargets base_, overlay_;
    Index abandoned_places_ = 0, edited_rows_ = 0;
    std::vector<Index> counts_;  // where targets are no classes, the first of two
    Index classes_;

    std::vector<Note> notes_;
    Mark began_, request_;  // at begin(), and at this request
};

}  // namespace expunge
