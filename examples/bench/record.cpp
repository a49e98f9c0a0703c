// SPDX-License-Identifier: Apache-2.0
#include "bench/record.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>

#include "bench/record_json.hpp"

namespace spectx::bench {
namespace {

double mean(const std::vector<double>& x) {
  return x.empty() ? 0 : std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(x.size());
}

std::string gigabytes(index_t bytes) { return printed("%.2f", static_cast<double>(bytes) * 1e-9); }

Json parts_json(const Record& r) {
  Json parts = Json::object();
  for (int p = 0; p < kNumParts; ++p) parts[part_name(p)] = r.part_ms[static_cast<std::size_t>(p)];
  return parts;
}

Json floor_json(const StepFloor& floor) {
  Json terms = Json::object();
  for (int t = 0; t < kNumTerms; ++t) {
    const Work& work = floor[static_cast<std::size_t>(t)];
    terms[term_name(t)] = {{"bytes", work.bytes}, {"flops", work.flops}};
  }
  return terms;
}

/// The figures under the names that JSON and CSV share.
Json figures(const Record& r) {
  Json all = case_json(r.asked);
  all.update(Json{{"error", r.error},
                  {"path", r.path},
                  {"tokens_per_s", r.mean_tokens_per_s()},
                  {"tokens_per_s_deviation", r.deviation_tokens_per_s()},
                  {"step_ms", mean(r.step_ms)},
                  {"step_ms_p50", r.percentile_ms(0.5)},
                  {"step_ms_p95", r.percentile_ms(0.95)},
                  {"step_ms_longest", r.percentile_ms(1)},
                  {"miss_rate", r.miss_rate()},
                  {"moved_bytes_per_step", r.per_step(static_cast<double>(r.moved_bytes))},
                  {"transfer_ms", r.per_step(r.transfer_ms)},
                  {"exposed_ms", r.per_step(r.exposed_ms)},
                  {"exposed_floor_ms", r.per_step(r.floor_ms)},
                  {"slots", r.slots},
                  {"groups", r.groups},
                  {"groups_on_host", r.groups_on_host},
                  {"host_bytes", r.host_bytes},
                  {"planned_device_bytes", r.planned_device_bytes},
                  {"driver_device_bytes", r.driver_device_bytes},
                  {"fill_seconds", r.fill_seconds},
                  {"predicted_step_ms", r.predicted.requests == 0 ? 0 : r.predicted.step_ms()},
                  {"predicted_tokens_per_s", r.predicted.tokens_per_s()},
                  {"saw_nan", r.saw_nan}});
  return all;
}

}  // namespace

std::string printed(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof(text), format, value);
  return text;
}

Json machine_json(const Machine& m) {
  return {{"backend", m.backend},
          {"device", m.device},
          {"driver", m.driver},
          {"commit", m.commit},
          {"model", m.model},
          {"dtype", m.dtype},
          {"context_rows", m.context_rows},
          {"tokens", m.tokens},
          {"device_cap", m.cap},
          {"copy_gb_s", m.copy_gb_s}};
}

Json case_json(const Case& c) {
  return {{"mode", c.is_dense ? "dense" : "spectx"},
          {"context", c.context},
          {"requests", c.requests},
          {"budget", c.selection.budget},
          {"hot_buffer", c.hot_buffer},
          {"host_dtype", c.host_dtype ? dtype_name(*c.host_dtype) : "own"},
          {"copy_blocks", c.copy_blocks},
          {"miss_scale", c.miss_scale}};
}

double Record::mean_tokens_per_s() const { return mean(tokens_per_s); }

double Record::deviation_tokens_per_s() const {
  if (tokens_per_s.size() < 2) return 0;
  double sum = 0;
  for (const double x : tokens_per_s) sum += (x - mean_tokens_per_s()) * (x - mean_tokens_per_s());
  return std::sqrt(sum / static_cast<double>(tokens_per_s.size() - 1));
}

double Record::percentile_ms(double p) const {
  if (step_ms.empty()) return 0;
  std::vector<double> sorted = step_ms;
  std::sort(sorted.begin(), sorted.end());
  const auto rank = static_cast<std::size_t>(std::ceil(p * static_cast<double>(sorted.size())));
  return sorted[std::clamp<std::size_t>(rank, 1, sorted.size()) - 1];
}

double Record::miss_rate() const {
  return hits + misses == 0 ? 0 : static_cast<double>(misses) / static_cast<double>(hits + misses);
}

double Record::per_step(double sum) const {
  return reported_steps == 0 ? 0 : sum / static_cast<double>(reported_steps);
}

void write_json(const Machine& machine, const std::vector<Record>& records, std::ostream& out) {
  Json all = Json::array();
  for (const Record& r : records) {
    Json json = figures(r);
    json["repeats_tokens_per_s"] = r.tokens_per_s;
    json["part_ms"] = parts_json(r);
    json["floor"] = floor_json(r.floor);
    json["all_step_ms"] = r.step_ms;
    all.push_back(std::move(json));
  }
  out << Json{{"machine", machine_json(machine)}, {"records", all}}.dump(1) << "\n";
}

void write_csv(const Machine& machine, const std::vector<Record>& records, std::ostream& out) {
  Json row = machine_json(machine);
  row.update(figures(Record{}));
  const auto line = [&](auto&& cell) {
    bool is_first = true;
    for (const auto& [key, value] : row.items()) {
      out << (is_first ? "" : ",") << cell(key, value);
      is_first = false;
    }
    out << "\n";
  };
  line([](const std::string& key, const Json&) { return key; });
  for (const Record& r : records) {
    row.update(figures(r));
    line([](const std::string&, const Json& value) { return value.dump(); });
  }
}

std::string markdown_head() {
  return "| mode | context | requests | buffer | host rows | misses x | tokens/s | step p50 / p95, "
         "ms | "
         "predicted, ms | miss rate | exposed, ms | moved, MB | on host | host GB | device GB "
         "(planned) |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n";
}

std::string markdown_row(const Record& r) {
  const Case& c = r.asked;
  std::string row = std::string("| ") + (c.is_dense ? "dense" : "spectx") + " | " +
                    std::to_string(c.context) + " | " + std::to_string(c.requests) + " | ";
  if (!r.error.empty()) return row + r.error + " |\n";
  row += (c.is_dense ? "-" : printed("%.2g", c.hot_buffer)) + " | " +
         (c.host_dtype ? dtype_name(*c.host_dtype) : "own") + " | " +
         (c.is_dense ? "-" : printed("%.2g", c.miss_scale)) + " | ";
  row += printed("%.1f", r.mean_tokens_per_s()) + " +- " +
         printed("%.1f", r.deviation_tokens_per_s()) + " | ";
  row += printed("%.2f", r.percentile_ms(0.5)) + " / " + printed("%.2f", r.percentile_ms(0.95)) +
         " | " + printed("%.2f", r.predicted.requests == 0 ? 0 : r.predicted.step_ms()) + " | ";
  row += printed("%.3f", r.miss_rate()) + " | " + printed("%.2f", r.per_step(r.exposed_ms)) +
         " | " + printed("%.0f", r.per_step(static_cast<double>(r.moved_bytes)) * 1e-6) + " | ";
  row += std::to_string(r.groups_on_host) + "/" + std::to_string(r.groups) + " | " +
         gigabytes(r.host_bytes) + " | " + gigabytes(r.driver_device_bytes) + " (" +
         gigabytes(r.planned_device_bytes) + ") |\n";
  return row;
}

std::string markdown_parts(const std::vector<Record>& records) {
  std::string text = "\n| mode | context | requests |";
  for (int p = 0; p < kNumParts; ++p) text += std::string(" ") + part_name(p) + ", ms |";
  text += " sum |\n|---|---|---|";
  for (int p = 0; p <= kNumParts; ++p) text += "---|";
  text += "\n";
  for (const Record& r : records) {
    if (!r.error.empty()) continue;
    text += std::string("| ") + (r.asked.is_dense ? "dense" : "spectx") + " | " +
            std::to_string(r.asked.context) + " | " + std::to_string(r.asked.requests) + " |";
    double sum = 0;
    for (const double ms : r.part_ms) {
      text += printed(" %.3f |", ms);
      sum += ms;
    }
    text += printed(" %.3f |\n", sum);
  }
  return text;
}

}  // namespace spectx::bench
