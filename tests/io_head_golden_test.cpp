// SPDX-License-Identifier: Apache-2.0
// Every kind of head in the wild, against q and k of scripts/make_golden_heads.py.
#include <array>

#include "catch.hpp"
#include "spectx/cpu/backend.hpp"
#include "spectx/io/head_file.hpp"
#include "spectx/prefetch_pipeline.hpp"
#include "support/reference.hpp"
#include "support/tensor_values.hpp"

namespace spectx::test {
namespace {

const std::string kFolder = std::string(SPECTX_TEST_DATA) + "/heads/";
constexpr index_t kRows = 24, kPrompt = 10;
const ModelShape kTarget{.layers = 12,
                         .query_heads = 4,
                         .kv_heads = 2,
                         .k_dim = 8,
                         .v_dim = 8,
                         .hidden = 16,
                         .vocabulary = 40,
                         .dtype = DType::f32,
                         .rope = {},
                         .attention = {}};

class Golden {
 public:
  template <class T = float>
  std::vector<T> read(const std::string& name) const {
    return test::values<T>(file_, name);
  }

 private:
  io::Safetensors file_{kFolder + "golden.safetensors"};
};

/// Keeps the queries of the last score.
class QueryRecorder final : public CpuBackend {
 public:
  QueryRecorder() : CpuBackend({.threads = 1}) {}
  void score(const ScoreArgs& args, StreamView stream) override {
    queries.assign(args.q.as<float>(), args.q.as<float>() + args.q.size());
    CpuBackend::score(args, stream);
  }
  std::vector<float> queries;
};

PoolPlan plan_of(const HeadShape& head) {
  PoolPlan plan;
  plan.selection = {.budget = 8, .sinks = 1, .recent_window = 2};
  plan.max_requests = 1;
  plan.max_length = 64;
  plan.max_step_rows = kPrompt;
  plan.page_rows = 16;
  plan.group_layers = 2;
  plan.arena_pages = 200;
  plan.head_kv_heads = head.kv_heads;
  plan.head_k_dim = head.k_dim;
  plan.host_dtype = DType::f32;
  return plan;
}

/// A head behind random hidden states: q and k of every entry.
class Run {
 public:
  Run(const Golden& golden, const HeadWeights& weights, QueryRecorder& backend)
      : tokens_(golden.read<std::int32_t>("tokens")),
        hidden_(golden.read("hidden")),
        pool_(backend, kTarget, plan_of(weights.shape), backend.memories()),
        head_(backend, pool_, weights, {}, backend.memories()),
        pipeline_(backend, pool_, {}) {
    const RequestId id = pool_.open(kRows);
    step(id, 0, kPrompt);
    for (index_t row = kPrompt; row < kRows; ++row) {
      step(id, row, 1);
      q.insert(q.end(), backend.queries.begin(), backend.queries.end());
    }
    const KVView keys = pool_.key_view();
    for (index_t row = 1; row < kRows; ++row) {
      for (index_t h = 0; h < keys.kv_heads; ++h) {
        const auto* const key = reinterpret_cast<const float*>(
            keys.pages_of(id.value, false)[row / keys.page_rows] + h * keys.head_stride +
            row % keys.page_rows * keys.row_stride);
        k.insert(k.end(), key, key + keys.k_dim);
      }
    }
  }
  std::vector<float> q;  // of rows kPrompt ..
  std::vector<float> k;  // of rows 1 ..

 private:
  void step(RequestId id, index_t first, index_t rows) {
    const std::span tokens(tokens_.data() + first, at(rows));
    const Batch& batch = pool_.schedule(std::array{BatchItem{id, tokens, first == 0}}, {});
    pipeline_.begin_step(batch, head_.select(batch, {}), {});
    for (index_t layer = 0; layer < kTarget.layers; ++layer) {
      float* const from = hidden_.data() + (layer * kRows + first) * kTarget.hidden;
      head_.observe(layer, batch, matrix_view(from, DType::f32, rows, kTarget.hidden), {});
    }
    pipeline_.end_step({});
  }

  std::vector<std::int32_t> tokens_;
  std::vector<float> hidden_;
  KVPool pool_;
  RetrievalHead head_;
  PrefetchPipeline pipeline_;
};

/// Within the error of the four float sums between embeddings and keys, each of at most 80 terms,
/// of the largest number.
std::vector<Bound> bounds(const std::vector<float>& numbers) {
  float largest = 0;
  for (const float x : numbers) largest = std::max(largest, std::abs(x));
  std::vector<Bound> bounds;
  for (const float x : numbers) {
    bounds.push_back(
        {static_cast<double>(x), 4 * kSumSlack * kEpsilon * static_cast<double>(largest)});
  }
  return bounds;
}

}  // namespace

TEST_CASE("q and k of every kind of head are those of its own definition") {
  const std::string kind = GENERATE("eagle", "eagle_narrow", "specforge", "speculators",
                                    "angelslim", "deepspec", "gguf.gguf", "gguf_first.gguf");
  CAPTURE(kind);
  const Golden golden;
  QueryRecorder backend;
  std::vector<float> embeddings = golden.read("embeddings");
  const auto loaded =
      io::load_head(backend, kFolder + kind, kTarget,
                    matrix_view(embeddings.data(), DType::f32, 40, 16), {.dtype = DType::f32}, {});
  const Run run(golden, loaded.weights, backend);
  const std::string name = kind.substr(0, kind.find('.'));
  const std::vector<float> q = golden.read(name + ".q");
  const std::span later(q.data() + (kPrompt - 1) * 4 * 8, run.q.size());  // entry p is row p + 1
  REQUIRE(q.size() == 23 * 4 * 8);
  REQUIRE(outside(run.q, bounds({later.begin(), later.end()})) == "");
  REQUIRE(outside(run.k, bounds(golden.read(name + ".k"))) == "");
}

TEST_CASE("What an option says goes before what the file says") {
  const Golden golden;
  QueryRecorder backend;
  std::vector<float> embeddings = golden.read("embeddings");
  const auto load = [&](const std::string& kind, const io::HeadOptions& options) {
    return io::load_head(backend, kFolder + kind, kTarget,
                         matrix_view(embeddings.data(), DType::f32, 40, 16), options, {});
  };
  const auto theta = load("speculators", {.rope_theta = 5000.0F}).weights.rope;
  REQUIRE(theta.theta == 5000);
  REQUIRE(theta.scaling == RopeScaling::yarn);
  const Rope linear{.theta = 70, .scaling = RopeScaling::linear, .factor = 3};
  const HeadWeights other = load("gguf_first.gguf", {.rope = linear}).weights;
  REQUIRE(other.rope.theta == 70);
  REQUIRE(other.rope.scaling == RopeScaling::linear);
  REQUIRE(other.rope_divisors.empty());
  REQUIRE(load("gguf_first.gguf", {}).weights.rope_divisors == std::vector<float>{1, 1, 4, 8});
  const std::vector<index_t> layers = {3, 4, 5};
  REQUIRE(load("eagle", {.feature_layers = layers}).weights.feature_layers == layers);
  REQUIRE(load("eagle/config.json", {}).weights.feature_layers == std::vector<index_t>{2, 6, 9});
  REQUIRE(load("eagle/model.safetensors", {}).weights.feature_layers ==
          std::vector<index_t>{2, 6, 9});
}

TEST_CASE("What was assumed is said") {
  const Golden golden;
  QueryRecorder backend;
  std::vector<float> embeddings = golden.read("embeddings");
  const auto notes = [&](const std::string& kind) {
    std::string all;
    for (const std::string& note :
         io::load_head(backend, kFolder + kind, kTarget,
                       matrix_view(embeddings.data(), DType::f32, 40, 16), {}, {})
             .notes) {
      all += note + '\n';
    }
    return all;
  };
  REQUIRE(notes("eagle") ==
          "no rope_theta: taken as 10000\n"
          "no layer ids: by default layers [2, 6, 9] are tapped\n");
  REQUIRE(notes("angelslim") ==
          "rope_theta 1e+06 is not what this trainer used: taken as 10000\n"
          "head_dim is said to be 4, but midlayer.self_attn.q_proj.weight has 8\n"
          "no layer ids: by default layers [2, 6, 9] are tapped\n");
  REQUIRE(notes("speculators") ==
          "embed_tokens.weight is left out: the model's own embeddings serve\n");
  REQUIRE(notes("eagle_narrow").find("embed_tokens") == std::string::npos);
  REQUIRE(notes("gguf.gguf").empty());
}

}  // namespace spectx::test
