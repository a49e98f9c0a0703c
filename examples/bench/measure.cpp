// SPDX-License-Identifier: Apache-2.0
#include "bench/measure.hpp"

#include <algorithm>
#include <chrono>
#include <thread>

namespace spectx::bench {
namespace {

using Clock = std::chrono::steady_clock;

index_t all_steps(const Options& o) { return o.warm_up + o.steps * o.repeats + o.profiled + 1; }

index_t length_of(const Bench& bench, const Case& c) {
  return c.context + all_steps(bench.options) + 1;
}

/// The planner of a case, or nothing if not even one request fits.
std::optional<MemoryPlanner> planner_of(const Bench& bench, const Case& c) {
  try {
    return std::optional<MemoryPlanner>(
        std::in_place, model_shape(bench.weights.config(), bench.weights.dtype()),
        Engine::planner_config(*bench.chosen.backend, bench.weights,
                               c.is_dense ? nullptr : &bench.head,
                               engine_config(bench, c, length_of(bench, c))));
  } catch (const Error&) {
    return std::nullopt;
  }
}

StepPrediction predict(const Bench& bench, const Case& c) {
  const auto planner = planner_of(bench, c);
  if (!planner) return {};
  MachineRates rates = bench.chosen.name == "cuda" ? h100_rates() : MachineRates{};
  rates.miss_scale = std::max(c.miss_scale, 1.0);
  StepPrediction p = predict_step(*planner, c.requests, length_of(bench, c), rates);
  if (p.requests == 0 || !c.is_dense) return p;
  // The model's step reads a budget; this one reads everything.
  const ModelShape& shape = planner->shape();
  const double more =
      static_cast<double>(std::max<index_t>(c.context - c.selection.budget, 0)) *
      static_cast<double>(shape.kv_heads * shape.row_bytes() * shape.cached_layers() * c.requests);
  p.device_ms += more / (rates.device_gb_s * 1e6);
  return p;
}

/// Runs the steps of one configuration.
class Run {
 public:
  Run(const Bench& bench, const Case& c, Record& record)
      : bench_(bench),
        case_(c),
        record_(record),
        backend_(*bench.chosen.backend),
        engine_(backend_, bench.weights, c.is_dense ? nullptr : &bench.head,
                engine_config(bench, c, length_of(bench, c)), bench.memories),
        stamps_(backend_.memories().device, (bench.options.steps * bench.options.repeats + 1) * 8),
        turns_{backend_.make_event(), backend_.make_event()} {}

  void fill();
  void decode();
  void profile();
  void note_memory();

 private:
  void step(llama::StepClock* clock);
  void note_report();
  void note_times();

  const Bench& bench_;
  const Case& case_;
  Record& record_;
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
  if (const auto shape = scaled_replay_shape(bench_, case_, case_.context, engine_.pool())) {
    replay_.emplace(backend_, bench_.trace, *shape, case_.requests);
  }
  engine_.warm(replay_ ? &*replay_ : nullptr);
  record_.fill_seconds = std::chrono::duration<double>(Clock::now() - start).count();
}

void Run::step(llama::StepClock* clock) {
  // The host stays at most two steps ahead.
  Event& turn = turns_[static_cast<std::size_t>(number_ % 2)];
  if (number_ >= 2) {
    while (!backend_.is_done(turn)) std::this_thread::yield();
  }
  engine_.step(replay_ ? &*replay_ : nullptr, clock);
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

}  // namespace

std::optional<ReplayShape> replay_shape(const Bench& bench, const Case& c, index_t length) {
  if (c.is_dense || c.miss_scale <= 0 || length <= c.selection.budget) return std::nullopt;
  return ReplayShape{.selection = c.selection, .kv_heads = bench.weights.config().kv_heads};
}

std::optional<ReplayShape> scaled_replay_shape(const Bench& bench, const Case& c, index_t length,
                                               const KVPool& pool) {
  std::optional<ReplayShape> shape = replay_shape(bench, c, length);
  if (shape) {
    shape->random_share = random_share_for(
        bench.trace, *shape, length, std::max(pool.plan().slots, c.selection.budget), c.miss_scale);
  }
  return shape;
}

index_t own_bytes(const Bench& bench, const Case& c, index_t max_length) {
  const llama::LlamaConfig& m = bench.weights.config();
  const index_t element = dtype_bytes(bench.chosen.backend->compute_dtype(bench.weights.dtype()));
  const index_t rows = std::max(bench.options.chunk_rows, c.requests);
  const auto shape = replay_shape(bench, c, max_length);
  return rows * m.kv_heads * (m.k_dim + m.v_dim) * element +
         (shape ? Replay::bytes(*shape, c.requests) : 0);
}

EngineConfig engine_config(const Bench& bench, const Case& c, index_t max_length) {
  constexpr index_t kGraphLayerBytes = 192 << 10;  // of a graph, a layer: 163 KiB measured
  const Options& o = bench.options;
  const index_t graphs = o.arrivals.count > 0 ? c.requests : 1;
  const index_t graph_bytes =
      o.captures ? graphs * bench.weights.config().layers * kGraphLayerBytes : 0;
  return {.selection = c.selection,
          .hot_buffer = c.hot_buffer,
          .max_requests = c.requests,
          .max_length = max_length,
          .chunk_rows = std::max(o.chunk_rows, c.requests),
          .device_bytes =
              bench.cap - bench.taken_outside - graph_bytes - own_bytes(bench, c, max_length),
          .host_bytes = o.host_bytes,
          .host_dtype = c.host_dtype,
          .copy_blocks = static_cast<int>(c.copy_blocks),
          .captures = o.captures,
          .graphs = graphs,
          .offloads_all = o.offloads_all};
}

index_t requests_of(const Bench& bench, const Case& c, const std::string& asked) {
  if (asked != "max" && asked != "best") return std::stoll(asked);
  constexpr index_t kMost = 512;
  Case with = c;
  const auto fits = [&](index_t requests) {
    with.requests = requests;
    const auto planner = planner_of(bench, with);
    return planner && planner->groups_on_host(requests, length_of(bench, with)) >= 0;
  };
  index_t most = 0;
  for (index_t too_many = kMost + 1; most + 1 < too_many;) {
    const index_t middle = most + (too_many - most) / 2;
    (fits(middle) ? most : too_many) = middle;
  }
  if (asked == "max") return most;
  index_t best = 0;
  double rate = 0;
  for (index_t requests = 1; requests <= most; ++requests) {
    with.requests = requests;
    const double predicted = predict(bench, with).tokens_per_s();
    if (predicted > rate) best = requests;
    rate = std::max(rate, predicted);
  }
  return best;
}

Record measure(const Bench& bench, const Case& c) {
  Record record;
  record.asked = c;
  try {
    record.predicted = predict(bench, c);
    Run run(bench, c, record);
    run.fill();
    run.decode();
    run.profile();
    run.note_memory();
  } catch (const Error& error) {
    record.error = error.what();
  }
  return record;
}

}  // namespace spectx::bench
