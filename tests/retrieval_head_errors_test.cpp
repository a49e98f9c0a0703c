// SPDX-License-Identifier: Apache-2.0
// Heads that do not fit, hidden states that do not, and scores that are no numbers.
#include <limits>

#include "catch.hpp"
#include "support/backends.hpp"
#include "support/head_loop.hpp"

using namespace spectx;
using namespace spectx::test;

namespace {

TensorView shaped(TensorView t, index_t rows, index_t cols) {
  return matrix_view(t.data, t.dtype, rows, cols);
}
TensorView flat(TensorView t, index_t size) { return vector_view(t.data, t.dtype, size); }

}  // namespace

TEST_CASE("a head that does not fit the target is refused, and what does not fit is named") {
  const auto backend = make_backend();
  const HeadSetup setup;
  const HeadData data(*backend, setup, 1);
  KVPool pool(*backend, HeadData::shape_of(setup), HeadData::plan_of(setup), backend->memories());
  const auto refuses = [&](const std::string& names, auto&& change) {
    HeadWeights weights = data.weights;
    HeadConfig config;
    change(weights, config);
    CAPTURE(names);
    std::string message;
    try {
      const RetrievalHead head(*backend, pool, weights, config, backend->memories());
    } catch (const InvalidArgument& error) {
      message = error.what();
    }
    CAPTURE(message);
    REQUIRE(message.find(names) != std::string::npos);
  };
  using W = HeadWeights;
  using C = HeadConfig;
  refuses("another shape", [](W& w, C&) { w.shape.kv_heads = 4; });
  refuses("another shape", [](W& w, C&) { w.shape.k_dim = 8; });
  refuses("query_heads", [](W& w, C&) { w.shape.query_heads = 3; });
  refuses("query_heads", [](W& w, C&) { w.shape.query_heads = 0; });
  refuses("feature_layers is empty", [](W& w, C&) { w.feature_layers.clear(); });
  refuses("feature layer", [](W& w, C&) { w.feature_layers = {0, 2, 4}; });
  refuses("feature layer", [](W& w, C&) { w.feature_layers = {-1, 2, 3}; });
  refuses("ascend", [](W& w, C&) { w.feature_layers = {0, 3, 2}; });
  refuses("fc must be [24, 48], is [24, 72]", [](W& w, C&) { w.feature_layers = {0, 2}; });
  refuses("fc", [](W& w, C&) { w.fc = {}; });
  refuses("input_norm must be [24]", [](W& w, C&) { w.input_norm.shape[0] = 23; });
  refuses("hidden_norm", [](W& w, C&) { w.hidden_norm = shaped(w.hidden_norm, 24, 1); });
  refuses("q_proj must be [64, 48], is [64, 24]", [](W& w, C&) { w.q_proj.shape[1] = 24; });
  refuses("k_proj must be [32, 48]", [](W& w, C&) { w.k_proj.shape[0] = 16; });
  refuses("embeddings must be [50, 24]", [](W& w, C&) { w.embeddings.shape[0] = 51; });
  refuses("head_of_kv_head", [](W&, C& c) { c.head_of_kv_head = {0}; });
  refuses("head_of_kv_head", [](W&, C& c) { c.head_of_kv_head = {0, 2}; });
  refuses("head_of_kv_head", [](W&, C& c) { c.head_of_kv_head = {-1, 0}; });
  refuses("q_norm must be [16], is [64]", [](W& w, C&) { w.q_norm = flat(w.q_proj, 64); });
  refuses("k_norm must be [16]", [](W& w, C&) { w.k_norm = flat(w.q_proj, 15); });
  refuses("fc_bias must be [24]", [](W& w, C&) { w.fc_bias = flat(w.q_proj, 25); });
  refuses("q_bias must be [64]", [](W& w, C&) { w.q_bias = flat(w.q_proj, 16); });
  refuses("k_bias must be [32]", [](W& w, C&) { w.k_bias = flat(w.q_proj, 16); });
  refuses("compute dtype",
          [](W& w, C&) { w.k_bias = vector_view(w.q_proj.data, DType::bf16, 32); });
  refuses("feature_norm must be [72]", [](W& w, C&) { w.feature_norm = flat(w.q_proj, 24); });
  refuses("normed_features", [](W& w, C&) { w.feature_norm = flat(w.q_proj, 72); });
  refuses("normed_features", [](W& w, C&) { w.shape.normed_features = 1; });
  refuses("normed_features", [](W& w, C&) {
    w.feature_norm = flat(w.q_proj, 72);
    w.shape.normed_features = 2;
  });
  refuses("fc must be [16, 72], is [24, 72]", [](W& w, C&) { w.shape.hidden = 16; });
  refuses("rope_divisors", [](W& w, C&) { w.rope_divisors = {1, 2}; });
  refuses("fc must be dense", [](W& w, C&) { w.fc.strides = {1, 24}; });  // transposed
  refuses("input_norm must be dense", [](W& w, C&) { w.input_norm.strides[0] = 2; });
  refuses("k_proj must be f32, f16 or bf16", [](W& w, C&) { w.k_proj.dtype = DType::i8; });
  refuses("theta", [](W& w, C&) { w.rope.theta = 0; });

  const RetrievalHead head(*backend, pool, data.weights, {}, backend->memories());
  REQUIRE(head.weights().shape.query_heads == 4);
  PoolPlan plan = HeadData::plan_of(setup);
  plan.head_kv_heads = 0;
  KVPool headless(*backend, HeadData::shape_of(setup), plan, backend->memories());
  REQUIRE_THROWS_AS(RetrievalHead(*backend, headless, data.weights, {}, backend->memories()),
                    InvalidArgument);
  plan.head_k_dim = 0;
  KVPool none(*backend, HeadData::shape_of(setup), plan, backend->memories());
  HeadWeights no_head = data.weights;
  no_head.shape.kv_heads = no_head.shape.k_dim = 0;
  REQUIRE_THROWS_WITH(RetrievalHead(*backend, none, no_head, {}, backend->memories()),
                      "RetrievalHead: the pool was planned without a head");
}

TEST_CASE("hidden states of another shape are refused") {
  const auto backend = make_backend();
  HeadLoop loop(*backend, {}, 1);
  const RequestId id = loop.open();
  const BatchItem item = loop.item(id, 5, true);
  const Batch& batch = loop.pool.schedule(std::array{item}, loop.stream);
  loop.head.select(batch, loop.stream);
  const DeviceMatrix hidden(*backend, DType::f32, 5, 24, std::vector<float>(5 * 24));
  const auto observe = [&](index_t layer, TensorView view) {
    loop.head.observe(layer, batch, view, loop.stream);
  };
  REQUIRE_THROWS_AS(observe(0, rows(hidden.view(), 0, 4)), InvalidArgument);
  REQUIRE_THROWS_AS(observe(2, columns(hidden.view(), 0, 23)), InvalidArgument);
  REQUIRE_THROWS_AS(observe(3, vector_view(hidden.view().data, DType::f32, 120)), InvalidArgument);
  TensorView transposed = hidden.view();
  transposed.strides = {1, 5};
  REQUIRE_THROWS_AS(observe(0, transposed), InvalidArgument);
  observe(1, rows(hidden.view(), 0, 4));  // not tapped: not looked at
  observe(0, hidden.view());
}

TEST_CASE("a score that is no number is reported, and rows are selected all the same") {
  const auto backend = make_backend();
  HeadLoop loop(*backend, {}, 1);
  const RequestId id = loop.open();
  loop.step({loop.item(id, 60, true)});
  loop.step({loop.item(id, 1)});
  REQUIRE_FALSE(loop.head.saw_nan());
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Stream stream = backend->make_stream();
  backend->copy(loop.data.weights.q_proj.data, &nan, 4, stream);
  const BatchItem item = loop.item(id, 1);
  const Batch& batch = loop.pool.schedule(std::array{item}, loop.stream);
  const Selection selection = loop.head.select(batch, loop.stream);
  backend->synchronize(loop.stream);
  REQUIRE(loop.head.saw_nan());
  const SelectionConfig& rule = loop.pool.plan().selection;
  std::vector<std::int32_t> ids(static_cast<std::size_t>(2 * rule.budget)), counts(2);
  backend->copy(ids.data(), selection.ids.data, 2 * rule.budget * 4, loop.stream);
  backend->copy(counts.data(), selection.counts.data, 8, loop.stream);
  backend->synchronize(loop.stream);
  for (index_t h = 0; h < 2; ++h) {
    const auto begin = ids.begin() + h * rule.budget;
    REQUIRE(counts[static_cast<std::size_t>(h)] == rule.budget);
    REQUIRE(std::adjacent_find(begin, begin + rule.budget, std::greater_equal<>()) ==
            begin + rule.budget);
    REQUIRE(*begin == 0);
    REQUIRE(*(begin + rule.budget - 1) == 61);
  }
  loop.head.select(batch, loop.stream);
  REQUIRE(loop.head.saw_nan());
}
