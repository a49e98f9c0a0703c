// SPDX-License-Identifier: Apache-2.0
#include "eval/evaluation.hpp"

#include <algorithm>
#include <limits>

#include "eval/slot_replay.hpp"

namespace spectx::eval {

Evaluation::Evaluation(Runner& runner, const ModelShape& shape, const EvaluationConfig& config)
    : runner_(runner),
      shape_(shape),
      config_(config),
      host_(runner.backend(), runner.stream()),
      map_(runner.backend(), shape, runner.pool().plan().max_length, runner.stream()),
      pages_(shape),
      full_(shape.vocabulary),
      keys_(static_cast<std::size_t>(shape.kv_heads * shape.k_dim)) {
  const index_t lists = shape.layers * shape.kv_heads;
  const index_t budget = runner.pool().plan().selection.budget;
  device_selection_ = Buffer(runner.backend().memories().device, lists * (budget + 1) * 4);
  auto* const ids = reinterpret_cast<std::int32_t*>(device_selection_.data());
  selection_ = {.ids = {ids, lists * budget},
                .counts = {ids + lists * budget, lists},
                .coverage = {},
                .max_budget = budget};
  figures_.length = config.length;
  for (const Selector s : config_.selectors) {
    for (const index_t b : config_.budgets) figures_.rows.push_back({s, b, {}});
  }
}

bool Evaluation::has(Selector s) const {
  return std::find(config_.selectors.begin(), config_.selectors.end(), s) !=
         config_.selectors.end();
}

index_t Evaluation::steps() const {
  return config_.positions * (1 + static_cast<index_t>(figures_.rows.size()));
}

void Evaluation::measure(const std::string& name, std::span<const std::int32_t> tokens,
                         const Runner::Progress& progress) {
  tokens_ = tokens;
  recorded_.clear();
  text_.clear();
  const index_t first = config_.length - config_.positions;
  runner_.begin(tokens.first(static_cast<std::size_t>(first)), progress);
  full_run(progress);
  for (const Row& row : figures_.rows) {
    const Key key{row.selector, row.budget};
    replay(key, progress);
    if (holds_all(key.second)) {
      text_[key].layer_recall.assign(static_cast<std::size_t>(shape_.layers), 1);
      text_[key].miss_rates.assign(is_per_layer(key.first) ? 0 : config_.buffers.size(), 0);
      continue;
    }
    TextFigures& text = text_[key];
    text.overlap = recorded_[key].overlap();
    if (is_per_layer(key.first)) continue;
    for (const double multiple : config_.buffers) {
      const auto slots =
          static_cast<index_t>(std::ceil(multiple * static_cast<double>(key.second)));
      text.miss_rates.push_back(
          miss_rate(runner_.backend(), runner_.stream(), recorded_[key], first, slots));
    }
  }
  finish_text(name);
}

/// The target's own run: its attention, what every selector would have chosen, its logits.
void Evaluation::full_run(const Runner::Progress& progress) {
  const index_t first = config_.length - config_.positions;
  runner_.rewind(first);
  map_.begin_text();
  full_.clear();
  random_.seed(config_.seed);
  if (has(Selector::pages)) pages_.read(runner_.pool(), runner_.request(), first, host_);
  for (const Row& row : figures_.rows) {
    const Key key{row.selector, row.budget};
    if (holds_all(row.budget)) continue;
    recorded_.emplace(
        key, Recorded(is_per_layer(row.selector) ? shape_.layers : 1, shape_.kv_heads, row.budget));
    text_[key].layer_recall.assign(static_cast<std::size_t>(shape_.layers), 0);
    text_[key].coverage =
        row.selector == Selector::head ? 0 : std::numeric_limits<double>::quiet_NaN();
  }
  const StepHooks hooks{
      .select = [&](const Batch& batch) -> const Selection& { return record_head(batch); },
      .read = [&](index_t layer, const Batch& batch, const llama::LlamaDecoder::Qkv& qkv,
                  KVView& rows) { look(layer, batch, qkv, rows); },
      .feeds_head = true};
  for (step_ = 0; step_ < config_.positions; ++step_) {
    const index_t length = first + step_ + 1;
    map_.begin_step(length);
    scores_.resize(static_cast<std::size_t>(length));
    page_scores_.resize(static_cast<std::size_t>(shape_.layers * shape_.kv_heads * length));
    full_.add(runner_.step(tokens_[static_cast<std::size_t>(length - 1)], hooks));
    record_baselines();
    for (auto& [key, recorded] : recorded_) add_recall(key);
    progress(1);
  }
}

/// The head's selections of one step, at every budget.
const Selection& Evaluation::record_head(const Batch& batch) {
  for (auto& [key, recorded] : recorded_) {
    if (key.first != Selector::head) continue;
    runner_.head().set_budget(key.second);
    const Selection& selection = runner_.head().select(batch, runner_.stream());
    recorded.add_step();
    for (index_t h = 0; h < shape_.kv_heads; ++h) {
      std::int32_t& count = recorded.count(step_, 0, h);
      host_.bytes(&count, selection.counts.data + h, 4);
      host_.bytes(recorded.room(step_, 0, h).data(), selection.ids.data + h * selection.max_budget,
                  count * index_t{4});
      float coverage = 0;
      host_.bytes(&coverage, selection.coverage.data + 2 * h + 1, 4);
      text_[key].coverage +=
          static_cast<double>(coverage) / static_cast<double>(shape_.kv_heads * config_.positions);
    }
  }
  return runner_.head().select(batch, runner_.stream());
}

/// Between append and attend of the full run.
void Evaluation::look(index_t layer, const Batch& batch, const llama::LlamaDecoder::Qkv& qkv,
                      KVView& rows) {
  const std::span<const float> q = map_.add(batch, qkv.q, rows);
  rows.counts = nullptr;  // the model itself reads everything
  if (!has(Selector::pages)) return;
  host_.floats(keys_.data(), qkv.k.data, qkv.k.dtype, static_cast<index_t>(keys_.size()));
  pages_.add(layer, keys_.data());
  const index_t length = map_.length();
  for (index_t h = 0; h < shape_.kv_heads; ++h) {
    pages_.score(layer, h, q,
                 std::span(page_scores_)
                     .subspan(static_cast<std::size_t>((layer * shape_.kv_heads + h) * length),
                              static_cast<std::size_t>(length)));
  }
}

void Evaluation::scores_of(Selector selector, index_t layer, index_t kv_head,
                           std::span<float> scores) {
  const auto take = [&](std::span<const float> from) {
    std::copy(from.begin(), from.end(), scores.begin());
  };
  switch (selector) {
    case Selector::head:
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

void Evaluation::record_baselines() {
  for (const Selector selector : config_.selectors) {
    if (selector == Selector::head) continue;
    for (auto& [key, recorded] : recorded_) {
      if (key.first == selector) recorded.add_step();
    }
    const index_t sets = is_per_layer(selector) ? shape_.layers : 1;
    for (index_t set = 0; set < sets; ++set) {
      for (index_t h = 0; h < shape_.kv_heads; ++h) {
        scores_of(selector, set, h, scores_);
        for (auto& [key, recorded] : recorded_) {
          if (key.first != selector) continue;
          SelectionConfig rule = config_.rule;
          rule.budget = key.second;
          pick(scores_, rule, recorded.room(step_, set, h));
        }
      }
    }
  }
}

void Evaluation::add_recall(Key key) {
  const Recorded& recorded = recorded_[key];
  std::vector<double>& recall = text_[key].layer_recall;
  const double share = 1 / static_cast<double>(shape_.kv_heads * config_.positions);
  for (index_t layer = 0; layer < shape_.layers; ++layer) {
    for (index_t h = 0; h < shape_.kv_heads; ++h) {
      const std::span<const float> weights = map_.of(layer, h);
      double mass = 0;
      for (const std::int32_t id : recorded.ids(step_, recorded.sets() == 1 ? 0 : layer, h)) {
        mass += static_cast<double>(weights[static_cast<std::size_t>(id)]);
      }
      recall[static_cast<std::size_t>(layer)] += mass * share;
    }
  }
}

/// Every row: what a budget at or above the length reads.
const Selection& Evaluation::everything() {
  const std::vector<std::int32_t> counts(static_cast<std::size_t>(shape_.kv_heads), kAllTokens);
  runner_.backend().copy(selection_.counts.data, counts.data(), shape_.kv_heads * 4,
                         runner_.stream());
  return selection_;
}

const Selection& Evaluation::replayed(Key key, index_t step) {
  const Recorded& recorded = recorded_[key];
  Backend& backend = runner_.backend();
  std::vector<std::int32_t> counts;
  for (index_t set = 0; set < recorded.sets(); ++set) {
    for (index_t h = 0; h < shape_.kv_heads; ++h) {
      const auto ids = recorded.ids(step, set, h);
      const auto place = static_cast<index_t>(counts.size());
      counts.push_back(static_cast<std::int32_t>(ids.size()));
      backend.copy(selection_.ids.data + place * selection_.max_budget, ids.data(),
                   counts.back() * index_t{4}, runner_.stream());
    }
  }
  backend.copy(selection_.counts.data, counts.data(), static_cast<index_t>(counts.size()) * 4,
               runner_.stream());
  return selection_;
}

/// The same positions again, each layer reading what was selected.
void Evaluation::replay(Key key, const Runner::Progress& progress) {
  const bool is_live = key.first == Selector::head && !holds_all(key.second);
  const index_t first = config_.length - config_.positions;
  runner_.rewind(first);
  if (is_live) runner_.head().set_budget(key.second);
  index_t step = 0;
  StepHooks hooks{.select = [&](const Batch& batch) -> const Selection& {
                    if (holds_all(key.second)) return everything();
                    if (is_live) return runner_.head().select(batch, runner_.stream());
                    return replayed(key, step);
                  },
                  .read = {},
                  .feeds_head = is_live};
  if (is_per_layer(key.first) && !holds_all(key.second)) {
    hooks.read = [&](index_t layer, const Batch&, const llama::LlamaDecoder::Qkv&, KVView& rows) {
      const index_t place = layer * shape_.kv_heads;
      rows.counts = selection_.counts.data + place;
      rows.ids = selection_.ids.data + place * selection_.max_budget;
    };
  }
  TextFigures& text = text_[key];
  for (; step < config_.positions; ++step) {
    const auto at = static_cast<std::size_t>(first + step);
    const auto found = full_.compare(step, runner_.step(tokens_[at], hooks), tokens_[at + 1]);
    text.loss += found.loss;
    text.loss_increase += found.loss - full_.loss(step, tokens_[at + 1]);
    text.kl += found.kl;
    text.agreement += found.agrees ? 1 : 0;
    progress(1);
  }
  for (double* sum : {&text.loss, &text.loss_increase, &text.kl, &text.agreement}) {
    *sum /= static_cast<double>(config_.positions);
  }
}

void Evaluation::finish_text(const std::string& name) {
  double loss = 0;
  for (index_t step = 0; step < config_.positions; ++step) {
    const index_t next = config_.length - config_.positions + step + 1;
    loss += full_.loss(step, tokens_[static_cast<std::size_t>(next)]);
  }
  figures_.texts.push_back(name);
  figures_.full_loss.push_back(loss / static_cast<double>(config_.positions));
  for (Row& row : figures_.rows) {
    row.texts.push_back(std::move(text_[{row.selector, row.budget}]));
  }
}

}  // namespace spectx::eval
