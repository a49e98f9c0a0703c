// SPDX-License-Identifier: Apache-2.0
#include "nvtx.hpp"

#include "spectx/error.hpp"

#if __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>

namespace spectx::cu {

TraceSink NvtxRanges::sink() {
  TraceSink ranges;
  ranges.context = this;
  ranges.begin = [](void* context, const char* name, TraceLane lane) {
    nvtxRangePushA(name);
    const TraceSink& host = static_cast<NvtxRanges*>(context)->host_;
    if (host.begin != nullptr) host.begin(host.context, name, lane);
  };
  ranges.end = [](void* context, const char* name, TraceLane lane) {
    const TraceSink& host = static_cast<NvtxRanges*>(context)->host_;
    if (host.end != nullptr) host.end(host.context, name, lane);
    nvtxRangePop();
  };
  if (host_.device != nullptr) {
    ranges.device = [](void* context, const DeviceSpan& span) {
      const TraceSink& host = static_cast<NvtxRanges*>(context)->host_;
      host.device(host.context, span);
    };
  }
  return ranges;
}

}  // namespace spectx::cu

#else  // a toolkit without NVTX, as some packages are

namespace spectx::cu {

TraceSink NvtxRanges::sink() { throw Unsupported("cu::make_backend: built without NVTX"); }

}  // namespace spectx::cu

#endif
