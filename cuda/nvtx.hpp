// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "spectx/trace.hpp"

namespace spectx::cu {

/// Turns the spans of a backend into NVTX ranges of the calling thread, beside the sink that the
/// host gave. Not movable: its own sink points to it.
class NvtxRanges {
 public:
  explicit NvtxRanges(const TraceSink& host) noexcept : host_(host) {}
  NvtxRanges(NvtxRanges&&) = delete;

  /// The host's sink, with ranges. Throws Unsupported if the library was built without NVTX.
  TraceSink sink();

 private:
  TraceSink host_;
};

}  // namespace spectx::cu
