// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "spectx/io/head_file.hpp"

namespace spectx::support {

/// What a user should know of a head: what its file leaves open, and whether it was trained for
/// another model than that of the file `model`, as far as names tell.
inline std::vector<std::string> head_notes(const io::LoadedHead& head, const std::string& model) {
  std::vector<std::string> notes = head.notes;
  const std::filesystem::path file = model;
  if (!head.target.empty() && head.target != file.stem().string()) {
    notes.push_back("trained for " + head.target + ", not for " + file.filename().string() +
                    ": it may select badly, unless that is the same model");
  }
  return notes;
}

}  // namespace spectx::support
