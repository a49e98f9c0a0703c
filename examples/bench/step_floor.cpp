// SPDX-License-Identifier: Apache-2.0
#include "bench/step_floor.hpp"

#include <algorithm>
#include <array>
#include <type_traits>
#include <vector>

#include "llama/weights.hpp"
#include "spectx/bytes_moved.hpp"
#include "spectx/io/head_file.hpp"

namespace spectx::bench {
namespace {

/// Adds up the arguments of a step's operations. Only their shapes are read.
class Sum {
 public:
  Sum(const llama::LlamaWeights& weights, const io::LoadedHead* head, const FloorCase& c)
      : weights_(weights), model_(weights.config()), head_(head), case_(c) {
    const bool selects = head != nullptr && c.length + 1 > c.rule.budget;
    ScheduledItem item{};
    item.first = c.length;
    item.rows = 1;
    item.selects = selects;
    items_.assign(static_cast<std::size_t>(c.requests), item);
    batch_.items = items_;
    batch_.num_rows = c.requests;
    batch_.needs_selection = selects;
  }

  StepFloor all() {
    for (index_t layer = 0; layer < model_.layers; ++layer) add_layer(weights_.layer(layer));
    add(Term::rows, RmsNormArgs{.x = made(model_.hidden),
                                .weight = weights_.all().final_norm,
                                .out = made(model_.hidden)});
    const TensorView logits = made(model_.vocabulary);
    add_product(Term::logits, model_.hidden, weights_.all().head);
    add(Term::tokens, ArgmaxArgs{.logits = logits, .out = {}});
    add(Term::tokens,
        EmbedArgs{.table = weights_.all().embeddings, .tokens = {}, .out = made(model_.hidden)});
    if (head_ != nullptr) add_head();
    return floor_;
  }

 private:
  template <class Args>
  void add(Term term, const Args& a) {
    at(term).bytes += bytes_moved(a);
  }
  Work& at(Term term) { return floor_[static_cast<std::size_t>(term)]; }
  /// [requests, columns] of the activations.
  TensorView made(index_t columns) const {
    return matrix_view(nullptr, case_.activations, case_.requests, columns);
  }

  void add_product(Term term, index_t in, const TensorView& w, float beta = 0) {
    add(term, MatmulArgs{.x = made(in), .w = w, .out = made(w.shape[0]), .beta = beta});
    at(term).flops += 2 * case_.requests * w.size();
  }

  void add_layer(const llama::LayerWeights& w) {
    const TensorView hidden = made(model_.hidden);
    const index_t attended = model_.query_heads * model_.v_dim;
    add_product(Term::products, model_.hidden, w.qkv);
    add_product(Term::products, attended, w.output, 1);
    add_product(Term::products, model_.hidden, w.gate_up);
    add_product(Term::products, model_.feed_forward, w.down, 1);
    add(Term::rows, RmsNormArgs{.x = hidden, .weight = w.attention_norm, .out = hidden});
    add(Term::rows, RmsNormArgs{.x = hidden, .weight = w.mlp_norm, .out = hidden});
    RopeArgs rope{};
    rope.x = made((model_.query_heads + model_.kv_heads) * model_.k_dim);
    add(Term::rows, rope);
    const TensorView half = made(model_.feed_forward);
    add(Term::rows, SwigluArgs{.gate = half, .up = half, .out = half});
    AppendRowsArgs append{};
    append.k = made(model_.kv_heads * model_.k_dim);
    append.v = made(model_.kv_heads * model_.v_dim);
    append.to.dtype = case_.rows;
    add(Term::rows, append);
    add_attend(attended);
  }

  void add_attend(index_t attended) {
    constexpr std::int32_t kAnyCount = 0;
    const bool selects = batch_.needs_selection;
    AttendArgs attend{.q = made(model_.query_heads * model_.k_dim),
                      .kv = {.dtype = case_.rows,
                             .kv_heads = model_.kv_heads,
                             .k_dim = model_.k_dim,
                             .v_dim = model_.v_dim,
                             .counts = selects ? &kAnyCount : nullptr,
                             .max_budget = case_.rule.budget},
                      .batch = &batch_,
                      .out = made(attended)};
    add(Term::attend, attend);
    const index_t read = selects ? case_.rule.budget : case_.length + 1;
    at(Term::attend).flops +=
        2 * case_.requests * read * model_.query_heads * (model_.k_dim + model_.v_dim);
  }

  void add_head() {
    const HeadWeights& w = head_->weights;
    const index_t width = w.fc.shape[0];
    const TensorView ring = tensor(case_.requests, 1, width);
    add_product(Term::head, w.fc.shape[1], w.fc);
    add(Term::head, StoreRingArgs{.rows = made(width), .batch = &batch_, .ring = ring});
    add(Term::head, LoadRingArgs{.ring = ring, .batch = &batch_, .out = made(width)});
    add(Term::head, EmbedArgs{.table = w.embeddings, .tokens = {}, .out = made(width)});
    add_product(Term::head, 2 * width, w.k_proj);
    if (!batch_.needs_selection) return;
    add_product(Term::head, 2 * width, w.q_proj);
    const index_t kv_heads = w.shape.kv_heads;
    TensorView scores = tensor(case_.requests, kv_heads, 1);
    scores.dtype = DType::f32;
    const KVView keys{.dtype = case_.rows, .kv_heads = kv_heads, .k_dim = w.shape.k_dim};
    ScoreArgs score{};
    score.keys = keys;
    score.batch = &batch_;
    score.scores = scores;
    add(Term::head, score);
    at(Term::head).flops += 2 * case_.requests * case_.length * w.shape.query_heads * w.shape.k_dim;
    add(Term::head, TopKArgs{.scores = scores, .batch = &batch_, .rule = case_.rule, .out = {}});
    if (case_.slots == 0) return;
    UpdateSlotsArgs update{};
    update.batch = &batch_;
    update.selection.max_budget = case_.rule.budget;
    update.pool.slots = case_.slots;
    update.pool.kv_heads = model_.kv_heads;
    add(Term::slots, update);
  }

  TensorView tensor(index_t a, index_t b, index_t c) const {
    return {.dtype = case_.activations, .rank = 3, .shape = {a, b, c}, .strides = {b * c, c, 1}};
  }

  const llama::LlamaWeights& weights_;
  const llama::LlamaConfig& model_;
  const io::LoadedHead* head_;
  FloorCase case_;
  std::vector<ScheduledItem> items_;
  Batch batch_;
  StepFloor floor_{};
};

}  // namespace

const char* term_name(int term) noexcept {
  constexpr std::array<const char*, kNumTerms> kNames = {"products", "logits", "attend", "head",
                                                         "slots",    "rows",   "tokens"};
  return kNames[static_cast<std::size_t>(term)];
}

StepFloor step_floor(const llama::LlamaWeights& weights, const io::LoadedHead* head,
                     const FloorCase& c) {
  return Sum(weights, head, c).all();
}

double measure_copy_gb_s(Backend& backend, index_t most_bytes, StreamView stream) {
  constexpr int kCopies = 8;
  const index_t bytes = most_bytes / 2;
  MemoryResource& memory = backend.memories().device;
  const Buffer from(memory, bytes), to(memory, bytes), stamps(memory, (kCopies + 1) * 8);
  auto* const stamp = reinterpret_cast<std::uint64_t*>(stamps.data());
  backend.fill(from.data(), 1, bytes, stream);
  for (int i = 0; i <= kCopies; ++i) {
    backend.stamp(stamp + i, stream);
    if (i < kCopies) backend.copy(to.data(), from.data(), bytes, stream);
  }
  std::array<std::uint64_t, kCopies + 1> ns{};
  backend.copy(ns.data(), stamp, sizeof(ns), stream);
  backend.synchronize(stream);
  std::uint64_t best = ~std::uint64_t{0};
  for (std::size_t i = 0; i < kCopies; ++i) best = std::min(best, ns[i + 1] - ns[i]);
  return 2 * static_cast<double>(bytes) / static_cast<double>(std::max<std::uint64_t>(best, 1));
}

}  // namespace spectx::bench
