// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "eval/report.hpp"
#include "support/svg_chart.hpp"

namespace spectx::eval {
namespace {

using support::Chart;
using support::Series;

using Value = std::function<double(const Row&)>;

/// A line a selector, over the budgets that do not hold everything.
Chart over_budgets(const LengthFigures& figures, const std::string& title,
                   const std::vector<Selector>& left_out, const Value& value) {
  Chart chart{std::to_string(figures.length) + " tokens: " + title, "budget", {}};
  for (const Row& row : figures.rows) {
    const bool is_left_out =
        std::find(left_out.begin(), left_out.end(), row.selector) != left_out.end();
    if (row.budget >= figures.length || is_left_out) continue;
    if (chart.series.empty() || chart.series.back().name != name_of(row.selector)) {
      chart.series.push_back({name_of(row.selector), {}});
    }
    chart.series.back().points.emplace_back(static_cast<double>(row.budget), value(row));
  }
  return chart;
}

/// Misses of the head's selections, a line a budget.
Chart over_buffers(const LengthFigures& figures, const std::vector<double>& buffers) {
  Chart chart{std::to_string(figures.length) + " tokens: head, misses", "slots / budget", {}};
  for (const Row& row : figures.rows) {
    if (row.selector != Selector::head || row.budget >= figures.length) continue;
    Series line{"budget " + std::to_string(row.budget), {}};
    for (std::size_t b = 0; b < buffers.size(); ++b) {
      line.points.emplace_back(buffers[b],
                               row.mean([b](const TextFigures& t) { return t.miss_rates[b]; }));
    }
    chart.series.push_back(std::move(line));
  }
  return chart;
}

}  // namespace

void write_plots(const Report& report, std::ostream& out) {
  const bool has_needles = report.options.needles > 0;
  support::SvgPage page(has_needles ? 4 : 3);
  const std::vector<Selector> useless = {Selector::recent, Selector::random};
  for (const LengthFigures& figures : report.lengths) {
    page.add(over_budgets(figures, "recall", {}, [](const Row& r) { return r.recall(); }));
    page.add(over_budgets(figures, "loss increase, nats", useless,
                          [](const Row& r) { return r.mean(&TextFigures::loss_increase); }));
    page.add(over_buffers(figures, report.options.buffers));
    if (!has_needles) continue;
    page.add(over_budgets(figures, "needles found", {},
                          [&](const Row& r) { return figures.needles_found(r); }));
  }
  page.write(out);
}

}  // namespace spectx::eval
