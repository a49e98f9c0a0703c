// SPDX-License-Identifier: Apache-2.0
#include "llama/tokenizer_config.hpp"

namespace spectx::llama {

TokenizerConfig tokenizer_config(const io::Gguf& file) {
  using Strings = std::vector<std::string>;
  using Ids = std::vector<std::int32_t>;
  const std::string ggml = "tokenizer.ggml.";
  TokenizerConfig config;
  config.model = file.get<std::string>(ggml + "model");
  config.pre = file.get_or<std::string>(ggml + "pre", config.pre);
  config.tokens = file.get<Strings>(ggml + "tokens");
  config.merges = file.get_or<Strings>(ggml + "merges", {});
  config.token_types = file.get_or<Ids>(ggml + "token_type", {});
  config.bos = file.get_or<std::int32_t>(ggml + "bos_token_id", -1);
  config.eos = file.get_or<std::int32_t>(ggml + "eos_token_id", -1);
  config.eot = file.get_or<std::int32_t>(ggml + "eot_token_id", -1);
  config.unknown = file.get_or<std::int32_t>(ggml + "unknown_token_id", -1);
  // Files of Llama 3 from before the key was common leave it out and mean yes.
  config.add_bos = file.get_or<bool>(ggml + "add_bos_token", config.pre == "llama-bpe");
  config.chat_template = file.get_or<std::string>("tokenizer.chat_template", "");
  return config;
}

}  // namespace spectx::llama
