// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "device_data.hpp"
#include "head_reference.hpp"
#include "random.hpp"

namespace spectx::test {

/// What a head is tested with.
struct HeadSetup {
  std::string name{};
  index_t query_heads = 4, kv_heads = 2;  // of the target
  HeadShape head{.query_heads = 4, .kv_heads = 2, .k_dim = 16};
  std::vector<index_t> feature_layers{0, 2, 3};
  HeadConfig config{};
  GroupReduce trained_for = GroupReduce::max;
  Rope rope{};
  DType dtype = DType::f32;  // of the keys
  DType weights = DType::f32;
  bool has_biases = false;  // of fc, queries and keys
  bool has_qk_norms = false;
  SelectionConfig selection{.budget = 32, .sinks = 3, .recent_window = 12};
};

/// Random weights of a head, on the device and, rounded to their type, on the host.
class HeadData {
 public:
  static constexpr index_t kHidden = 24, kVocabulary = 50;

  HeadData(Backend& backend, const HeadSetup& setup, unsigned seed) : random_(seed) {
    numbers.shape = weights.shape = setup.head;
    numbers.rope = weights.rope = setup.rope;
    numbers.reduce = weights.reduce = setup.trained_for;
    numbers.compute = backend.compute_dtype(setup.weights);
    weights.feature_layers = setup.feature_layers;
    const auto matrix = [&](std::vector<float>& to, index_t rows, index_t cols, float scale) {
      memory_.emplace_back(backend, setup.weights, rows, cols, random_.normal(rows * cols, scale));
      to = memory_.back().rounded();
      return memory_.back().view();
    };
    const auto vector = [&](std::vector<float>& to, index_t size) {
      return vector_view(matrix(to, 1, size, 1).data, setup.weights, size);
    };
    const auto bias = [&](std::vector<float>& to, index_t size) {
      memory_.emplace_back(backend, numbers.compute, 1, size, random_.normal(size, 0.5F));
      to = memory_.back().rounded();
      return vector_view(memory_.back().view().data, numbers.compute, size);
    };
    const auto features = static_cast<index_t>(setup.feature_layers.size());
    const HeadShape& h = setup.head;
    const index_t width = h.width(shape_of(setup));
    numbers.hidden = width;
    numbers.features = features;
    weights.fc = matrix(numbers.fc, width, features * kHidden, 0.2F);
    weights.input_norm = vector(numbers.input_norm, width);
    weights.hidden_norm = vector(numbers.hidden_norm, width);
    weights.q_proj = matrix(numbers.q_proj, h.query_heads * h.k_dim, 2 * width, 0.2F);
    weights.k_proj = matrix(numbers.k_proj, h.kv_heads * h.k_dim, 2 * width, 0.2F);
    weights.embeddings = matrix(numbers.embeddings, kVocabulary, width, 1);
    if (h.normed_features > 0) {
      numbers.normed_width = h.normed_features * kHidden;
      weights.feature_norm = vector(numbers.feature_norm, features * kHidden);
    }
    if (setup.has_biases) {
      weights.fc_bias = bias(numbers.fc_bias, width);
      weights.q_bias = bias(numbers.q_bias, h.query_heads * h.k_dim);
      weights.k_bias = bias(numbers.k_bias, h.kv_heads * h.k_dim);
    }
    if (setup.has_qk_norms) {
      weights.q_norm = vector(numbers.q_norm, h.k_dim);
      weights.k_norm = vector(numbers.k_norm, h.k_dim);
    }
  }

  static ModelShape shape_of(const HeadSetup& setup) {
    return {.layers = 4,
            .query_heads = setup.query_heads,
            .kv_heads = setup.kv_heads,
            .k_dim = 8,
            .v_dim = 8,
            .hidden = kHidden,
            .vocabulary = kVocabulary,
            .dtype = setup.dtype,
            .rope = {},
            .attention = {}};
  }
  static PoolPlan plan_of(const HeadSetup& setup) {
    PoolPlan plan;
    plan.selection = setup.selection;
    plan.max_requests = 3;
    plan.max_length = 400;
    plan.max_step_rows = 128;
    plan.page_rows = 16;
    plan.group_layers = 2;
    plan.arena_pages = 3 * (2 * 25 + 60);
    plan.head_kv_heads = setup.head.kv_heads;
    plan.head_k_dim = setup.head.k_dim;
    plan.host_dtype = setup.dtype;
    return plan;
  }

  HeadNumbers numbers;
  HeadWeights weights;

 private:
  Random random_;
  std::vector<DeviceMatrix> memory_;
};

}  // namespace spectx::test
