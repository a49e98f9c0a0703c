// SPDX-License-Identifier: Apache-2.0
#include "bench/measure.hpp"

#include <algorithm>
#include <chrono>
#include <thread>

namespace spectx::bench {
namespace {

using Clock = std::chrono::steady_clock;

/// Runs the steps of one configuration, with one miss rate after the other.
class Run {
 public:
  Run(const Bench& bench, const Case& c)
      : bench_(bench),
        case_(c),
        backend_(*bench.chosen.backend),
        engine_(backend_, bench.weights, c.is_dense ? nullptr : &bench.head,
                engine_config(bench, c, length_of(bench, c)), bench.memories),
        stamps_(backend_.memories().device, (bench.options.steps * bench.options.repeats + 1) * 8),
        turns_{backend_.make_event(), backend_.make_event()} {}

  void fill();
  /// The steps of the configuration with another miss rate.
  Record record(double miss_scale);

 private:
  void choose();
  void decode();
  void profile();
  void note_memory();
  void note_floor();
  SelectionSource* source() { return replay_ && case_.miss_scale > 0 ? &*replay_ : nullptr; }
  void step(llama::StepClock* clock);
  void note_report();
  void note_times();

  const Bench& bench_;
  Case case_;
  Record record_;  // of the miss rate now
  double fill_seconds_ = 0;
  Backend& backend_;
  Engine engine_;
  std::optional<Replay> replay_;
  Buffer stamps_;  // uint64, ns: where each step that counts begins, and the end
  std::array<Event, 2> turns_;
  index_t number_ = 0;    // steps so far
  index_t reported_ = 0;  // of the pipeline's steps that are in the record
  bool counts_ = false;
};

void Run::fill() {
  const auto start = Clock::now();
  for (index_t r = 0; r < case_.requests; ++r) {
    expects(engine_.make_room(), "the planner admits fewer requests");
    engine_.open(case_.context, length_of(bench_, case_), bench_.options.prefills);
  }
  engine_.settle();
  fill_seconds_ = std::chrono::duration<double>(Clock::now() - start).count();
}

Record Run::record(double miss_scale) {
  case_.miss_scale = miss_scale;
  record_ = {};
  record_.asked = case_;
  record_.predicted = predict(bench_, case_);
  record_.fill_seconds = fill_seconds_;
  choose();
  decode();
  profile();
  note_memory();
  note_floor();
  return record_;
}

/// The selections from now on, whose first rows are fetched.
void Run::choose() {
  const auto shape = scaled_replay_shape(bench_, case_, case_.context, engine_.pool());
  if (shape && replay_) {
    replay_->scale(shape->random_share);
  } else if (shape) {
    replay_.emplace(backend_, bench_.trace, *shape, case_.requests);
  }
  engine_.warm(source());
}

void Run::step(llama::StepClock* clock) {
  // The host stays at most two steps ahead.
  Event& turn = turns_[static_cast<std::size_t>(number_ % 2)];
  if (number_ >= 2) {
    while (!backend_.is_done(turn)) std::this_thread::yield();
  }
  engine_.step(source(), clock);
  backend_.record(turn, engine_.stream());
  ++number_;
  note_report();
}

void Run::note_report() {
  const StepReport& report = engine_.pipeline().report();
  if (report.step < 0 || report.step == reported_) return;
  reported_ = report.step;
  record_.path = path_name(report.path);
  if (!counts_) return;
  ++record_.reported_steps;
  record_.hits += report.hits;
  record_.misses += report.misses;
  record_.moved_bytes += report.bytes;
  record_.transfer_ms += report.transfer_us * 1e-3;
  record_.exposed_ms += report.exposed_us * 1e-3;
  record_.floor_ms += report.floor_us * 1e-3;
}

void Run::decode() {
  const Options& o = bench_.options;
  for (index_t n = 0; n < o.warm_up; ++n) step(nullptr);
  auto* stamps = reinterpret_cast<std::uint64_t*>(stamps_.data());
  counts_ = true;
  bench_.spans.keep_events(true);
  for (index_t n = 0; n < o.steps * o.repeats; ++n) {
    backend_.stamp(stamps + n, engine_.stream());
    step(nullptr);
  }
  backend_.stamp(stamps + o.steps * o.repeats, engine_.stream());
  engine_.synchronize();
  engine_.pipeline().wait_ready();
  note_report();
  counts_ = false;
  bench_.spans.keep_events(false);
  note_times();
}

void Run::note_times() {
  const Options& o = bench_.options;
  const auto count = static_cast<std::size_t>(o.steps * o.repeats);
  std::vector<std::uint64_t> times(count + 1);
  backend_.copy(times.data(), stamps_.data(), static_cast<index_t>(times.size()) * 8,
                engine_.stream());
  engine_.synchronize();
  for (std::size_t n = 0; n < count; ++n) {
    record_.step_ms.push_back(static_cast<double>(times[n + 1] - times[n]) * 1e-6);
  }
  const auto steps = static_cast<std::size_t>(o.steps);
  for (std::size_t first = 0; first < count; first += steps) {
    const double seconds = static_cast<double>(times[first + steps] - times[first]) * 1e-9;
    record_.tokens_per_s.push_back(static_cast<double>(case_.requests * o.steps) / seconds);
  }
}

void Run::profile() {
  const index_t layers = bench_.weights.config().layers;
  llama::StepClock clock(backend_, 5 * layers + 8);
  for (index_t n = 0; n < bench_.options.profiled; ++n) {
    step(&clock);
    clock.send(engine_.stream());
    engine_.synchronize();
    std::array<double, kNumParts> seconds{};
    clock.add_to(seconds);
    for (std::size_t p = 0; p < seconds.size(); ++p) {
      record_.part_ms[p] += seconds[p] * 1e3 / static_cast<double>(bench_.options.profiled);
    }
  }
}

void Run::note_memory() {
  const KVPool& pool = engine_.pool();
  const MemoryUse use = engine_.planner().predict(pool.needs());
  record_.slots = pool.plan().slots;
  for (const RequestNeed& need : pool.needs()) {
    record_.groups += pool.layout().groups;
    record_.groups_on_host += pool.layout().groups - need.resident_groups;
  }
  record_.host_bytes = pool.stats().host_used;
  record_.planned_device_bytes = use.device_total() + bench_.taken_outside +
                                 own_bytes(bench_, case_, length_of(bench_, case_));
  if (!backend_.has_one_memory()) {
    record_.driver_device_bytes =
        support::total_device_bytes(bench_.chosen) - support::available_device_bytes(bench_.chosen);
  }
  record_.saw_nan = engine_.saw_nan();
}

/// By the middle of the steps that count.
void Run::note_floor() {
  const Options& o = bench_.options;
  const KVPool& pool = engine_.pool();
  record_.floor =
      step_floor(bench_.weights, case_.is_dense ? nullptr : &bench_.head,
                 {.requests = case_.requests,
                  .length = pool.needs().front().length - o.profiled - o.steps * o.repeats / 2,
                  .rule = case_.selection,
                  .slots = pool.plan().has_host_tier() ? pool.plan().slots : 0,
                  .activations = backend_.compute_dtype(bench_.weights.dtype()),
                  .rows = pool.shape().dtype});
}

}  // namespace

void measure(const Bench& bench, Case c, const std::function<void(Record)>& done) {
  std::vector<double> scales = bench.options.miss_scales;
  if (c.is_dense) scales = {c.miss_scale};
  std::size_t next = 0;
  try {
    Run run(bench, c);
    run.fill();
    for (; next < scales.size(); ++next) done(run.record(scales[next]));
  } catch (const Error& error) {
    c.miss_scale = scales[next];
    Record record;
    record.asked = c;
    record.predicted = predict(bench, c);
    record.error = error.what();
    done(std::move(record));
  }
}

}  // namespace spectx::bench
