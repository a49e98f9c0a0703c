// SPDX-License-Identifier: Apache-2.0
#include "spectx/host_memory.hpp"

#include <filesystem>

#include "catch.hpp"

using spectx::host_memory_limit;
using spectx::index_t;

namespace {

namespace fs = std::filesystem;

constexpr index_t kGiB = index_t{1} << 30;

/// A file system of a machine with 64 GiB available.
class Root {
 public:
  Root() {
    fs::remove_all(folder_);
    write("proc/meminfo", "MemTotal:       131072000 kB\nMemAvailable:   67108864 kB\n");
  }
  ~Root() { fs::remove_all(folder_); }

  void write(const std::string& path, const std::string& text) const {
    fs::create_directories((folder_ / path).parent_path());
    std::ofstream(folder_ / path) << text;
  }
  /// A control group with a limit, in GiB.
  void limit(const std::string& group, const std::string& most, index_t used, index_t cache) const {
    const std::string folder = "sys/fs/cgroup/" + group;
    write(folder + "memory.max", most + "\n");
    write(folder + "memory.current", std::to_string(used * kGiB) + "\n");
    write(folder + "memory.stat", "anon 5\ninactive_file " + std::to_string(cache * kGiB) + "\n");
  }
  index_t gib() const { return host_memory_limit(folder_.string()) / kGiB; }

 private:
  fs::path folder_ = fs::temp_directory_path() / "spectx_host_memory_test";
};

}  // namespace

TEST_CASE("the machine's memory is the limit where no group has one") {
  const Root root;
  REQUIRE(root.gib() == 64);
  root.write("proc/self/cgroup", "0::/\n");
  REQUIRE(root.gib() == 64);
  root.limit("", "max", 3, 1);
  REQUIRE(root.gib() == 64);
  REQUIRE(host_memory_limit("/nowhere") > (index_t{1} << 60));
  REQUIRE(host_memory_limit() > 0);
}

TEST_CASE("a group's limit counts, and those of the groups around it") {
  const Root root;
  root.write("proc/self/cgroup", "0::/slice/box\n");
  root.limit("slice/box/", std::to_string(20 * kGiB), 10, 4);
  REQUIRE(root.gib() == 14);
  root.limit("slice/", std::to_string(12 * kGiB), 11, 3);
  REQUIRE(root.gib() == 4);
  root.limit("slice/", std::to_string(12 * kGiB), 13, 0);  // over it already
  REQUIRE(root.gib() == 0);
  root.limit("slice/", "max", 13, 0);
  root.limit("slice/box/", "max", 13, 0);
  REQUIRE(root.gib() == 64);
}

TEST_CASE("version 1 of control groups") {
  const Root root;
  root.write("proc/self/cgroup", "3:cpu,cpuacct:/docker/1\n2:memory:/docker/1\n1:name=x:/\n");
  root.write("sys/fs/cgroup/memory/memory.limit_in_bytes", std::to_string(8 * kGiB));
  root.write("sys/fs/cgroup/memory/memory.usage_in_bytes", std::to_string(3 * kGiB));
  root.write("sys/fs/cgroup/memory/memory.stat", "total_inactive_file 1073741824\n");
  REQUIRE(root.gib() == 6);
  root.write("sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes", "9223372036854771712\n");
  REQUIRE(root.gib() == 6);
}
