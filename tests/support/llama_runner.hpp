// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "llama/decoder.hpp"
#include "spectx/dispatch.hpp"
#include "spectx/half.hpp"
#include "spectx/prefetch_pipeline.hpp"
#include "support/backends.hpp"

namespace spectx::test {

/// A model with one request and full attention, for tests of the decoder.
class LlamaRunner {
 public:
  /// @param length  tokens of the request, @param chunk  most tokens of a step
  LlamaRunner(const io::Gguf& file, DType weights_dtype, DType cache_dtype, index_t length,
              index_t chunk)
      : backend_(make_backend({.threads = 2})),
        stream_(backend_->make_stream()),
        chunk_(chunk),
        config_(llama::llama_config(file)),
        weights_(*backend_, file, config_, weights_dtype, stream_),
        decoder_(*backend_, weights_, {.max_step_rows = chunk, .max_logit_rows = chunk}, stream_),
        pool_(*backend_, llama::model_shape(config_, cache_dtype), plan(length),
              backend_->memories()),
        pipeline_(*backend_, pool_, {}),
        request_(pool_.open(length)) {}

  /// The logits of each of the tokens, which follow what ran before. [tokens, vocabulary]
  std::vector<float> run(std::span<const std::int32_t> tokens) {
    std::vector<float> all;
    while (!tokens.empty()) {
      const auto next = tokens.first(std::min(tokens.size(), static_cast<std::size_t>(chunk_)));
      const Batch& batch = step(next);
      const TensorView logits = decoder_.logits(0, batch.num_rows, stream_);
      const std::vector<float> values = read(logits);
      all.insert(all.end(), values.begin(), values.end());
      tokens = tokens.subspan(next.size());
    }
    return all;
  }

  const Batch& step(std::span<const std::int32_t> tokens) {
    const BatchItem item{.request = request_, .tokens = tokens, .is_dense = true};
    const Batch& batch = pool_.schedule({&item, 1}, stream_);
    pipeline_.begin_step(batch, {}, stream_);
    decoder_.embed(batch, stream_);
    for (index_t layer = 0; layer < config_.layers; ++layer) {
      const auto [q, k, v] = decoder_.qkv(layer, batch, stream_);
      const KVView rows = pipeline_.append(layer, k, v, stream_);
      backend_->attend({.q = q, .kv = rows, .batch = &batch, .out = decoder_.attention_out()},
                       stream_);
      decoder_.finish(layer, stream_);
    }
    pipeline_.end_step(stream_);
    return batch;
  }

  /// The values of a contiguous tensor of the decoder's type.
  std::vector<float> read(TensorView t) const {
    std::vector<std::byte> raw(static_cast<std::size_t>(t.size() * dtype_bytes(t.dtype)));
    backend_->copy(raw.data(), t.data, static_cast<index_t>(raw.size()), stream_);
    backend_->synchronize(stream_);
    std::vector<float> values;
    dispatch_dtype(t.dtype, [&]<class T>() {
      const auto* const from = reinterpret_cast<const T*>(raw.data());
      for (index_t i = 0; i < t.size(); ++i) values.push_back(to_float(from[i]));
    });
    return values;
  }

  Backend& backend() const { return *backend_; }
  const llama::LlamaConfig& config() const { return config_; }
  llama::LlamaDecoder& decoder() { return decoder_; }
  StreamView stream() const { return stream_; }

 private:
  PoolPlan plan(index_t length) const {
    PoolPlan plan{
        .selection = {}, .max_requests = 1, .max_length = length, .max_step_rows = chunk_};
    plan.arena_pages = config_.layers * ceil_div(length, plan.page_rows);
    return plan;
  }

  std::unique_ptr<Backend> backend_;
  Stream stream_;
  index_t chunk_;
  llama::LlamaConfig config_;
  llama::LlamaWeights weights_;
  llama::LlamaDecoder decoder_;
  KVPool pool_;
  PrefetchPipeline pipeline_;
  RequestId request_;
};

}  // namespace spectx::test
