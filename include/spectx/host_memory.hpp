// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

#include "spectx/types.hpp"

namespace spectx {

/// Bytes of host memory that this process can still take: what the machine has available, and what
/// the control groups (containers) that it is in leave, versions 1 and 2. An input of
/// PlannerConfig::host_bytes. The largest number where the system does not say. RLIMIT_MEMLOCK is
/// not looked at: the driver does not count the memory that it pins.
inline index_t host_memory_limit(const std::string& root = "");

namespace detail {

inline constexpr index_t kNoLimit = std::numeric_limits<index_t>::max();

/// The number after `key` at the begin of a line, or the first number of the file without a key;
/// `otherwise` if there is none.
inline index_t read_number(const std::string& path, const std::string& key, index_t otherwise) {
  std::ifstream file(path);
  for (std::string word; file >> word;) {
    if (!key.empty() && word != key) continue;
    if (key.empty()) file.seekg(0);
    double number = 0;
    if (!(file >> number) || number < 0) return otherwise;
    return number < 0x1p62 ? static_cast<index_t>(number) : kNoLimit;
  }
  return otherwise;
}

/// What one control group leaves; its file cache that is not in use can be dropped.
inline index_t left_in_group(const std::string& folder, const char* limit, const char* usage,
                             const char* cache) {
  const index_t most = read_number(folder + limit, "", kNoLimit);
  if (most == kNoLimit) return kNoLimit;
  const index_t used = read_number(folder + usage, "", 0);
  const index_t free = most - used + read_number(folder + "memory.stat", cache, 0);
  return std::clamp<index_t>(free, 0, most);
}

/// What the group of a path and those around it leave.
inline index_t left_in_groups(const std::string& mount, std::string path, bool is_first_version) {
  index_t least = kNoLimit;
  while (true) {
    const std::string folder = mount + path + (path.ends_with('/') ? "" : "/");
    least = std::min(least,
                     is_first_version
                         ? left_in_group(folder, "memory.limit_in_bytes", "memory.usage_in_bytes",
                                         "total_inactive_file")
                         : left_in_group(folder, "memory.max", "memory.current", "inactive_file"));
    if (path.empty() || path == "/") return least;
    path.resize(path.rfind('/'));
  }
}

}  // namespace detail

/// @param root  of the file systems, for tests
inline index_t host_memory_limit(const std::string& root) {
  constexpr index_t kKiB = 1024;
  const index_t available =
      detail::read_number(root + "/proc/meminfo", "MemAvailable:", detail::kNoLimit / kKiB);
  index_t least = available * kKiB;
  std::ifstream groups(root + "/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    // hierarchy:controllers:path; version 2 has hierarchy 0 and no controllers.
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    std::string controllers(",");
    controllers.append(line, first + 1, second - first - 1).append(",");
    const std::string path = line.substr(second + 1);
    const std::string mount = root + "/sys/fs/cgroup";
    if (controllers == ",,") least = std::min(least, detail::left_in_groups(mount, path, false));
    if (controllers.find(",memory,") == std::string::npos) continue;
    // A container may see its own group as the root, whatever its path says.
    least = std::min({least, detail::left_in_groups(mount + "/memory", path, true),
                      detail::left_in_groups(mount + "/memory", "", true)});
  }
  return least;
}

}  // namespace spectx
