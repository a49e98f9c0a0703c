// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>

#include "spectx/types.hpp"

namespace spectx::bench {

/// The shapes that every operation is measured at; a benchmark's argument `model` is an index.
struct ModelSizes {
  const char* name;
  index_t hidden, ffn, query_heads, kv_heads, head_dim, vocabulary;
};

inline constexpr std::array<ModelSizes, 2> kModels = {{
    {"SmolLM2-135M", 576, 1536, 9, 3, 64, 49152},
    {"Llama-3.1-8B", 4096, 14336, 32, 8, 128, 128256},
}};

inline const ModelSizes& model(index_t i) { return kModels[static_cast<std::size_t>(i)]; }

}  // namespace spectx::bench
