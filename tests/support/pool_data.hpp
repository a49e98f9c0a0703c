// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <vector>

#include "device_data.hpp"
#include "pool_pages.hpp"

namespace spectx::test {

/// Both tiers and every table of a pool, without a KVPool: a copy on the host, which a test reads
/// and changes, and, once it was uploaded, one on the device. A group has token pages and slot
/// pages; the page table names the ones that resident_groups asks for.
class PoolData : public PoolPages {
 public:
  PoolData(Backend& backend, const PoolShape& shape, std::uint32_t seed = 1)
      : PoolPages(shape, seed),
        slot_of_token(at(s.requests * s.kv_heads * s.max_length), -1),
        token_of_slot(at(s.requests * s.kv_heads * s.slots), -1),
        last_used(token_of_slot.size(), 0),
        durable(at(s.requests), 0),
        resident_groups(at(s.requests), 0),
        backend_(backend) {}

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
    device_->table.write(
        addresses(device_->pages.data(), device_->host_pages.data(), resident_groups));
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

  Backend& backend_;
  std::optional<Device> device_;
};

}  // namespace spectx::test
