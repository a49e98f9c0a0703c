// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <set>
#include <utility>
#include <vector>

#include "spectx/batch.hpp"

namespace spectx::test {

/// The slot map of one KV head of one request, as UpdateSlotsArgs tells it.
struct SlotModel {
  std::map<std::int32_t, std::int32_t> slot_of;    // token -> slot
  std::map<std::int32_t, std::int32_t> last_used;  // slot -> step

  struct Step {
    std::vector<std::int32_t> slot_of_rank, miss_ids, miss_slots;
    std::int32_t hits = 0;
  };

  void forget(index_t first) {
    slot_of.erase(slot_of.lower_bound(static_cast<int>(first)), slot_of.end());
  }

  Step update(const std::vector<std::int32_t>& ids, std::int32_t step, const ScheduledItem& item,
              index_t slots, index_t durable) {
    forget(item.first + item.rows);
    Step result;
    const std::set<std::int32_t> chosen(ids.begin(), ids.end());
    std::map<std::int32_t, std::int32_t> token_of;
    for (const auto& [token, slot] : slot_of) token_of[slot] = token;
    const std::vector<std::int32_t> takable = victims(token_of, chosen, slots, durable);
    auto next = takable.begin();
    for (const std::int32_t id : ids) {
      const bool is_own = id >= item.first;
      if (slot_of.count(id) != 0) {
        result.hits += is_own ? 0 : 1;
        continue;
      }
      const std::int32_t slot = *next++;
      if (token_of.count(slot) != 0) slot_of.erase(token_of[slot]);
      slot_of[id] = slot;
      if (is_own) continue;
      result.miss_ids.push_back(id);
      result.miss_slots.push_back(slot);
    }
    for (const std::int32_t id : ids) {
      result.slot_of_rank.push_back(slot_of[id]);
      last_used[slot_of[id]] = step;
    }
    return result;
  }

 private:
  /// Free slots ascending, then the oldest, ties to the lower slot.
  std::vector<std::int32_t> victims(const std::map<std::int32_t, std::int32_t>& token_of,
                                    const std::set<std::int32_t>& chosen, index_t slots,
                                    index_t durable) {
    std::vector<std::int32_t> order;
    std::set<std::pair<std::int32_t, std::int32_t>> oldest;
    for (std::int32_t slot = 0; slot < slots; ++slot) {
      const auto token = token_of.find(slot);
      if (token == token_of.end()) {
        order.push_back(slot);
      } else if (token->second < durable && chosen.count(token->second) == 0) {
        oldest.emplace(last_used[slot], slot);
      }
    }
    for (const auto& [step, slot] : oldest) order.push_back(slot);
    return order;
  }
};

}  // namespace spectx::test
