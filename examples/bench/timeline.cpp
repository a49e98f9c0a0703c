// SPDX-License-Identifier: Apache-2.0
#include "bench/timeline.hpp"

#include <algorithm>
#include <array>

#include "bench/record_json.hpp"

namespace spectx::bench {
namespace {

double gigabytes(index_t bytes) { return static_cast<double>(bytes) * 1e-9; }

double percentile(std::vector<double> values, double p) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[static_cast<std::size_t>(p * static_cast<double>(values.size() - 1))];
}

std::vector<double> times_of(const std::vector<StepTime>& steps) {
  std::vector<double> times;
  for (const StepTime& step : steps) times.push_back(step.ms);
  return times;
}

/// The columns of a sample: JSON has them as lists, CSV as a line.
struct Column {
  const char* name;
  double (*value)(const Sample&);
};
constexpr std::array<Column, 21> kColumns = {{
    {"seconds", [](const Sample& s) { return s.seconds; }},
    {"steps", [](const Sample& s) { return static_cast<double>(s.steps); }},
    {"requests", [](const Sample& s) { return static_cast<double>(s.requests); }},
    {"waiting", [](const Sample& s) { return static_cast<double>(s.waiting); }},
    {"parked", [](const Sample& s) { return static_cast<double>(s.parked); }},
    {"tokens", [](const Sample& s) { return static_cast<double>(s.tokens); }},
    {"mean_context", [](const Sample& s) { return s.mean_context; }},
    {"resident_groups", [](const Sample& s) { return static_cast<double>(s.resident_groups); }},
    {"groups", [](const Sample& s) { return static_cast<double>(s.groups); }},
    {"resident_layers", [](const Sample& s) { return s.resident_layers; }},
    {"arena_used_gb", [](const Sample& s) { return gigabytes(s.arena_used); }},
    {"host_used_gb", [](const Sample& s) { return gigabytes(s.host_used); }},
    {"host_total_gb", [](const Sample& s) { return gigabytes(s.host_total); }},
    {"driver_gb", [](const Sample& s) { return gigabytes(s.driver); }},
    {"tokens_per_s", [](const Sample& s) { return s.tokens_per_s; }},
    {"step_p50_ms", [](const Sample& s) { return s.step_p50_ms; }},
    {"step_max_ms", [](const Sample& s) { return s.step_max_ms; }},
    {"exposed_ms", [](const Sample& s) { return s.exposed_ms; }},
    {"exposed_floor_ms", [](const Sample& s) { return s.floor_ms; }},
    {"miss_rate", [](const Sample& s) { return s.miss_rate; }},
    {"moved_mb", [](const Sample& s) { return s.moved_mb; }},
}};

Json memory_json(const MemoryFigures& m) {
  return {{"cap", m.cap},
          {"context", m.context},
          {"start_up", m.start_up},
          {"planned", m.planned},
          {"scratch", m.scratch},
          {"benchmark", m.own},
          {"driver_peak", m.driver_peak},
          {"uncounted_share", m.uncounted()}};
}

Json disturbances_json(const std::vector<StepTime>& steps) {
  Json all = Json::array();
  for (const Disturbance& d : disturbances(steps)) {
    all.push_back({{"cause", causes_text(d.cause)},
                   {"steps", d.steps},
                   {"longer", d.longer},
                   {"slow_link", d.slow_link},
                   {"longer_slow_link", d.longer_slow_link},
                   {"longer_more_bytes", d.longer_more_bytes},
                   {"median_ratio", d.median},
                   {"p99_ratio", d.p99},
                   {"worst_ratio", d.worst},
                   {"at_step", d.at}});
  }
  return all;
}

/// The steps that were longest beside their neighbours.
Json worst_json(const std::vector<StepTime>& steps) {
  constexpr std::size_t kMost = 100;
  const std::vector<Neighbours> usual = neighbours(steps);
  std::vector<std::size_t> order;
  for (std::size_t n = 0; n < steps.size(); ++n) {
    if (usual[n].ms > 0) order.push_back(n);
  }
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return steps[a].ms * usual[b].ms > steps[b].ms * usual[a].ms;
  });
  order.resize(std::min(order.size(), kMost));
  Json all = Json::array();
  for (const std::size_t n : order) {
    const StepLink& link = steps[n].link;
    all.push_back({{"step", n},
                   {"ms", steps[n].ms},
                   {"neighbours_ms", usual[n].ms},
                   {"requests", steps[n].requests},
                   {"beside", causes_text(steps[n].causes)}});
    if (link.bytes < 0) continue;
    all.back().update({{"mb", static_cast<double>(link.bytes) * 1e-6},
                       {"neighbours_mb", usual[n].bytes * 1e-6},
                       {"gb_per_s", link.rate()},
                       {"neighbours_gb_per_s", usual[n].rate},
                       {"exposed_ms", link.exposed_us * 1e-3}});
  }
  return all;
}

Json timeline_json(const Timeline& t) {
  const std::vector<double> times = times_of(t.steps);
  Json all = case_json(t.asked);
  all.update(Json{{"kind", t.kind},
                  {"error", t.error},
                  {"visits", t.visits},
                  {"prompt_tokens", t.prompt_tokens},
                  {"output_tokens", t.output_tokens},
                  {"skipped_tokens", t.skipped_tokens},
                  {"longest", t.longest},
                  {"most_at_once", t.most_at_once},
                  {"refused", t.refused},
                  {"waited", t.waited},
                  {"parks", t.parks},
                  {"moved_groups", t.moves},
                  {"tokens_per_s", t.tokens_per_s()},
                  {"tokens_per_s_with_prompts", t.tokens_per_s_with_prompts()},
                  {"prompt_seconds", t.prompt_seconds},
                  {"step_seconds", t.step_seconds},
                  {"wall_seconds", t.wall_seconds},
                  {"steps", times.size()},
                  {"step_ms_p50", percentile(times, 0.5)},
                  {"step_ms_p99", percentile(times, 0.99)},
                  {"step_ms_longest", percentile(times, 1)},
                  {"stalled_batches", t.stalled},
                  {"host_waits", t.host_waits},
                  {"graphs", t.graphs},
                  {"saw_nan", t.saw_nan},
                  {"memory", memory_json(t.memory)},
                  {"disturbances", disturbances_json(t.steps)},
                  {"worst_steps", worst_json(t.steps)}});
  Json samples = Json::object();
  for (const Column& column : kColumns) {
    Json& values = samples[column.name] = Json::array();
    for (const Sample& sample : t.samples) values.push_back(column.value(sample));
  }
  all["samples"] = std::move(samples);
  return all;
}

std::string line(const char* name, const std::string& value) {
  return std::string("| ") + name + " | " + value + " |\n";
}

}  // namespace

void write_json(const Machine& machine, const std::vector<Timeline>& all, std::ostream& out) {
  Json timelines = Json::array();
  for (const Timeline& timeline : all) timelines.push_back(timeline_json(timeline));
  out << Json{{"machine", machine_json(machine)}, {"timelines", timelines}}.dump() << "\n";
}

void write_csv(const std::vector<Timeline>& all, std::ostream& out) {
  out << "timeline";
  for (const Column& column : kColumns) out << "," << column.name;
  out << "\n";
  for (std::size_t n = 0; n < all.size(); ++n) {
    for (const Sample& sample : all[n].samples) {
      out << n;
      for (const Column& column : kColumns) out << "," << printed("%.9g", column.value(sample));
      out << "\n";
    }
  }
}

std::string markdown(const Timeline& t) {
  const Case& c = t.asked;
  std::string text = "\n" + t.kind + ", " + (c.is_dense ? "dense" : "spectx") + ": " +
                     std::to_string(t.visits) + " requests, at most " +
                     std::to_string(t.most_at_once) + " at once, up to " +
                     std::to_string(t.longest) + " tokens\n\n";
  if (!t.error.empty()) text += "stopped: " + t.error + "\n\n";
  const std::vector<double> times = times_of(t.steps);
  const auto gb = [](index_t bytes) { return printed("%.3f GB", gigabytes(bytes)); };
  text += "| what | |\n|---|---|\n";
  text += line("tokens/s, steps alone", printed("%.1f", t.tokens_per_s()));
  text += line("tokens/s, prompts counted", printed("%.1f", t.tokens_per_s_with_prompts()));
  text += line("seconds: prompts, steps, wall", printed("%.2f", t.prompt_seconds) + ", " +
                                                    printed("%.2f", t.step_seconds) + ", " +
                                                    printed("%.2f", t.wall_seconds));
  text += line("step p50, p99, longest, ms", printed("%.2f", percentile(times, 0.5)) + ", " +
                                                 printed("%.2f", percentile(times, 0.99)) + ", " +
                                                 printed("%.2f", percentile(times, 1)));
  if (t.skipped_tokens > 0) {
    text += line("tokens made in steps, filled in with random rows",
                 std::to_string(t.output_tokens) + ", " + std::to_string(t.skipped_tokens));
  }
  text += line("groups moved, requests parked, not admitted at once, refused",
               std::to_string(t.moves) + ", " + std::to_string(t.parks) + ", " +
                   std::to_string(t.waited) + ", " + std::to_string(t.refused));
  text += line("batches that waited for a move, waits for the host tier, graphs",
               std::to_string(t.stalled) + ", " + std::to_string(t.host_waits) + ", " +
                   std::to_string(t.graphs));
  const MemoryFigures& m = t.memory;
  text += line("device: cap, most by the driver", gb(m.cap) + ", " + gb(m.driver_peak));
  text += line("context and modules at start-up (context alone)",
               gb(m.start_up) + " (" + gb(m.context) + ")");
  text += line("counted: spectx and model by the planner (scratch in it), the benchmark's own",
               gb(m.planned) + " (" + gb(m.scratch) + "), " + gb(m.own));
  text += line("taken beside what was counted", printed("%+.3f %%", 100 * m.uncounted()));
  text +=
      "\n| beside a step | steps, with a slower link | 1.2 x their neighbours or longer, of them "
      "with a slower link, with more bytes | median, p99, worst ratio | at step |\n"
      "|---|---|---|---|---|\n";
  for (const Disturbance& d : disturbances(t.steps)) {
    text += "| " + causes_text(d.cause) + " | " + std::to_string(d.steps) + ", " +
            std::to_string(d.slow_link) + " | " + std::to_string(d.longer) + ", " +
            std::to_string(d.longer_slow_link) + ", " + std::to_string(d.longer_more_bytes) +
            " | " + printed("%.2f, ", d.median) + printed("%.2f, ", d.p99) +
            printed("%.2f", d.worst) + " | " + std::to_string(d.at) + " |\n";
  }
  return text;
}

}  // namespace spectx::bench
