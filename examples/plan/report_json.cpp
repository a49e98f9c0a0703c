// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>
#include <ostream>

#include "plan/report.hpp"

namespace spectx::plan {
namespace {

using json = nlohmann::ordered_json;

json step_json(const StepPrediction& s) {
  return {{"requests", s.requests},
          {"hot_buffer", s.hot_buffer},
          {"groups_on_host", s.groups_on_host},
          {"device_ms", s.device_ms},
          {"transfer_ms", s.transfer_ms},
          {"exposed_ms", s.exposed_ms},
          {"step_ms", s.step_ms()},
          {"tokens_per_s", s.tokens_per_s()}};
}

json model_json(const Options& options) {
  const ModelShape& s = options.model.shape;
  return {{"name", options.model.name},
          {"layers", s.layers},
          {"cached_layers", s.cached_layers()},
          {"query_heads", s.query_heads},
          {"kv_heads", s.kv_heads},
          {"k_dim", s.k_dim},
          {"v_dim", s.v_dim},
          {"hidden", s.hidden},
          {"vocabulary", s.vocabulary},
          {"dtype", dtype_name(s.dtype)},
          {"context_length", options.model.context_length},
          {"bytes_origin", options.model.weight_origin},
          {"notes", options.model.notes}};
}

json plan_json(const MemoryPlanner& planner) {
  const PoolPlan& plan = planner.pool_plan();
  return {{"max_requests", plan.max_requests},
          {"max_length", plan.max_length},
          {"max_step_rows", plan.max_step_rows},
          {"budget", plan.selection.budget},
          {"max_budget", plan.selection.largest_budget()},
          {"slots", plan.slots},
          {"group_layers", plan.group_layers},
          {"groups", planner.layout().groups},
          {"page_rows", plan.page_rows},
          {"page_bytes", planner.layout().page_bytes},
          {"arena_pages", plan.arena_pages},
          {"staging_pages", plan.staging_pages},
          {"host_pages", plan.host_pages},
          {"host_page_bytes", planner.layout().host_page_bytes},
          {"host_dtype", dtype_name(plan.host_dtype)}};
}

}  // namespace

void print_json(const Options& options, const MemoryPlanner& planner, const Report& report,
                std::ostream& out) {
  const MemoryUse& use = report.use;
  const MemoryUse& full = report.full;
  json root;
  root["model"] = model_json(options);
  root["plan"] = plan_json(planner);
  root["requests_at_once"] = report.at_once;
  root["device_bytes"] = {{"cap", options.config.device_bytes},
                          {"model", use.model},
                          {"head_weights", use.head_weights},
                          {"head_workspace", use.head_workspace},
                          {"scratch", use.scratch},
                          {"pool_tables", use.pool_tables},
                          {"step_lists", use.step_lists},
                          {"staging", use.staging},
                          {"arena", use.arena},
                          {"total", use.device_total()}};
  root["arena_bytes_at_the_end"] = {
      {"resident_rows", full.resident_rows}, {"slots", full.slots}, {"head_keys", full.head_keys}};
  root["host_bytes"] = {{"rows_at_the_end", full.host_rows}, {"cap", full.host_cap}};
  root["thresholds"] = {{"model", model_name(options.config.model)},
                        {"requests", report.threshold_requests},
                        {"unit", options.config.model == PlannerModel::exact ? "groups" : "layers"},
                        {"lengths", report.thresholds}};
  root["lengths"] = json::array();
  for (const LengthRow& row : report.lengths) {
    root["lengths"].push_back({{"length", row.length},
                               {"requests_at_once", row.requests_at_once},
                               {"groups_on_host", row.groups_on_host},
                               {"layers_on_device", row.layers_on_device}});
  }
  if (report.step) root["predicted_step"] = step_json(*report.step);
  if (report.best) root["predicted_best"] = step_json(*report.best);
  out << root.dump(2, ' ', false, json::error_handler_t::replace) << "\n";
}

}  // namespace spectx::plan
