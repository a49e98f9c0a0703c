// SPDX-License-Identifier: Apache-2.0
#include "eval/measurement.hpp"

#include <algorithm>
#include <limits>

namespace spectx::eval {

Measurement::Measurement(Runner& runner, const ModelShape& shape, const MeasurementConfig& config)
    : runner_(runner),
      shape_(shape),
      config_(config),
      host_(runner.backend(), runner.stream()),
      map_(runner.backend(), shape, runner.pool().plan().max_length, runner.stream()),
      pages_(shape),
      full_(shape.vocabulary) {
  const index_t lists = shape.layers * shape.kv_heads;
  const index_t budget = runner.pool().plan().selection.budget;
  device_selection_ = Buffer(runner.backend().memories().device, lists * (budget + 1) * 4);
  auto* const ids = reinterpret_cast<std::int32_t*>(device_selection_.data());
  selection_ = {.ids = {ids, lists * budget},
                .counts = {ids + lists * budget, lists},
                .coverage = {},
                .max_budget = budget};
  for (const Selector s : config_.selectors) {
    for (const index_t b : config_.budgets) keys_.emplace_back(s, b);
  }
}

bool Measurement::has(Selector s) const {
  return std::find(config_.selectors.begin(), config_.selectors.end(), s) !=
         config_.selectors.end();
}

double Measurement::full_loss() const {
  double sum = 0;
  for (index_t step = 0; step < num_steps(); ++step) sum += full_.loss(step, next(step));
  return sum / static_cast<double>(num_steps());
}

bool Measurement::full_is_right() const {
  for (index_t step = 0; step < num_steps(); ++step) {
    if (full_.likeliest(step) != next(step)) return false;
  }
  return true;
}

double Measurement::full_lead() const {
  double least = std::numeric_limits<double>::infinity();
  for (index_t step = 0; step < num_steps(); ++step) {
    least = std::min(least, full_.lead(step, next(step)));
  }
  return least;
}

void Measurement::begin_recording() {
  map_.begin_text();
  full_.clear();
  random_.seed(config_.seed);
  recorded_.clear();
  recall_.clear();
  coverage_.clear();
  for (const Key& key : keys_) {
    if (holds_all(key.second) || key.first == Selector::guard) continue;
    recorded_.emplace(
        key, Recorded(is_per_layer(key.first) ? shape_.layers : 1, shape_.kv_heads, key.second));
    recall_[key].resize(static_cast<std::size_t>(shape_.layers));
  }
}

void Measurement::full_run(std::span<const std::int32_t> tokens, index_t first,
                           const Runner::Progress& progress) {
  tokens_ = tokens;
  first_ = first;
  runner_.rewind(first);
  begin_recording();
  if (has(Selector::pages)) pages_.read(runner_.pool(), runner_.request(), first, host_);
  const StepHooks hooks{
      .select = [&](const Batch& batch) -> const Selection& { return record_head(batch); },
      .read =
          [&](index_t, const Batch& batch, const llama::LlamaDecoder::Qkv& qkv, KVView& rows) {
            map_.add(batch, qkv.q, qkv.k, rows);
            rows.counts = nullptr;  // the model itself reads everything
          },
      .feeds_head = true};
  for (step_ = 0; step_ < num_steps(); ++step_) {
    const index_t length = first + step_ + 1;
    map_.begin_step(length);
    scores_.resize(static_cast<std::size_t>(length));
    full_.add(runner_.step(tokens_[static_cast<std::size_t>(length - 1)], hooks));
    map_.end_step();
    if (has(Selector::pages)) score_pages();
    record_baselines();
    for (const auto& [key, recorded] : recorded_) add_recall(key);
    progress(1);
  }
}

/// The head's selections of one step, at every budget.
const Selection& Measurement::record_head(const Batch& batch) {
  for (auto& [key, recorded] : recorded_) {
    if (key.first != Selector::head) continue;
    runner_.head().set_rule(rule_of(key));
    const Selection& selection = runner_.head().select(batch, runner_.stream());
    recorded.add_step();
    std::vector<std::int32_t> ids(static_cast<std::size_t>(shape_.kv_heads * selection.max_budget));
    std::vector<float> coverage(static_cast<std::size_t>(2 * shape_.kv_heads));
    host_.bytes(ids.data(), selection.ids.data, static_cast<index_t>(ids.size()) * 4);
    host_.bytes(coverage.data(), selection.coverage.data, 8 * shape_.kv_heads);
    for (index_t h = 0; h < shape_.kv_heads; ++h) {
      const auto from = ids.begin() + h * selection.max_budget;
      std::copy(from, from + key.second, recorded.room(step_, 0, h).begin());
      coverage_[key] += static_cast<double>(coverage[static_cast<std::size_t>(2 * h + 1)]);
    }
  }
  return runner_.head().select(batch, runner_.stream());
}

void Measurement::score_pages() {
  const index_t length = map_.length();
  page_scores_.resize(static_cast<std::size_t>(shape_.layers * shape_.kv_heads * length));
  for (index_t layer = 0; layer < shape_.layers; ++layer) {
    pages_.add(layer, map_.keys(layer));
    for (index_t h = 0; h < shape_.kv_heads; ++h) {
      float* const scores = page_scores_.data() + (layer * shape_.kv_heads + h) * length;
      pages_.score(layer, h, map_.queries(layer), {scores, static_cast<std::size_t>(length)});
    }
  }
}

void Measurement::scores_of(Selector selector, index_t layer, index_t kv_head,
                            std::span<float> scores) {
  const auto take = [&](std::span<const float> from) {
    std::copy(from.begin(), from.end(), scores.begin());
  };
  switch (selector) {
    case Selector::head:
    case Selector::guard:
      return;
    case Selector::shared:
      return take(map_.sum(kv_head));
    case Selector::per_layer:
      return take(map_.of(layer, kv_head));
    case Selector::pages:
      return take(
          std::span(page_scores_)
              .subspan(static_cast<std::size_t>(layer * shape_.kv_heads + kv_head) * scores.size(),
                       scores.size()));
    case Selector::recent:
      for (std::size_t i = 0; i < scores.size(); ++i) scores[i] = static_cast<float>(i);
      return;
    case Selector::random:
      for (float& score : scores) score = static_cast<float>(random_() >> 40);
      return;
  }
}

void Measurement::record_baselines() {
  for (const Selector selector : config_.selectors) {
    if (is_live(selector)) continue;
    for (auto& [key, recorded] : recorded_) {
      if (key.first == selector) recorded.add_step();
    }
    const index_t sets = is_per_layer(selector) ? shape_.layers : 1;
    for (index_t set = 0; set < sets; ++set) {
      for (index_t h = 0; h < shape_.kv_heads; ++h) {
        scores_of(selector, set, h, scores_);
        rooms_.clear();
        for (auto& [key, recorded] : recorded_) {
          if (key.first == selector) rooms_.push_back(recorded.room(step_, set, h));
        }
        pick(scores_, config_.rule, rooms_);
      }
    }
  }
}

void Measurement::add_recall(Key key) {
  const Recorded& recorded = recorded_[key];
  std::vector<double>& recall = recall_[key];
  for (index_t layer = 0; layer < shape_.layers; ++layer) {
    for (index_t h = 0; h < shape_.kv_heads; ++h) {
      const std::span<const float> weights = map_.of(layer, h);
      double mass = 0;
      for (const std::int32_t id : recorded.ids(step_, recorded.sets() == 1 ? 0 : layer, h)) {
        mass += static_cast<double>(weights[static_cast<std::size_t>(id)]);
      }
      recall[static_cast<std::size_t>(layer)] += mass;
    }
  }
}

/// Every row: what a budget at or above the length reads.
const Selection& Measurement::everything() {
  const std::vector<std::int32_t> counts(static_cast<std::size_t>(shape_.kv_heads), kAllTokens);
  runner_.backend().copy(selection_.counts.data, counts.data(), shape_.kv_heads * 4,
                         runner_.stream());
  return selection_;
}

const Selection& Measurement::replayed(Key key, index_t step) {
  const Recorded& recorded = recorded_.at(key);
  const auto stride = static_cast<std::size_t>(selection_.max_budget);
  std::vector<std::int32_t> counts;
  upload_.resize(static_cast<std::size_t>(recorded.sets() * shape_.kv_heads) * stride);
  for (index_t set = 0; set < recorded.sets(); ++set) {
    for (index_t h = 0; h < shape_.kv_heads; ++h) {
      const auto ids = recorded.ids(step, set, h);
      std::copy(ids.begin(), ids.end(),
                upload_.begin() + static_cast<std::ptrdiff_t>(counts.size() * stride));
      counts.push_back(static_cast<std::int32_t>(ids.size()));
    }
  }
  Backend& backend = runner_.backend();
  backend.copy(selection_.ids.data, upload_.data(), static_cast<index_t>(upload_.size()) * 4,
               runner_.stream());
  backend.copy(selection_.counts.data, counts.data(), static_cast<index_t>(counts.size()) * 4,
               runner_.stream());
  return selection_;
}

SelectionConfig Measurement::rule_of(Key key) const {
  SelectionConfig rule = config_.rule;
  rule.budget = key.second;
  if (key.first != Selector::guard) {
    rule.max_budget = 0;
    rule.min_coverage = 0;
    return rule;
  }
  const index_t most = runner_.pool().plan().selection.largest_budget();
  const index_t wanted = rule.max_budget > 0 ? rule.max_budget : 2 * rule.budget;
  rule.max_budget = std::min(std::max(wanted, rule.budget), most);
  return rule;
}

/// Like the head, and counts the rows that the guard takes.
const Selection& Measurement::select_guarded(const Batch& batch) {
  const Selection& selection = runner_.head().select(batch, runner_.stream());
  std::vector<std::int32_t> counts(static_cast<std::size_t>(shape_.kv_heads));
  host_.bytes(counts.data(), selection.counts.data, shape_.kv_heads * 4);
  for (const std::int32_t count : counts) {
    rows_ += static_cast<double>(count == kAllTokens ? runner_.length() + 1 : count) /
             static_cast<double>(shape_.kv_heads);
  }
  return selection;
}

StepHooks Measurement::replay_hooks(Key key, const index_t& step) {
  const bool chooses = is_live(key.first) && !holds_all(key.second);
  if (chooses) runner_.head().set_rule(rule_of(key));
  StepHooks hooks{.select = [this, key, chooses, &step](const Batch& batch) -> const Selection& {
                    if (holds_all(key.second)) return everything();
                    if (key.first == Selector::guard) return select_guarded(batch);
                    if (chooses) return runner_.head().select(batch, runner_.stream());
                    return replayed(key, step);
                  },
                  .read = {},
                  .feeds_head = chooses};
  if (is_per_layer(key.first) && !holds_all(key.second)) {
    hooks.read = [this](index_t layer, const Batch&, const llama::LlamaDecoder::Qkv&,
                        KVView& rows) {
      const index_t place = layer * shape_.kv_heads;
      rows.counts = selection_.counts.data + place;
      rows.ids = selection_.ids.data + place * selection_.max_budget;
    };
  }
  return hooks;
}

TextFigures Measurement::replay(Key key, const Runner::Progress& progress) {
  runner_.rewind(first_);
  TextFigures text;
  rows_ = 0;
  index_t step = 0;
  const StepHooks hooks = replay_hooks(key, step);
  for (; step < num_steps(); ++step) {
    const std::int32_t token = tokens_[static_cast<std::size_t>(first_ + step)];
    const auto found = full_.compare(step, runner_.step(token, hooks), next(step));
    text.loss += found.loss;
    text.loss_increase += found.loss - full_.loss(step, next(step));
    text.kl += found.kl;
    text.agreement += found.agrees ? 1 : 0;
    text.is_right = text.is_right && found.is_right;
    progress(1);
  }
  const auto steps = static_cast<double>(num_steps());
  for (double* sum : {&text.loss, &text.loss_increase, &text.kl, &text.agreement}) *sum /= steps;
  text.layer_recall.assign(static_cast<std::size_t>(shape_.layers), 1);
  text.rows = static_cast<double>(std::min(key.second, config_.length));
  if (holds_all(key.second)) return text;
  if (key.first == Selector::guard) {
    text.rows = rows_ / steps;
    constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
    text.layer_recall.assign(text.layer_recall.size(), kNone);
    text.coverage = text.overlap = kNone;
    return text;
  }
  const double lists = steps * static_cast<double>(shape_.kv_heads);
  text.layer_recall = recall_[key];
  for (double& recall : text.layer_recall) recall /= lists;
  text.coverage = key.first == Selector::head ? coverage_[key] / lists
                                              : std::numeric_limits<double>::quiet_NaN();
  text.overlap = recorded_[key].overlap();
  return text;
}

}  // namespace spectx::eval
