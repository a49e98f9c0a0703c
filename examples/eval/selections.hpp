// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <span>
#include <vector>

#include "spectx/selection.hpp"

namespace spectx::eval {

/// Who chooses the rows of a step.
enum class Selector {
  head,       // the retrieval head
  shared,     // best set that all layers share, by the target's own attention: an oracle
  per_layer,  // best set of every layer: an oracle
  pages,      // page bounds of every layer's keys, as Quest has them
  recent,     // the most recent tokens
  random,
  guard,  // the head, which takes more rows where its coverage is too low
};
inline constexpr std::array<const char*, 7> kSelectorNames = {
    "head", "shared", "per-layer", "pages", "recent", "random", "guard"};
inline const char* name_of(Selector s) { return kSelectorNames[static_cast<std::size_t>(s)]; }
/// Whether it chooses while it runs, by what has been selected before.
inline bool is_live(Selector s) { return s == Selector::head || s == Selector::guard; }
/// Whether every layer has a set of its own.
inline bool is_per_layer(Selector s) { return s == Selector::per_layer || s == Selector::pages; }

/// Ascending ids of the sinks, the best of the middle by `scores` [length], and the window: exact,
/// ties to the lower id, as `top_k` of a backend has them. One list a room, whose size is the
/// budget, at most the length; the rooms ascend in size.
void pick(std::span<const float> scores, const SelectionConfig& rule,
          std::span<const std::span<std::int32_t>> rooms);

/// The selections of a text's steps, [steps, sets, kv_heads] lists of ids. One set a layer, or one
/// for all.
class Recorded {
 public:
  Recorded() = default;
  Recorded(index_t sets, index_t kv_heads, index_t budget)
      : sets_(sets), kv_heads_(kv_heads), budget_(budget) {}

  void add_step() {
    ids_.resize(ids_.size() + static_cast<std::size_t>(sets_ * kv_heads_ * budget_));
    counts_.resize(counts_.size() + static_cast<std::size_t>(sets_ * kv_heads_),
                   static_cast<std::int32_t>(budget_));
  }
  index_t steps() const {
    return sets_ == 0 ? 0 : static_cast<index_t>(counts_.size()) / (sets_ * kv_heads_);
  }
  /// [budget] room of one list
  std::span<std::int32_t> room(index_t step, index_t set, index_t kv_head) {
    return std::span(ids_).subspan(place(step, set, kv_head) * static_cast<std::size_t>(budget_),
                                   static_cast<std::size_t>(budget_));
  }
  std::int32_t& count(index_t step, index_t set, index_t kv_head) {
    return counts_[place(step, set, kv_head)];
  }
  std::span<const std::int32_t> ids(index_t step, index_t set, index_t kv_head) const {
    const std::size_t at = place(step, set, kv_head);
    return std::span(ids_).subspan(at * static_cast<std::size_t>(budget_),
                                   static_cast<std::size_t>(counts_[at]));
  }
  index_t sets() const { return sets_; }
  index_t kv_heads() const { return kv_heads_; }
  index_t budget() const { return budget_; }

  /// Share of a step's ids that the step before had too, mean over steps and lists.
  double overlap() const;

 private:
  std::size_t place(index_t step, index_t set, index_t kv_head) const {
    return static_cast<std::size_t>((step * sets_ + set) * kv_heads_ + kv_head);
  }

  index_t sets_ = 0;
  index_t kv_heads_ = 0;
  index_t budget_ = 0;
  std::vector<std::int32_t> ids_;
  std::vector<std::int32_t> counts_;
};

}  // namespace spectx::eval
