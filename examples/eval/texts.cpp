// SPDX-License-Identifier: Apache-2.0
#include "eval/texts.hpp"

#include <algorithm>
#include <filesystem>

#include "llama/utf8.hpp"
#include "spectx/error.hpp"
#include "support/text_file.hpp"

namespace spectx::eval {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> files_of(const std::vector<std::string>& paths) {
  std::vector<fs::path> files;
  for (const std::string& path : paths) {
    std::error_code error;
    if (!fs::is_directory(path, error)) {
      files.emplace_back(path);
      continue;
    }
    std::vector<fs::path> inside;
    for (fs::recursive_directory_iterator entry(path, error), end; !error && entry != end;
         entry.increment(error)) {
      if (entry->is_regular_file(error)) inside.push_back(entry->path());
    }
    if (error) throw FileError(path + ": cannot be read: " + error.message());
    if (inside.empty()) throw FileError(path + ": the folder has no files");
    std::sort(inside.begin(), inside.end());
    files.insert(files.end(), inside.begin(), inside.end());
  }
  return files;
}

std::string read_utf8(const fs::path& path) {
  const std::string text = support::read_text_file(path.string());
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t bytes = llama::utf8_front(std::string_view(text).substr(at)).bytes;
    if (bytes == 0) {
      throw FileError(path.string() + ": is not UTF-8 at byte " + std::to_string(at));
    }
    at += bytes;
  }
  return text;
}

}  // namespace

std::vector<Text> read_texts(const std::vector<std::string>& paths,
                             const llama::Tokenizer& tokenizer) {
  std::vector<Text> texts;
  for (const fs::path& path : files_of(paths)) {
    texts.push_back({path.filename().string(), tokenizer.encode(read_utf8(path))});
  }
  return texts;
}

std::vector<const Text*> long_texts(const std::vector<Text>& texts, index_t tokens, index_t most) {
  std::vector<const Text*> found;
  std::size_t longest = 0;
  for (const Text& text : texts) {
    longest = std::max(longest, text.tokens.size());
    if (static_cast<index_t>(text.tokens.size()) < tokens) continue;
    if (most == 0 || static_cast<index_t>(found.size()) < most) found.push_back(&text);
  }
  if (found.empty()) {
    throw InvalidArgument("no text has " + std::to_string(tokens) + " tokens (the longest: " +
                          std::to_string(longest) + "): pass longer ones or fewer --lengths");
  }
  return found;
}

}  // namespace spectx::eval
