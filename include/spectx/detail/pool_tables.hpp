// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "spectx/backend.hpp"
#include "spectx/detail/page_store.hpp"
#include "spectx/pool_layout.hpp"

namespace spectx::detail {

/// The tables about rows: host copies that KVPool edits, and their device copies. Pages are named
/// by address; every table has one block of rows a request, uploaded when it was marked.
class PoolTables {
 public:
  PoolTables(Backend& backend, const ModelShape& shape, const PoolPlan& plan,
             const PoolLayout& layout, MemoryResource& memory)
      : backend_(&backend),
        layout_(layout),
        block_(memory, layout.table_bytes() - layout.batch_bytes),
        two_tiers_(plan.has_host_tier()) {
    const auto requests = static_cast<std::size_t>(plan.max_requests);
    const auto entries = requests * entries_per_request();
    pages_.resize(entries);
    if (two_tiers_) {
      host_pages_.resize(entries);
      next_pages_.resize(entries);
      staging_.resize(requests * static_cast<std::size_t>(2 * layout.token_pages));
    }
    keys_.resize(requests * static_cast<std::size_t>(layout.key_pages));
    resident_groups_.assign(requests, static_cast<std::int32_t>(layout.groups));
    durable_.assign(requests, 0);
    dirty_.assign(requests, false);
    durable_dirty_.assign(requests, false);

    Carver carver(block_.data());
    device_pages_ = carver.take<std::byte*>(layout.page_table_bytes);
    const index_t second = two_tiers_ ? layout.page_table_bytes : 0;
    device_host_pages_ = carver.take<std::byte*>(second);
    device_next_pages_ = carver.take<std::byte*>(second);
    device_staging_ = carver.take<std::byte*>(layout.staging_table_bytes);
    device_keys_ = carver.take<std::byte*>(layout.key_table_bytes);
    view_.token_of_slot = carver.take<std::int32_t>(layout.slot_table_bytes);
    view_.last_used = carver.take<std::int32_t>(layout.slot_table_bytes);
    view_.slot_of_token = carver.take<std::int32_t>(layout.token_table_bytes);
    device_resident_groups_ = carver.take<std::int32_t>(layout.request_array_bytes);
    view_.durable = carver.take<std::int32_t>(layout.request_array_bytes);
    view_.clock = carver.take<std::int32_t>(PoolLayout::kAlignment);
    fill_view(shape, plan);
  }

  /// Before anything else, once nothing can fail any more. Async on `stream`.
  void clear(StreamView stream) {
    backend_->fill(block_.data(), 0, block_.bytes(), stream);
    if (two_tiers_) {
      backend_->fill(view_.slot_of_token, 0xff, layout_.token_table_bytes, stream);
      backend_->fill(view_.token_of_slot, 0xff, layout_.slot_table_bytes, stream);
    }
    dirty_.assign(dirty_.size(), true);
    upload(stream);
  }

  /// Host copies; `mark` the request after a change. Those of a request: [groups, columns].
  std::byte** pages(RequestId r) { return &page(r, 0, 0); }
  std::byte** next_pages(RequestId r) { return two_tiers_ ? &next_page(r, 0, 0) : nullptr; }
  std::byte*& page(RequestId r, index_t group, index_t i) { return at(pages_, r, group, i); }
  std::byte*& host_page(RequestId r, index_t group, index_t i) {
    return at(host_pages_, r, group, i);
  }
  std::byte*& next_page(RequestId r, index_t group, index_t i) {
    return at(next_pages_, r, group, i);
  }
  /// Of one of the two staging sets.
  std::byte*& staging_page(RequestId r, index_t set, index_t i) {
    return staging_[static_cast<std::size_t>((2 * index_t{r.value} + set) * layout_.token_pages +
                                             i)];
  }
  std::byte*& key_page(RequestId r, index_t i) {
    return keys_[static_cast<std::size_t>(r.value * layout_.key_pages + i)];
  }
  std::int32_t& resident_groups(RequestId r) { return resident_groups_[index(r)]; }
  std::int32_t resident_groups(RequestId r) const { return resident_groups_[index(r)]; }
  void mark(RequestId r) { dirty_[index(r)] = true; }

  index_t durable(RequestId r) const { return durable_[index(r)]; }
  /// The host decides: goes to the device with the next upload.
  void set_durable(RequestId r, index_t rows) {
    durable_[index(r)] = static_cast<std::int32_t>(rows);
    durable_dirty_[index(r)] = true;
    mark(r);
  }
  /// The device has decided the same: nothing to send, which could overtake rows on their way.
  void follow_durable(RequestId r, index_t rows) {
    durable_[index(r)] = static_cast<std::int32_t>(rows);
  }

  /// Copies the marked requests' rows to the device. Async on `stream`.
  void upload(StreamView stream) {
    for (std::size_t r = 0; r < dirty_.size(); ++r) {
      if (!dirty_[r]) continue;
      const std::size_t entries = entries_per_request();
      send(device_pages_, pages_, r, entries, stream);
      if (two_tiers_) {
        send(device_host_pages_, host_pages_, r, entries, stream);
        send(device_next_pages_, next_pages_, r, entries, stream);
        send(device_staging_, staging_, r, static_cast<std::size_t>(2 * layout_.token_pages),
             stream);
      }
      send(device_keys_, keys_, r, static_cast<std::size_t>(layout_.key_pages), stream);
      send(device_resident_groups_, resident_groups_, r, 1, stream);
      if (durable_dirty_[r]) send(view_.durable, durable_, r, 1, stream);
      dirty_[r] = false;
      durable_dirty_[r] = false;
    }
  }

  const KVPoolView& view() const noexcept { return view_; }
  std::byte* const* key_table() const noexcept { return device_keys_; }
  /// [max_requests, 2, token_pages]; null without a host tier.
  std::byte* const* staging_table() const noexcept { return device_staging_; }
  /// Device addresses of the pages that a move is about to make current.
  std::byte* const* next_pages_of(RequestId r, index_t group) const noexcept {
    return device_next_pages_ + (r.value * layout_.groups + group) * layout_.page_table_columns;
  }

 private:
  static std::size_t index(RequestId r) { return static_cast<std::size_t>(r.value); }
  std::size_t entries_per_request() const {
    return static_cast<std::size_t>(layout_.groups * layout_.page_table_columns);
  }
  std::byte*& at(std::vector<std::byte*>& table, RequestId r, index_t group, index_t i) {
    return table[static_cast<std::size_t>(
        (r.value * layout_.groups + group) * layout_.page_table_columns + i)];
  }
  template <class T>
  void send(T* device, const std::vector<T>& host, std::size_t request, std::size_t entries,
            StreamView stream) {
    if (entries == 0) return;
    backend_->copy(device + request * entries, host.data() + request * entries,
                   static_cast<index_t>(entries * sizeof(T)), stream);
  }
  void fill_view(const ModelShape& shape, const PoolPlan& plan) {
    view_.pages = device_pages_;
    view_.host_pages = device_host_pages_;
    view_.resident_groups = device_resident_groups_;
    view_.groups = layout_.groups;
    view_.page_columns = layout_.page_table_columns;
    view_.page_rows = plan.page_rows;
    view_.group_layers = plan.group_layers;
    view_.layers = shape.cached_layers();
    view_.kv_heads = shape.kv_heads;
    view_.k_dim = shape.k_dim;
    view_.v_dim = shape.v_dim;
    view_.row_bytes = layout_.row_bytes;
    view_.k_bytes = layout_.k_bytes;
    view_.strides = layout_.strides;
    view_.slots = plan.slots;
    view_.max_length = plan.max_length;
    view_.dtype = shape.dtype;
    view_.run = layout_.run;
  }

  Backend* backend_;
  PoolLayout layout_;
  Buffer block_;
  bool two_tiers_;
  std::vector<std::byte*> pages_, host_pages_, next_pages_, staging_, keys_;
  std::vector<std::int32_t> resident_groups_, durable_;
  std::vector<bool> dirty_, durable_dirty_;
  std::byte** device_pages_ = nullptr;
  std::byte** device_host_pages_ = nullptr;
  std::byte** device_next_pages_ = nullptr;
  std::byte** device_staging_ = nullptr;
  std::byte** device_keys_ = nullptr;
  std::int32_t* device_resident_groups_ = nullptr;
  KVPoolView view_;
};

}  // namespace spectx::detail
