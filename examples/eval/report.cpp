// SPDX-License-Identifier: Apache-2.0
#include "eval/report.hpp"

#include <cstdio>

namespace spectx::eval {
namespace {

std::string printed(const char* format, double value) {
  if (std::isnan(value)) return "-";
  char text[64];
  std::snprintf(text, sizeof(text), format, value);
  return text;
}

std::string right(std::string text, std::size_t cells) {
  text.insert(0, std::max(cells, text.size() + 1) - text.size(), ' ');
  return text;
}

std::string decimal(double x) {
  char text[64];
  std::snprintf(text, sizeof(text), "%g", x);
  return text;
}

struct Column {
  std::string name;
  const char* format;
  std::function<double(const Row&)> value;
};

std::vector<Column> columns(const LengthFigures& figures, const std::vector<double>& buffers) {
  const double full = figures.mean_full_loss();
  std::vector<Column> all = {
      {"rows", "%.0f", [](const Row& r) { return r.mean(&TextFigures::rows); }},
      {"recall", "%.3f", [](const Row& r) { return r.recall(); }},
      {"worst layer", "%.3f", [](const Row& r) { return r.worst_layer_recall(); }},
      {"loss+", "%+.4f", [](const Row& r) { return r.mean(&TextFigures::loss_increase); }},
      {"+-", "%.4f", [](const Row& r) { return r.standard_error(&TextFigures::loss_increase); }},
      {"perplexity", "%.3f",
       [full](const Row& r) { return std::exp(full + r.mean(&TextFigures::loss_increase)); }},
      {"top-1", "%.3f", [](const Row& r) { return r.mean(&TextFigures::agreement); }},
      {"KL", "%.4f", [](const Row& r) { return r.mean(&TextFigures::kl); }},
      {"overlap", "%.3f", [](const Row& r) { return r.mean(&TextFigures::overlap); }},
      {"coverage", "%.3f", [](const Row& r) { return r.mean(&TextFigures::coverage); }}};
  for (std::size_t b = 0; b < buffers.size(); ++b) {
    all.push_back({"miss " + decimal(buffers[b]) + "x", "%.3f", [b](const Row& r) {
                     return r.mean([b](const TextFigures& t) {
                       return t.miss_rates.empty() ? std::nan("") : t.miss_rates[b];
                     });
                   }});
  }
  if (!figures.depths.empty()) {
    all.push_back(
        {"needles", "%.3f", [&figures](const Row& r) { return figures.needles_found(r); }});
  }
  return all;
}

/// How many needles full attention finds, depth by depth.
std::string needles_line(const LengthFigures& figures) {
  index_t hidden = 0;
  index_t found = 0;
  std::string depths;
  for (const NeedleDepth& d : figures.depths) {
    hidden += d.hidden;
    found += d.found;
    depths += " " + std::to_string(d.found);
  }
  return "full attention finds " + std::to_string(found) + " of " + std::to_string(hidden) +
         " needles; from the beginning of the text to its end:" + depths + "\n";
}

}  // namespace

std::string table(const LengthFigures& figures, const Options& options) {
  constexpr std::size_t kNameCells = 10;
  constexpr std::size_t kCells = 11;
  const double full = figures.mean_full_loss();
  std::string text =
      "\n" + std::to_string(figures.length) + " tokens, " + std::to_string(figures.texts.size()) +
      " texts, last " + std::to_string(options.positions) + " positions; full attention: loss " +
      printed("%.4f", full) + ", perplexity " + printed("%.3f", std::exp(full)) + "\n";
  if (!figures.depths.empty()) text += needles_line(figures);
  const std::vector<Column> shown = columns(figures, options.buffers);
  std::string head = "selector";
  head.resize(kNameCells, ' ');
  text += head + right("budget", kCells);
  for (const Column& column : shown) text += right(column.name, kCells);
  text += "\n";
  for (const Row& row : figures.rows) {
    std::string name = name_of(row.selector);
    name.resize(kNameCells, ' ');
    text += name + right(std::to_string(row.budget), kCells);
    for (const Column& column : shown) {
      text += right(printed(column.format, column.value(row)), kCells);
    }
    text += "\n";
  }
  return text;
}

void write_csv(const Report& report, std::ostream& out) {
  out << "length,selector,budget,texts,full_loss";
  for (const Column& c : columns(report.lengths.front(), report.options.buffers)) {
    out << "," << (c.name == "+-" ? "loss+ standard error" : c.name);
  }
  out << "\n";
  for (const LengthFigures& figures : report.lengths) {
    const std::vector<Column> shown = columns(figures, report.options.buffers);
    for (const Row& row : figures.rows) {
      out << figures.length << "," << name_of(row.selector) << "," << row.budget << ","
          << figures.texts.size() << "," << figures.mean_full_loss();
      for (const Column& column : shown) {
        const double value = column.value(row);
        out << ",";
        if (!std::isnan(value)) out << value;
      }
      out << "\n";
    }
  }
}

}  // namespace spectx::eval
