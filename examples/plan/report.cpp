// SPDX-License-Identifier: Apache-2.0
#include "plan/report.hpp"

#include <algorithm>
#include <iomanip>
#include <ostream>
#include <sstream>

namespace spectx::plan {
namespace {

index_t most_at_once(const MemoryPlanner& planner, index_t length) {
  index_t fit = 0;
  for (index_t too_many = planner.config().max_requests + 1; fit + 1 < too_many;) {
    const index_t middle = fit + (too_many - fit) / 2;
    (planner.groups_on_host(middle, length) >= 0 ? fit : too_many) = middle;
  }
  return fit;
}

/// Layers of the last `groups` groups, of which the last may be smaller.
index_t layers_in(const MemoryPlanner& planner, index_t groups) {
  const index_t layers = planner.shape().cached_layers();
  return layers -
         std::min(layers, (planner.layout().groups - groups) * planner.pool_plan().group_layers);
}

LengthRow length_row(const MemoryPlanner& planner, index_t length) {
  LengthRow row{.length = length, .requests_at_once = most_at_once(planner, length)};
  if (row.requests_at_once == 0) return row;
  const index_t groups = planner.layout().groups;
  row.groups_on_host = planner.groups_on_host(row.requests_at_once, length);
  const index_t whole = row.groups_on_host / groups;
  const index_t on_host =
      whole * planner.shape().cached_layers() + layers_in(planner, row.groups_on_host % groups);
  row.layers_on_device = static_cast<double>(planner.shape().cached_layers()) -
                         static_cast<double>(on_host) / static_cast<double>(row.requests_at_once);
  return row;
}

/// Requests at --length with the fewest groups on the host: whole requests, then a part of one.
std::vector<RequestNeed> full_pool(const MemoryPlanner& planner, index_t requests) {
  const index_t length = planner.config().max_length;
  const index_t groups = planner.layout().groups;
  index_t on_host = planner.groups_on_host(requests, length);
  std::vector<RequestNeed> needs;
  for (index_t i = 0; i < requests; ++i) {
    const index_t leaving = std::min(on_host, groups);
    on_host -= leaving;
    RequestNeed need;
    need.request = {static_cast<std::int32_t>(i)};
    need.length = need.final_length = length;
    need.resident_groups = static_cast<std::int32_t>(groups - leaving);
    needs.push_back(need);
  }
  return needs;
}

std::string grouped(index_t n) {
  const std::string digits = std::to_string(n);
  std::string out;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) out += ',';
    out += digits[i];
  }
  return out;
}

std::string fixed(double x, int digits) {
  std::ostringstream text;
  text << std::fixed << std::setprecision(digits) << x;
  return text.str();
}

void line(std::ostream& out, const std::string& what, index_t bytes) {
  out << "  " << std::left << std::setw(40) << what << std::right << std::setw(20) << grouped(bytes)
      << std::setw(12) << fixed(static_cast<double>(bytes) / 0x1p30, 3) << "\n";
}

void print_memory(const Options& options, const Report& report, std::ostream& out) {
  const MemoryUse& use = report.use;
  const MemoryUse& full = report.full;
  out << "\ndevice memory" << std::setw(49) << "bytes" << std::setw(12) << "GiB"
      << "\n";
  line(out, "model", use.model);
  line(out, "retrieval head, weights", use.head_weights);
  line(out, "retrieval head, workspace", use.head_workspace);
  line(out, "operations' scratch (CUDA)", use.scratch);
  line(out, "page tables, slot maps, batch", use.pool_tables);
  line(out, "step lists", use.step_lists);
  line(out, "staging of prompts", use.staging);
  line(out, "arena of pages", use.arena);
  line(out, "total (cap " + grouped(options.config.device_bytes) + ")", use.device_total());
  out << "arena, " << report.at_once << " requests at their end\n";
  line(out, "rows of resident groups", full.resident_rows);
  line(out, "slots of offloaded groups", full.slots);
  line(out, "keys of the retrieval head", full.head_keys);
  line(out, "free", full.arena - full.arena_used());
  out << "host memory\n";
  line(out, "rows of offloaded groups", full.host_rows);
  line(out, "most that the tier may grow to", full.host_cap);
}

void print_thresholds(const Options& options, const Report& report, std::ostream& out) {
  const bool is_exact = options.config.model == PlannerModel::exact;
  out << "\nlongest that " << report.threshold_requests
      << " equal requests can be, tokens (model: " << model_name(options.config.model) << ")\n"
      << "  " << (is_exact ? "groups" : "layers") << " of each on the host\n";
  for (std::size_t i = 0; i < report.thresholds.size(); ++i) {
    out << (i % 6 == 0 ? "   " : "") << std::setw(4) << i << ":" << std::setw(10)
        << grouped(report.thresholds[i])
        << (i % 6 == 5 || i + 1 == report.thresholds.size() ? "\n" : "");
  }
}

void print_step(const char* what, const StepPrediction& s, index_t groups, std::ostream& out) {
  out << "  " << what << s.requests << " requests, hot buffer " << s.hot_buffer << ", "
      << s.groups_on_host << " of " << s.requests * groups
      << " groups on the host: " << fixed(s.step_ms(), 2) << " ms a step ("
      << fixed(s.exposed_ms, 2) << " of waiting for rows), " << fixed(s.tokens_per_s(), 0)
      << " tokens/s\n";
}

}  // namespace

const char* model_name(PlannerModel model) {
  switch (model) {
    case PlannerModel::exact:
      return "exact";
    case PlannerModel::paper:
      return "paper";
    case PlannerModel::paper_corrected:
      return "paper-corrected";
  }
  return "unknown";
}

Report make_report(const Options& options, MemoryPlanner& planner) {
  const index_t length = options.config.max_length;
  Report report;
  report.use = planner.predict({});
  report.at_once = most_at_once(planner, length);
  report.full = planner.predict(full_pool(planner, report.at_once));
  report.threshold_requests = report.at_once;
  const auto thresholds = planner.thresholds(report.threshold_requests);
  report.thresholds.assign(thresholds.begin(), thresholds.end());
  for (const index_t parts : {1, 2, 4, 6, 8}) {
    report.lengths.push_back(length_row(planner, std::max<index_t>(1, length / 8 * parts)));
  }
  report.lengths.back() = length_row(planner, length);
  if (options.rates) {
    report.step = predict_step(planner, report.at_once, length, *options.rates);
    report.best = best_step(options.model.shape, options.config, length, *options.rates);
  }
  return report;
}

void print_table(const Options& options, const MemoryPlanner& planner, const Report& report,
                 std::ostream& out) {
  const ModelShape& s = planner.shape();
  const PoolPlan& plan = planner.pool_plan();
  out << "model     " << options.model.name << ": " << s.layers << " layers, " << s.query_heads
      << " query heads, " << s.kv_heads << " KV heads, head dim " << s.k_dim << ", hidden "
      << s.hidden << "; rows in " << dtype_name(s.dtype) << "\n"
      << "          bytes " << options.model.weight_origin << "\n"
      << "requests  at most " << plan.max_requests << " of " << grouped(plan.max_length)
      << " tokens, " << report.at_once << " of that length at once\n"
      << "reading   " << grouped(plan.selection.budget)
      << (plan.selection.max_budget == 0 ? "" : " to " + grouped(plan.selection.max_budget))
      << " tokens a step; ";
  if (plan.has_host_tier()) {
    out << grouped(plan.slots) << " slots for an offloaded layer\n";
  } else {
    out << "no host tier" << (planner.config().has_one_memory ? "" : ": everything fits") << "\n";
  }
  out << "groups    " << planner.layout().groups << " of " << plan.group_layers
      << " layers; pages of " << plan.page_rows << " tokens, "
      << grouped(planner.layout().page_bytes) << " bytes\n";
  if (planner.layout().run.is_lossy) {
    out << "host tier in " << dtype_name(plan.host_dtype) << ", with loss; pages of "
        << grouped(planner.layout().host_page_bytes) << " bytes\n";
  }
  for (const std::string& note : options.model.notes) out << "note      " << note << "\n";
  if (options.model.context_length > 0 && plan.max_length > options.model.context_length) {
    out << "note      the model was trained for " << grouped(options.model.context_length)
        << " tokens\n";
  }
  print_memory(options, report, out);
  print_thresholds(options, report, out);
  out << "\nequal requests at their end (model: exact)\n"
      << std::setw(12) << "tokens" << std::setw(12) << "at once" << std::setw(18)
      << "groups on host" << std::setw(30) << "layers of each on the device"
      << "\n";
  for (const LengthRow& row : report.lengths) {
    out << std::setw(12) << grouped(row.length) << std::setw(12) << row.requests_at_once
        << std::setw(18) << row.groups_on_host << std::setw(30) << fixed(row.layers_on_device, 2)
        << "\n";
  }
  if (report.step && report.best) {
    out << "\npredicted by bytes alone, with recorded miss rates; measure before you rely on it\n";
    print_step("as planned: ", *report.step, planner.layout().groups, out);
    print_step("best:       ", *report.best, planner.layout().groups, out);
  }
}

}  // namespace spectx::plan
