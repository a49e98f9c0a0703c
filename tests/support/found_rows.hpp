// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <functional>
#include <vector>

#include "device_reader.hpp"
#include "spectx/kv_view.hpp"

namespace spectx::test {

/// A row of one KV head in a page.
struct FoundRow {
  int write;  // that made it
  index_t head;
  const std::byte* page;
  const std::byte* k;  // on the device, then on the host
  const std::byte* v;
};

/// K and V of the rows to the host; what is side by side in a page comes in one copy.
inline void read_rows(DeviceReader& reader, std::vector<FoundRow>& rows, const KVView& view,
                      StreamView stream) {
  struct Part {
    const std::byte* page;
    const std::byte** at;
    index_t bytes;
  };
  std::vector<Part> parts;
  const index_t element = dtype_bytes(view.dtype);
  for (FoundRow& row : rows) {
    parts.push_back({row.page, &row.k, view.k_dim * element});
    parts.push_back({row.page, &row.v, view.v_dim * element});
  }
  std::sort(parts.begin(), parts.end(), [](const Part& a, const Part& b) {
    return std::less<const std::byte*>()(*a.at, *b.at);
  });
  for (auto first = parts.begin(); first != parts.end();) {
    const std::byte* const begin = *first->at;
    const std::byte* end = begin;
    auto last = first;
    for (; last != parts.end() && last->page == first->page && *last->at <= end; ++last) {
      end = std::max(end, *last->at + last->bytes);
    }
    const std::byte* const copy = reader.ask(begin, end - begin, stream);
    for (; first != last; ++first) *first->at = copy + (*first->at - begin);
  }
  reader.wait(stream);
}

}  // namespace spectx::test
