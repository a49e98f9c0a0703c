// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <vector>

#include "device_data.hpp"
#include "host_reference.hpp"
#include "pool_shape.hpp"
#include "random.hpp"
#include "reference.hpp"

namespace spectx::test {

/// Both tiers and every table of a pool, without a KVPool: a copy on the host, which a test reads
/// and changes, and, once it was uploaded, one on the device. A group has token pages and slot
/// pages; the page table names the ones that resident_groups asks for.
class PoolData {
 public:
  PoolData(Backend& backend, const PoolShape& shape, std::uint32_t seed = 1)
      : s(shape),
        backend_(backend),
        columns_(s.page_columns()),
        token_pages_(columns_ * s.requests * s.groups),
        device_pages(Random(seed).bytes(2 * token_pages_ * page_bytes())),
        host_pages(Random(seed + 1).bytes(token_pages_ * host_page_bytes())),
        slot_of_token(at(s.requests * s.kv_heads * s.max_length), -1),
        token_of_slot(at(s.requests * s.kv_heads * s.slots), -1),
        last_used(token_of_slot.size(), 0),
        durable(at(s.requests), 0),
        resident_groups(at(s.requests), 0),
        order_(Random(seed).permutation(2 * token_pages_)),
        host_order_(Random(seed + 2).permutation(token_pages_)) {
    if (s.run().is_lossy) fill_rows(seed);
  }

  /// Host copies to the device.
  void upload() {
    if (device_) {
      device_->pages.write(device_pages);
      device_->host_pages.write(host_pages);
      device_->slot_of_token.write(slot_of_token);
      device_->token_of_slot.write(token_of_slot);
      device_->last_used.write(last_used);
      device_->resident_groups.write(resident_groups);
      device_->clock.write({clock});
      upload_durable();
    } else {
      device_.emplace(backend_, *this);
    }
    device_->table.write(addresses(device_->pages.data(), device_->host_pages.data()));
  }
  void upload_durable() { device_->durable.write(durable); }
  void download() {
    device_pages = device_->pages.read();
    host_pages = device_->host_pages.read();
    download_slots();
  }
  void download_slots() {
    slot_of_token = device_->slot_of_token.read();
    token_of_slot = device_->token_of_slot.read();
    last_used = device_->last_used.read();
    durable = device_->durable.read();
    clock = device_->clock.read()[0];
  }

  /// The pool as an operation sees it.
  KVPoolView view() const {
    KVPoolView v = s.geometry();
    v.pages = device_->table.data();
    v.host_pages = v.pages + token_pages_;
    v.resident_groups = device_->resident_groups.data();
    v.durable = device_->durable.data();
    v.slot_of_token = device_->slot_of_token.data();
    v.token_of_slot = device_->token_of_slot.data();
    v.last_used = device_->last_used.data();
    v.clock = device_->clock.data();
    return v;
  }
  /// Device array of the addresses of a group's token or slot pages, whatever its placement.
  std::byte* const* token_pages(index_t request, index_t group) const {
    return device_->table.data() + 2 * token_pages_ + (request * s.groups + group) * columns_;
  }
  std::byte* const* slot_pages(index_t request, index_t group) const {
    return token_pages(request, group) + token_pages_;
  }

  /// Offsets of a layer's row in device_pages and host_pages: the layouts, written out once more.
  std::size_t device_row(bool in_slots, index_t request, index_t layer, index_t head,
                         index_t n) const {
    const index_t page =
        order_[at((in_slots ? token_pages_ : 0) + page_index(request, layer / s.group_layers, n))];
    const index_t in_page = (layer % s.group_layers * s.kv_heads + head) * s.page_rows;
    return at(page * page_bytes() + (in_page + n % s.page_rows) * row_bytes());
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
      std::memcpy(&host_pages[host_row], &device_pages[device_row], at(row_bytes()));
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
      std::memcpy(&device_pages[device_row], &host_pages[host_row], at(row_bytes()));
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
        std::memcpy(&element, &device_pages[device_row + at(i) * sizeof(T)], sizeof(T));
        part.push_back(to_float(element));
      }
    });
    return part;
  }
  void put_part(std::size_t device_row, index_t first, const std::vector<float>& part) {
    dispatch_dtype(s.dtype, [&]<class T>() {
      for (std::size_t i = 0; i < part.size(); ++i) {
        const T element = from_float<T>(part[i]);
        std::memcpy(&device_pages[device_row + (at(first) + i) * sizeof(T)], &element, sizeof(T));
      }
    });
  }
  index_t row_bytes() const { return s.row_bytes(); }
  std::size_t token_entry(index_t request, index_t head, index_t token) const {
    return at((request * s.kv_heads + head) * s.max_length + token);
  }
  std::size_t slot_entry(index_t request, index_t head, index_t slot) const {
    return at((request * s.kv_heads + head) * s.slots + slot);
  }
  void put(index_t request, index_t head, index_t token, index_t slot, std::int32_t used = 0) {
    slot_of_token[token_entry(request, head, token)] = static_cast<std::int32_t>(slot);
    token_of_slot[slot_entry(request, head, slot)] = static_cast<std::int32_t>(token);
    last_used[slot_entry(request, head, slot)] = used;
  }

  const PoolShape s;

 private:
  Backend& backend_;
  index_t columns_, token_pages_;

 public:
  std::vector<std::byte> device_pages, host_pages;
  std::vector<std::int32_t> slot_of_token, token_of_slot, last_used, durable, resident_groups;
  std::int32_t clock = 0;

 private:
  struct Device {
    Device(Backend& b, const PoolData& p)
        : pages(b, p.device_pages),
          host_pages(b, p.host_pages, Tier::host),
          table(b, std::vector<std::byte*>(at(4 * p.token_pages_))),
          slot_of_token(b, p.slot_of_token),
          token_of_slot(b, p.token_of_slot),
          last_used(b, p.last_used),
          durable(b, p.durable),
          resident_groups(b, p.resident_groups),
          clock(b, {p.clock}) {}
    DeviceArray<std::byte> pages, host_pages;
    DeviceArray<std::byte*> table;  // of the placement, host, token pages, slot pages
    DeviceArray<std::int32_t> slot_of_token, token_of_slot, last_used, durable, resident_groups,
        clock;
  };

  index_t host_page_bytes() const { return s.page_rows * s.kv_heads * s.run().bytes; }
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
    for (index_t row = 0; row < 2 * token_pages_ * page_bytes() / row_bytes(); ++row) {
      for (const auto& [first, dim] : {std::pair{index_t{0}, s.k_dim}, {s.k_dim, s.v_dim}}) {
        const float scale =
            std::ldexp(static_cast<float>(row % 8 < 7), static_cast<int>(random.below(21)) - 12);
        const auto begin = values.begin() + random.below(1000 - dim);
        std::vector<float> part(begin, begin + dim);
        for (float& x : part) x *= scale;
        put_part(at(row * row_bytes()), first, part);
      }
    }
    index_t row = 0;
    for (index_t r = 0; r < s.requests; ++r) {
      for (index_t layer = 0; layer < s.layers; ++layer) {
        for (index_t i = 0; i < s.max_length * s.kv_heads; ++i) {
          copy_to_host(at(++row * row_bytes()), host_row(r, layer, i % s.kv_heads, i / s.kv_heads),
                       layer);
        }
      }
    }
  }
  index_t page_bytes() const { return s.page_rows * s.kv_heads * s.group_layers * row_bytes(); }
  index_t page_index(index_t request, index_t group, index_t n) const {
    return (request * s.groups + group) * columns_ + n / s.page_rows;
  }
  std::vector<std::byte*> addresses(std::byte* device, std::byte* host) const {
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
  std::optional<Device> device_;
  std::vector<std::int32_t> order_, host_order_;
};

}  // namespace spectx::test
