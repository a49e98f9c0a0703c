// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <limits>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

namespace spectx::support {

/// A line through points (x, y); points that are NaN are left out.
struct Series {
  std::string name;
  std::vector<std::pair<double, double>> points;
};

/// Lines over numbers that double from one to the next (budgets, lengths), each of them named on
/// the axis; or over a time, evenly, from 0 up, with the
/// lines' names inside.
struct Chart {
  std::string title;
  std::string x_label;
  std::vector<Series> series;
  bool is_over_time = false;
};

/// Charts side by side in rows, one legend: an SVG file. Series of one name have one colour, but
/// for charts over a time.
class SvgPage {
 public:
  explicit SvgPage(std::size_t columns) : columns_(columns) {}

  void add(Chart chart) { charts_.push_back(std::move(chart)); }
  void write(std::ostream& out) const;

 private:
  static constexpr double kWidth = 320;
  static constexpr double kHeight = 250;
  static constexpr double kLeft = 52, kRight = 14, kTop = 30, kBottom = 40;
  static constexpr double kLegend = 26;

  struct Range {
    double low = std::numeric_limits<double>::infinity();
    double high = -std::numeric_limits<double>::infinity();
    void add(double x) {
      if (std::isnan(x)) return;
      low = std::min(low, x);
      high = std::max(high, x);
    }
    double place(double x) const { return high > low ? (x - low) / (high - low) : 0.5; }
  };

  static std::string escaped(const std::string& text) {
    std::string out;
    for (const char c : text) {
      out += c == '<' ? "&lt;" : c == '&' ? "&amp;" : std::string(1, c);
    }
    return out;
  }
  static std::string number(double x) {
    char text[32];
    std::snprintf(text, sizeof(text), "%.4g", x);
    return text;
  }
  static void text(std::ostream& out, double x, double y, const char* anchor,
                   const std::string& what) {
    out << "<text x=\"" << number(x) << "\" y=\"" << number(y) << "\" text-anchor=\"" << anchor
        << "\">" << escaped(what) << "</text>\n";
  }
  /// 1, 2 or 5 times a power of ten, so that about four steps fill the range.
  static double tick_step(double width) {
    const double power = std::pow(10, std::floor(std::log10(width / 4)));
    for (const double factor : {1.0, 2.0, 5.0}) {
      if (power * factor * 4.5 >= width) return power * factor;
    }
    return power * 10;
  }
  static std::vector<double> ticks(const Chart& chart, const Range& xs);
  std::vector<std::string> names() const;
  static const char* color(std::size_t i) {
    static constexpr std::array<const char*, 8> kColors = {
        "#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#7f7f7f", "#bcbd22", "#e377c2", "#17becf"};
    return kColors[i % kColors.size()];
  }
  void write_chart(std::ostream& out, const Chart& chart, double left, double top) const;

  std::size_t columns_;
  std::vector<Chart> charts_;
};

inline std::vector<std::string> SvgPage::names() const {
  std::vector<std::string> all;
  for (const Chart& chart : charts_) {
    if (chart.is_over_time) continue;
    for (const Series& s : chart.series) {
      if (std::find(all.begin(), all.end(), s.name) == all.end()) all.push_back(s.name);
    }
  }
  return all;
}

inline std::vector<double> SvgPage::ticks(const Chart& chart, const Range& xs) {
  std::vector<double> all;
  if (chart.is_over_time) {
    const double step = tick_step(std::max(xs.high - xs.low, 1e-9));
    for (double x = std::ceil(xs.low / step) * step; x <= xs.high; x += step) all.push_back(x);
    return all;
  }
  for (const Series& series : chart.series) {
    for (const auto& [x, y] : series.points) all.push_back(x);
  }
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return all;
}

inline void SvgPage::write_chart(std::ostream& out, const Chart& chart, double left,
                                 double top) const {
  Range xs, ys;
  const auto placed = [&](double x) { return chart.is_over_time ? x : std::log2(x); };
  for (const Series& series : chart.series) {
    for (const auto& [x, y] : series.points) {
      if (std::isnan(y)) continue;
      xs.add(placed(x));
      ys.add(y);
    }
  }
  if (!(xs.low <= xs.high)) return;
  if (chart.is_over_time) ys.add(0);
  if (ys.high - ys.low < 1e-9) ys = {ys.low - 0.5, ys.high + 0.5};
  const double step = tick_step(ys.high - ys.low);
  ys = {std::floor(ys.low / step) * step, std::ceil(ys.high / step) * step};
  const double width = kWidth - kLeft - kRight;
  const double height = kHeight - kTop - kBottom;
  const auto at_x = [&](double x) { return left + kLeft + width * xs.place(placed(x)); };
  const auto at_y = [&](double y) { return top + kTop + height * (1 - ys.place(y)); };
  text(out, left + kLeft + width / 2, top + 18, "middle", chart.title);
  text(out, left + kLeft + width / 2, top + kHeight - 6, "middle", chart.x_label);
  for (double y = ys.low; y < ys.high + step / 2; y += step) {
    out << "<path class=\"grid\" d=\"M" << number(left + kLeft) << " " << number(at_y(y)) << "h"
        << number(width) << "\"/>\n";
    text(out, left + kLeft - 5, at_y(y) + 4, "end", number(std::abs(y) < step / 2 ? 0 : y));
  }
  for (const double x : ticks(chart, xs)) {
    text(out, at_x(x), top + kTop + height + 16, "middle", number(x));
  }
  const std::vector<std::string> all = names();
  for (std::size_t n = 0; n < chart.series.size(); ++n) {
    const Series& series = chart.series[n];
    const auto i = chart.is_over_time
                       ? n
                       : static_cast<std::size_t>(std::find(all.begin(), all.end(), series.name) -
                                                  all.begin());
    if (chart.is_over_time && chart.series.size() > 1) {
      out << "<g style=\"fill:" << color(i) << "\">";
      text(out, left + kLeft + 6, top + kTop + 12 + 13 * static_cast<double>(n), "start",
           series.name);
      out << "</g>\n";
    }
    out << "<polyline stroke=\"" << color(i) << "\" points=\"";
    for (const auto& [x, y] : series.points) {
      if (!std::isnan(y)) out << number(at_x(x)) << "," << number(at_y(y)) << " ";
    }
    out << "\"/>\n";
  }
}

inline void SvgPage::write(std::ostream& out) const {
  const std::size_t rows = (charts_.size() + columns_ - 1) / columns_;
  const double width = kWidth * static_cast<double>(columns_);
  const double height = kHeight * static_cast<double>(rows) + kLegend;
  out << "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" << number(width) << "\" height=\""
      << number(height) << "\" viewBox=\"0 0 " << number(width) << " " << number(height)
      << "\">\n<style>svg{fill:#222}text{font:11px sans-serif}.grid{stroke:#ddd}polyline{fill:none;"
         "stroke-width:1.8}</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n";
  double x = kLeft;
  const std::vector<std::string> all = names();
  for (std::size_t i = 0; i < all.size(); ++i) {
    out << "<path stroke=\"" << color(i) << "\" stroke-width=\"3\" d=\"M" << number(x)
        << " 14h18\"/>\n";
    text(out, x + 23, 18, "start", all[i]);
    x += 45 + 6.5 * static_cast<double>(all[i].size());
  }
  for (std::size_t i = 0; i < charts_.size(); ++i) {
    write_chart(out, charts_[i], kWidth * static_cast<double>(i % columns_),
                kLegend + kHeight * static_cast<double>(i / columns_));
  }
  out << "</svg>\n";
}

}  // namespace spectx::support
