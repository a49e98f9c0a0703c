// SPDX-License-Identifier: Apache-2.0
#include "bench/trace.hpp"

#include <algorithm>
#include <bit>
#include <fstream>
#include <iterator>
#include <numeric>

namespace spectx::bench {
namespace {

constexpr index_t kPhase = 37;  // steps between two requests

/// Reads the numbers of a file one after the other.
class Reader {
 public:
  explicit Reader(const std::string& path) : path_(path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw FileError(path + ": cannot be opened: name it by --trace");
    bytes_.assign(std::istreambuf_iterator<char>(file), {});
  }
  void expect(std::string_view magic) {
    for (const char c : magic) {
      if (byte() != static_cast<unsigned char>(c)) fail("not a trace of selections");
    }
  }
  index_t word() {
    index_t value = 0;
    for (int shift = 0; shift < 32; shift += 8) value |= index_t{byte()} << shift;
    return value;
  }
  index_t varint() {
    index_t value = 0;
    for (int shift = 0; shift < 28; shift += 7) {
      const unsigned char b = byte();
      value |= index_t{b & 0x7fU} << shift;
      if (b < 0x80) return value;
    }
    fail("a number is too long");
  }
  /// A count, then ascending numbers below `end` as gaps.
  void ascending(index_t end, std::vector<std::int32_t>& out) {
    out.clear();
    index_t last = -1;
    for (index_t n = varint(); n > 0; --n) {
      last += varint() + 1;
      if (last >= end) fail("a number is out of range");
      out.push_back(static_cast<std::int32_t>(last));
    }
  }
  [[noreturn]] void fail(const char* reason) const { throw FileError(path_ + ": " + reason); }

 private:
  unsigned char byte() {
    if (at_ == bytes_.size()) fail("the file is cut off");
    return static_cast<unsigned char>(bytes_[at_++]);
  }

  std::string path_;
  std::string bytes_;
  std::size_t at_ = 0;
};

std::vector<std::int32_t> next_step(Reader& file, const std::vector<std::int32_t>& before,
                                    index_t budget, index_t context) {
  std::vector<std::int32_t> gone;  // places in `before`
  std::vector<std::int32_t> come;
  file.ascending(static_cast<index_t>(before.size()), gone);
  file.ascending(context, come);
  std::vector<std::int32_t> kept;
  auto next = gone.begin();
  for (std::size_t i = 0; i < before.size(); ++i) {
    const bool is_gone = next != gone.end() && static_cast<std::size_t>(*next) == i;
    if (is_gone) ++next;
    if (!is_gone) kept.push_back(before[i]);
  }
  std::vector<std::int32_t> step;
  std::merge(kept.begin(), kept.end(), come.begin(), come.end(), std::back_inserter(step));
  if (static_cast<index_t>(step.size()) != budget) file.fail("a step has not budget ids");
  return step;
}

/// Places below `count` for numbers. When places become more by one, only some of the numbers of
/// one place change theirs, for the new one (linear hashing).
class Places {
 public:
  explicit Places(index_t count)
      : count_(count),
        half_(static_cast<index_t>(std::bit_floor(static_cast<std::uint64_t>(count)))) {}
  index_t of(index_t number) const noexcept {
    const index_t place = number & (2 * half_ - 1);
    return place < count_ ? place : number & (half_ - 1);
  }

 private:
  index_t count_, half_;
};

/// Rows below `end`, as bits.
class RowSet {
 public:
  explicit RowSet(index_t end) : words_(static_cast<std::size_t>(end + 63) / 64) {}

  index_t size() const noexcept { return size_; }
  bool has(index_t row) const { return (word(row) & bit(row)) != 0; }
  void add(index_t row) {
    size_ += has(row) ? 0 : 1;
    words_[static_cast<std::size_t>(row / 64)] |= bit(row);
  }
  /// The rows [begin, begin + count), or as many of them as it lacks of `most`.
  void add_block(index_t begin, index_t count, index_t most) {
    const index_t offset = begin % 64;
    if (offset + count < 64 && size_ + count <= most) {  // the usual case, at once
      std::uint64_t& word = words_[static_cast<std::size_t>(begin / 64)];
      const std::uint64_t added = (((std::uint64_t{1} << count) - 1) << offset) & ~word;
      word |= added;
      size_ += std::popcount(added);
      return;
    }
    for (index_t row = begin; row < begin + count && size_ < most; ++row) add(row);
  }
  void remove(index_t row) {
    size_ -= has(row) ? 1 : 0;
    words_[static_cast<std::size_t>(row / 64)] &= ~bit(row);
  }
  /// Writes them, ascending; the end of what was written.
  std::int32_t* write(std::int32_t* to) const {
    for (std::size_t w = 0; w < words_.size(); ++w) {
      for (std::uint64_t left = words_[w]; left != 0;) {  // run by run
        const int begin = std::countr_zero(left);
        const int count = std::countr_one(left >> begin);
        const auto row = static_cast<std::int32_t>(w) * 64 + begin;
        for (int i = 0; i < count; ++i) *to++ = row + i;
        left = begin + count == 64 ? 0 : left >> (begin + count) << (begin + count);
      }
    }
    return to;
  }

 private:
  static std::uint64_t bit(index_t row) noexcept { return std::uint64_t{1} << (row % 64); }
  std::uint64_t word(index_t row) const { return words_[static_cast<std::size_t>(row / 64)]; }

  std::vector<std::uint64_t> words_;
  index_t size_ = 0;
};

/// Takes random rows of [first, end) for as many that are in the set.
void swap_rows(RowSet& taken, index_t first, index_t end, index_t swaps, std::uint64_t seed) {
  if (taken.size() == end - first) return;
  const auto below = [&](std::uint64_t most) {  // splitmix64: a seed a call, cheap
    seed += 0x9e3779b97f4a7c15;
    std::uint64_t x = (seed ^ (seed >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return static_cast<index_t>((x ^ (x >> 31)) % most);
  };
  std::vector<std::int32_t> rows(static_cast<std::size_t>(taken.size()));
  taken.write(rows.data());
  for (index_t n = 0; n < swaps; ++n) {
    std::int32_t& row = rows[static_cast<std::size_t>(below(rows.size()))];
    index_t in = first + below(static_cast<std::uint64_t>(end - first));
    while (taken.has(in)) in = in + 1 < end ? in + 1 : first;
    taken.remove(row);
    taken.add(in);
    row = static_cast<std::int32_t>(in);
  }
}

}  // namespace

RecordedTrace::RecordedTrace(const std::string& path) {
  Reader file(path);
  file.expect("SPXSEL01");
  const index_t heads = file.word();
  const index_t steps = file.word();
  budget_ = file.word();
  const index_t context = file.word();
  if (heads == 0 || steps < 2 || budget_ == 0 || context < budget_) file.fail("it is empty");
  if (heads * steps * budget_ > index_t{1} << 28) file.fail("too large");
  for (index_t h = 0; h < heads; ++h) {
    auto& all = steps_.emplace_back();
    std::vector<std::int32_t> before;
    for (index_t s = 0; s < steps; ++s) {
      before = next_step(file, before, budget_, context);
      all.push_back(before);
    }
  }
}

const std::vector<std::int32_t>& RecordedTrace::at(index_t head, index_t step) const {
  const index_t last = steps() - 1;
  const index_t place = step % (2 * last);
  const index_t turned = place <= last ? place : 2 * last - place;
  return steps_[static_cast<std::size_t>(head)][static_cast<std::size_t>(turned)];
}

void scaled_selection(const RecordedTrace& trace, const ReplayShape& shape, index_t request,
                      index_t head, index_t length, std::int32_t* ids) {
  const SelectionConfig& rule = shape.selection;
  if (length <= rule.budget) {
    std::iota(ids, ids + length, 0);
    std::fill(ids + length, ids + rule.budget, 0);
    return;
  }
  const index_t first = rule.sinks;
  const index_t end = length - rule.recent_window;
  const index_t wanted = rule.budget - rule.sinks - rule.recent_window;
  const index_t block = std::max<index_t>(1, (wanted + trace.budget() - 1) / trace.budget());
  const Places places((end - first) / block);
  const auto& recorded =
      trace.at((head + request * shape.kv_heads) % trace.heads(), length + request * kPhase);
  RowSet taken(end);
  for (auto id = recorded.rbegin(); id != recorded.rend() && taken.size() < wanted; ++id) {
    taken.add_block(first + places.of(*id) * block, block, wanted);
  }
  for (index_t id = first; taken.size() < wanted; ++id) taken.add(id);  // the same in all steps
  if (shape.random_share > 0) {
    swap_rows(taken, first, end,
              static_cast<index_t>(shape.random_share * static_cast<double>(rule.budget)),
              static_cast<std::uint64_t>((length * 4096 + request) * 64 + head));
  }
  std::iota(ids, ids + first, 0);
  ids = taken.write(ids + first);
  std::iota(ids, ids + rule.recent_window, static_cast<std::int32_t>(end));
}

double replayed_miss_rate(const RecordedTrace& trace, const ReplayShape& shape, index_t context,
                          index_t slots, index_t steps) {
  constexpr index_t kFilling = 48;  // steps until the buffer is full
  std::vector<std::int32_t> ids(static_cast<std::size_t>(shape.selection.budget));
  double misses = 0;
  for (index_t head = 0; head < shape.kv_heads; ++head) {
    std::vector<index_t> used(static_cast<std::size_t>(context + kFilling + steps), -1);
    std::vector<std::vector<std::int32_t>> of_step;
    index_t held = 0;
    index_t oldest = 0;
    for (index_t s = 0; s < kFilling + steps; ++s) {
      scaled_selection(trace, shape, 0, head, context + s + 1, ids.data());
      for (const std::int32_t id : ids) {
        index_t& last = used[static_cast<std::size_t>(id)];
        if (last < 0) {
          ++held;
          if (s >= kFilling && id != context + s) ++misses;
        }
        last = s;
      }
      of_step.push_back(ids);
      while (held > slots) {
        auto& candidates = of_step[static_cast<std::size_t>(oldest)];
        if (candidates.empty()) {
          ++oldest;
          continue;
        }
        index_t& last = used[static_cast<std::size_t>(candidates.back())];
        candidates.pop_back();
        if (last != oldest) continue;
        last = -1;
        --held;
      }
    }
  }
  return misses / static_cast<double>(shape.kv_heads * steps * shape.selection.budget);
}

double random_share_for(const RecordedTrace& trace, ReplayShape shape, index_t context,
                        index_t slots, double scale) {
  if (scale <= 1) return 0;
  constexpr index_t kSteps = 32;
  shape.kv_heads = std::min<index_t>(shape.kv_heads, 3);
  const double wanted = scale * replayed_miss_rate(trace, shape, context, slots, kSteps);
  double low = 0;
  double high = std::min(1.0, wanted);
  for (int n = 0; n < 6; ++n) {
    shape.random_share = (low + high) / 2;
    (replayed_miss_rate(trace, shape, context, slots, kSteps) < wanted ? low : high) =
        shape.random_share;
  }
  return (low + high) / 2;
}

}  // namespace spectx::bench
