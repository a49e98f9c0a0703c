// SPDX-License-Identifier: Apache-2.0
// Replays a folder of inputs through a fuzz target without libFuzzer, with any compiler. Files
// named good_* must be read and bad_* refused; every other name only has to do no harm. Also tries
// every input cut short and with single bytes changed.
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "fuzz_target.hpp"

namespace {

using Bytes = std::vector<std::uint8_t>;

Bytes contents(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> chars{std::istreambuf_iterator<char>(file), {}};
  return {chars.begin(), chars.end()};
}

// A copy of exactly the input's size, so that a sanitizer sees any read beyond it.
void run(const Bytes& input) {
  const Bytes exact(input);
  LLVMFuzzerTestOneInput(exact.data(), exact.size());
}

void run_broken(const Bytes& input) {
  constexpr std::size_t kMaxVariants = 400;
  const std::size_t step = input.size() / kMaxVariants + 1;
  for (std::size_t i = 0; i < input.size(); i += step) {
    run(Bytes(input.begin(), input.begin() + static_cast<std::ptrdiff_t>(i)));
    for (const int change : {0x01, 0x80, 0xff}) {
      Bytes changed = input;
      changed[i] = static_cast<std::uint8_t>(changed[i] ^ change);
      run(changed);
    }
  }
}

bool is_as_named(const std::string& name, const Bytes& input) {
  const bool is_read = spectx::test::reads(std::as_bytes(std::span(input)));
  if (name.starts_with("good_")) return is_read;
  return !name.starts_with("bad_") || !is_read;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: replay FOLDER\n", stderr);
    return 2;
  }
  int num_good = 0;
  int num_bad = 0;
  int num_wrong = 0;
  std::string name;
  try {
    for (const auto& item : std::filesystem::directory_iterator(argv[1])) {
      name = item.path().filename().string();
      const Bytes input = contents(item.path());
      num_good += name.starts_with("good_") ? 1 : 0;
      num_bad += name.starts_with("bad_") ? 1 : 0;
      if (!is_as_named(name, input)) {
        std::fprintf(stderr, "%s: not as its name says\n", name.c_str());
        ++num_wrong;
      }
      run(input);
      run_broken(input);
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", name.c_str(), error.what());
    return 1;
  }
  std::printf("%d good and %d bad files, %d not as named\n", num_good, num_bad, num_wrong);
  return num_wrong == 0 && num_good > 0 && num_bad > 0 ? 0 : 1;
}
