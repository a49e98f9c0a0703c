// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "llama/sampler.hpp"
#include "spectx/selection.hpp"
#include "spectx/types.hpp"

namespace spectx::generate {

enum class Mode { selected, full, compare };

/// The command line of spectx-generate.
struct Options {
  bool wants_help = false;
  Mode mode = Mode::selected;
  std::string model;
  std::string head;                   // empty: none
  std::optional<float> head_theta;    // instead of its file's
  std::optional<std::string> prompt;  // else the file, else standard input
  std::optional<std::string> prompt_file;
  bool is_chat = false;
  bool truncates = false;
  bool stops = true;  // at the model's end token
  SelectionConfig selection;
  index_t max_tokens = 128;
  llama::SamplingConfig sampling;
  std::string backend = "auto";
  int threads = 0;  // of the CPU; 0: one a core
  DType dtype = DType::bf16;
  bool has_two_memories = false;
  index_t device_bytes = 0;  // cap; 0: what the device has
  index_t host_bytes = 0;
  bool sets_host_bytes = false;
  std::optional<DType> host_dtype;  // none: as dtype
  bool captures = false;            // steps as CUDA graphs
  std::string json;                 // empty: none
  std::string trace;
};

/// Throws support::UsageError.
Options read_options(int argc, const char* const* argv);

std::string help_text();

}  // namespace spectx::generate
