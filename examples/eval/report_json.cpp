// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>

#include "eval/report.hpp"

namespace spectx::eval {
namespace {

using Json = nlohmann::ordered_json;

Json options_json(const Report& report) {
  const Options& o = report.options;
  return {{"model", o.model},
          {"head", o.head},
          {"texts", o.texts},
          {"positions", o.positions},
          {"sinks", o.sinks},
          {"window", o.window},
          {"group", report.reduce == GroupReduce::max ? "max" : "mean"},
          {"level", o.level == SelectionLevel::head ? "head" : "batch"},
          {"min_coverage", o.min_coverage},
          {"max_budget", o.max_budget},
          {"capped", o.is_capped},
          {"hysteresis", o.hysteresis},
          {"buffers", o.buffers},
          {"needles", o.needles},
          {"needle_lead", o.needle_lead},
          {"seed", o.seed},
          {"dtype", dtype_name(o.dtype)},
          {"backend", report.backend},
          {"device", report.device}};
}

Json row_json(const Row& row, double full_loss) {
  const double increase = row.mean(&TextFigures::loss_increase);
  Json json = {{"selector", name_of(row.selector)},
               {"budget", row.budget},
               {"rows_read", row.mean(&TextFigures::rows)},
               {"recall", row.recall()},
               {"recall_worst_layer", row.worst_layer_recall()},
               {"recall_of_layer", row.layer_recall()},
               {"loss", row.mean(&TextFigures::loss)},
               {"loss_increase", increase},
               {"loss_increase_standard_error", row.standard_error(&TextFigures::loss_increase)},
               {"perplexity", std::exp(full_loss + increase)},
               {"top1_agreement", row.mean(&TextFigures::agreement)},
               {"kl", row.mean(&TextFigures::kl)},
               {"overlap", row.mean(&TextFigures::overlap)}};
  if (row.selector == Selector::head) json["coverage"] = row.mean(&TextFigures::coverage);
  for (std::size_t b = 0; b < row.texts.front().miss_rates.size(); ++b) {
    json["miss_rate"].push_back(row.mean([b](const TextFigures& t) { return t.miss_rates[b]; }));
  }
  if (!row.needles.empty()) json["needles_found_at_depth"] = row.needles;
  for (const TextFigures& t : row.texts) {
    json["recall_of_text"].push_back(t.recall());
    json["loss_increase_of_text"].push_back(t.loss_increase);
  }
  return json;
}

}  // namespace

void write_json(const Report& report, std::ostream& out) {
  Json json = {{"options", options_json(report)}, {"lengths", Json::array()}};
  for (const LengthFigures& figures : report.lengths) {
    Json rows = Json::array();
    for (const Row& row : figures.rows) {
      rows.push_back(row_json(row, figures.mean_full_loss()));
      const double needles = figures.needles_found(row);
      if (!std::isnan(needles)) rows.back()["needles_found"] = needles;
    }
    Json depths = Json::array();
    for (const NeedleDepth& d : figures.depths) {
      depths.push_back({{"depth", d.depth}, {"hidden", d.hidden}, {"found", d.found}});
    }
    json["lengths"].push_back({{"length", figures.length},
                               {"texts", figures.texts},
                               {"full_loss", figures.mean_full_loss()},
                               {"full_perplexity", std::exp(figures.mean_full_loss())},
                               {"full_loss_of_text", figures.full_loss},
                               {"needles_of_full_attention", std::move(depths)},
                               {"rows", std::move(rows)}});
  }
  // The name of a file need not be UTF-8.
  out << json.dump(1, ' ', false, Json::error_handler_t::replace) << "\n";
}

}  // namespace spectx::eval
