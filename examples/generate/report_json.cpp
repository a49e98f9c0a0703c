// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>

#include "generate/report.hpp"

namespace spectx::generate {
namespace {

using Json = nlohmann::ordered_json;

Json run_json(const RunFigures& run, double prefill_seconds) {
  const double seconds = run.seconds();
  Json json = {{"token_ids", run.tokens},
               {"text", run.text},
               {"has_ended", run.has_ended},
               {"time_to_first_token_s", prefill_seconds + run.step_seconds.front()},
               {"decode_tokens_per_s", run.tokens_per_second()},
               {"step_p50_s", run.percentile_seconds(0.5)},
               {"step_p95_s", run.percentile_seconds(0.95)},
               {"step_p99_s", run.percentile_seconds(0.99)},
               {"step_s", run.step_seconds},
               {"attention_share", run.attend_seconds / seconds},
               {"attention_s_per_step", run.attend_seconds / double(run.step_seconds.size())},
               {"head_share", run.head_seconds / seconds},
               {"path", run.path},
               {"rows_per_step", run.per_step(run.rows)},
               {"replayed_steps", run.replayed},
               {"guard_raised", run.guard_raised},
               {"guard_full", run.guard_full},
               {"guard_limited", run.guard_limited},
               {"kv_bytes_per_step", run.per_step(run.kv_bytes)},
               {"head_key_bytes_per_step", run.per_step(run.key_bytes)},
               {"moved_bytes_per_step", run.per_step(run.moved_bytes)},
               {"hit_rate", run.hit_rate()},
               {"coverage_mean", run.coverage},
               {"coverage_least", run.least_coverage}};
  return json;
}

Json options_json(const Report& r) {
  const Options& o = r.options;
  return {{"model", o.model},
          {"head", o.head},
          {"mode", o.mode == Mode::full      ? "full"
                   : o.mode == Mode::compare ? "compare"
                                             : "selected"},
          {"budget", o.selection.budget},
          {"max_budget", o.selection.largest_budget()},
          {"min_coverage", o.selection.min_coverage},
          {"is_capped", !o.selection.may_read_all},
          {"sinks", o.selection.sinks},
          {"window", o.selection.recent_window},
          {"max_tokens", o.max_tokens},
          {"temperature", o.sampling.temperature},
          {"top_p", o.sampling.top_p},
          {"seed", o.sampling.seed},
          {"dtype", dtype_name(o.dtype)},
          {"backend", o.backend},
          {"threads", o.threads}};
}

}  // namespace

void write_json(const Report& r, std::ostream& out) {
  const auto prompt_tokens = r.prompt.tokens.size();
  Json json = {{"options", options_json(r)},
               {"backend", r.backend},
               {"device", r.device},
               {"driver", r.driver},
               {"prompt_tokens", prompt_tokens},
               {"prompt_tokens_cut", r.prompt.num_cut},
               {"prefill_s", r.prefill_seconds},
               {"prefill_tokens_per_s",
                r.prefill_seconds > 0 ? double(prompt_tokens) / r.prefill_seconds : 0.0},
               {"memory",
                {{"device_bytes", r.memory.device_bytes},
                 {"device_bytes_planned", r.memory.planned_device_bytes},
                 {"host_bytes", r.memory.host_bytes},
                 {"host_bytes_planned", r.memory.planned_host_bytes},
                 {"model_bytes", r.model_bytes},
                 {"head_weight_bytes", r.head_bytes},
                 {"process_peak_bytes", r.peak_bytes}}}};
  if (r.full) json["full"] = run_json(*r.full, r.prefill_seconds);
  if (r.selected) json["selected"] = run_json(*r.selected, r.prefill_seconds);
  if (r.comparison) {
    json["comparison"] = {
        {"tokens_per_s_ratio", r.selected->tokens_per_second() / r.full->tokens_per_second()},
        {"equal_tokens", r.comparison->equal_tokens},
        {"mean_kl_nats", r.comparison->mean_kl},
        {"top1_agreement", r.comparison->top1_agreement},
        {"positions", r.comparison->positions}};
  }
  json["prompt_token_ids"] = r.prompt.tokens;
  json["token_ids"] = r.main_run().tokens;
  // What a model says need not be UTF-8.
  out << json.dump(1, ' ', false, Json::error_handler_t::replace) << "\n";
}

}  // namespace spectx::generate
