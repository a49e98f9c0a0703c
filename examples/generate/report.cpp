// SPDX-License-Identifier: Apache-2.0
#include "generate/report.hpp"

#include <cmath>
#include <cstdio>
#include <functional>

namespace spectx::generate {
namespace {

std::string printed(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof(text), format, value);
  return text;
}
std::string whole(double x) { return printed("%.0f", x); }
std::string tenths(double x) { return printed("%.1f", x); }
std::string seconds(double x) { return printed("%.2f s", x); }
std::string milliseconds(double x) { return printed("%.2f ms", x * 1e3); }
std::string percent(double share) {
  return std::isnan(share) ? "-" : printed("%.1f %%", share * 100);
}
std::string megabytes(double bytes) { return printed("%.1f MB", bytes * 1e-6); }

using Value = std::function<double(const RunFigures&)>;
using Format = std::string (*)(double);

/// One column a run, and where there are two, their ratio.
class Table {
 public:
  explicit Table(const Report& report) {
    if (report.full) runs_.push_back(&*report.full);
    if (report.selected) runs_.push_back(&*report.selected);
    text_ = "\n" + left("");
    if (report.full) text_ += right("full attention");
    if (report.selected) {
      text_ += right("budget " + std::to_string(report.options.selection.budget));
    }
    text_ += runs_.size() == 2 ? right("ratio") + "\n" : "\n";
  }

  void row(const char* label, Format format, const Value& value, bool has_ratio = false) {
    text_ += left(label);
    for (const RunFigures* run : runs_) text_ += right(format(value(*run)));
    if (has_ratio && runs_.size() == 2 && value(*runs_[0]) > 0) {
      text_ += right(printed("%.2f", value(*runs_[1]) / value(*runs_[0])));
    }
    text_ += "\n";
  }
  void note(const char* label, const std::string& text) { text_ += left(label) + text + "\n"; }
  const std::string& text() const { return text_; }

 private:
  static constexpr std::size_t kLabelCells = 34;
  static constexpr std::size_t kValueCells = 16;

  static std::string left(const char* label) {
    std::string cell = std::string("  ") + label;
    cell.resize(std::max(cell.size(), kLabelCells), ' ');
    return cell;
  }
  static std::string right(const std::string& value) {
    return std::string(kValueCells - std::min(kValueCells, value.size()), ' ') + value;
  }

  std::vector<const RunFigures*> runs_;
  std::string text_;
};

void add_rows(Table& table, const Report& r) {
  using Run = const RunFigures&;
  const auto a_step = [](double sum, Run x) { return sum / double(x.step_seconds.size()); };
  table.row("tokens", whole, [](Run x) { return double(x.tokens.size()); });
  table.row("time to first token", seconds,
            [&](Run x) { return r.prefill_seconds + x.step_seconds.front(); });
  table.row(
      "decode, tokens/s", tenths, [](Run x) { return x.tokens_per_second(); }, true);
  for (const auto& [label, p] :
       {std::pair{"step, p50", 0.5}, {"step, p95", 0.95}, {"step, p99", 0.99}}) {
    table.row(
        label, milliseconds, [p = p](Run x) { return x.percentile_seconds(p); }, true);
  }
  if (r.options.captures) {
    table.row("  launched as a graph", whole, [](Run x) { return double(x.replayed); });
  }
  table.row(
      "  of it attention", milliseconds, [&](Run x) { return a_step(x.attend_seconds, x); }, true);
  table.row("  attention's share", percent, [](Run x) { return x.attend_seconds / x.seconds(); });
  table.row("  head and selection's share", percent,
            [](Run x) { return x.head_seconds / x.seconds(); });
  table.row(
      "KV read in a step", megabytes, [&](Run x) { return a_step(double(x.kv_bytes), x); }, true);
  table.row("  head keys read beside it", megabytes,
            [&](Run x) { return a_step(double(x.key_bytes), x); });
  if (r.has_host_tier) {
    table.row("moved from the host in a step", megabytes,
              [&](Run x) { return a_step(double(x.moved_bytes), x); });
    table.row("hit rate", percent, [](Run x) { return x.hit_rate(); });
  }
  table.row("coverage, mean", percent, [](Run x) { return x.coverage; });
  if (!r.options.selection.has_guard()) return;
  table.row("rows read in a step", whole, [&](Run x) { return a_step(double(x.rows), x); });
  table.row("steps the guard raised", whole, [](Run x) { return double(x.guard_raised); });
  table.row("  read in full", whole, [](Run x) { return double(x.guard_full); });
  table.row("  could not help", whole, [](Run x) { return double(x.guard_limited); });
}

void add_notes(Table& table, const Report& r) {
  table.note("backend", r.backend + ", " + r.device);
  const auto prompt = static_cast<double>(r.prompt.tokens.size());
  table.note("prompt", whole(prompt) + " tokens" +
                           (r.prompt.num_cut > 0 ? ", " + std::to_string(r.prompt.num_cut) +
                                                       " cut from its beginning"
                                                 : "") +
                           ", " + whole(r.prefill_seconds > 0 ? prompt / r.prefill_seconds : 0) +
                           " tokens/s");
  if (!r.has_host_tier && r.selected) {
    table.note("hit rate", "no host tier: every row is on the device");
  }
  table.note("memory of cache and head", megabytes(double(r.memory.device_bytes)) + " (planned " +
                                             megabytes(double(r.memory.planned_device_bytes)) +
                                             ")");
  if (r.has_host_tier) {
    table.note("  in the host tier",
               megabytes(double(r.memory.host_bytes)) + " (planned " +
                   megabytes(double(r.memory.planned_host_bytes)) + ")" +
                   (r.options.host_dtype
                        ? std::string(", in ") + dtype_name(*r.options.host_dtype) + ", with loss"
                        : ""));
  }
  table.note("memory of the model", megabytes(double(r.model_bytes)) + ", of the head's weights " +
                                        megabytes(double(r.head_bytes)));
  for (const std::string& note : r.head_notes) table.note("head", note);
  table.note("memory of the process, at most", megabytes(double(r.peak_bytes)));
  if (!r.comparison) return;
  table.note("equal tokens", percent(r.comparison->equal_tokens));
  table.note("on the text of full attention",
             "mean KL " + printed("%.4f", r.comparison->mean_kl) + " nats, same best token " +
                 percent(r.comparison->top1_agreement) + ", " +
                 std::to_string(r.comparison->positions) + " positions");
}

}  // namespace

std::string summary(const Report& report) {
  Table table(report);
  add_rows(table, report);
  add_notes(table, report);
  return table.text();
}

}  // namespace spectx::generate
