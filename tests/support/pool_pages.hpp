// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstring>
#include <vector>

#include "host_reference.hpp"
#include "pool_shape.hpp"
#include "random.hpp"
#include "reference.hpp"

namespace spectx::test {

/// The rows of both tiers of a pool, on the host, by the layouts written out once more. A group has
/// token pages and as many slot pages, in an order that the seed gives.
class PoolPages {
 public:
  PoolPages(const PoolShape& shape, std::uint32_t seed)
      : s(shape),
        columns_(s.page_columns()),
        token_pages_(columns_ * s.requests * s.groups),
        device_pages(Random(seed).bytes(2 * token_pages_ * page_bytes())),
        host_pages(Random(seed + 1).bytes(token_pages_ * host_page_bytes())),
        order_(Random(seed).permutation(2 * token_pages_)),
        host_order_(Random(seed + 2).permutation(token_pages_)) {
    if (s.run().is_lossy) fill_rows(seed);
  }

  /// Offsets of a layer's row in device_pages and host_pages.
  std::size_t device_row(bool in_slots, index_t request, index_t layer, index_t head,
                         index_t n) const {
    const index_t page =
        order_[at((in_slots ? token_pages_ : 0) + page_index(request, layer / s.group_layers, n))];
    return at(page * page_bytes() + in_page(layer % s.group_layers, head, n % s.page_rows));
  }
  std::size_t host_row(index_t request, index_t layer, index_t head, index_t token) const {
    const index_t page = host_order_[at(page_index(request, layer / s.group_layers, token))];
    return at(page * host_page_bytes() +
              (token % s.page_rows * s.kv_heads + head) * s.run().bytes) +
           host_row_in_run(layer);
  }
  /// The rows' type: a copy. A smaller one: by HostRun's rules.
  void copy_to_host(std::size_t device_row, std::size_t host_row, index_t layer) {
    if (!s.run().is_lossy) {
      copy_row(&host_pages[host_row], k_bytes(), &device_pages[device_row], v_offset());
      return;
    }
    index_t first = 0;
    for (const index_t dim : {s.k_dim, s.v_dim}) {
      const StoredPart part = store_by_definition(part_at(device_row, first, dim), s.host_dtype);
      std::memcpy(&host_pages[host_row + at(first)], part.numbers.data(), at(dim));
      std::memcpy(&host_pages[scale_at(host_row, layer, first > 0)], &part.scale, sizeof(float));
      first += dim;
    }
  }
  void copy_to_device(std::size_t host_row, std::size_t device_row, index_t layer) {
    if (!s.run().is_lossy) {
      copy_row(&device_pages[device_row], v_offset(), &host_pages[host_row], k_bytes());
      return;
    }
    index_t first = 0;
    for (const index_t dim : {s.k_dim, s.v_dim}) {
      StoredPart part;
      part.numbers.resize(at(dim));
      std::memcpy(part.numbers.data(), &host_pages[host_row + at(first)], at(dim));
      std::memcpy(&part.scale, &host_pages[scale_at(host_row, layer, first > 0)], sizeof(float));
      put_part(device_row, first, load_by_definition(part, s.host_dtype));
      first += dim;
    }
  }
  /// Elements [first, first + count) of a row in device_pages.
  std::vector<float> part_at(std::size_t device_row, index_t first, index_t count) const {
    std::vector<float> part;
    dispatch_dtype(s.dtype, [&]<class T>() {
      for (index_t i = first; i < first + count; ++i) {
        T element;
        std::memcpy(&element, &device_pages[device_row + element_at<T>(i)], sizeof(T));
        part.push_back(to_float(element));
      }
    });
    return part;
  }
  void put_part(std::size_t device_row, index_t first, const std::vector<float>& part) {
    dispatch_dtype(s.dtype, [&]<class T>() {
      for (std::size_t i = 0; i < part.size(); ++i) {
        const T element = from_float<T>(part[i]);
        const std::size_t to = device_row + element_at<T>(first + static_cast<index_t>(i));
        std::memcpy(&device_pages[to], &element, sizeof(T));
      }
    });
  }
  /// A row on the device to another place there.
  void copy_on_device(std::size_t from, std::size_t to) {
    copy_row(&device_pages[to], v_offset(), &device_pages[from], v_offset());
  }
  index_t row_bytes() const { return s.row_bytes(); }
  index_t k_bytes() const { return s.k_dim * dtype_bytes(s.dtype); }
  /// From a row's K to its V in a device page.
  index_t v_offset() const {
    return is_split(s.order) ? s.page_rows * s.kv_heads * k_bytes() : k_bytes();
  }

  const PoolShape s;

 protected:
  index_t columns_, token_pages_;

 public:
  std::vector<std::byte> device_pages, host_pages;

 protected:
  index_t page_bytes() const { return s.page_rows * s.kv_heads * s.group_layers * row_bytes(); }
  index_t host_page_bytes() const { return s.page_rows * s.kv_heads * s.run().bytes; }
  /// [4, requests, groups, columns]: pages of the placement, host pages, token pages, slot pages.
  std::vector<std::byte*> addresses(std::byte* device, std::byte* host,
                                    const std::vector<std::int32_t>& resident_groups) const {
    std::vector<std::byte*> table(at(4 * token_pages_));
    for (index_t i = 0; i < token_pages_; ++i) {
      const index_t group = i / columns_ % s.groups;
      const bool is_resident = group < resident_groups[at(i / columns_ / s.groups)];
      std::byte* const tokens = device + order_[at(i)] * page_bytes();
      std::byte* const slots = device + order_[at(token_pages_ + i)] * page_bytes();
      table[at(i)] = is_resident ? tokens : slots;
      table[at(token_pages_ + i)] = host + host_order_[at(i)] * host_page_bytes();
      table[at(2 * token_pages_ + i)] = tokens;
      table[at(3 * token_pages_ + i)] = slots;
    }
    return table;
  }

 private:
  void copy_row(std::byte* to, index_t to_v, const std::byte* from, index_t from_v) const {
    std::memcpy(to, from, at(k_bytes()));
    std::memcpy(to + to_v, from + from_v, at(row_bytes() - k_bytes()));
  }
  /// From a row's K to element i of K and V.
  template <class T>
  std::size_t element_at(index_t i) const {
    return i < s.k_dim ? at(i) * sizeof(T) : at(v_offset()) + at(i - s.k_dim) * sizeof(T);
  }
  /// From the begin of a run to a layer's numbers, and from these to a scale: HostRun's layout,
  /// written out once more.
  std::size_t host_row_in_run(index_t layer) const {
    const index_t scales = s.run().is_lossy ? (s.group_layers * 8 + 15) / 16 * 16 : 0;
    const index_t element = dtype_bytes(s.host_dtype);
    return at(scales + layer % s.group_layers * (s.k_dim + s.v_dim) * element);
  }
  std::size_t scale_at(std::size_t host_row, index_t layer, bool is_v) const {
    return host_row - host_row_in_run(layer) + at(layer % s.group_layers * 8 + (is_v ? 4 : 0));
  }
  /// Rows of every magnitude, and all zeros, in both tiers.
  void fill_rows(std::uint32_t seed) {
    Random random(seed);
    const std::vector<float> values = random.normal(1000);
    const index_t rows = s.group_layers * s.kv_heads * s.page_rows;
    for (index_t i = 0; i < 2 * token_pages_ * rows; ++i) {
      const index_t row = i % s.page_rows;
      const index_t head = i / s.page_rows % s.kv_heads;
      const index_t layer = i / s.page_rows / s.kv_heads % s.group_layers;
      const std::size_t to = at(i / rows * page_bytes() + in_page(layer, head, row));
      for (const auto& [first, dim] : {std::pair{index_t{0}, s.k_dim}, {s.k_dim, s.v_dim}}) {
        const float scale =
            std::ldexp(static_cast<float>(i % 8 < 7), static_cast<int>(random.below(21)) - 12);
        const auto begin = values.begin() + random.below(1000 - dim);
        std::vector<float> part(begin, begin + dim);
        for (float& x : part) x *= scale;
        put_part(to, first, part);
      }
    }
    for (index_t r = 0; r < s.requests; ++r) {
      for (index_t layer = 0; layer < s.layers; ++layer) {
        for (index_t i = 0; i < s.max_length * s.kv_heads; ++i) {
          const index_t head = i % s.kv_heads;
          const index_t token = i / s.kv_heads;
          copy_to_host(device_row(true, r, layer, head, token), host_row(r, layer, head, token),
                       layer);
        }
      }
    }
  }
  index_t in_page(index_t layer_in_group, index_t head, index_t row) const {
    const bool has_heads_first = s.order == PageOrder::heads || s.order == PageOrder::split_heads;
    const index_t place = has_heads_first ? head * s.page_rows + row : row * s.kv_heads + head;
    const index_t width = is_split(s.order) ? k_bytes() : row_bytes();
    return layer_in_group * s.kv_heads * s.page_rows * row_bytes() + place * width;
  }
  index_t page_index(index_t request, index_t group, index_t n) const {
    return (request * s.groups + group) * columns_ + n / s.page_rows;
  }

  std::vector<std::int32_t> order_, host_order_;
};

}  // namespace spectx::test
