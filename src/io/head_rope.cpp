// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "file_error.hpp"
#include "head_spec.hpp"
#include "json_fields.hpp"

namespace spectx::io {
namespace {

constexpr float kDefaultTheta = 10000;

float needed(const JsonFields& scaling, const char* key) {
  const auto value = scaling.positive(key);
  if (!value) scaling.fail(std::string(key) + " is missing");
  return *value;
}

[[noreturn]] void unsupported(const JsonFields& scaling, const std::string& what) {
  throw Unsupported(scaling.where() + ": " + what +
                    " is not supported: pass the rope that the head was trained with");
}

void read_llama3(const JsonFields& scaling, Rope& rope) {
  rope.scaling = RopeScaling::llama3;
  rope.factor = needed(scaling, "factor");
  rope.original_length = needed(scaling, "original_max_position_embeddings");
  rope.low_freq_factor = needed(scaling, "low_freq_factor");
  rope.high_freq_factor = needed(scaling, "high_freq_factor");
  if (rope.high_freq_factor <= rope.low_freq_factor) {
    scaling.fail("high_freq_factor must be above low_freq_factor");
  }
}

/// The factor of cos and sin as transformers has it.
float yarn_magnitude(const JsonFields& scaling, float factor) {
  const auto given = scaling.positive("attention_factor");
  if (given) return *given;
  const auto zero_is_none = [&](const char* key) {
    const auto number = scaling.number(key);
    return number && *number > 0 ? *number : 0;
  };
  const float scale = zero_is_none("mscale");
  const float all = zero_is_none("mscale_all_dim");
  if (scale == 0 || all == 0) return 0;  // what Rope derives
  const auto of = [&](float m) { return 0.1F * m * std::log(factor) + 1; };
  return of(scale) / of(all);
}

void read_yarn(const JsonFields& config, const JsonFields& scaling, Rope& rope) {
  rope.scaling = RopeScaling::yarn;
  rope.factor = needed(scaling, "factor");
  auto original = scaling.positive("original_max_position_embeddings");
  if (!original) original = config.positive("max_position_embeddings");
  if (!original) scaling.fail("original_max_position_embeddings is missing");
  rope.original_length = *original;
  rope.beta_fast = scaling.positive("beta_fast").value_or(rope.beta_fast);
  rope.beta_slow = scaling.positive("beta_slow").value_or(rope.beta_slow);
  rope.attention_factor = yarn_magnitude(scaling, rope.factor);
  if (!scaling.flag("truncate").value_or(true)) unsupported(scaling, "truncate = false");
}

void read_scaling(const JsonFields& config, const JsonFields& scaling, Rope& rope,
                  std::vector<std::string>& notes) {
  auto type = scaling.text("rope_type");
  if (!type) type = scaling.text("type");
  if (!type || *type == "default" || *type == "none") return;
  if (*type == "mrope") {
    notes.emplace_back("RoPE of type mrope is taken as plain: right for text alone");
  } else if (*type == "linear") {
    rope.scaling = RopeScaling::linear;
    rope.factor = needed(scaling, "factor");
  } else if (*type == "llama3") {
    read_llama3(scaling, rope);
  } else if (*type == "yarn") {
    read_yarn(config, scaling, rope);
  } else {
    unsupported(scaling, "RoPE scaling of type " + in_quotes(*type));
  }
  if (rope.factor < 1) scaling.fail("factor must be at least 1");
}

}  // namespace

Rope read_rope(const JsonFields& config, std::vector<std::string>& notes) {
  auto scaling = config.object("rope_parameters");  // where transformers 5 puts everything
  if (!scaling) scaling = config.object("rope_scaling");
  auto theta = scaling ? scaling->positive("rope_theta") : std::nullopt;
  if (!theta) theta = config.positive("rope_theta");
  if (!theta) notes.emplace_back("no rope_theta: taken as 10000");
  Rope rope{.theta = theta.value_or(kDefaultTheta)};
  if (rope.theta <= 1) config.fail("rope_theta must be above 1");
  const auto part = config.positive("partial_rotary_factor");
  if (part && *part != 1) unsupported(config, "RoPE over a part of a head");
  if (scaling) read_scaling(config, *scaling, rope, notes);
  return rope;
}

}  // namespace spectx::io
