// SPDX-License-Identifier: Apache-2.0
#include "bench/trace.hpp"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <random>

namespace spectx::bench {
namespace {

constexpr index_t kPhase = 37;  // steps between two requests

/// Reads the numbers of a file one after the other.
class Reader {
 public:
  explicit Reader(const std::string& path) : path_(path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw FileError(path + ": cannot be opened");
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
                      index_t head, index_t step, std::int32_t* ids) {
  const SelectionConfig& rule = shape.selection;
  const index_t length = shape.context + step + 1;
  const index_t first = rule.sinks;
  const index_t end = shape.context - rule.recent_window;  // the same in all steps
  const index_t wanted = rule.budget - rule.sinks - rule.recent_window;
  const index_t block = std::max<index_t>(1, (wanted + trace.budget() - 1) / trace.budget());
  const index_t blocks = (end - first) / block;
  const auto& recorded =
      trace.at((head + request * shape.kv_heads) % trace.heads(), step + request * kPhase);
  std::vector<char> taken(static_cast<std::size_t>(length));
  index_t count = 0;
  const auto take = [&](index_t id) {
    if (count == wanted || taken[static_cast<std::size_t>(id)] != 0) return;
    taken[static_cast<std::size_t>(id)] = 1;
    ++count;
  };
  for (auto id = recorded.rbegin(); id != recorded.rend(); ++id) {
    for (index_t j = 0; j < block; ++j) take(first + *id % blocks * block + j);
  }
  for (index_t id = first; id < end; ++id) take(id);  // what is lacking is the same in all steps
  if (shape.random_share > 0) {
    std::mt19937_64 engine(static_cast<std::uint64_t>((step * 4096 + request) * 64 + head));
    const auto any = [&] {
      return first + static_cast<index_t>(engine() % static_cast<std::uint64_t>(end - first));
    };
    const auto swaps = static_cast<index_t>(shape.random_share * static_cast<double>(rule.budget));
    for (index_t n = 0; n < swaps && wanted < end - first; ++n) {
      index_t out = any();
      while (taken[static_cast<std::size_t>(out)] == 0) out = out + 1 < end ? out + 1 : first;
      index_t in = any();
      while (taken[static_cast<std::size_t>(in)] != 0) in = in + 1 < end ? in + 1 : first;
      taken[static_cast<std::size_t>(out)] = 0;
      taken[static_cast<std::size_t>(in)] = 1;
    }
  }
  for (index_t id = 0; id < first; ++id) *ids++ = static_cast<std::int32_t>(id);
  for (index_t id = first; id < end; ++id) {
    if (taken[static_cast<std::size_t>(id)] != 0) *ids++ = static_cast<std::int32_t>(id);
  }
  for (index_t id = length - rule.recent_window; id < length; ++id) {
    *ids++ = static_cast<std::int32_t>(id);
  }
}

double replayed_miss_rate(const RecordedTrace& trace, const ReplayShape& shape, index_t slots,
                          index_t steps) {
  constexpr index_t kFilling = 48;  // steps until the buffer is full
  std::vector<std::int32_t> ids(static_cast<std::size_t>(shape.selection.budget));
  double misses = 0;
  for (index_t head = 0; head < shape.kv_heads; ++head) {
    std::vector<index_t> used(static_cast<std::size_t>(shape.context + kFilling + steps), -1);
    std::vector<std::vector<std::int32_t>> of_step;
    index_t held = 0;
    index_t oldest = 0;
    for (index_t s = 0; s < kFilling + steps; ++s) {
      scaled_selection(trace, shape, 0, head, s, ids.data());
      for (const std::int32_t id : ids) {
        index_t& last = used[static_cast<std::size_t>(id)];
        if (last < 0) {
          ++held;
          if (s >= kFilling && id != shape.context + s) ++misses;
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

double random_share_for(const RecordedTrace& trace, ReplayShape shape, index_t slots,
                        double scale) {
  if (scale <= 1) return 0;
  constexpr index_t kSteps = 32;
  shape.kv_heads = std::min<index_t>(shape.kv_heads, 3);
  const double wanted = scale * replayed_miss_rate(trace, shape, slots, kSteps);
  double low = 0;
  double high = std::min(1.0, wanted);
  for (int n = 0; n < 6; ++n) {
    shape.random_share = (low + high) / 2;
    (replayed_miss_rate(trace, shape, slots, kSteps) < wanted ? low : high) = shape.random_share;
  }
  return (low + high) / 2;
}

}  // namespace spectx::bench
