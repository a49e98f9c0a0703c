// SPDX-License-Identifier: Apache-2.0
#include "spectx/io/gguf_rope.hpp"

#include <cmath>
#include <limits>

#include "file_error.hpp"

namespace spectx::io {
namespace {

/// The keys of one architecture, checked as they are read.
class Keys {
 public:
  Keys(const Gguf& file, const std::string& architecture)
      : file_(file), prefix_(architecture + ".rope.") {}

  float positive_or(const char* key, float otherwise) const {
    if (!file_.has(prefix_ + key)) return otherwise;
    const auto value = file_.get<float>(prefix_ + key);
    if (!std::isfinite(value) || value <= 0) fail(key, "must be a positive number");
    return value;
  }
  float tokens(const char* key) const {
    const auto value = file_.get<std::int64_t>(prefix_ + key);
    if (value < 1 || value > std::numeric_limits<std::int32_t>::max()) {
      fail(key, "is " + std::to_string(value) + ", no possible number of tokens");
    }
    return static_cast<float>(value);
  }
  [[noreturn]] void fail(const char* key, const std::string& reason) const {
    io::fail(file_.path(), "", printable(prefix_) + key + ' ' + reason);
  }

 private:
  const Gguf& file_;
  std::string prefix_;
};

}  // namespace

Rope read_rope(const Gguf& file, const std::string& architecture) {
  const Keys keys(file, architecture);
  Rope rope;
  rope.theta = keys.positive_or("freq_base", rope.theta);
  const auto type = file.get_or<std::string>(architecture + ".rope.scaling.type", "");
  // The older form: a bare factor, always linear.
  rope.factor = keys.positive_or("scaling.factor", keys.positive_or("scale_linear", 1));
  if (type == "none" || (type.empty() && rope.factor == 1)) {
    rope.factor = 1;
    return rope;
  }
  if (type == "linear" || type.empty()) {
    rope.scaling = RopeScaling::linear;
  } else if (type == "yarn") {
    rope.scaling = RopeScaling::yarn;
    rope.original_length = keys.tokens("scaling.original_context_length");
    rope.beta_fast = keys.positive_or("scaling.yarn_beta_fast", rope.beta_fast);
    rope.beta_slow = keys.positive_or("scaling.yarn_beta_slow", rope.beta_slow);
    // The file's factor multiplies the one that follows from the scaling.
    const float extra = keys.positive_or("scaling.attn_factor", 1);
    rope.attention_factor = extra * (0.1F * std::log(rope.factor) + 1);
  } else {
    throw Unsupported(printable(file.path()) + ": RoPE scaling " + in_quotes(type) +
                      " is not supported");
  }
  if (rope.factor < 1) keys.fail("scaling.factor", "must be at least 1");
  return rope;
}

std::vector<float> read_rope_divisors(const Gguf& file, index_t k_dim) {
  const GgufTensor* const tensor = file.find("rope_freqs.weight");
  if (tensor == nullptr) return {};
  if (tensor->rows() != 1 || tensor->cols() != k_dim / 2) {
    fail(file.path(), "", "rope_freqs.weight must be [" + std::to_string(k_dim / 2) + "]");
  }
  std::vector<float> divisors(static_cast<std::size_t>(k_dim / 2));
  file.read_rows(*tensor, 0, vector_view(divisors.data(), DType::f32, k_dim / 2));
  for (const float divisor : divisors) {
    if (!std::isfinite(divisor) || divisor <= 0) {
      fail(file.path(), "", "rope_freqs.weight must hold positive numbers");
    }
  }
  return divisors;
}

}  // namespace spectx::io
