// SPDX-License-Identifier: Apache-2.0
#include "bench/timeline.hpp"
#include "support/svg_chart.hpp"

namespace spectx::bench {
namespace {

struct Line {
  const char* name;
  double (*value)(const Sample&);
};

support::Chart chart(const Timeline& t, std::string title, std::initializer_list<Line> lines) {
  support::Chart chart{
      .title = std::move(title), .x_label = "seconds", .series = {}, .is_over_time = true};
  for (const Line& line : lines) {
    support::Series series{line.name, {}};
    for (const Sample& s : t.samples) series.points.emplace_back(s.seconds, line.value(s));
    chart.series.push_back(std::move(series));
  }
  return chart;
}

}  // namespace

void write_plot(const std::vector<Timeline>& all, std::ostream& out) {
  support::SvgPage page(3);
  for (const Timeline& t : all) {
    if (t.samples.empty()) continue;
    page.add(chart(t, "context, thousand tokens",
                   {{"mean context", [](const Sample& s) { return s.mean_context * 1e-3; }}}));
    page.add(chart(t, "layers on the device, mean",
                   {{"layers", [](const Sample& s) { return s.resident_layers; }}}));
    page.add(chart(
        t, "memory, GB",
        {{"device, driver", [](const Sample& s) { return static_cast<double>(s.driver) * 1e-9; }},
         {"pages held", [](const Sample& s) { return static_cast<double>(s.arena_used) * 1e-9; }},
         {"host tier", [](const Sample& s) { return static_cast<double>(s.host_used) * 1e-9; }}}));
    page.add(chart(t, "tokens/s", {{"tokens/s", [](const Sample& s) { return s.tokens_per_s; }}}));
    page.add(chart(t, "step and what of it was exposed, ms",
                   {{"p50", [](const Sample& s) { return s.step_p50_ms; }},
                    {"longest", [](const Sample& s) { return s.step_max_ms; }},
                    {"exposed", [](const Sample& s) { return s.exposed_ms; }}}));
    page.add(chart(t, "requests",
                   {{"decoding", [](const Sample& s) { return static_cast<double>(s.requests); }},
                    {"waiting", [](const Sample& s) { return static_cast<double>(s.waiting); }},
                    {"parked", [](const Sample& s) { return static_cast<double>(s.parked); }}}));
  }
  page.write(out);
}

}  // namespace spectx::bench
