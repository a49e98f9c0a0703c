// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "spectx/io/gguf.hpp"
#include "spectx/model_shape.hpp"

namespace spectx::io {

/// What a file's metadata `architecture`.rope.* say. Throws FileError for a value out of range,
/// Unsupported for another scaling than linear and YaRN.
Rope read_rope(const Gguf& file, const std::string& architecture);

/// rope_freqs.weight, by which the frequencies of heads of `k_dim` are divided (Llama 3.1); empty
/// if the file has none. Throws FileError unless they are k_dim / 2 positive numbers.
std::vector<float> read_rope_divisors(const Gguf& file, index_t k_dim);

}  // namespace spectx::io
